"""Trained query sides: restoring and exporting them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from image2sentence.encoders.guide_files import hand_on_guide
from image2sentence.encoders.model_folder import CONFIG, WEIGHTS, ModelFolder, bundled
from image2sentence.encoders.scope import hand_on_scope
from image2sentence.errors import DataError, ModelError
from image2sentence.hub.find import find_model
from image2sentence.images import MIN_DECODE_SIDE, load_image
from image2sentence.strict_json import from_dict
from image2sentence.training import checkpoint as state
from image2sentence.training.adapted import take_over
from image2sentence.training.dataset import find_pictures
from image2sentence.training.export.model_folder import ExportOptions, export
from image2sentence.training.export.parity import DriftError
from image2sentence.training.models.query_model import QueryModel, build_query_model
from image2sentence.training.models.text_student import LightText
from image2sentence.training.settings import TrainSettings
from image2sentence.training.text_distillation import restore_text
from image2sentence.training.vl.base import VisionLanguageModel
from image2sentence.training.vl.load import load_vl

BUNDLED_VL = "bundled"
_log = logging.getLogger(__name__)


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
        folder = find_model(str(model))
        folder.require_light_side("an export")
        record = folder.config.vl
        vl = load_vl(_vl_path(record.name), None if record.revision == "local" else record.revision)
        if folder.config.origin is not None:
            take_over(vl, folder)
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

        Guiding phrases, a fallback and the scope go along; the report is about the graphs without them.
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
            self.folder if config.origin is not None else None,
        )
        hand_on_guide(self.folder, ModelFolder.open(out))
        if not hand_on_scope(self.folder, ModelFolder.open(out)):
            _log.warning(
                "%s has other gallery vectors than %s: what it knows has to be calibrated anew "
                "(python -m recipes.scope), until then index cannot tell when pictures lie outside of it",
                out,
                self.folder.path,
            )
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
    return [load_image(path, at_least=MIN_DECODE_SIDE) for path in paths]


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
    gallery: ModelFolder | None = None,
) -> dict[str, Any]:
    """`export` with int8 text, and with float text where int8 would drift too far."""

    def written(options: ExportOptions) -> dict[str, Any]:
        return export(
            vl,
            model,
            light,
            settings,
            record,
            out,
            pictures,
            PARITY_TEXTS,
            options,
            vl_name,
            gallery=gallery,
        )

    try:
        return written(ExportOptions())
    except DriftError:
        return written(ExportOptions(int8_text=False))


def _vl_path(name: str) -> str:
    return str(bundled() / "vl") if name == BUNDLED_VL else name
