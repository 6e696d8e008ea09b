"""Pictures prepared as the models' own processors prepare them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from image2sentence.encoders.config import Preprocessing
from image2sentence.encoders.preprocess import fit, to_pixels
from image2sentence.errors import ConfigError

transformers = pytest.importorskip("transformers")

SIZES = [(64, 48), (61, 97), (500, 333), (333, 500), (32, 32), (100, 33), (7, 90), (225, 224), (31, 47)]
MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


def noise(size: tuple[int, int]) -> Image.Image:
    """A picture in which one wrong row shows."""
    return Image.fromarray(np.random.default_rng(size).integers(0, 256, (*size[::-1], 3), np.uint8))


@pytest.mark.parametrize(
    ("how", "settings"),
    [
        (
            Preprocessing(32, "crop"),
            {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
        ),
        (
            Preprocessing(32, "crop", resize=37),
            {"size": {"shortest_edge": 37}, "crop_size": {"height": 32, "width": 32}},
        ),
        (
            Preprocessing(32, "squash", "bilinear", resize=40),
            {
                "size": {"height": 40, "width": 40},
                "crop_size": {"height": 32, "width": 32},
                "resample": 2,
            },
        ),
        (Preprocessing(32), {"size": {"height": 32, "width": 32}, "do_center_crop": False}),
    ],
)
def test_pixels_equal_those_of_transformers(how: Preprocessing, settings: dict[str, Any]) -> None:
    own = transformers.CLIPImageProcessorPil(**settings, image_mean=MEAN, image_std=STD)
    ours = Preprocessing(how.size, how.fit, how.resample, MEAN, STD, how.resize)
    for size in SIZES:
        picture = noise(size)
        expected = np.asarray(own(picture, return_tensors="np")["pixel_values"])[0]
        assert np.abs(to_pixels([picture], ours)[0] - expected).max() < 1e-5, size


def test_the_longer_side_is_rounded_down() -> None:
    picture = noise((333, 500))
    resized = picture.resize((224, int(224 * 500 / 333)), Image.Resampling.BICUBIC)
    top = (resized.height - 224) // 2
    assert fit(picture, Preprocessing(224, "crop")) == resized.crop((0, top, 224, top + 224))


@pytest.mark.parametrize("resize", [-1, 31, 5000])
def test_a_side_that_the_middle_cannot_be_cut_from_is_refused(resize: int) -> None:
    with pytest.raises(ConfigError, match="resize"):
        Preprocessing(32, "crop", resize=resize)
