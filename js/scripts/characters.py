"""Write src/characters.js: what the Python package `tokenizers` makes of every character, asked of it one by one.

    python js/scripts/characters.py > js/src/characters.js
    python js/scripts/characters.py --check js/src/characters.js

Its tables of punctuation, marks and formats are older than those of browsers, and browsers differ among themselves, so
that `\\p{P}` would split some words that Python does not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tokenizers.normalizers import NFD, BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

HEAD = """\
// Made by scripts/characters.py from the Python package `tokenizers`; do not edit.
// Ranges of code points as first, last, first, last ...
"""
WIDTH = 110


def ranges(points: Iterable[int]) -> list[tuple[int, int]]:
    """Sorted code points as inclusive ranges."""
    found: list[tuple[int, int]] = []
    for point in points:
        if found and found[-1][1] == point - 1:
            found[-1] = (found[-1][0], point)
        else:
            found.append((point, point))
    return found


def where(holds: Callable[[str], bool]) -> list[tuple[int, int]]:
    """Ranges of the characters for which it holds; surrogates are no characters."""
    return ranges(point for point in range(0x110000) if not 0xD800 <= point < 0xE000 and holds(chr(point)))


def bert(**on: bool) -> BertNormalizer:
    """A BertNormalizer that does one thing only."""
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return BertNormalizer(**{**off, **on})


def tables() -> dict[str, tuple[str, list[tuple[int, int]]]]:
    """Name -> what it is, and its ranges."""
    clean, strip, split, nfd = bert(clean_text=True), bert(strip_accents=True), BertPreTokenizer(), NFD()
    punctuation = where(lambda c: len(split.pre_tokenize_str(f"a{c}b")) == 3)
    return {
        "REMOVED": ("What clean_text leaves out.", where(lambda c: clean.normalize_str(c) == "")),
        "PUNCTUATION": ("What stands as a word of its own.", punctuation),
        "MARKS": ("Accents: what strip_accents leaves out.", where(lambda c: strip.normalize_str(c) == "")),
        "COMPOSED": ("What strip_accents takes apart first.", where(lambda c: nfd.normalize_str(c) != c)),
    }


def lines(numbers: Iterable[int]) -> Iterator[str]:
    """Hexadecimal numbers, wrapped."""
    line = " "
    for number in numbers:
        if len(line) + 11 > WIDTH:
            yield line
            line = " "
        line += f" {number:#x},"
    yield line


def script() -> str:
    """The whole file."""
    parts = [HEAD]
    for name, (says, found) in tables().items():
        flat = (number for pair in found for number in pair)
        parts += [
            f"\n/** {says} */\nexport const {name} = new Uint32Array([\n",
            "\n".join(lines(flat)),
            "\n]);\n",
        ]
    return "".join(parts)


def main() -> None:
    """Print the file, or compare it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--check", type=Path, metavar="FILE", help="fail unless the file is what would be printed"
    )
    wanted = parser.parse_args().check
    made = script()
    if wanted is None:
        print(made, end="")
    elif wanted.read_text(encoding="utf-8") != made:
        sys.exit(f"{wanted} is not what the installed tokenizers do: make it again")


if __name__ == "__main__":
    main()
