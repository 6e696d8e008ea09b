"""Interface of a frozen vision-language model: three towers."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from image2sentence.encoders.config import Preprocessing, VLRecord
from image2sentence.encoders.template import Template
from image2sentence.errors import DataError, ModelError
from image2sentence.strict_json import to_dict

ABSENT = -1e4  # added to an attention score, it leaves a weight of zero even in half precision


@dataclass(frozen=True)
class ImageFeatures:
    """`vectors` (B, d) unit rows; `patches` (B, N, C) places, for cross-attention and local alignment."""

    vectors: Tensor
    patches: Tensor


@dataclass(frozen=True)
class Words:
    """Word-embedding rows and their attention bias: what a text tower reads instead of token ids.

    `embeddings` (B, T, w) float; `bias` (B, T) float, added to the attention scores towards each position: 0
    where a word is, `ABSENT` where none is, log(gate) for a gated pseudo-word.
    """

    embeddings: Tensor
    bias: Tensor

    def rows(self, chosen: Tensor, length: int) -> Words:
        """The `chosen` rows, their first `length` positions."""
        return Words(self.embeddings[chosen, :length], self.bias[chosen, :length])

    def slice(self, first: int, last: int) -> Words:
        """The rows from `first` up to `last`, which may be none."""
        return Words(self.embeddings[first:last], self.bias[first:last])


class VisionLanguageModel(nn.Module, ABC):
    """A frozen VL model. Its parameters never require gradients; it is always in evaluation mode.

    `width` d of the vectors, `word_width` w of word embeddings, `patch_width` C of patches; `max_length` is
    the most tokens the text tower reads, special tokens and sentence included; `start_tokens` of them stand
    before the words. `whole_adds`: the first of the patches, the whole picture, says what no place does. `temperature`
    is that of its own contrastive training, where its weights say it. `model` is transformers' own.
    """

    kind: ClassVar[str]
    has_matching: ClassVar[bool] = False
    start_tokens: ClassVar[int] = 1
    whole_adds: bool = False
    temperature: float | None = None
    width: int
    word_width: int
    patch_width: int
    max_length: int

    def __init__(
        self, model: Any, tokenizer: Tokenizer, preprocessing: Preprocessing, name: str, revision: str
    ) -> None:
        super().__init__()
        self.model = model.float()
        self.tokenizer, self.preprocessing = tokenizer, preprocessing
        self.record = VLRecord(name, revision, self.kind, weights_fingerprint(model, preprocessing))

    @abstractmethod
    def encode_images(self, pixels: Tensor, resized: bool = False) -> ImageFeatures:
        """Pixels (B, 3, S, S) float -> vectors and patches.

        `resized`: S is not the side that the tower was trained with; its position embeddings are interpolated.
        """

    @abstractmethod
    def place_vectors(self, patches: Tensor) -> Tensor:
        """Patches (B, N, C) -> (B, H * W, d) unit rows in the space of the vectors, one for each place.

        Each is what the picture's vector would be if pooling saw that place alone. A class token is left out.
        """

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, T) int64 -> word embeddings (B, T, w), without positions."""

    @abstractmethod
    def encode_words(self, words: Words) -> Tensor:
        """Words -> (B, d) unit rows."""

    def encode_rows(self, words: Words, group: int = 32) -> Tensor:
        """`encode_words`, on a CPU in groups of rows of like length, none read beyond the last word of its group.

        The vectors are the same: where texts differ in length, about a third of a batch is padding.
        """
        if words.bias.device.type != "cpu" or len(words.bias) <= group:
            return self.encode_words(words)
        places = torch.arange(1, words.bias.shape[1] + 1)
        lengths = ((words.bias > ABSENT / 2) * places).amax(1)
        order = lengths.argsort(stable=True)
        parts = [self.encode_words(words.rows(rows, int(lengths[rows].max()))) for rows in order.split(group)]
        return torch.cat(parts)[order.argsort()]

    def encode_both(
        self, sentences: Tensor, gates: Tensor, texts: list[str], template: Template
    ) -> tuple[Tensor, Tensor]:
        """Sentences (B, L, w) on their own -> (B, d), and the first n ≤ B of them with `texts` -> (n, d)."""
        if not texts:
            alone = self.encode_rows(self.compose(sentences, gates, [""] * len(sentences), template))
            return alone, alone[:0]
        both = self.compose_both(sentences, gates, texts, template)
        return self.encode_rows(both[0]), self.encode_rows(both[1])

    def compose_both(
        self, sentences: Tensor, gates: Tensor, texts: list[str], template: Template
    ) -> tuple[Words, Words]:
        """What `encode_both` reads; up to the end of the sentence both are the same."""
        some = len(texts)
        alone = self.compose(sentences, gates, [""] * len(sentences), template)
        return alone, self.compose(sentences[:some], gates[:some], texts, template)

    def match(self, words: Words, patches: Tensor) -> Tensor:
        """Words and patches (B, N, C) -> (B,) logit that they belong together. Only where `has_matching`."""
        raise ModelError(
            f"{self.record.name} ({self.record.kind}) has no matching encoder; use the local form of LAR"
        )

    def train(self, mode: bool = True) -> VisionLanguageModel:
        """Stays in evaluation mode, whatever a surrounding module switches to."""
        return super().train(False)

    def freeze(self) -> VisionLanguageModel:
        """Turns gradients off for every parameter, for good."""
        return self.requires_grad_(False).train(False)

    @torch.no_grad()
    def word_norm(self) -> float:
        """The median length of real word embeddings, which pseudo-words are scaled to."""
        ids = torch.arange(self.tokenizer.get_vocab_size(), device=self._device)
        return float(self.embed(ids[None])[0].float().norm(dim=-1).median())

    def tokenize(self, texts: Sequence[str], taken: int = 0) -> tuple[Tensor, Tensor]:
        """Texts -> ids (B, T) int64 and bias (B, T), padded to the longest, special tokens included.

        `taken` positions are reserved for a sentence. Raises DataError if a text does not fit beside it.
        """
        encoded = self.tokenizer.encode_batch(list(texts))
        length = max((len(e.ids) for e in encoded), default=0)
        if length + taken > self.max_length:
            raise DataError(_too_long(texts, [len(e.ids) for e in encoded], self.max_length - taken))
        ids = torch.zeros(len(encoded), length, dtype=torch.long)
        bias = torch.full((len(encoded), length), ABSENT)
        for row, e in enumerate(encoded):
            ids[row, : len(e.ids)] = torch.tensor(e.ids)
            bias[row, : len(e.ids)] = 0.0
        return ids, bias

    def words(self, texts: Sequence[str], taken: int = 0) -> Words:
        """Texts as words, with `taken` positions left free for a sentence to be inserted."""
        ids, bias = self.tokenize(texts, taken)
        return Words(self.embed(ids.to(self._device)), bias.to(self._device))

    def compose(self, sentences: Tensor, gates: Tensor, texts: list[str], template: Template) -> Words:
        """Sentences (B, L, w), gates (B, L) in (0, 1] and modifiers -> words, the sentence in by position."""
        tails = [" ".join(p for p in (template.prefix, template.tail(text)) if p) for text in texts]
        return insert(sentences, gates, self.words(tails, sentences.shape[1]), self.head_length(template))

    def head_length(self, template: Template) -> int:
        """How many tokens stand before the sentence: the start token, where there is one, and the prefix."""
        return self.start_tokens + len(self.tokenizer.encode(template.prefix, add_special_tokens=False).ids)

    def text_tower(self) -> TextTower:
        """The text encoder as it is exported: the vectors of `encode_words`, in the form that is fastest."""
        return WholeTextTower(self)

    def word_vectors(self, sentences: Tensor) -> Tensor:
        """Each pseudo-word of sentences (B, L, w), read on its own -> (B, L, d) unit rows."""
        alone = sentences.flatten(0, 1)[:, None]
        words = self.compose(alone, torch.ones_like(alone[..., 0]), [""] * len(alone), Template("", "", ""))
        return self.encode_words(words).reshape(*sentences.shape[:2], -1)

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device


class TextTower(nn.Module, ABC):
    """A text encoder as the exported graph has it: words in, unit rows (B, d) out.

    `forward` takes `masked=False` where every bias is known to be zero.
    """

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (B, T) -> word rows (B, T, v), v being the tower's own width of words."""

    def enter(self, sentences: Tensor) -> Tensor:
        """Pseudo-words (B, L, w) of the VL model's word-embedding space -> word rows (B, L, v)."""
        return sentences

    @abstractmethod
    def forward(self, words: Words, masked: bool = True) -> Tensor:
        """Words -> unit rows (B, d)."""


class WholeTextTower(TextTower):
    """A VL model's text tower as it is."""

    def __init__(self, vl: VisionLanguageModel) -> None:
        super().__init__()
        self.vl = vl

    def embed(self, ids: Tensor) -> Tensor:
        return self.vl.embed(ids)

    def forward(self, words: Words, masked: bool = True) -> Tensor:
        return self.vl.encode_words(words)


def insert(sentences: Tensor, gates: Tensor, words: Words, head: int) -> Words:
    """Pseudo-words (B, L, w) into `words` after the first `head` positions.

    A gate g adds log(g) to the attention towards its pseudo-word, which multiplies its unnormalised weight by
    g.
    """
    embeddings = torch.cat([words.embeddings[:, :head], sentences, words.embeddings[:, head:]], 1)
    bias = torch.cat([words.bias[:, :head], gates.clamp(min=1e-4).log(), words.bias[:, head:]], 1)
    return Words(embeddings, bias)


def _too_long(texts: Sequence[str], lengths: Sequence[int], room: int) -> str:
    over = [text for text, length in zip(texts, lengths, strict=True) if length > room]
    return (
        f"{len(over)} of {len(texts)} texts are longer than the {room} tokens there is room for, special "
        f"tokens included; shorten them, the first: {over[0][:80]!r}"
    )


def weights_fingerprint(module: nn.Module, preprocessing: Preprocessing) -> str:
    """SHA-256 over names, shapes and float32 values of all weights, and the preprocessing."""
    settings = to_dict(preprocessing)
    if not preprocessing.resize:
        del settings["resize"]  # models made before it was known keep their identity
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
