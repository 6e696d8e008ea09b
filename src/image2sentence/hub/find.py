"""Resolution of a model's name to a model folder."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from image2sentence.encoders.known_files import CACHE_VARIABLE, cache
from image2sentence.encoders.model_folder import (
    CONFIG,
    QUERY_TEXT,
    ModelFolder,
    bundled,
    download,
    file_checksum,
    is_hub_id,
    split_revision,
)
from image2sentence.errors import ConfigError, ModelError
from image2sentence.hub.adapt import Source, adapt
from image2sentence.hub.download import Listing, by_hand, fetch, list_repository, require_room
from image2sentence.hub.layouts import PRECISIONS, TORCH_WEIGHTS, Precision, recognise
from image2sentence.hub.table import BUNDLED, MODELS, KnownModel, known_model
from image2sentence.strict_json import from_dict, read_json

MAX_FILES = 10_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pin:
    """What a name was found to be at its first use: from then on it is that, and nothing else.

    `files` maps names of the layout to SHA-256; `commits` repositories to commits.
    """

    commits: dict[str, str]
    files: dict[str, str]
    folder: str


def find_model(name: str, revision: str | None = None, precision: Precision = "auto") -> ModelFolder:
    """The model folder of a name; a pair of graphs is made into one at its first use, and kept.

    A precision may be part of the name, "clip-b32:fp16": graphs of another precision are another model, with galleries
    of its own. Raises ModelError where there is no such model, or it cannot be used.
    """
    name, precision = _split_precision(name, precision)
    path = Path(name)
    if path.is_dir():
        return ModelFolder.open(path) if _is_model_folder(path) else _adapted(local_source(path, precision))
    base, named = split_revision(name)
    row = known_model(base)
    if row is None and is_hub_id(base):
        row = KnownModel(base, base, "", "", "", 0)
        if pinned(row, revision or named, precision) is None:
            _log.warning("there is no folder %s here: asking the Hub for a model of this name", base)
    if row is None:
        if not path.exists() and (near := get_close_matches(base, [one.name for one in MODELS], 1)):
            raise ModelError(
                f"there is no folder {name}, and no model of this name: is {near[0]} meant? `image2sentence models` "
                "lists names"
            )
        return ModelFolder.open(path)
    if row.name in BUNDLED:
        return ModelFolder.open(bundled(BUNDLED[row.name]))
    return _of_hub(row, revision or named, precision)


def find_for_space(fingerprint: str) -> ModelFolder | None:
    """The model with this vector space: of the package, else one that was adapted here; None where there is none."""
    made = sorted((cache() / "models").glob(f"*/{CONFIG}"))[:MAX_FILES]
    for folder in (*map(bundled, BUNDLED.values()), *(file.parent for file in made)):
        try:
            model = ModelFolder.open(folder)
        except ModelError:
            continue  # a damaged one is named where it is asked for
        if model.config.fingerprint == fingerprint:
            return model
    return None


def from_anywhere(name: str) -> str:
    """A model's name that means the same in another current folder: a folder's path absolute, with its precision."""
    base, _ = _split_precision(name, "auto")
    return f"{Path(base).absolute()}{name[len(base) :]}" if Path(base).is_dir() else name


def _split_precision(name: str, precision: Precision) -> tuple[str, Precision]:
    """ "name:fp16" -> both parts; a name without one, or a path that exists, as it is."""
    base, _, last = name.rpartition(":")
    named = next((one for one in PRECISIONS if one == last), None)
    return (name, precision) if not base or named is None or Path(name).exists() else (base, named)


def local_source(path: Path, precision: Precision = "auto") -> Source:
    """A folder in a known layout. Raises ModelError where it is in none."""
    files = {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            files[file.relative_to(path).as_posix()] = file
        if len(files) > MAX_FILES:
            raise ModelError(f"{path} holds more than {MAX_FILES:,} files: name the folder of one model")
    if not files:
        raise ModelError(f"{path} is an empty folder: expected a model folder, or a model's graphs")
    layout = recognise(files, precision, str(path))
    return Source(path.resolve().name, "local", layout, {name: files[name] for name in layout.files})


def pinned(row: KnownModel, revision: str | None = None, precision: Precision = "auto") -> Pin | None:
    """What the model was found to be before; None where it is new here. Raises ModelError on a damaged record."""
    file = _pin_file(row, revision, precision)
    if not file.is_file():
        return None
    try:
        return from_dict(Pin, read_json(file, ModelError), str(file))
    except ConfigError as error:
        raise ModelError(f"{error}; remove the file to have the model found anew") from error


def is_here(row: KnownModel) -> bool:
    """Whether the model can be used without fetching anything."""
    pin = pinned(row) if row.repository else None
    return not row.repository or (pin is not None and (cache() / "models" / pin.folder / CONFIG).is_file())


# --- the Hub --------------------------------------------------------------------------------------------------------


def _of_hub(row: KnownModel, revision: str | None, precision: Precision) -> ModelFolder:
    pin = pinned(row, revision, precision)
    if pin is not None and (cache() / "models" / pin.folder / CONFIG).is_file():
        return ModelFolder.open(cache() / "models" / pin.folder)
    main = list_repository(
        row.repository, pin.commits.get(row.repository) if pin else revision, inside=row.folder
    )
    if not row.folder and _is_own(main):
        return ModelFolder.open(download(row.repository, main.commit))
    listings = {"": main}
    if text := row.text_repository or _text_partner(row.repository, main):
        other = list_repository(text, pin.commits.get(text) if pin else None)
        listings = {"vision/": main, "text/": other}
    source = _fetched(row, listings, precision)
    _require_pinned(row, source, pin, _pin_file(row, revision, precision))
    folder = _adapted(source)
    checksums = {name: file_checksum(path) for name, path in source.paths.items()}
    commits = {one.repository: one.commit for one in listings.values()}
    _write_pin(_pin_file(row, revision, precision), Pin(commits, checksums, folder.path.name))
    return folder


def _fetched(row: KnownModel, listings: dict[str, Listing], precision: Precision) -> Source:
    """The pair's files, after saying how much will be fetched, and under which licence."""
    names: dict[str, tuple[Listing, str]] = {}
    for prefix, listing in listings.items():
        names |= {f"{prefix}{name}": (listing, file) for name, file in _within(row.folder, listing).items()}
    main = next(iter(listings.values()))
    try:
        layout = recognise(names, precision, f"{row.repository} on the Hub")
    except ModelError as error:
        if made := next((one.name for one in MODELS if one.weights == row.repository), None):
            raise ModelError(f"{error}. Its graphs are known here as {made}: --model {made}") from error
        raise error if main.online else ModelError(f"{error}. {by_hand(main, [])}") from error
    _announce(row, [names[name] for name in layout.files], listings)
    paths = {name: fetch(*names[name]) for name in layout.files}
    license = main.license or (row.license if row.license != "not stated" else "")
    return Source(row.repository, main.commit, layout, paths, row.knows, license)


def _within(folder: str, listing: Listing) -> dict[str, str]:
    """Files by their names in a folder of the repository; of those outside what is no graph."""
    if not folder:
        return {file: file for file in listing.sizes}
    inside = {file[len(folder) + 1 :]: file for file in listing.sizes if file.startswith(f"{folder}/")}
    outside = {file: file for file in listing.sizes if "/" not in file and not file.endswith(".onnx")}
    return outside | inside


def _announce(row: KnownModel, files: list[tuple[Listing, str]], listings: dict[str, Listing]) -> None:
    total = missing = 0
    for listing in listings.values():
        own = [file for one, file in files if one is listing]
        size = {file: listing.sizes.get(file) or 0 for file in own}
        total += sum(size.values())
        lacking = listing.missing(own)
        missing += sum(size[file] for file in lacking)
        if lacking and listing.online:
            require_room(listing, own, again=sum(size.values()))
    if not missing:
        return
    main = next(iter(listings.values()))
    license = main.license or (
        f"{row.license}, says this program's table; the repository states none"
        if row.license and row.license != "not stated"
        else "not stated: look at the model's page before you use it"
    )
    _log.warning(
        "fetching %s at %s: %s MB of %s MB, licence %s",
        row.repository,
        main.commit[:12],
        f"{missing / 1e6:,.0f}",
        f"{total / 1e6:,.0f}",
        license,
    )


def _is_own(listing: Listing) -> bool:
    """Whether a repository is a model folder of this package."""
    if CONFIG not in listing.sizes or QUERY_TEXT in listing.sizes:
        return QUERY_TEXT in listing.sizes
    raw = read_json(fetch(listing, CONFIG), ModelError)
    return isinstance(raw, dict) and "format" in raw


def _text_partner(repository: str, listing: Listing) -> str | None:
    """The repository of the text graph, where each tower has one of its own."""
    alone = "model.onnx" in listing.sizes and repository.endswith("-vision")
    return f"{repository[: -len('vision')]}text" if alone else None


def _require_pinned(row: KnownModel, source: Source, pin: Pin | None, file: Path) -> None:
    if pin is None:
        return
    found = {name: file_checksum(path) for name, path in source.paths.items()}
    changed = sorted(name for name in {*found, *pin.files} if found.get(name) != pin.files.get(name))
    if changed:
        raise ModelError(
            f"{changed[0]} of {row.repository} is not what it was when it was first used: the copy in the Hub's cache "
            "was changed, or another file is given out for the same commit. Remove the copy to fetch it again; if you "
            f"trust the new one, remove {file}"
        )


def _pin_file(row: KnownModel, revision: str | None, precision: Precision) -> Path:
    parts = [row.repository.replace("/", "--"), row.folder.replace("/", "--"), revision or "", precision]
    return cache() / "pins" / ("@".join(part.replace("/", "--") for part in parts) + ".json")


def _write_pin(file: Path, pin: Pin) -> None:
    draft = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(asdict(pin), indent=1) + "\n", encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        raise ModelError(
            f"cannot write {file}: {error.strerror}; make room, or set {CACHE_VARIABLE} to another folder"
        ) from error


# --- folders --------------------------------------------------------------------------------------------------------


def _adapted(source: Source) -> ModelFolder:
    """The model folder made of a pair: the one in the cache where its files are still the same, else a new one."""
    out = cache() / "models" / f"{source.name.replace('/', '--')}-{source.digest()[:16]}"
    return ModelFolder.open(out) if (out / CONFIG).is_file() else adapt(source, out)


def _is_model_folder(path: Path) -> bool:
    """Whether config.json is this package's own, or there is nothing else that it could be."""
    published = any(file.name.endswith((".onnx", *TORCH_WEIGHTS)) for file in path.rglob("*"))
    if not (path / CONFIG).is_file():
        if not published and not any(path.rglob("*.json")):
            raise ModelError(
                f"{path} holds no model: expected a model folder with its {CONFIG}, or a model's graphs such as "
                "onnx/vision_model.onnx and onnx/text_model.onnx. `image2sentence models` lists names to give instead"
            )
        return not published
    raw: Any = read_json(path / CONFIG, ModelError)
    return not isinstance(raw, dict) or "format" in raw or not published
