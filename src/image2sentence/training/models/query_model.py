"""Query side that is trained: pixels to a sentence.

Three kinds of it are behind one interface.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from image2sentence.encoders.config import LearnerConfig, Preprocessing
from image2sentence.training.models.light_encoders import build_light
from image2sentence.training.models.token_learner import Sentence, build_learner
from image2sentence.training.vl.base import VisionLanguageModel

SYMMETRIC = "symmetric"


class QueryModel(nn.Module):
    """A light encoder and a token learner: pixels (B, 3, S, S) -> Sentence."""

    def __init__(self, light: nn.Module, learner: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.light, self.learner, self.preprocessing = light, learner, preprocessing

    def forward(self, pixels: Tensor) -> Sentence:
        sentence: Sentence = self.learner(self.light(pixels))
        return sentence


class FrozenTower(nn.Module):
    """The VL model's own visual tower as "light" encoder, frozen: the symmetric baseline.

    Of a tower with a layout head every place comes with the whole picture added, where alone that head speaks. Holds
    the tower without registering it, so that it is neither trained nor saved with the query side.
    """

    def __init__(self, vl: VisionLanguageModel) -> None:
        super().__init__()
        self._vl = [vl]

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self._vl[0].encode_images(pixels).patches
        side = math.isqrt(patches.shape[1])  # a class token, where there is one, comes first and is no place
        places = patches[:, -side * side :]
        if self._vl[0].whole_adds:
            places = places + patches[:, :1]
        return places.transpose(1, 2).unflatten(2, (side, side))


def build_query_model(
    vl: VisionLanguageModel, light: str, learner: LearnerConfig, *, pretrained: bool = True
) -> QueryModel:
    """A query side for `vl`; `light` is a name for `build_light`, or "symmetric".

    The learner is freshly initialised, and so is the light encoder unless its name says otherwise;
    `pretrained=False` ignores what the name says, for weights that are loaded next.
    """
    if light == SYMMETRIC:
        encoder: nn.Module = FrozenTower(vl)
        width, preprocessing = vl.patch_width, vl.preprocessing
    else:
        entry = build_light(light, pretrained=pretrained)
        encoder, width, preprocessing = entry, entry.width, entry.preprocessing
    return QueryModel(encoder, build_learner(learner, width, vl.word_width, vl.word_norm()), preprocessing)
