"""CLIP (Radford et al., ICML 2021) as the frozen model.

`openai/clip-vit-large-patch14` and its kin.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel

from image2sentence.encoders.config import Preprocessing
from image2sentence.encoders.template import Template
from image2sentence.training.vl.base import ABSENT, ImageFeatures, VisionLanguageModel, Words
from image2sentence.training.vl.packed import Packed, pack, pack_both


class ClipVL(VisionLanguageModel):
    """`CLIPModel`: text is read causally, and its vector is the state at the end-of-text token.

    The sentence goes in after the start token, where all that follows, the end token above all, sees it.
    """

    kind = "clip"
    later: Tensor
    places: Tensor

    def __init__(
        self, model: CLIPModel, tokenizer: Tokenizer, preprocessing: Preprocessing, name: str, revision: str
    ) -> None:
        super().__init__(model, tokenizer, preprocessing, name, revision)
        text: Any = model.config.text_config
        vision: Any = model.config.vision_config
        self.width, self.word_width = model.visual_projection.out_features, text.hidden_size
        self.patch_width, self.max_length = vision.hidden_size, text.max_position_embeddings
        later = torch.full((self.max_length, self.max_length), ABSENT).triu(1)
        self.register_buffer("later", later, persistent=False)
        self.register_buffer("places", torch.arange(self.max_length), persistent=False)
        self.temperature = float((-model.logit_scale.detach()).exp())
        self.freeze()

    def encode_images(self, pixels: Tensor, resized: bool = False) -> ImageFeatures:
        output = self.model.vision_model(pixel_values=pixels, interpolate_pos_encoding=resized)
        vectors = functional.normalize(self.model.visual_projection(output.pooler_output), dim=-1)
        return ImageFeatures(vectors, output.last_hidden_state)

    def place_vectors(self, patches: Tensor) -> Tensor:
        states = self.model.vision_model.post_layernorm(patches[:, 1:])
        return functional.normalize(self.model.visual_projection(states), dim=-1)

    def embed(self, ids: Tensor) -> Tensor:
        embedded: Tensor = self.model.text_model.embeddings.token_embedding(ids)
        return embedded

    def encode_words(self, words: Words) -> Tensor:
        tower, length = self.model.text_model, words.embeddings.shape[1]
        mask = words.bias[:, None, None, :] + self.later[:length, :length]
        read = tower.encoder(
            inputs_embeds=tower.embeddings(inputs_embeds=words.embeddings), attention_mask=mask
        ).last_hidden_state
        # The end token stands where the words end; what is after it is padding.
        end = ((words.bias > ABSENT / 2) * self.places[:length]).amax(1)
        return self._projected(read.gather(1, end[:, None, None].expand(-1, 1, read.shape[2]))[:, 0])

    def encode_rows(self, words: Words, group: int = 32) -> Tensor:
        """`encode_words`, on a CPU in groups of rows without padding."""
        if words.bias.device.type != "cpu":
            return self.encode_words(words)
        firsts = range(0, len(words.bias), group)
        return torch.cat([self._encode_packed(pack(words.slice(first, first + group))) for first in firsts])

    def encode_both(
        self, sentences: Tensor, gates: Tensor, texts: list[str], template: Template, group: int = 32
    ) -> tuple[Tensor, Tensor]:
        """On a CPU each sentence is read once: the states of its tokens do not depend on what follows."""
        if sentences.device.type != "cpu" or not texts:
            return super().encode_both(sentences, gates, texts, template)
        words = self.compose_both(sentences, gates, texts, template)
        shared = self.head_length(template) + sentences.shape[1]
        alone, changed = [], []
        for first in range(0, len(sentences), group):
            own, more = (part.slice(first, first + group) for part in words)
            read = self._encode_packed(pack_both(own, more, shared))
            alone.append(read[: len(own.bias)])
            changed.append(read[len(own.bias) :])
        return torch.cat(alone), torch.cat(changed)

    def _encode_packed(self, packed: Packed) -> Tensor:
        tower = self.model.text_model
        placed = packed.embeddings + tower.embeddings.position_embedding(packed.places)
        read = tower.encoder(
            inputs_embeds=placed[None], attention_mask=packed.mask()[None, None]
        ).last_hidden_state
        return self._projected(read[0, packed.ends])

    def _projected(self, pooled: Tensor) -> Tensor:
        states = self.model.text_model.final_layer_norm(pooled)
        return functional.normalize(self.model.text_projection(states), dim=-1)
