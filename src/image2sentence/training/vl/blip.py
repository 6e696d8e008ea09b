"""BLIP (Li et al., ICML 2022) as the frozen model.

`Salesforce/blip-itm-base-coco`, and the bundled one.
"""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import BlipForImageTextRetrieval

from image2sentence.encoders.config import Preprocessing
from image2sentence.training.vl.base import ImageFeatures, TextTower, VisionLanguageModel, Words
from image2sentence.training.vl.lean_text import LeanTextTower


class BlipVL(VisionLanguageModel):
    """`BlipForImageTextRetrieval`: contrastive heads for vectors, a cross-attending encoder for matching."""

    kind = "blip"
    has_matching = True

    def __init__(
        self,
        model: BlipForImageTextRetrieval,
        tokenizer: Tokenizer,
        preprocessing: Preprocessing,
        name: str,
        revision: str,
    ) -> None:
        super().__init__(model, tokenizer, preprocessing, name, revision)
        text: Any = model.config.text_config
        vision: Any = model.config.vision_config
        self.width, self.word_width = model.config.image_text_hidden_size, text.hidden_size
        self.patch_width, self.max_length = vision.hidden_size, text.max_position_embeddings
        self.whole_adds = getattr(model.vision_model, "layout", None) is not None
        self.freeze()

    def encode_images(self, pixels: Tensor, resized: bool = False) -> ImageFeatures:
        seen = self.model.vision_model(pixel_values=pixels, interpolate_pos_encoding=resized)
        tokens = seen.last_hidden_state
        return ImageFeatures(functional.normalize(self.model.vision_proj(tokens[:, 0]), dim=-1), tokens)

    def place_vectors(self, patches: Tensor) -> Tensor:
        return functional.normalize(self.model.vision_proj(patches[:, 1:]), dim=-1)

    def embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.model.text_encoder.embeddings.word_embeddings(ids)
        return embedded

    def encode_words(self, words: Words) -> Tensor:
        return functional.normalize(self.model.text_proj(self._read(words)), dim=-1)

    def text_tower(self) -> TextTower:
        return LeanTextTower(self.model)

    def match(self, words: Words, patches: Tensor) -> Tensor:
        scores: Tensor = self.model.itm_head(self._read(words, encoder_hidden_states=patches))
        return scores[:, 1] - scores[:, 0]

    def _read(self, words: Words, **extra: Tensor) -> Tensor:
        """The first position's last state. BLIP adds positions to its input in place, hence the copy."""
        state: Tensor = self.model.text_encoder(
            inputs_embeds=words.embeddings.clone(), attention_mask=words.bias[:, None, None, :], **extra
        ).last_hidden_state
        return state[:, 0]
