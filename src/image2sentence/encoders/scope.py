"""What a model knows, and whether pictures lie outside of it.

A linear classifier on gallery vectors, calibrated on pictures of the kinds that the model was trained on and on others
(`python -m recipes.scope`). It is a file of the model folder, `scope.json`, that vectors do not depend on.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.model_folder import (
    SCOPE,
    ModelFolder,
    bundled,
    check_replaceable,
    listed,
    replace_folder,
    write_config,
)
from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import ConfigError, ModelError
from image2sentence.strict_json import from_dict, to_dict

MIN_PICTURES = 20
"""Fewer say too little of a folder."""
MOST = 0.6
"""The share of a folder's pictures above which most are said to lie outside."""
_MAX_KNOWS = 200


@dataclass(frozen=True)
class Scope:
    """What a model knows in a few words, and the classifier: outside where weights @ vector + bias > 0.

    `weights` has the width of gallery vectors; both are in units of a unit vector's dot product.
    """

    knows: str
    weights: tuple[float, ...]
    bias: float

    def __post_init__(self) -> None:
        if not 0 < len(self.knows) <= _MAX_KNOWS or not np.isfinite([*self.weights, self.bias]).all():
            raise ConfigError(f"expected up to {_MAX_KNOWS} letters and finite weights in {SCOPE}")

    def share_outside(self, vectors: Vectors) -> float:
        """The share, 0 to 1, of gallery vectors (n, d), n >= 1, that lie outside."""
        return float(np.mean(self.scores(vectors) > 0))

    def scores(self, vectors: Vectors) -> NDArray[np.float64]:
        """(n,) values, positive outside."""
        return np.asarray(vectors @ np.asarray(self.weights, np.float64) + self.bias, np.float64)

    def mostly_outside(self, vectors: Vectors) -> bool:
        """Whether more than `MOST` of the pictures lie outside; False for fewer than `MIN_PICTURES`."""
        return len(vectors) >= MIN_PICTURES and self.share_outside(vectors) > MOST


def read_scope(folder: ModelFolder) -> Scope | None:
    """The model's scope; None where it has none. Raises ModelError on a damaged one."""
    if SCOPE not in folder.config.files:
        return None
    try:
        scope = from_dict(Scope, json.loads(folder.read(SCOPE)), str(folder.path / SCOPE))
    except (ConfigError, ValueError) as error:
        raise ModelError(f"{folder.path / SCOPE}: {error}; restore the model folder") from error
    if len(scope.weights) != folder.config.width:
        raise ModelError(f"{folder.path / SCOPE} is of another model: calibrate it anew, or restore it")
    return scope


def name_of(folder: ModelFolder) -> str:
    """What a model is called: "starter", its name on the Hub, or its folder's."""
    if folder.config.origin is not None:
        return folder.config.vl.name
    return "starter" if folder.path == bundled() else folder.path.name


def what_it_knows(folder: ModelFolder) -> str:
    """What the model was made for, in a few words; "" where nothing is said of it."""
    if folder.config.origin is not None and folder.config.origin.knows:
        return folder.config.origin.knows
    scope = read_scope(folder)
    return "" if scope is None else scope.knows


@dataclass(frozen=True)
class AboutModel:
    """Which model answers: a short `name`, and what it knows in a few words, "" where nothing is said of it."""

    name: str
    knows: str

    def __str__(self) -> str:
        return f"model {self.name}" + (f", which knows {self.knows}" if self.knows else "")


def about_model(encoder: object) -> AboutModel | None:
    """Which model an encoder is; None for one that is no model folder."""
    folder = getattr(encoder, "folder", None)
    if not isinstance(folder, ModelFolder):
        return None
    return AboutModel(name_of(folder), what_it_knows(folder))


def hand_on_scope(source: ModelFolder, target: ModelFolder) -> bool:
    """Gives a folder of the same gallery vectors the scope of another; whether it has it then, or there is none.

    Vectors of another space need a classifier of their own. Raises ModelError as `add_scope`.
    """
    scope = read_scope(source)
    if scope is None:
        return True
    if target.config.fingerprint != source.config.fingerprint:
        return False
    add_scope(target, scope, target.path)
    return True


def add_scope(folder: ModelFolder, scope: Scope, out: Path) -> None:
    """Writes a copy of a model folder with this scope; `out` may be the folder itself.

    Raises ModelError where it cannot be written, or `out` holds something else than a model.
    """
    check_replaceable(out)
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as name:
            draft = Path(name, out.name)
            shutil.copytree(folder.path, draft)
            (draft / SCOPE).write_text(json.dumps(to_dict(scope)) + "\n", encoding="utf-8")
            config = listed(replace(folder.config, files={}), draft, {*folder.config.files, SCOPE})
            write_config(draft, config)
            replace_folder(draft, out)
    except OSError as error:
        raise ModelError(f"could not write the model folder {out}: {error}; it is as it was") from error
