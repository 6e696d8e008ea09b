"""Named training settings, each a JSON file beside this one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from image2sentence.errors import ConfigError
from image2sentence.strict_json import from_dict, read_json
from image2sentence.training.settings import TrainSettings

PRESETS = ("default", "paper", "laptop")


@dataclass(frozen=True)
class Preset:
    """A light encoder by name, and the settings that differ from the defaults.

    `about` says what it is for; `published` which of its values a publication gives, and `chosen` which none does.
    """

    about: str
    light: str
    settings: dict[str, Any]
    published: list[str] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)


def preset_file(name: str) -> Path:
    """The file of a preset. Raises ConfigError for an unknown name."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return Path(__file__).with_name(f"{name}.json")


def read_preset(name: str) -> Preset:
    """A preset, its settings checked. Raises ConfigError for an unknown name."""
    file = preset_file(name)
    preset = from_dict(Preset, read_json(file), str(file))
    from_dict(TrainSettings, preset.settings, f"{file}, settings")
    return preset
