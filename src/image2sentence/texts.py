"""Lists of short texts in files: phrases, modifiers, titles."""

from __future__ import annotations

from pathlib import Path

from image2sentence.errors import DataError


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a UTF-8 text file, once each, in order; runs of blanks as one.

    Raises DataError if there are none, or the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as UTF-8 text, one phrase a line: {error}") from error
    kept = list(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))
    if not kept:
        raise DataError(f"{path} holds no phrases; expected one a line")
    return kept
