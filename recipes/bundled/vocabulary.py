"""The bundled model's tokenizer: every word that its captions use."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer

from recipes.bundled import language
from recipes.vocabulary import word_tokenizer


def build_tokenizer(records: Sequence[dict[str, str]], captions_each: int = 6) -> Tokenizer:
    """A tokenizer that knows every word the captions of `records` use; deterministic."""
    return word_tokenizer(_captions(records, captions_each, random.Random(0)))


def _captions(records: Sequence[dict[str, str]], each: int, rng: random.Random) -> Iterator[str]:
    for record in records:
        for turn in range(each):
            yield (language.edit(record, rng) if turn % 2 else language.describe(record, rng)).text
