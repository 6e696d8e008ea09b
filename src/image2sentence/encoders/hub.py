"""A model folder by its name on the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from image2sentence.config import read_json
from image2sentence.encoders.folder import CARD, CONFIG, FILES
from image2sentence.errors import ModelError

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
