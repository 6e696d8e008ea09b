"""Result sheets of right and wrong cases, with attention maps."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from image2sentence.encoders.onnx_encoder import Explanation
from image2sentence.encoders.protocols import Encoder
from image2sentence.errors import ConfigError, DataError
from image2sentence.evaluation.evaluate import Evaluation
from image2sentence.evaluation.features import Opener
from image2sentence.evaluation.protocol import named, repeated
from image2sentence.evaluation.ranking import rank
from image2sentence.visualize.attention_maps import attention_sheet
from image2sentence.visualize.contact_sheet import Shown, contact_sheet, stack_sheets

PLACES = 10
CASES = 6


@runtime_checkable
class Explains(Protocol):
    """An encoder that can tell what its pseudo-words attend to."""

    def explain(self, image: Image.Image) -> Explanation:
        """One RGB picture's sentence with its attention maps and gates."""
        ...


@dataclass(frozen=True)
class Cases:
    """Numbers of queries, drawn at random: `right` have a right answer in the first place, `wrong` have not."""

    right: tuple[int, ...]
    wrong: tuple[int, ...]
    share_right: float


def draw_cases(evaluation: Evaluation, row: str, count: int = CASES, seed: int = 0) -> Cases:
    """`count` queries of each kind, or all there are, none chosen for its looks."""
    answers = [frozenset(query.answers) for query in evaluation.benchmark.queries]
    first = [ids[:1] for ids in evaluation.rankings(row, 1)]
    hit = np.array([bool(own.intersection(ids)) for own, ids in zip(answers, first, strict=True)])

    def drawn(numbers: Sequence[int], kind: str) -> tuple[int, ...]:
        return tuple(random.Random(f"{seed}/{kind}").sample(numbers, min(count, len(numbers))))

    right, wrong = np.flatnonzero(hit).tolist(), np.flatnonzero(~hit).tolist()
    return Cases(drawn(right, "right"), drawn(wrong, "wrong"), float(hit.mean()))


def result_sheet(
    evaluation: Evaluation, row: str, number: int, open_image: Opener, places: int = PLACES
) -> Image.Image:
    """One query's ranking, right answers framed; where none is among them, the best-placed one stands last.

    Args:
        evaluation: With its vectors.
        row: The row whose ranking is shown.
        number: Which of the benchmark's queries.
        open_image: Picture id -> RGB picture.
        places: Pictures shown, at least 1.
    """
    query = evaluation.benchmark.queries[number]
    ids, scores = _full_ranking(evaluation, row, number)
    right = [place for place, name in enumerate(ids) if name in query.answers]
    shown = list(range(min(places, len(ids))))
    if right and right[0] >= places:
        shown[-1] = right[0]
    results = [
        Shown(open_image(ids[place]), Path(ids[place]).name, scores[place], place in right, place + 1)
        for place in shown
    ]
    heading = f"{' / '.join(query.texts)}   ({_placed(right)})"
    return contact_sheet(open_image(query.reference), heading, results)


def write_pictures(
    evaluation: Evaluation,
    composers: Mapping[str, Encoder],
    open_image: Opener,
    out: Path,
    count: int = CASES,
    seed: int = 0,
) -> list[Path]:
    """Writes ROW-right.png, ROW-wrong.png and ROW-attention.png into `out` for every composed row.

    Returns the files written. A row without right (or wrong) cases gets no such file, an encoder that cannot explain
    itself no attention. Raises ConfigError where two rows would have the same files, OSError where `out` cannot be
    written.
    """
    if twice := repeated([_file_name(row) for row in composers]):
        raise ConfigError(
            f"two rows would be drawn into {named(twice)}: give them names that differ in letters"
        )
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for row, encoder in composers.items():
        cases = draw_cases(evaluation, row, count, seed)
        for kind, numbers in (("right", cases.right), ("wrong", cases.wrong)):
            if numbers:
                sheets = [result_sheet(evaluation, row, number, open_image) for number in numbers]
                written.append(_save(stack_sheets(sheets), out / f"{_file_name(row)}-{kind}.png"))
        if isinstance(encoder, Explains):
            references = [evaluation.benchmark.queries[n].reference for n in (*cases.right, *cases.wrong)]
            pictures = [open_image(name) for name in dict.fromkeys(references)]
            sheet = attention_sheet(pictures, [encoder.explain(picture) for picture in pictures])
            written.append(_save(sheet, out / f"{_file_name(row)}-attention.png"))
    return written


def _full_ranking(evaluation: Evaluation, row: str, number: int) -> tuple[list[str], list[float]]:
    """Every ranked picture of one query, best first, with its score."""
    searcher, vectors = evaluation.searcher, evaluation.row(row).vectors
    if searcher is None or vectors is None:
        raise DataError(f"row {row!r} was kept without its vectors: run the evaluation again")
    query = vectors[number : number + 1]
    alone = replace(evaluation.benchmark, queries=(evaluation.benchmark.queries[number],))
    ids = rank(searcher, alone, query, len(searcher))[0]
    return ids, (searcher.vectors_of(ids) @ query[0]).tolist()


def _placed(right: Sequence[int]) -> str:
    places = ", ".join(str(place + 1) for place in right[:4]) + (" ..." if len(right) > 4 else "")
    return f"{len(right)} right, at {places}" if right else "no right answer is ranked"


def _file_name(row: str) -> str:
    plain = "".join(letter if letter.isalnum() else "-" for letter in row)
    return "-".join(part for part in plain.split("-") if part) or "row"


def _save(sheet: Image.Image, path: Path) -> Path:
    sheet.save(path)
    return path
