"""Reading of weights from the Hub or a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, OfflineModeIsEnabled, StrictDataclassError
from safetensors import SafetensorError
from transformers.utils.hub import cached_file

from image2sentence.errors import ModelError

# HFValidationError is a ValueError; HfHubHTTPError and the offline errors of transformers are OSErrors.
_READING_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
    EntryNotFoundError,
    OfflineModeIsEnabled,
)


@contextmanager
def reading(what: str, name: str) -> Iterator[None]:
    """Turns whatever goes wrong while `what` is read from `name` into a ModelError with a hint."""
    try:
        yield
    except _READING_ERRORS as error:
        raise ModelError(
            f"no usable {what} at {name!r}: {_first_lines(error)} ({_hint(name, error)})"
        ) from error


def load_pretrained(cls: Any, name: str, **options: Any) -> Any:
    """`cls.from_pretrained(name)`, strictly. Raises ModelError if weights the model needs are missing.

    Repositories with `pytorch_model.bin` alone are read as weights only: nothing else in the pickle is made.
    """
    names = ("model.safetensors", "model.safetensors.index.json")
    safe = any(find_file(name, one, options.get("revision")) is not None for one in names)
    bins = any(
        find_file(name, one, options.get("revision")) is not None
        for one in ("pytorch_model.bin", "pytorch_model.bin.index.json")
    )
    try:
        model, report = cls.from_pretrained(
            name, output_loading_info=True, use_safetensors=safe or not bins, weights_only=True, **options
        )
    except UnpicklingError as error:
        raise ModelError(
            f"the weights of {name} in pytorch_model.bin are damaged, or hold something else than weights, which is "
            "never loaded: find the model as safetensors"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"{name} lacks {len(missing)} weights of {cls.__name__}, the first {missing[0]!r}: it is another "
            "kind of model, or was not saved whole; download or train it again"
        )
    return model


def find_file(name: str, file: str, revision: str | None) -> Path | None:
    """A file of the folder or Hub repository `name`; None where it has no such file."""
    found = cached_file(
        name,
        file,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)


def commit_of(name: str, revision: str | None) -> str | None:
    """The commit that `revision` of the Hub repository `name` stands for; None for a folder."""
    if Path(name).is_dir():
        return None
    found = find_file(name, "config.json", revision)  # in the cache, at snapshots/COMMIT/config.json
    return found.parent.name if found is not None and found.parent.parent.name == "snapshots" else revision


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError if the file holds something else."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content


def _first_lines(error: BaseException) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__


def _hint(name: str, error: BaseException) -> str:
    if isinstance(error, SafetensorError):
        return "the weights file is damaged: download or save it again"
    if Path(name).is_dir():
        return "the folder is incomplete or damaged: expected config.json, model.safetensors and so on"
    if name.startswith(("/", ".", "~")):
        return "there is no such folder"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set: download the model while connected, or give the path of a folder"
    return "expected a Hub id such as Salesforce/blip-itm-base-coco, or the path of a folder"
