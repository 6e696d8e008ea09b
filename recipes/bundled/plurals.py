"""Third stage of the bundled VL model: nouns in the plural, and American spelling, read as what is known already.

    python -m recipes.bundled.plurals --vl runs/vl --data ../shared/data

Captions speak of one thing at a time, so a vocabulary of their words has "jacket" and no "jackets", and what a shop
calls its departments would not be understood. Every noun gets its other number as a word of its own with the same
embedding: both are read alike to the bit, and nothing is trained. So do words that are spelt otherwise in America.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import click
import inflect
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import BlipForImageTextRetrieval

from image2sentence.training.vl.load import load_vl
from recipes.bundled import data, words
from recipes.towers import save_model

SPELLINGS = {
    "color": "colour",
    "colors": "colour",
    "colours": "colour",
    "checkered": "chequered",
    "stripy": "striped",
}
NOT_NOUNS = {"away", "bald", "done", "down", "foggy", "green", "left", "no", "off", "ok", "on", "right"}
NOT_NOUNS |= {"struck", "together", "up"}


def last_words(names: Iterable[str]) -> set[str]:
    """What the things of these names are: "shoe" of "a sports shoe"."""
    last = {name.lower().replace("-", " ").split()[-1] for name in names}
    return {word for word in last - NOT_NOUNS if word.isalpha() and not word.endswith(("ing", "ed", "ly"))}


def read_alike(records: Iterable[dict[str, str]], known: Iterable[str]) -> dict[str, str]:
    """Unknown words -> the known ones that they shall be read as, in order.

    Plurals of garments, patterns and of the emoji in `records`; singulars of garments and patterns ("a stripe");
    `SPELLINGS`.
    """
    english, known = inflect.engine(), set(known)
    names = [name for said in words.SYNONYMS["type"].values() for name in said]
    worn = last_words([*names, *words.PATTERN_NOUNS.values()])
    found = {new: old for new, old in SPELLINGS.items() if old in known and new not in known}
    for noun in sorted((worn | last_words(record["thing"] for record in records)) & known):
        one = "" if noun.endswith(("ss", "us")) else english.singular_noun(noun)
        other = (noun in worn and one) if one else english.plural_noun(noun)
        if other and other not in known:
            found[other] = noun
    return found


def add_words(model: BlipForImageTextRetrieval, tokenizer: Tokenizer, same_as: dict[str, str]) -> Tokenizer:
    """Gives the model a row for each new word, that of the known word it is the same as; returns its tokenizer."""
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    rows = [vocabulary[known] for known in same_as.values()]
    vocabulary |= {word: len(vocabulary) + place for place, word in enumerate(same_as)}
    embeddings = model.text_encoder.embeddings
    old = embeddings.word_embeddings.weight.data
    embeddings.word_embeddings = nn.Embedding.from_pretrained(
        torch.cat([old, old[rows]]), freeze=False, padding_idx=embeddings.word_embeddings.padding_idx
    )
    model.config.text_config.vocab_size = len(vocabulary)
    return Tokenizer.from_str(json.dumps(content))


@click.command()
@click.option("--vl", "run", type=click.Path(path_type=Path), default=Path("runs/vl"))
@click.option("--data", "folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--out", type=click.Path(path_type=Path), help="If not RUN/model itself.")
def main(run: Path, folder: Path, out: Path | None) -> None:
    """Reads RUN/model and writes it with more words; with all of them already there, as it was."""
    vl = load_vl(str(run / "model"))
    records = [record for _, record in data.emoji_records(folder, held=False)]
    same_as = read_alike(records, vl.tokenizer.get_vocab())
    tokenizer = add_words(vl.model, vl.tokenizer, same_as)
    save_model(vl.model, tokenizer, out or run / "model", vl.preprocessing.size)
    click.echo(f"{len(same_as)} words more: {', '.join(same_as)}")


if __name__ == "__main__":
    main()
