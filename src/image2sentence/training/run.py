"""`train` and `export` as functions: from a folder of unlabeled pictures to a model folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image

from image2sentence.config import from_dict, read_json, to_dict
from image2sentence.encoders.folder import CONFIG, WEIGHTS, ModelFolder, bundled, check_replaceable
from image2sentence.encoders.guide import hand_on_guide
from image2sentence.errors import ConfigError, DataError, ModelError
from image2sentence.gallery.indexing import AT_LEAST
from image2sentence.images import load_image
from image2sentence.texts import read_lines
from image2sentence.training import phrases, state
from image2sentence.training.distill_text import restore_text
from image2sentence.training.export import ExportOptions, export
from image2sentence.training.light import without_side
from image2sentence.training.light_text import LightText
from image2sentence.training.loop import Trainer
from image2sentence.training.parity import DriftError
from image2sentence.training.pictures import Collection, collect, find_pictures
from image2sentence.training.processes import Processes
from image2sentence.training.query_model import QueryModel, build_query_model
from image2sentence.training.settings import Target, TrainSettings
from image2sentence.training.vl.base import VisionLanguageModel
from image2sentence.training.vl.load import load_vl

BUNDLED_VL = "bundled"
PARITY_PICTURES = 64
CALIBRATION_PICTURES = 200
PARITY_TEXTS = (
    "in red",
    "but with long sleeves",
    "without stripes",
    "a mug",
    "darker, and on a white background",
    "",
)


T = TypeVar("T")


@dataclass(frozen=True)
class TrainRequest:
    """What `train` is asked for.

    `phrases` and `modifiers` are text files, one a line; each phrase bank has modifiers of its own, or one file serves
    all. `start` is a model folder whose query side training starts from, in place of fresh weights. With `other_vl` it
    may have been trained for another VL model of the same widths.
    """

    pictures: Path
    vl: str
    light: str
    out: Path
    settings: TrainSettings
    revision: str | None = None
    phrases: tuple[Path, ...] = ()
    modifiers: tuple[Path, ...] = ()
    start: Path | None = None
    other_vl: bool = False


def read_settings(path: Path | None, changes: Mapping[str, Any]) -> TrainSettings:
    """Settings from a JSON file (strictly) with some of them changed; `learner.NAME` reaches into the learner's.

    Raises ConfigError on an unknown name or an impossible value.
    """
    values: dict[str, Any] = to_dict(TrainSettings())
    if path is not None:
        given = read_json(path)
        from_dict(TrainSettings, given, str(path))
        values = _merged(values, given)
    for name, value in changes.items():
        group, _, key = name.rpartition(".")
        place = values.get(group) if group else values
        if not isinstance(place, dict) or key not in place:
            raise ConfigError(f"unknown training setting {name!r}; see docs/training.md")
        place[key] = value
    return from_dict(TrainSettings, values, "settings")


def train(request: TrainRequest, processes: Processes | None = None) -> dict[str, Any]:
    """Trains (or goes on with) the run in `request.out` and writes the model folder `out/model`.

    Returns the training record; on the main process with its export's parity. Raises DataError, ModelError or
    ConfigError, each of which leaves what was there before.
    """
    processes = processes or Processes()
    check_replaceable(request.out / "model")
    vl = load_vl(_vl_path(request.vl), request.revision).to(processes.device)
    settings, bank = _with_bank(request, vl)
    model = _first_model(request, settings, vl)
    collection = collect(request.pictures, vl, request.out / "targets.safetensors", processes=processes)
    trainer = Trainer(vl, model, collection, settings, request.out, bank, processes, _begun(request))
    record = trainer.run() | {"vl": dataclasses.asdict(vl.record), "light": request.light}
    if processes.main:
        _list_unreadable(collection, request.out / "unreadable.txt")
        shown = _load([collection.paths[i] for i in trainer.held[:PARITY_PICTURES]])
        out = request.out / "model"
        record["parity"] = write_model(vl, model, request.light, settings, record, out, shown, request.vl)
    return record


@dataclass(frozen=True)
class Trained:
    """A model folder with all that it was exported from."""

    folder: ModelFolder
    vl: VisionLanguageModel
    query: QueryModel
    settings: TrainSettings

    @classmethod
    def open(cls, model: Path) -> Trained:
        """Raises ModelError where the folder or its VL model is missing, damaged, or another one."""
        folder = ModelFolder.open(model)
        record = folder.config.vl
        vl = load_vl(_vl_path(record.name), None if record.revision == "local" else record.revision)
        settings = from_dict(
            TrainSettings, folder.config.training.get("settings", {}), f"{model / CONFIG}: training.settings"
        )
        return cls(folder, vl, restore(folder, vl), settings)

    def export(
        self,
        out: Path,
        pictures: Sequence[Image.Image],
        options: ExportOptions,
        text: LightText | None,
        record: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Writes the folder anew at `out`, with `text` to read queries; returns the parity report.

        Guiding phrases go along; the report is about the graphs without them.
        """
        config = self.folder.config
        training = config.training | dict(record or {})
        if options.sentence_share is None:
            options = dataclasses.replace(options, sentence_share=config.sentence_share)
        parity = export(
            self.vl,
            self.query,
            config.light,
            self.settings,
            training,
            out,
            pictures,
            PARITY_TEXTS,
            options,
            config.vl.name,
            text,
        )
        hand_on_guide(self.folder, ModelFolder.open(out))
        return parity


def export_again(
    model: Path, out: Path, pictures: Sequence[Image.Image], options: ExportOptions
) -> dict[str, Any]:
    """Exports a model folder's weights anew, for other quantisation, into `out`; returns the parity report."""
    trained = Trained.open(model)
    return trained.export(out, pictures, options, restore_text(trained.folder, trained.vl))


def export_and_compare(
    model: Path, out: Path, pictures: Path, calibrate: Path | None, options: ExportOptions
) -> dict[str, Any]:
    """`export_again` on folders: compared on some of `pictures`, calibrated with other ones of `calibrate`."""
    compared = _spread([pictures / file.path for file in find_pictures(pictures)], PARITY_PICTURES)
    if calibrate is not None:
        others = [path for f in find_pictures(calibrate) if (path := calibrate / f.path) not in compared]
        if not others:
            raise DataError(f"{calibrate} has no pictures but those compared on: give more to calibrate with")
        chosen = _load(_spread(others, CALIBRATION_PICTURES))
        options = dataclasses.replace(options, calibration=chosen)
    return export_again(model, out, _load(compared), options)


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Up to `count` of the paths, evenly spread over all."""
    count = min(count, len(paths))
    return [paths[i * len(paths) // count] for i in range(count)]


def _load(paths: Sequence[Path]) -> list[Image.Image]:
    return [load_image(path, at_least=AT_LEAST) for path in paths]


def restore(folder: ModelFolder, vl: VisionLanguageModel) -> QueryModel:
    """The trained query side of a model folder. Raises ModelError if it belongs to another VL model or is damaged."""
    _require_vl(folder, vl)
    return _with_weights(folder, vl)


def _require_vl(folder: ModelFolder, vl: VisionLanguageModel, hint: str = "") -> None:
    trained_for = folder.config.vl
    if vl.record.fingerprint != trained_for.fingerprint:
        raise ModelError(
            f"{folder.path} was trained for VL model {trained_for.name} ({trained_for.fingerprint[:12]}), "
            f"this one is {vl.record.name} ({vl.record.fingerprint[:12]}){hint}"
        )


def _with_weights(folder: ModelFolder, vl: VisionLanguageModel, light: str | None = None) -> QueryModel:
    """The query side of `folder`; `light` is its light encoder at another side, if not its own."""
    config = folder.config
    folder.read(WEIGHTS)
    tensors, _ = state.load_tensors(folder.path / WEIGHTS)
    model = build_query_model(vl, light or config.light, config.learner, pretrained=False)
    try:
        model.load_state_dict(
            {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
        )
    except RuntimeError as error:
        raise ModelError(
            f"{folder.path / WEIGHTS} does not fit {CONFIG} and {vl.record.name}: {error}"
        ) from error
    return model


def write_model(
    vl: VisionLanguageModel,
    model: QueryModel,
    light: str,
    settings: TrainSettings,
    record: dict[str, Any],
    out: Path,
    pictures: Sequence[Image.Image],
    vl_name: str,
) -> dict[str, Any]:
    """`export` with int8 text, and with float text where int8 would drift too far."""
    try:
        return export(
            vl, model, light, settings, record, out, pictures, PARITY_TEXTS, ExportOptions(), vl_name
        )
    except DriftError:
        options = ExportOptions(int8_text=False)
        return export(vl, model, light, settings, record, out, pictures, PARITY_TEXTS, options, vl_name)


def _list_unreadable(collection: Collection, file: Path) -> None:
    """One "path: reason" a line, for those who want to know which pictures were left out."""
    file.unlink(missing_ok=True)
    if collection.unreadable:
        lines = [f"{path}: {reason}\n" for path, reason in collection.unreadable]
        file.write_text("".join(lines), encoding="utf-8", errors="replace")


def _vl_path(name: str) -> str:
    return str(bundled() / "vl") if name == BUNDLED_VL else name


def _first_model(request: TrainRequest, settings: TrainSettings, vl: VisionLanguageModel) -> QueryModel:
    torch.manual_seed(settings.seed)
    if request.start is None:
        return build_query_model(vl, request.light, settings.learner)
    folder = ModelFolder.open(request.start)
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
    start = None if request.start is None else ModelFolder.open(request.start).config.files.get(WEIGHTS)
    return {"light": request.light, "start": start}


def _with_bank(
    request: TrainRequest, vl: VisionLanguageModel
) -> tuple[TrainSettings, phrases.PhraseBank | None]:
    """The phrase bank that the settings need; the bundled VL model brings its own."""
    settings = request.settings
    if not (settings.modifier_weight or settings.caption_weight):
        return settings, None
    own = bundled() / "vl" if request.vl == BUNDLED_VL else Path()
    banks = request.phrases or (own / "phrases.txt",)
    asked = request.modifiers or (own / "modifiers.txt",)
    if not all(path.is_file() for path in (*banks, *asked)):
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
