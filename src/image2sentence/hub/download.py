"""Downloads from the Hugging Face Hub into the shared cache."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from image2sentence.errors import ModelError

_BLOCK = 2**20
_SECONDS = 30
_PARTIAL = ".image2sentence.incomplete"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Listing:
    """What a repository holds at one commit.

    Attributes:
        repository: "org/name".
        commit: 40 hexadecimal digits.
        sizes: File to bytes; None where they are not known.
        license: As the repository states it; "" where it does not.
        online: False where only what is in the cache is listed.
    """

    repository: str
    commit: str
    sizes: dict[str, int | None]
    license: str = ""
    online: bool = True

    def missing(self, files: list[str]) -> list[str]:
        """Those that are not in the cache."""
        return [file for file in files if cached_file(self, file) is None]


def list_repository(repository: str, revision: str | None = None, *, inside: str = "") -> Listing:
    """What `repository` holds at `revision`, a branch, tag or commit; offline what the cache holds of it.

    `inside` is the folder that is wanted of it, for messages. Raises ModelError where there is no such repository or
    revision, or nothing of it can be had.
    """
    try:
        hub = _hub()
    except ModelError as error:
        raise ModelError(f"there is no folder {repository}, and {error}") from error
    if hub.constants.HF_HUB_OFFLINE:
        return _cached_listing(repository, revision, "HF_HUB_OFFLINE is set", inside)
    try:
        info = hub.HfApi(endpoint=hub.constants.ENDPOINT).model_info(
            repository, revision=revision, files_metadata=True, timeout=_SECONDS
        )
    except hub.errors.GatedRepoError as error:
        raise _gated(repository) from error
    except hub.errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{repository} has no revision {revision}: expected a branch, tag or commit"
        ) from error
    except hub.errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"there is no model {repository} on the Hub ({hub.constants.ENDPOINT}), or it is private and HF_TOKEN is "
            "not set. `image2sentence models` lists names; a folder of this machine is named by its path"
        ) from error
    except hub.errors.HFValidationError as error:
        raise ModelError(f"{repository!r} can be no name on the Hub: expected org/name") from error
    except (OSError, hub.errors.HfHubHTTPError, *_connection_errors()) as error:
        reason = f"{hub.constants.ENDPOINT} cannot be reached ({_reason(error)})"
        return _cached_listing(repository, revision, reason, inside)
    sizes = {one.rfilename: one.size for one in info.siblings or ()}
    return Listing(repository, str(info.sha), sizes, _license(info))


def fetch(listing: Listing, file: str) -> Path:
    """A file of a repository, from the cache or the Hub.

    Raises ModelError where it cannot be had, is not what the Hub says, or there is no room for it; what came so far is
    kept, and the next call goes on there.
    """
    found = cached_file(listing, file)
    if found is not None:
        return found
    hub = _hub()
    if not listing.online:
        raise ModelError(
            f"{file} of {listing.repository} is not in the cache, and {by_hand(listing, [file])}"
        )
    with _told_errors(listing, file):
        url = hub.hf_hub_url(
            listing.repository, file, revision=listing.commit, endpoint=hub.constants.ENDPOINT
        )
        meta = hub.get_hf_file_metadata(url, timeout=_SECONDS, endpoint=hub.constants.ENDPOINT)
        blob = _folder(listing.repository) / "blobs" / str(meta.etag)
        if meta.etag is not None and not blob.exists():
            _download(url, meta, blob, file)
        # It finds the blob in its place, and adds what the cache knows of the commit.
        return Path(
            hub.hf_hub_download(
                listing.repository, file, revision=listing.commit, endpoint=hub.constants.ENDPOINT
            )
        )


def cached_file(listing: Listing, file: str) -> Path | None:
    """The file in the shared cache, if it is there."""
    found = _hub().try_to_load_from_cache(listing.repository, file, revision=listing.commit)
    return Path(found) if isinstance(found, str) else None


def require_room(listing: Listing, files: list[str], again: int) -> None:
    """Raises ModelError where the disk has no room for what is missing of `files` and `again` bytes beside it."""
    missing = sum(listing.sizes.get(file) or 0 for file in listing.missing(files)) + again
    folder = Path(_hub().constants.HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise ModelError(
            f"{listing.repository} needs {missing / 1e6:,.0f} MB, and the disk of {folder} has {free / 1e6:,.0f} MB: "
            "make room, or set HF_HOME and IMAGE2SENTENCE_CACHE to folders of another disk"
        )


def by_hand(listing: Listing, files: list[str]) -> str:
    """How to do without a connection."""
    page = f"{_hub().constants.ENDPOINT}/{listing.repository}"
    named = ", ".join(files[:8]) if files else "its graphs, tokenizer.json and JSON files"
    return (
        f"there is no connection. Bring it by hand: fetch {named} from {page} on another machine into one folder, with "
        "the subfolders as they are, and name that folder with --model"
    )


# --- one file -------------------------------------------------------------------------------------------------------


def _download(url: str, meta: Any, blob: Path, file: str) -> None:
    """Writes the blob, by way of a partial file that a later call goes on with; it is checked before it is renamed."""
    hub = _hub()
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = blob.with_name(blob.name + _PARTIAL)
    location = meta.location or url
    headers = hub.utils.build_hf_headers()
    headers["Accept-Encoding"] = "identity"
    if urlparse(location).netloc != urlparse(url).netloc:  # storage elsewhere must not see the token
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    have = partial.stat().st_size if partial.exists() else 0
    if meta.size is not None and have > meta.size:
        partial.unlink()
        have = 0
    if have != meta.size:
        _receive(location, headers, partial, have, meta.size, file)
    found = _checksum(partial, blob.name)
    if (
        partial.stat().st_size != (meta.size if meta.size is not None else partial.stat().st_size)
        or found is False
    ):
        partial.unlink()
        raise ModelError(
            f"what came as {file} is not what the Hub says it is (size or checksum): it was thrown away. Try again; if "
            "it happens again, a proxy or mirror (HF_ENDPOINT) changes files"
        )
    partial.replace(blob)


def _receive(
    location: str, headers: dict[str, str], partial: Path, have: int, size: int | None, file: str
) -> None:
    import urllib.request

    from tqdm import tqdm

    ask = headers | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(location, headers=ask)
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
        if answer.status != 206:  # the server begins again
            have = 0
        with (
            partial.open("ab" if have else "wb") as out,
            tqdm(desc=file, total=size, initial=have, unit="B", unit_scale=True, disable=None) as bar,
        ):
            while block := answer.read(_BLOCK):
                out.write(block)
                bar.update(len(block))
    if size is not None and partial.stat().st_size < size:
        raise ConnectionError(f"the connection ended after {partial.stat().st_size:,} of {size:,} bytes")


def _checksum(path: Path, etag: str) -> bool | None:
    """Whether a file is what its etag says: SHA-256 of large files, git's SHA-1 of others; None for another etag."""
    if _SHA256.fullmatch(etag):
        digest = hashlib.sha256()
    elif _COMMIT.fullmatch(etag):
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    else:
        return None
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest() == etag


@contextmanager
def _told_errors(listing: Listing, file: str) -> Iterator[None]:
    hub = _hub()
    try:
        yield
    except hub.errors.GatedRepoError as error:  # listings of such a repository are given out to everybody
        raise _gated(listing.repository) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ModelError(
                f"the disk is full: {file} of {listing.repository} does not fit into {hub.constants.HF_HUB_CACHE}. "
                "Make room and run the same again, which goes on where it stopped; or set HF_HOME to a folder of "
                "another disk"
            ) from error
        raise _interrupted(listing, file, error) from error
    except (hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError, *_connection_errors()) as error:
        raise _interrupted(listing, file, error) from error


def _gated(repository: str) -> ModelError:
    return ModelError(
        f"{repository} is given out to those who accepted its terms: accept them on its page, and set HF_TOKEN to a "
        "token of that account"
    )


def _interrupted(listing: Listing, file: str, error: Exception) -> ModelError:
    return ModelError(
        f"{file} of {listing.repository} could not be fetched: {_reason(error)}. Run the same again, which goes on "
        f"where it stopped; or {by_hand(listing, [file])}"
    )


# --- the Hub's package ----------------------------------------------------------------------------------------------


def _cached_listing(repository: str, revision: str | None, reason: str, inside: str) -> Listing:
    folder = _folder(repository)
    ref = folder / "refs" / (revision or "main")
    commit = revision if revision and _COMMIT.fullmatch(revision) else None
    if commit is None and ref.is_file():
        commit = ref.read_text(encoding="utf-8").strip()
    snapshot = folder / "snapshots" / str(commit)
    if commit is None or not snapshot.is_dir():
        absent = Listing(repository, "", {}, online=False)
        raise ModelError(
            f"there is no folder {repository}, and no model of this name could be had from the Hub: {reason}; "
            f"{by_hand(absent, [f'the folder {inside}', 'the folder tokenizer'] if inside else [])}"
        )
    names = {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()}
    return Listing(repository, commit, dict.fromkeys(names), online=False)


def _folder(repository: str) -> Path:
    """The repository's folder in the cache, laid out as huggingface_hub documents it."""
    return Path(_hub().constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def _license(info: Any) -> str:
    stated = getattr(info.card_data, "license", None) if info.card_data is not None else None
    tags = [tag.partition(":")[2] for tag in info.tags or () if tag.startswith("license:")]
    name = getattr(info.card_data, "license_name", None) if stated == "other" else None
    return str(name or stated or (tags[0] if tags else ""))


def _connection_errors() -> tuple[type[Exception], ...]:
    """Those of the HTTP client that the installed huggingface_hub uses, which are no OSError."""
    from importlib import import_module

    found: list[type[Exception]] = []
    for name in ("httpx", "httpx2"):
        try:
            found.append(import_module(name).HTTPError)
        except (ModuleNotFoundError, AttributeError):
            continue
    return tuple(found)


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def _hub() -> Any:
    """The package huggingface_hub. Raises ModelError where it is missing."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ModuleNotFoundError as error:
        raise ModelError(
            f"a model of the Hub needs {error.name}: pip install huggingface-hub, or give the path of a model folder"
        ) from error
    return huggingface_hub
