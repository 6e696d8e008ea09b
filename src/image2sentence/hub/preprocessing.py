"""Preprocessing settings of published models, read into this package's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from image2sentence.encoders.config import Preprocessing
from image2sentence.errors import ConfigError, ModelError

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
_RESAMPLE = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
_PROCESSORS: dict[str, dict[str, Any]] = {
    "CLIP": {
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "resample": 3,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    },
    "Siglip": {
        "size": {"height": 224, "width": 224},
        "resample": 3,
        "image_mean": HALF,
        "image_std": HALF,
    },
    "Blip": {
        "size": {"height": 384, "width": 384},
        "resample": 3,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    },
    "ViT": {"size": {"height": 224, "width": 224}, "resample": 2, "image_mean": HALF, "image_std": HALF},
}
"""What an image processor of transformers does where its file does not say; by the beginning of its name."""


def of_processor(settings: Mapping[str, Any], where: str) -> Preprocessing:
    """From a `preprocessor_config.json` of transformers. Raises ModelError, naming `where`, on what is not known."""
    kind = str(settings.get("image_processor_type") or settings.get("feature_extractor_type") or "CLIP")
    defaults = next((own for name, own in _PROCESSORS.items() if kind.startswith(name)), {})
    values = {**defaults, **settings}
    if unknown := [
        name for name in ("size", "resample", "image_mean", "image_std") if values.get(name) is None
    ]:
        raise ModelError(f"{where} says no {unknown[0]}, and {kind} is a processor that is not known here")
    for name in ("do_resize", "do_rescale"):
        if not values.get(name, True):
            raise ModelError(f"{where} has {name} off: expected pictures to be resized and scaled to 0..1")
    if abs(float(values.get("rescale_factor", 1 / 255)) - 1 / 255) > 1e-9:
        raise ModelError(f"{where}: expected rescale_factor 1/255, got {values['rescale_factor']}")
    resized, squash = _resized(values["size"], kind, where)
    crop = _square(values.get("crop_size"), where) if values.get("do_center_crop") else None
    if not squash and crop is None:
        raise ModelError(
            f"{where} resizes the shorter side and crops nothing: graphs of any shape are not supported"
        )
    normalise = values.get("do_normalize", True)
    mean = tuple(map(float, values["image_mean"])) if normalise else (0.0, 0.0, 0.0)
    std = tuple(map(float, values["image_std"])) if normalise else (1.0, 1.0, 1.0)
    return _checked(resized, crop or resized, squash, _filter(values["resample"], where), mean, std, where)


def of_open_clip(settings: Mapping[str, Any], where: str, size: int | None = None) -> Preprocessing:
    """From open_clip's preprocessing (`preprocess_cfg`). `size` is the graph's, for settings without one."""
    given = settings.get("size", size)
    if given is None:
        raise ModelError(f"{where} says no size, and neither does the graph: expected a square's side")
    side = _square(given if isinstance(given, (list, tuple)) else int(given), where)
    mode = settings.get("resize_mode", "shortest")
    if mode not in ("shortest", "squash"):
        raise ModelError(f"{where}: expected resize_mode shortest or squash, got {mode!r}")
    resample = settings.get("interpolation", "bicubic")
    mean = tuple(map(float, settings.get("mean", CLIP_MEAN)))
    std = tuple(map(float, settings.get("std", CLIP_STD)))
    return _checked(side, side, mode == "squash", str(resample), mean, std, where)


def _checked(
    resized: int, size: int, squash: bool, resample: str, mean: Any, std: Any, where: str
) -> Preprocessing:
    try:
        return Preprocessing(
            size, "squash" if squash else "crop", resample, mean, std, 0 if resized == size else resized
        )
    except ConfigError as error:
        raise ModelError(f"{where}: {error}") from error


def _resized(size: Any, kind: str, where: str) -> tuple[int, bool]:
    """The side that is resized to, and whether both sides are."""
    if isinstance(size, Mapping) and size.get("shortest_edge"):
        return int(size["shortest_edge"]), False
    if isinstance(size, int):
        return size, not kind.startswith("CLIP")
    return _square(size, where), True


def _square(size: Any, where: str) -> int:
    if isinstance(size, Mapping) and "height" in size and "width" in size:
        size = (size["height"], size["width"])
    sides = [size] if isinstance(size, int) else list(size) if isinstance(size, (list, tuple)) else []
    if not sides or len(set(sides)) != 1 or not isinstance(sides[0], int):
        raise ModelError(f"{where}: expected a square such as 224 or height and width alike, got {size}")
    return int(sides[0])


def _filter(resample: Any, where: str) -> str:
    if resample not in _RESAMPLE:
        raise ModelError(
            f"{where}: expected resample 1 (lanczos), 2 (bilinear) or 3 (bicubic), got {resample!r}"
        )
    return _RESAMPLE[resample]
