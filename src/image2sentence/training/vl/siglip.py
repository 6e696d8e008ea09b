"""SigLIP (Zhai et al., ICCV 2023) as the frozen model.

`google/siglip-base-patch16-224` and its kin.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import SiglipModel

from image2sentence.encoders.config import Preprocessing
from image2sentence.training.vl.base import ABSENT, ImageFeatures, VisionLanguageModel, Words


class SiglipVL(VisionLanguageModel):
    """`SiglipModel`: every text is filled up to the native length with the pad token, which is read too.

    SigLIP was trained so: its text tower masks nothing, and a text's vector is the state at the last
    position, where padding nearly always stands. Absent positions of `Words` therefore become pad tokens
    here, whatever the batch, and every text costs the full length. There is no start token: the sentence
    comes first.
    """

    kind = "siglip"
    start_tokens = 0
    pad_token: Tensor

    def __init__(
        self,
        model: SiglipModel,
        tokenizer: Tokenizer,
        preprocessing: Preprocessing,
        name: str,
        revision: str,
        pad_token: int,
    ) -> None:
        super().__init__(model, tokenizer, preprocessing, name, revision)
        text: Any = model.config.text_config
        vision: Any = model.config.vision_config
        self.width, self.word_width, self.patch_width = (
            vision.hidden_size,
            text.hidden_size,
            vision.hidden_size,
        )
        self.max_length = text.max_position_embeddings
        self.register_buffer("pad_token", torch.tensor([[pad_token]]), persistent=False)
        self.temperature = float((-model.logit_scale.detach()).exp())
        self.freeze()

    def encode_images(self, pixels: Tensor, resized: bool = False) -> ImageFeatures:
        output = self.model.vision_model(pixel_values=pixels, interpolate_pos_encoding=resized)
        return ImageFeatures(functional.normalize(output.pooler_output, dim=-1), output.last_hidden_state)

    def place_vectors(self, patches: Tensor) -> Tensor:
        alone = self.model.vision_model.head(patches.flatten(0, 1)[:, None])
        return functional.normalize(alone, dim=-1).reshape(*patches.shape[:2], -1)

    def embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.model.text_model.embeddings.token_embedding(ids)
        return embedded

    def encode_words(self, words: Words) -> Tensor:
        tower, (embeddings, bias) = self.model.text_model, self._fill(words)
        read = tower.encoder(
            inputs_embeds=tower.embeddings(inputs_embeds=embeddings), attention_mask=bias[:, None, None, :]
        ).last_hidden_state
        return functional.normalize(tower.head(tower.final_layer_norm(read[:, -1])), dim=-1)

    def _fill(self, words: Words) -> tuple[Tensor, Tensor]:
        """Embeddings (B, max_length, w) with pad tokens where no word is, and their bias (B, max_length)."""
        rows = words.embeddings.shape[0]  # not len(): that would be a constant of the exported graph
        padding = self.embed(self.pad_token).expand(rows, self.max_length, -1).to(words.embeddings.dtype)
        embeddings = torch.cat([words.embeddings, padding], 1)[:, : self.max_length]
        bias = torch.cat([words.bias, torch.full_like(padding[..., 0], ABSENT)], 1)[:, : self.max_length]
        absent = bias <= ABSENT / 2
        return torch.where(absent[..., None], padding, embeddings), bias.masked_fill(absent, 0.0)
