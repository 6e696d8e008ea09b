"""The runtime's encoder: a model folder through ONNX Runtime. No torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from image2sentence.encoders.devices import CPU, chosen_device, providers
from image2sentence.encoders.memory import Plan, free_memory, plan
from image2sentence.encoders.model_folder import (
    GALLERY_IMAGE,
    MATCH,
    QUERY_IMAGE,
    QUERY_TEXT,
    TOKENIZER,
    ModelFolder,
    bundled,
)
from image2sentence.encoders.onnx_session import by_length, load_session, require_shapes, run
from image2sentence.encoders.phrase_guide import Guide
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.encoders.protocols import Vectors, with_sentences
from image2sentence.encoders.sum_fallback import SumFallback
from image2sentence.encoders.template import Template
from image2sentence.encoders.text_memory import TextMemory
from image2sentence.encoders.tokenizer_file import encode, read_tokenizer
from image2sentence.errors import ModelError, QueryError

_MAX_PARALLEL = 8
_SMALL = 32 * 2**20
"""Bytes of a graph up to which one query is fastest on one core (docs/device.md, "Threads")."""

_MAX_HELD = 64 * 2**20
"""Bytes of a graph up to which it is held in memory while it is checked and loaded."""

_TEXTS_KEPT = 256
MODEL_VARIABLE = "IMAGE2SENTENCE_MODEL"


@dataclass(frozen=True)
class Explanation:
    """What a sentence is made of: `tokens` (L, w), `attention` (L, H, W) maps that sum to 1, `gates` (L,) in 0..1."""

    tokens: Vectors
    attention: Vectors
    gates: Vectors


class OnnxEncoder:
    """A model folder as an `Encoder`. Each graph is loaded when first needed, so a query never loads the large one."""

    _read_by_words: tuple[str, ...] = ("_tokenizer", "_query_text")
    _read_by_pictures: tuple[str, ...] = (*_read_by_words, "_query_image", "_guide", "_fallback")

    def __init__(
        self, folder: ModelFolder, threads: int = 0, guided: bool = True, device: str | None = None
    ) -> None:
        """`threads` for ONNX Runtime's operators; 0: one for each core, and one for small graphs of the query side.

        `guided=False` leaves the model's guiding phrases out. `device` is what large graphs run on, as
        `load_encoder`'s.
        """
        self.folder, self.config = folder, folder.config
        self._threads = threads
        self._device = chosen_device(device)
        self._guided_by_phrases = guided
        self._template = Template.parse(self.config.template)
        self._memory: TextMemory | None = None

    def remember_texts(self, limit: int) -> None:
        """See `SupportsMemory.remember_texts`."""
        self._memory = TextMemory(limit)

    @property
    def fingerprint(self) -> str:
        """See `Encoder.fingerprint`."""
        return self.config.fingerprint

    @property
    def width(self) -> int:
        """See `Encoder.width`."""
        return self.config.width

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """n RGB pictures -> (n, d) float32 unit rows, through the large visual encoder.

        With v its vector, T(s) that of the picture's own sentence and a the model's `sentence_share`, a row is
        unit((1 - a) v + a T(s)). Queries are made of sentences, and what the light encoder mistakes in the reference it
        mistakes in the right answer, too (docs/method.md, "Sentence share").
        """
        return self._gallery_vectors(self._gallery_image, [self.prepare(image) for image in images])

    @property
    def parallel(self) -> int:
        """See `SupportsPreparing.parallel`: batches side by side on a few cores each are faster than one on all.

        Fewer where memory is short, and one at a time on other devices than the processor.
        """
        return self._plan.calls

    @cached_property
    def _plan(self) -> Plan:
        path = self.folder.path / GALLERY_IMAGE
        graph = path.stat().st_size if path.is_file() else 0
        alone = len(providers(self._device)) > 1
        calls = 1 if alone else min(self._threads or os.cpu_count() or 1, _MAX_PARALLEL)
        return plan(graph, self.config.gallery_preprocessing.size, calls, free_memory())

    def prepare(self, image: Image.Image) -> NDArray[np.float32]:
        """An RGB picture -> (3, s, s) float32, the large visual encoder's input.

        Where the light encoder sees gallery pictures, too, and sees them otherwise, both inputs in one row of numbers.
        """
        pixels: NDArray[np.float32] = to_pixels([image], self.config.gallery_preprocessing)[0]
        if not self._sees_twice:
            return pixels
        return np.concatenate([pixels.ravel(), to_pixels([image], self.config.query_preprocessing).ravel()])

    def encode_prepared(self, rows: Sequence[NDArray[np.float32]]) -> Vectors:
        """n prepared pictures -> (n, d) float32 unit rows, on the share of the cores that `parallel` calls leave."""
        return self._gallery_vectors(self._gallery_image_share, rows)

    def _gallery_vectors(self, session: Any, rows: Sequence[NDArray[np.float32]]) -> Vectors:
        if not rows:
            return np.empty((0, self.width), np.float32)
        large = light = np.stack(rows)
        if self._sees_twice:
            first, second = self.config.gallery_preprocessing.size, self.config.query_preprocessing.size
            large, light = large[:, : 3 * first**2], light[:, 3 * first**2 :]
            large, light = large.reshape(-1, 3, first, first), light.reshape(-1, 3, second, second)
        few = self._plan.rows
        parts = [
            run(session, "vectors", {"pixels": large[at : at + few]}) for at in range(0, len(large), few)
        ]
        vectors = _unit(np.concatenate(parts))
        share = self.config.sentence_share
        if not share:
            return vectors
        sentences = self._query_image.run(None, {"pixels": light})[0]
        # One at a time: an int8 text graph takes its ranges from the whole batch, and a picture's gallery vector must
        # not depend on which pictures came with it.
        sentence_embeddings = np.concatenate(
            [self._embed_sentences(sentence[None]) for sentence in sentences]
        )
        return with_sentences(vectors, sentence_embeddings, share)

    @property
    def _sees_twice(self) -> bool:
        """Whether a gallery picture is prepared for each of the two encoders on its own."""
        config = self.config
        return bool(config.sentence_share) and config.gallery_preprocessing != config.query_preprocessing

    def _embed_sentences(self, sentences: Vectors) -> Vectors:
        """(n, d) float32 unit rows of n sentences without words."""
        return self._encode_alone(*self._text_inputs(sentences, [""] * len(sentences)))

    def encode_sentences(self, images: Sequence[Image.Image]) -> Vectors:
        """n RGB pictures -> (n, L, w) float32 pseudo-words, w being `config.sentence_width`."""
        return self._sentences(images)[0]

    def explain(self, image: Image.Image) -> Explanation:
        """One RGB picture's sentence with its attention maps and gates."""
        tokens, attention, gates = self._sentences([image])
        return Explanation(tokens[0], attention[0], gates[0])

    def encode_queries(self, sentences: Vectors | None, texts: Sequence[str]) -> Vectors:
        """Sentences (n, L, w) and n modifiers -> (n, d) float32 unit rows; texts of one length are read together.

        Sentences may have fewer than L rows: pseudo-tokens that are left out have no effect. Guiding phrases count
        where there is a sentence with words, unless these are half as long as the text encoder reads; a fallback asks
        for the weighted sum where words are unlike those of training.

        `sentences=None` is text-to-image search. Raises QueryError where neither picture nor words are given, where
        counts differ, or where a text is longer than the text encoder reads.
        """
        inputs = self._text_inputs(sentences, texts)
        if sentences is None and len(texts) == 1:
            return self._encode_alone(*inputs)
        vectors = self._encode_ids(*inputs)
        if sentences is not None:
            self._guide_rows(vectors, texts, lambda rows: self._embed_sentences(sentences[rows]))
        if sentences is not None and self._fallback is not None:
            rows = [row for row, text in enumerate(texts) if text.strip()]
            vectors[rows] = self._with_fallback(
                self._fallback, vectors[rows], sentences[rows], [texts[row] for row in rows]
            )
        return vectors

    def _with_fallback(
        self, fallback: SumFallback, composed: Vectors, sentences: Vectors, texts: Sequence[str]
    ) -> Vectors:
        if not texts:
            return composed
        words = self._encode_alone(*self._text_inputs(None, texts))
        return fallback.apply(composed, words, lambda rows: self._embed_sentences(sentences[rows]))

    def _guide_rows(
        self, queries: Vectors, texts: Sequence[str], own: Callable[[Sequence[int]], Vectors]
    ) -> None:
        """Puts the guide's part into queries (n, d); `own` gives rows' references without words, (k, d) unit rows."""
        if self._guide is None:
            return
        if rows := [row for row, text in enumerate(texts) if text.strip() and self._is_short(text)]:
            asked, read = [texts[row] for row in rows], lambda said: self.encode_queries(None, said)
            queries[rows] = _unit(self._guide.apply(queries[rows], own(rows), asked, read))

    def check_phrase(self, phrase: str) -> None:
        """Raises QueryError for a phrase that leaves no room for words beside it."""
        if not self._is_short(phrase):
            room = self.config.max_length // 2
            raise QueryError(
                f"a guiding phrase may have {room} tokens, half of what the model reads: {phrase!r}"
            )

    def _is_short(self, text: str) -> bool:
        return len(self._token_ids(text)) <= self.config.max_length // 2

    def _text_inputs(
        self, sentences: Vectors | None, texts: Sequence[str]
    ) -> tuple[Vectors, list[Sequence[int]]]:
        """Sentences (n, L or 0, w) and the token ids that stand around them."""
        if sentences is None:
            sentences = np.empty((len(texts), 0, self.config.sentence_width), np.float32)
            if any(not text.strip() for text in texts):
                raise QueryError("expected a picture, words, or both; got neither")
            ids = [self._plain_ids(text) for text in texts]
        else:
            self._check_sentences(sentences, len(texts))
            ids = [self._composed_ids(text) for text in texts]
        return np.asarray(sentences, np.float32), ids

    @property
    def is_guided(self) -> bool:
        """Whether guiding phrases are applied to queries."""
        return self._guided_by_phrases and self.config.guide is not None

    def unguided(self) -> OnnxEncoder:
        """The same model without its guiding phrases."""
        return type(self)(self.folder, self._threads, False, self._device)

    def without_sentences(self) -> OnnxEncoder:
        """The same model with gallery vectors of the VL model alone: the space that all its query sides share."""
        if not self.config.sentence_share:
            return self
        config = replace(
            self.config, sentence_share=0.0, fingerprint=self.config.vl.fingerprint, space_settings=""
        )
        folder = ModelFolder(self.folder.path, config)
        return type(self)(folder, self._threads, self._guided_by_phrases, self._device)

    def load(self, *, pictures: bool, words: bool) -> None:
        """See `SupportsLoading.load`."""
        for part in (*(self._read_by_pictures if pictures else ()), *(self._read_by_words if words else ())):
            getattr(self, part)

    @property
    def can_match(self) -> bool:
        """See `SupportsMatching.can_match`."""
        return MATCH in self.config.files

    def encode_patches(self, images: Sequence[Image.Image]) -> Vectors:
        """n RGB pictures, at least one -> (n, N, C) float32 patch features. Raises ModelError without a match graph."""
        self._require_match()
        return self._seen("patches", images)

    def match(self, sentences: Vectors | None, texts: Sequence[str], patches: Vectors) -> Vectors:
        """n queries and patches (n, N, C) -> (n,) float32 logits that they belong together.

        Raises QueryError as `encode_queries` does, and ModelError without a match graph.
        """
        self._require_match()
        sentences, ids = self._text_inputs(sentences, texts)
        logits = np.empty(len(ids), np.float32)
        for rows, feed in by_length(sentences, ids):
            (logits[rows],) = self._match.run(None, feed | {"patches": patches[rows]})
        return logits

    def _require_match(self) -> None:
        if not self.can_match:
            raise ModelError(
                f"{self.folder.path} has no {MATCH}: export the model with --matching, if its vision-language model "
                "has a matching encoder"
            )

    def _seen(self, output: str, images: Sequence[Image.Image]) -> Vectors:
        pixels = to_pixels(images, self.config.gallery_preprocessing)
        return run(self._gallery_image, output, {"pixels": pixels})

    def unknown_words(self, text: str) -> list[str]:
        """The words of `text` that the model's vocabulary does not have, in order, once each."""
        return list(self._unknown_words(text))

    @cached_property
    def _unknown_words(self) -> Callable[[str], tuple[str, ...]]:
        unknown = self._tokenizer.token_to_id("[UNK]")  # None: vocabularies of pieces can read everything

        @lru_cache(_TEXTS_KEPT)
        def words(text: str) -> tuple[str, ...]:
            encoding = encode(self._tokenizer, text, special=False)
            read = zip(encoding.ids, encoding.offsets, strict=True) if unknown is not None else ()
            return tuple(dict.fromkeys(text[a:b] for i, (a, b) in read if i == unknown))

        return words

    def known_words(self) -> tuple[str, ...]:
        """The words of the model's vocabulary, sorted; without pieces, numbers and signs."""
        return self._words

    def _sentences(self, images: Sequence[Image.Image]) -> tuple[Vectors, Vectors, Vectors]:
        pixels = to_pixels(images, self.config.query_preprocessing)
        tokens, attention, gates = self._query_image.run(None, {"pixels": pixels})
        return tokens, attention, gates

    def _encode_alone(self, sentences: Vectors, ids: Sequence[Sequence[int]]) -> Vectors:
        """`_encode_ids` of sentences or words alone, which other queries have, too."""
        if self._memory is None or not ids:
            return self._encode_ids(sentences, ids)
        return self._memory.vectors(sentences, ids, self._encode_ids)

    def _encode_ids(self, sentences: Vectors, ids: Sequence[Sequence[int]]) -> Vectors:
        """Rows of equal length in one call: no padding, so nothing is computed for words that are not there."""
        graph = self._query_text  # before there is room for what it gives, which it is checked against
        vectors = np.empty((len(ids), self.width), np.float32)
        for rows, feed in by_length(sentences, ids):
            vectors[rows] = run(graph, "vectors", feed)
        return _unit(vectors)

    def _plain_ids(self, text: str) -> Sequence[int]:
        return self._checked(self._token_ids(text), 0, text)

    def _composed_ids(self, text: str) -> Sequence[int]:
        parts = (self._template.prefix, self._template.tail(text))
        words = " ".join(part for part in parts if part)
        ids = self._token_ids(self._gap + words if words and not parts[0] else words)
        return self._checked(ids, self.config.learner.tokens, text)

    def _checked(self, ids: Sequence[int], extra: int, text: str) -> Sequence[int]:
        room = self.config.max_length - extra
        if len(ids) > room:
            raise QueryError(
                f"the words are too long: {len(ids)} tokens, room for {room}; shorten {text[:60]!r}"
            )
        return ids

    def _check_sentences(self, sentences: Vectors, texts: int) -> None:
        max_rows, width = self.config.learner.tokens, self.config.sentence_width
        shape = sentences.shape
        if len(shape) != 3 or (shape[0], shape[2]) != (texts, width) or not 1 <= shape[1] <= max_rows:
            raise QueryError(
                f"expected sentences of shape ({texts}, 1 to {max_rows}, {width}) for {texts} texts, got {shape}"
            )

    @cached_property
    def _words(self) -> tuple[str, ...]:
        return tuple(sorted(token for token in self._tokenizer.get_vocab() if token.isalpha()))

    @cached_property
    def _gap(self) -> str:
        """What stands before words after a sentence: a blank, where the tokenizer reads a first word otherwise."""

        def ids(text: str) -> list[int]:
            read: list[int] = encode(self._tokenizer, text, special=False).ids
            return read

        return " " if ids("a b") == ids("a") + ids(" b") != ids("a") + ids("b") else ""

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = read_tokenizer(self.folder.read(TOKENIZER), self.folder.path / TOKENIZER)
        tokenizer.encode_special_tokens = True  # a user's "[SEP]" is text
        return tokenizer

    @cached_property
    def _token_ids(self) -> Callable[[str], tuple[int, ...]]:
        """Token ids of a text, which a query needs several times."""
        tokenizer = self._tokenizer
        return lru_cache(_TEXTS_KEPT)(lambda text: tuple(encode(tokenizer, text).ids))

    @cached_property
    def _guide(self) -> Guide | None:
        return Guide.read(self.folder) if self._guided_by_phrases else None

    @cached_property
    def _fallback(self) -> SumFallback | None:
        return SumFallback.read(self.folder)

    @cached_property
    def _gallery_image(self) -> Any:
        return self._session(GALLERY_IMAGE, spin=False)  # a lone picture: what comes after it needs the cores

    @cached_property
    def _gallery_image_share(self) -> Any:
        if self.parallel == 1:
            return self._gallery_image
        return self._session(GALLERY_IMAGE, max(1, (self._threads or os.cpu_count() or 1) // self.parallel))

    @cached_property
    def _query_image(self) -> Any:
        return self._query_session(QUERY_IMAGE)

    @cached_property
    def _query_text(self) -> Any:
        return self._query_session(QUERY_TEXT)

    @cached_property
    def _match(self) -> Any:
        return self._session(MATCH)

    def _session(self, name: str, threads: int | None = None, spin: bool = True) -> Any:
        threads = self._threads if threads is None else threads
        session = load_session(self.folder.path / name, self._content(name), threads, spin, self._device)
        require_shapes(session, self.folder.path, name, self.config)
        return session

    def _query_session(self, name: str) -> Any:
        """A graph for one query at a time. Its threads sleep after it: spinning, they slow down what follows."""
        content = self._content(name)
        small = content is not None and len(content) <= _SMALL
        device = CPU if small else self._device
        session = load_session(self.folder.path / name, content, self._threads or int(small), False, device)
        require_shapes(session, self.folder.path, name, self.config)
        return session

    def _content(self, name: str) -> bytes | None:
        """A checked graph's bytes; None for a large one, which is read from its file."""
        path = self.folder.path / name
        if path.is_file() and path.stat().st_size > _MAX_HELD:
            self.folder.checked_path(name)
            return None
        return self.folder.read(name)


def load_encoder(
    model: str | os.PathLike[str] | None = None,
    threads: int = 0,
    revision: str | None = None,
    device: str | None = None,
    space: str | None = None,
) -> OnnxEncoder:
    """The encoder of a model folder: the one given, else $IMAGE2SENTENCE_MODEL, else the one inside the package.

    A name that is no folder here is a model on the Hub, "org/name", at `revision` or
    as "org/name@revision"; a folder may be in any layout that is known (`image2sentence.hub`). `device` is "auto",
    "cpu", "cuda", "directml", "coreml", "openvino" or "rocm"; None: $IMAGE2SENTENCE_DEVICE, else "auto". `space` is a
    gallery's fingerprint: where no model is named, the one that made the gallery, if it is on this machine. Raises
    ModelError where there is no such model, and ConfigError for an unknown device.
    """
    folder = _folder(model or os.environ.get(MODEL_VARIABLE), revision, space)
    if folder.config.composition is None:
        return OnnxEncoder(folder, threads, device=device)
    from image2sentence.encoders.composition import TrainingFreeEncoder

    return TrainingFreeEncoder(folder, threads, device=device)


def _folder(name: str | os.PathLike[str] | None, revision: str | None, space: str | None) -> ModelFolder:
    if not name:
        starter = ModelFolder.open(bundled())
        if space in (None, starter.config.fingerprint):
            return starter
    from image2sentence.hub.find import find_for_space, find_model  # reaches for the network's modules

    return find_model(os.fspath(name), revision) if name else find_for_space(str(space)) or starter


def _unit(rows: NDArray[np.float32]) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)
