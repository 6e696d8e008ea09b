"""`train` and `export` as functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from image2sentence.encoders.guide_files import read_lines
from image2sentence.encoders.model_folder import WEIGHTS, bundled, check_replaceable
from image2sentence.encoders.onnx_encoder import load_encoder
from image2sentence.encoders.protocols import Encoder
from image2sentence.errors import ConfigError, ModelError
from image2sentence.hub.find import find_model
from image2sentence.strict_json import from_dict, read_json, to_dict
from image2sentence.training import phrase_bank as phrases
from image2sentence.training.adapted import open_adapted, require_same_model, take_over, weights_of
from image2sentence.training.dataset import Collection, collect, find_pictures, is_kept
from image2sentence.training.distributed import Processes
from image2sentence.training.forecast import SHORT, Forecast, forecast
from image2sentence.training.models.light_encoders import without_side
from image2sentence.training.models.query_model import QueryModel, build_query_model
from image2sentence.training.presets import Preset
from image2sentence.training.settings import Target, TrainSettings
from image2sentence.training.trained_model import (
    BUNDLED_VL,
    PARITY_PICTURES,
    _load,
    _require_vl,
    _vl_path,
    _with_weights,
    write_model,
)
from image2sentence.training.trainer import Trainer
from image2sentence.training.vl.base import VisionLanguageModel
from image2sentence.training.vl.load import load_vl

T = TypeVar("T")
_COMPARED = 16
"""Pictures that the graphs of an adapted model and its weights are compared on."""


@dataclass(frozen=True)
class TrainRequest:
    """What `train` is asked for.

    `phrases` and `modifiers` are text files, one a line; each phrase bank has modifiers of its own, or one file serves
    all. `start` is a model folder whose query side training starts from, in place of fresh weights. With `other_vl` it
    may have been trained for another VL model of the same widths. `model` is an adapted model (a name, as `--model`
    takes it) whose gallery side the result keeps; `vl` are torch weights of that model then, or None for those that
    are known for it.
    """

    pictures: Path
    vl: str | None
    light: str
    out: Path
    settings: TrainSettings
    revision: str | None = None
    phrases: tuple[Path, ...] = ()
    modifiers: tuple[Path, ...] = ()
    start: Path | None = None
    other_vl: bool = False
    model: str | None = None


def read_settings(
    path: Path | None, changes: Mapping[str, Any], preset: Preset | None = None
) -> TrainSettings:
    """Settings of a preset (None: the defaults), over them those of a JSON file, over them `changes`.

    `learner.NAME` reaches into the learner's. Raises ConfigError on an unknown name or an impossible value.
    """
    values: dict[str, Any] = to_dict(TrainSettings())
    if preset is not None:
        values = _merged(values, preset.settings)
    if path is not None:
        given = read_json(path)
        from_dict(TrainSettings, given, str(path))
        values = _merged(values, given)
    for name, value in changes.items():
        group, _, key = name.rpartition(".")
        place = values.get(group) if group else values
        if not isinstance(place, dict) or key not in place:
            raise ConfigError(f"unknown training setting {name!r}; see docs/settings.md")
        place[key] = value
    return from_dict(TrainSettings, values, "settings")


def train(
    request: TrainRequest, processes: Processes | None = None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Trains (or goes on with) the run in `request.out` and writes the model folder `out/model`.

    `say` is told how long it will take, before the work and once the gallery vectors are there.

    Returns the training record; on the main process with its export's parity. Raises DataError, ModelError or
    ConfigError, each of which leaves what was there before.
    """
    processes = processes or Processes()
    check_replaceable(request.out / "model")
    adapted = None if request.model is None else open_adapted(request.model)
    vl_name = request.vl or (BUNDLED_VL if request.model is None else weights_of(request.model))
    vl = load_vl(_vl_path(vl_name), request.revision).to(processes.device)
    encoder = None
    if adapted is not None:
        take_over(vl, adapted)
        encoder = load_encoder(adapted.path)
    _require_matching(request.settings, vl)
    settings, bank = _with_bank(request, vl)
    model = _first_model(request, settings, vl)
    targets = request.out / "targets.safetensors"
    expected = _forecast(request, settings, vl, encoder, model, bank) if processes.count == 1 else None
    if expected is not None:
        say(str(expected))
    collection = collect(request.pictures, vl, targets, processes=processes, encoder=encoder)
    if expected is not None and expected.encoding:
        say(f"gallery vectors are there; training takes {expected.left} from here")
    if encoder is not None:
        some = collection.paths[:_COMPARED]
        require_same_model(vl, encoder, _load(some), collection.vectors[: len(some)].numpy())
    trainer = Trainer(vl, model, collection, settings, request.out, bank, processes, _begun(request))
    record = trainer.run() | {"vl": dataclasses.asdict(vl.record), "light": request.light}
    if processes.main:
        _list_unreadable(collection, request.out / "unreadable.txt")
        shown = _load([collection.paths[i] for i in trainer.held[:PARITY_PICTURES]])
        out = request.out / "model"
        record["parity"] = write_model(
            vl, model, request.light, settings, record, out, shown, vl_name, adapted
        )
    return record


def _forecast(
    request: TrainRequest,
    settings: TrainSettings,
    vl: VisionLanguageModel,
    encoder: Encoder | None,
    model: QueryModel,
    bank: phrases.PhraseBank | None,
) -> Forecast | None:
    """None for a run that is short, or has begun to train: its bar knows better."""
    if settings.steps < SHORT or (request.out / "state.safetensors").exists():
        return None
    space = vl.record.fingerprint if encoder is None else encoder.fingerprint
    known = is_kept(request.out / "targets.safetensors", request.pictures, space)
    paths = [request.pictures / file.path for file in find_pictures(request.pictures)]
    return forecast(vl, encoder, model, settings, bank, paths, request.out, known=known)


def _require_matching(settings: TrainSettings, vl: VisionLanguageModel) -> None:
    """Better known before the gallery vectors are computed than after."""
    if settings.lar == "matching" and settings.lar_weight and not vl.has_matching:
        raise ModelError(
            f"{vl.record.name} ({vl.record.kind}) has no matching encoder: give a BLIP-type VL model (--vl), or take "
            "the local form of LAR (--set lar=local)"
        )


def _list_unreadable(collection: Collection, file: Path) -> None:
    """One "path: reason" a line, for those who want to know which pictures were left out."""
    file.unlink(missing_ok=True)
    if collection.unreadable:
        lines = [f"{path}: {reason}\n" for path, reason in collection.unreadable]
        file.write_text("".join(lines), encoding="utf-8", errors="replace")


def _first_model(request: TrainRequest, settings: TrainSettings, vl: VisionLanguageModel) -> QueryModel:
    torch.manual_seed(settings.seed)
    if request.start is None:
        return build_query_model(vl, request.light, settings.learner)
    folder = find_model(str(request.start))
    folder.require_light_side("--start")
    trained = (without_side(folder.config.light), folder.config.learner)
    if trained != (without_side(request.light), settings.learner):
        raise ConfigError(
            f"{request.start} has the light encoder {folder.config.light!r} and {folder.config.learner}; "
            "to start from it, ask for the same (another side of its input, NAME/SIDE, will do)"
        )
    if not request.other_vl:
        _require_vl(folder, vl, "; --other-vl begins with its weights all the same")
    return _with_weights(folder, vl, request.light)


def _begun(request: TrainRequest) -> dict[str, str | None]:
    """What a run began with, beside its settings: another light encoder or other weights make another run."""
    start = None if request.start is None else find_model(str(request.start)).config.files.get(WEIGHTS)
    return {"light": request.light, "start": start}


def _with_bank(
    request: TrainRequest, vl: VisionLanguageModel
) -> tuple[TrainSettings, phrases.PhraseBank | None]:
    """The phrase bank that the settings need; the bundled VL model brings its own."""
    settings = request.settings
    if not (settings.modifier_weight or settings.caption_weight):
        return settings, None
    own = bundled() / "vl" if request.model is None and request.vl in (None, BUNDLED_VL) else None
    banks = request.phrases or (() if own is None else (own / "phrases.txt",))
    asked = request.modifiers or (() if own is None else (own / "modifiers.txt",))
    missing = [path for path in (*banks, *asked) if not path.is_file()]
    if missing:
        raise ConfigError(f"cannot read {missing[0]}: expected a text file, one text a line")
    if not banks or not asked:
        raise ConfigError(
            "modifier-aware distillation needs words: give --phrases FILE (texts such as titles, one a line) and "
            "--modifiers FILE (such as 'in red'), or train without it: --set modifier_weight=0"
        )
    modifiers = _one_each("modifier files", [read_lines(path) for path in asked], len(banks))
    common = Target(settings.residual, captions=settings.pseudo_captions)
    targets = _one_each("targets", list(settings.targets or (common,)), len(banks))
    lists = [
        phrases.WordLists(read_lines(path), words, target)
        for path, words, target in zip(banks, modifiers, targets, strict=True)
    ]
    return settings, phrases.build_bank(vl, *lists)


def _one_each(what: str, given: list[T], banks: int) -> list[T]:
    """`given`, one for each phrase bank; a single one serves all."""
    if len(given) not in (1, banks):
        raise ConfigError(f"expected one or {banks} {what} for {banks} phrase banks, got {len(given)}")
    return given * banks if len(given) == 1 else given


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _merged(value, over[key]) if isinstance(value, dict) and key in over else over.get(key, value)
        for key, value in base.items()
    }
