"""timm's models as light encoders (optional): `timm:NAME`, with `@HUB_ID_OR_PATH` for pretrained weights."""

from __future__ import annotations

from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from torch import nn

from image2sentence.encoders.config import Preprocessing
from image2sentence.errors import ConfigError, ModelError
from image2sentence.training.hub import reading

_FILTERS = ("bilinear", "bicubic", "lanczos")


def timm_backbone(name: str, weights: str | None) -> tuple[nn.Module, Preprocessing]:
    """timm's model `name`, giving its last feature map, and the preprocessing it was made for.

    Raises ConfigError where timm or torchvision is missing or they do not fit torch, and on an unknown name
    or one without feature maps; ModelError where `weights` cannot be read.
    """
    timm = _import_timm()
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name[:8]}*")[:5]) or "see timm.list_models()"
        raise ConfigError(f"timm has no model {name!r}; near it: {near}")
    try:
        body = timm.create_model(name, features_only=True, out_indices=(-1,))
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"timm's {name} gives no feature maps ({error}); choose a convolutional one"
        ) from error
    if weights is not None:
        with reading(f"timm {name} weights", weights):
            body = timm.create_model(
                name,
                features_only=True,
                out_indices=(-1,),
                pretrained=True,
                pretrained_cfg_overlay=_overlay(weights),
            )
    return body, _preprocessing(timm.data.resolve_model_data_config(body))


def _import_timm() -> Any:
    """The module, or a ConfigError that says which package is missing or does not fit."""
    try:
        return import_module("timm")
    except ImportError as error:
        raise ConfigError(
            f"timm: light encoders need timm and torchvision, and one is missing ({error}). Install "
            f"'image2sentence[timm]', with the torchvision built for the torch you have ({_version('torch')}); "
            "or choose a light encoder without timm: in its name"
        ) from error
    except (RuntimeError, AttributeError, OSError) as error:
        raise ConfigError(
            f"timm is installed and cannot be imported ({error}): torchvision {_version('torchvision')} "
            f"does not fit torch {_version('torch')}. Install the torchvision that was built for this torch, from "
            "the same index that torch came from"
        ) from error


def _overlay(weights: str) -> dict[str, Any]:
    """Where timm is to read: a safetensors file, a folder with one, or a Hub repository."""
    path = Path(weights)
    if path.is_dir():
        path = path / "model.safetensors"
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ModelError(f"expected timm weights at {path}, and there is no such file")
        return {"file": str(path), "source": "file"}
    return {"hf_hub_id": weights, "source": "hf-hub"}


def _preprocessing(config: dict[str, Any]) -> Preprocessing:
    resample = config["interpolation"] if config["interpolation"] in _FILTERS else "bicubic"
    return Preprocessing(
        size=int(config["input_size"][-1]),
        resample=resample,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"
