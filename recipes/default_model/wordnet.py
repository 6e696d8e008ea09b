"""Reads WordNet 3.0's files: synsets with glosses and broader synsets.

Debian has them in `wordnet-base` (/usr/share/wordnet); wndb(5WN) describes the format. The licence is
Princeton's, which is free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from image2sentence.errors import DataError

PARTS = ("noun", "verb", "adj", "adv")
FOLDER = Path("/usr/share/wordnet")
_VISIBLE = frozenset({5, 6, 8, 13, 15, 17, 18, 19, 20, 27})
# lexicographer files: animal, artifact, body, food, location, object, person, phenomenon, plant, substance
_SUBSTANCE = 27


@dataclass(frozen=True)
class Synset:
    """The words of one sense, the synsets right above it, and its gloss."""

    key: str
    words: tuple[str, ...]
    broader: tuple[str, ...]
    gloss: str
    visible: bool = False
    is_substance: bool = False


@dataclass(frozen=True)
class WordNet:
    """`synsets` by key; `senses` a noun's synsets, the most frequent first; `frequency` its count in texts."""

    synsets: dict[str, Synset]
    senses: dict[str, tuple[str, ...]]
    frequency: dict[str, int]

    @classmethod
    def read(cls, folder: Path = FOLDER) -> WordNet:
        """Raises DataError where a file is missing."""
        missing = [name for part in PARTS if not (folder / (name := f"data.{part}")).is_file()]
        if missing:
            raise DataError(
                f"expected WordNet's {', '.join(missing)} in {folder}: "
                "apt-get install wordnet-base, or --wordnet FOLDER"
            )
        synsets = {s.key: s for part in PARTS for s in _synsets(folder / f"data.{part}", part)}
        senses, frequency = {}, {}
        for fields in _lines(folder / "index.noun"):
            count = int(fields[2])
            word = fields[0].replace("_", " ")
            senses[word] = tuple(f"noun/{offset}" for offset in fields[-count:])
            frequency[word] = int(fields[-count - 1])
        return cls(synsets, senses, frequency)

    def above(self, key: str) -> list[str]:
        """All broader synsets, the nearest first, once each."""
        found: dict[str, None] = {}
        queue = list(self.synsets[key].broader)
        while queue:
            nearest = queue.pop(0)
            if nearest not in found:
                found[nearest] = None
                queue += self.synsets[nearest].broader
        return list(found)

    def synset_of(self, names: tuple[str, ...], taken: frozenset[str] = frozenset()) -> str | None:
        """The synset that has all these names and the fewest others and is not `taken`; None if none is."""
        wanted = {name.lower() for name in names}
        found = [
            key
            for key in self._holders.get(names[0].lower(), ())
            if key not in taken and wanted <= _lower(self.synsets[key])
        ]
        return min(found, key=lambda key: len(self.synsets[key].words)) if found else None

    @cached_property
    def _holders(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for key, synset in self.synsets.items():
            if key.startswith("noun/"):
                for word in _lower(synset):
                    found.setdefault(word, []).append(key)
        return found


def _lower(synset: Synset) -> set[str]:
    return {word.lower() for word in synset.words}


def _lines(path: Path) -> Iterator[list[str]]:
    """The fields of each line; the licence at the top is indented."""
    with path.open(encoding="latin-1") as file:
        for line in file:
            if not line.startswith(" "):
                yield line.split()


def _synsets(path: Path, part: str) -> Iterator[Synset]:
    with path.open(encoding="latin-1") as file:
        for line in file:
            if line.startswith(" "):
                continue
            head, _, gloss = line.partition(" | ")
            fields = head.split()
            count = int(fields[3], 16)
            words = tuple(word.partition("(")[0].replace("_", " ") for word in fields[4 : 4 + 2 * count : 2])
            pointers = fields[5 + 2 * count :]
            broader = tuple(
                f"noun/{pointers[i + 1]}" if part == "noun" else f"{part}/{pointers[i + 1]}"
                for i in range(0, 4 * int(fields[4 + 2 * count]), 4)
                if pointers[i] in ("@", "@i")
            )
            is_name = "@i" in pointers  # of a person, a place
            kind = int(fields[1]) if part == "noun" and not is_name else -1
            yield Synset(
                f"{part}/{fields[0]}", words, broader, gloss.strip(), kind in _VISIBLE, kind == _SUBSTANCE
            )
