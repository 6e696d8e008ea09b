"""Model folder: its files, and strict reading of them.

config.json          settings of both sides, the training record, checksums of every file below
tokenizer.json       the VL model's tokenizer
onnx/query_image     picture -> sentence, attention maps, gates
onnx/query_text      sentence + modifier ids -> query vector
onnx/gallery_image   picture -> gallery vector (and patch features, where there is a match graph)
onnx/match           sentence + modifier ids + patch features -> match logit (optional)
onnx/fixed/          both query graphs for fixed shapes (optional, for phones)
guide/               guiding phrases and their vectors (optional; see `image2sentence.encoders.phrase_guide`)
fallback/            vectors of training's modifiers (optional; see `image2sentence.encoders.sum_fallback`)
scope.json           what the model knows (optional; see `image2sentence.encoders.scope`)
text.safetensors     light text encoder (optional; for training and export)
model.safetensors    light encoder + token learner (for training and export; the runtime does not read it)
vl/                  the VL model itself (in the package only; see `image2sentence.training.vl.compact`)
README.md            the model card
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from image2sentence.encoders.config import FORMAT_VERSION, ModelConfig, bind_fingerprint, settings_digest
from image2sentence.encoders.known_files import known
from image2sentence.errors import ConfigError, ModelError
from image2sentence.strict_json import from_dict, read_json, to_dict

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
WEIGHTS = "model.safetensors"
QUERY_IMAGE = "onnx/query_image.onnx"
QUERY_TEXT = "onnx/query_text.onnx"
GALLERY_IMAGE = "onnx/gallery_image.onnx"
MATCH = "onnx/match.onnx"
GRAPHS = (QUERY_IMAGE, QUERY_TEXT, GALLERY_IMAGE)
FIXED = ("onnx/fixed/query_image.onnx", "onnx/fixed/query_text.onnx")
GUIDE = ("guide/phrases.txt", "guide/vectors.npy")
FALLBACK = "fallback/vectors.npy"
TEXT_WEIGHTS = "text.safetensors"
SCOPE = "scope.json"
FILES = (TOKENIZER, *GRAPHS, MATCH, *FIXED, *GUIDE, FALLBACK, SCOPE, WEIGHTS, TEXT_WEIGHTS)
"""All files that a config.json may list."""
CARD = "README.md"
_BLOCK = 2**20
_CHECKSUM = re.compile(rb'"checksum": "([0-9a-f]{64})"')


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose config has been read and whose format is known."""

    path: Path
    config: ModelConfig

    @classmethod
    def open(cls, path: Path) -> ModelFolder:
        """Reads config.json. Raises ModelError on a missing, damaged or foreign one."""
        if not path.is_dir():
            raise ModelError(
                f"expected a model folder at {path}, and there is none; `image2sentence models` lists names"
            )
        raw = read_json(path / CONFIG, ModelError)
        _check_config_checksum(path / CONFIG, raw)
        version = raw.get("format") if isinstance(raw, dict) else None
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{path / CONFIG} has format {version!r}, this version reads format {FORMAT_VERSION}: "
                "update image2sentence, or export the model again"
            )
        try:
            return cls(path, bind_fingerprint(from_dict(ModelConfig, raw, str(path / CONFIG))))
        except ConfigError as error:
            raise ModelError(f"{error}; the file was made by another version or changed by hand") from error

    def read(self, name: str) -> bytes:
        """A listed file's bytes. Raises ModelError if it is missing, not listed, or not what was listed."""
        path = self._listed_path(name)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise _incomplete(path, error) from error
        self._require(name, hashlib.sha256(content).hexdigest())
        return content

    def checked_path(self, name: str) -> Path:
        """A listed file's path, after the checks of `read`, for files too large to hold twice.

        A large file that was checked before is read again only where it changed since.
        """
        path = self._listed_path(name)
        try:
            self._require(name, known(path, "sha256", file_checksum))
        except OSError as error:
            raise _incomplete(path, error) from error
        return path

    def _listed_path(self, name: str) -> Path:
        if name not in self.config.files:
            raise ModelError(f"{self.path / CONFIG} lists no {name}: run `image2sentence export {self.path}`")
        path = self.path / name
        # A device or pipe, perhaps behind a link, need not have an end.
        if path.exists() and not path.is_file():
            raise ModelError(f"{path} is no regular file: use a model folder that you trust")
        return path

    def _require(self, name: str, checksum: str) -> None:
        if checksum != self.config.files[name]:
            raise ModelError(
                f"{self.path / name} is damaged (its checksum is not the one in {CONFIG}): restore or export it again"
            )

    @property
    def has_light_side(self) -> bool:
        """Whether the model has a light query side; one without asks with its gallery side's encoder."""
        return QUERY_IMAGE in self.config.files

    def require_light_side(self, purpose: str) -> None:
        """Raises ModelError for a model without a light query side, which `purpose` needs."""
        if not self.has_light_side:
            raise ModelError(
                f"{self.path} has no light query side, which {purpose} needs: train one with "
                "`image2sentence train PICTURES --model MODEL --out DIR`, and give DIR/model"
            )

    @property
    def bytes(self) -> int:
        """Size of all listed files together."""
        return sum(
            (self.path / name).stat().st_size for name in self.config.files if (self.path / name).is_file()
        )


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal, without reading all of it into memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _incomplete(path: Path, error: OSError) -> ModelError:
    return ModelError(f"cannot read {path}: {error.strerror}; the model folder is incomplete")


def bundled(name: str = "default") -> Path:
    """The folder of a model that ships inside the package."""
    return Path(str(resources.files("image2sentence"))) / "models" / name


def listed(config: ModelConfig, draft: Path, paths: Iterable[str]) -> ModelConfig:
    """The config with checksums of these files of a folder that is being made, and the query side's fingerprint."""
    files = {path: file_checksum(draft / path) for path in sorted(paths)}
    query = [QUERY_IMAGE, QUERY_TEXT, *sorted(name for name in files if name in (*GUIDE, FALLBACK))]
    digest = hashlib.sha256("".join(files[name] for name in query if name in files).encode()).hexdigest()
    space = config.space_settings or settings_digest(config)
    return replace(config, files=files, query_fingerprint=digest, space_settings=space)


def write_config(draft: Path, config: ModelConfig) -> None:
    """config.json of a folder that is being made, with its checksum."""
    write_sealed(draft / CONFIG, to_dict(config))


def write_sealed(path: Path, values: dict[str, Any]) -> None:
    """Write values as a config.json whose last key is the SHA-256 of the file with that digest left out."""
    text = json.dumps(values | {"checksum": ""}, indent=1) + "\n"
    before, empty, after = text.rpartition('"checksum": ""')
    digest = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(f'{before}{empty[:-1]}{digest}"{after}', encoding="utf-8")


def _check_config_checksum(path: Path, values: object) -> None:
    """Raises ModelError where the file has a checksum that is not its own. Those of earlier versions have none."""
    if not isinstance(values, dict) or "checksum" not in values:
        return
    content = path.read_bytes()
    found = list(_CHECKSUM.finditer(content))
    if found:
        content = content[: found[-1].start(1)] + content[found[-1].end(1) :]
    if not found or hashlib.sha256(content).hexdigest() != values["checksum"]:
        raise ModelError(
            f"{path} is damaged or was changed (its checksum is not its own): restore it or export the model again; "
            'after a change on purpose, remove the key "checksum"'
        )


def check_replaceable(out: Path) -> None:
    """Raises ModelError if something lies at `out` that is neither an empty folder nor a model folder."""
    try:
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return
        raw = read_json(out / CONFIG, ModelError)
    except OSError as error:
        raise ModelError(f"cannot look into {out}: {error.strerror}; choose another folder") from error
    except ModelError:
        raw = None
    if not isinstance(raw, dict) or "format" not in raw:
        raise ModelError(f"{out} is not empty and no model folder: choose a new folder, or remove it first")


def replace_folder(draft: Path, out: Path) -> None:
    """Puts the finished draft in the place of an older folder, which goes only once the new one is there.

    Raises ModelError as `check_replaceable` does.
    """
    check_replaceable(out)
    older = out.with_name(f".{out.name}.older")
    for path in (draft, *draft.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.rmtree(older, ignore_errors=True)
    if out.exists():
        out.rename(older)
    try:
        draft.rename(out)
    except OSError:
        if older.exists():
            older.rename(out)
        raise
    shutil.rmtree(older, ignore_errors=True)


_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def split_revision(name: str) -> tuple[str, str | None]:
    """ "org/name@revision" -> both parts; a name without one, or a path that exists, as it is."""
    base, at, revision = name.rpartition("@")
    return (base, revision) if at and _HUB_ID.fullmatch(base) and not Path(name).exists() else (name, None)


def is_hub_id(name: str) -> bool:
    """Whether `name` can be a model's name on the Hub: no such folder here, and of the form org/name."""
    return bool(_HUB_ID.fullmatch(name)) and not Path(name).exists()


def download(name: str, revision: str | None = None) -> Path:
    """The folder, in the Hub's cache, of the model `name`, "org/name", at `revision` (a branch, tag or commit).

    Only the files of a model folder are fetched, those that its config.json lists; they are checked against the
    checksums there when they are read. Raises ModelError where there is no such model, or it cannot be reached.
    """
    try:
        from huggingface_hub import hf_hub_download, snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError as error:
        raise ModelError(
            f"there is no folder {name}, and a model of the Hub needs {error.name}: pip install huggingface-hub, or "
            "give the path of a model folder"
        ) from error

    try:
        config = Path(hf_hub_download(name, CONFIG, revision=revision))
        listed = read_json(config, ModelError)
        files = listed.get("files") if isinstance(listed, dict) else None
        if not isinstance(files, dict):
            raise ModelError(f"{name} on the Hub is no image2sentence model: its {CONFIG} lists no files")
        wanted = [CONFIG, CARD, *(file for file in FILES if file in files)]
        commit = config.parent.name  # all files of one commit, whatever is pushed meanwhile
        return Path(snapshot_download(name, revision=commit, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"there is no folder {name}, and no model of this name could be had from the Hub: {reason}. Give the path "
            "of a model folder, or a Hub id such as org/name"
        ) from error
