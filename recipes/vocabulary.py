"""Word-level tokenizers for models trained here: a word never seen in training is known to be unknown.

A word-piece tokenizer whose vocabulary has no pieces: `[UNK]` then means "not understood" and the product can say so,
where byte or letter fallbacks would turn every unknown word into confident noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MAX_LENGTH = 48


def word_tokenizer(
    texts: Iterable[str], endings: Sequence[str] = (), whole: Set[str] = frozenset()
) -> Tokenizer:
    """A tokenizer that knows every word of `texts`, in alphabetical order after the special tokens.

    A word is also known with each of `endings`, such as "s"; one of `texts` that is another with an ending has no place
    of its own, unless it is among `whole`.
    """
    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    seen: set[str] = set()
    for text in texts:
        seen.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    ended = {word for word in seen - whole for end in endings if word.removesuffix(end) in seen - {word}}
    pieces = [f"##{end}" for end in endings]
    vocabulary = {word: index for index, word in enumerate([*SPECIALS, *sorted(seen - ended), *pieces])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=64))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer.add_special_tokens(list(SPECIALS))  # so that "[UNK]" in a training text is one token
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    return tokenizer
