"""The model folder: what must be in it, and strict reading of it.

config.json          settings of both sides, the training record, checksums of every file below
tokenizer.json       the VL model's tokenizer
onnx/query_image     picture -> sentence, attention maps, gates
onnx/query_text      sentence + modifier ids -> query vector
onnx/gallery_image   picture -> gallery vector (and patch features, where there is a match graph)
onnx/match           sentence + modifier ids + patch features -> match logit (optional)
onnx/fixed/          both query graphs for fixed shapes (optional, for phones)
guide/               guiding phrases and their vectors (optional; see `image2sentence.encoders.guide`)
text.safetensors     light text encoder (optional; for training and export)
model.safetensors    light encoder + token learner (for training and export; the runtime does not read it)
README.md            the model card
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from image2sentence.config import FORMAT_VERSION, ModelConfig, from_dict, read_json, to_dict
from image2sentence.errors import ConfigError, ModelError

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
TEXT_WEIGHTS = "text.safetensors"
FILES = (TOKENIZER, *GRAPHS, MATCH, *FIXED, *GUIDE, WEIGHTS, TEXT_WEIGHTS)
"""All files that a config.json may list."""
CARD = "README.md"


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
                f"expected a model folder at {path}, and there is none; see `image2sentence info`"
            )
        raw = read_json(path / CONFIG, ModelError)
        version = raw.get("format") if isinstance(raw, dict) else None
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{path / CONFIG} has format {version!r}, this version reads format {FORMAT_VERSION}: "
                "update image2sentence, or export the model again"
            )
        try:
            return cls(path, from_dict(ModelConfig, raw, str(path / CONFIG)))
        except ConfigError as error:
            raise ModelError(f"{error}; the file was made by another version or changed by hand") from error

    def read(self, name: str) -> bytes:
        """A listed file's bytes. Raises ModelError if it is missing, not listed, or not what was listed."""
        path = self.path / name
        if name not in self.config.files:
            raise ModelError(f"{self.path / CONFIG} lists no {name}: run `image2sentence export {self.path}`")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(
                f"cannot read {path}: {error.strerror}; the model folder is incomplete"
            ) from error
        if hashlib.sha256(content).hexdigest() != self.config.files[name]:
            raise ModelError(
                f"{path} is damaged (its checksum is not the one in {CONFIG}): restore or export it again"
            )
        return content

    @property
    def bytes(self) -> int:
        """Size of all listed files together."""
        return sum(
            (self.path / name).stat().st_size for name in self.config.files if (self.path / name).is_file()
        )


def bundled() -> Path:
    """The folder of the model that ships inside the package."""
    return Path(str(resources.files("image2sentence"))) / "models" / "default"


def listed(config: ModelConfig, draft: Path, paths: Iterable[str]) -> ModelConfig:
    """The config with checksums of these files of a folder that is being made, and the query side's fingerprint."""
    files = {path: hashlib.sha256((draft / path).read_bytes()).hexdigest() for path in sorted(paths)}
    query = [QUERY_IMAGE, QUERY_TEXT, *sorted(name for name in files if name.startswith("guide/"))]
    digest = hashlib.sha256("".join(files[name] for name in query).encode()).hexdigest()
    return replace(config, files=files, query_fingerprint=digest)


def write_config(draft: Path, config: ModelConfig) -> None:
    """config.json of a folder that is being made."""
    (draft / CONFIG).write_text(json.dumps(to_dict(config), indent=1) + "\n", encoding="utf-8")


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
