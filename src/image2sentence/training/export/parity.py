"""Parity of exported files with the trained models.

It is measured on real pictures and words.

Three looks, each at what the one before cannot see: cosines between the vectors of both, the share of the ten nearest
pictures that both name, and a benchmark with known answers asked through both.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image2sentence.catalogue import write_catalogue
from image2sentence.encoders.protocols import Encoder, SupportsMatching
from image2sentence.errors import ModelError
from image2sentence.evaluation.datasets.labels import load_catalogue
from image2sentence.evaluation.evaluate import COMPOSED, evaluate_attributes

FLOOR = 0.999
"""Least cosine of float graphs, stored in 16 bits or not."""
INT8_FLOOR = 0.99
"""Least cosine where the text tower computes in int8."""
STATIC_INT8_FLOORS = (0.8, 0.99)
"""Least and mean cosine of composed queries where the light encoder's convolutions compute in int8."""
OVERLAP_FLOOR = 0.9
"""Share of the ten nearest pictures that both must name."""
RECALL_FLOOR = -5.0
"""Largest fall of the benchmark's recall@1 and recall@10, in percentage points."""
TASK, KEPT, SEED = "colour", ("type", "pattern", "sleeve"), 7
_BLOCK = 8


class DriftError(ModelError):
    """An exported graph that answers differently from the torch model."""


@dataclass(frozen=True)
class Floors:
    """What an export must reach: cosines as (least, mean)."""

    gallery_image: tuple[float, float] = (FLOOR, FLOOR)
    composed_query: tuple[float, float] = (FLOOR, FLOOR)
    text_query: tuple[float, float] = (FLOOR, FLOOR)
    top10_overlap: float = OVERLAP_FLOOR
    recall: float = RECALL_FLOOR
    match: float = FLOOR

    @classmethod
    def of(cls, int8_text: bool, int8_image: bool, sentences: bool = False) -> Floors:
        """The floors of an export with these parts in int8, and with `sentences` in its gallery vectors."""
        text = (INT8_FLOOR, INT8_FLOOR) if int8_text else (FLOOR, FLOOR)
        composed = STATIC_INT8_FLOORS if int8_image else text
        gallery = composed if sentences else (FLOOR, FLOOR)
        return cls(gallery, composed_query=composed, text_query=text, match=composed[0])


def measure_parity(
    reference: Encoder, candidate: Encoder, pictures: Sequence[Image.Image], texts: Sequence[str]
) -> dict[str, Any]:
    """Cosines between both encoders' vectors of each kind, and how many of the ten nearest agree.

    Each of the n `pictures` is asked with one of the `texts`, in turn; empty texts are image searches. The ten nearest
    are those among the pictures themselves.
    """
    words = [texts[i % len(texts)] for i in range(len(pictures))]
    nonempty = [text for text in texts if text]
    galleries = [_in_blocks(encoder, pictures) for encoder in (reference, candidate)]
    composed = [e.encode_queries(e.encode_sentences(pictures), words) for e in (reference, candidate)]
    plain = [encoder.encode_queries(None, nonempty) for encoder in (reference, candidate)]
    scores = [queries @ gallery.T for queries, gallery in zip(composed, galleries, strict=True)]
    report = {
        "pictures": len(pictures),
        "gallery_image": cosines(*galleries),
        "composed_query": cosines(*composed),
        "text_query": cosines(*plain),
        "top10_overlap": round(_overlap(*scores), 4),
    }
    if (
        isinstance(reference, SupportsMatching)
        and isinstance(candidate, SupportsMatching)
        and candidate.can_match
    ):
        report["match"] = _agreement(
            *(_logits(encoder, pictures, words) for encoder in (reference, candidate))
        )
    return report


def _in_blocks(encoder: Encoder, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
    """Gallery vectors, few pictures at a time: a large tower's attention maps take memory."""
    blocks = [pictures[start : start + _BLOCK] for start in range(0, len(pictures), _BLOCK)]
    return np.concatenate([encoder.encode_images(block) for block in blocks])


def benchmark_change(reference: Encoder, candidate: Encoder, count: int) -> dict[str, Any]:
    """Composed queries for another colour in a drawn catalogue of `count` products, asked through both query sides.

    Both ask the gallery that `candidate` encodes. Recalls in percent; `change` is candidate - reference in percentage
    points, with the 95 % interval of a paired bootstrap.
    """
    with tempfile.TemporaryDirectory() as folder:
        catalogue = load_catalogue(write_catalogue(Path(folder, "drawn"), count, SEED, 224))
        asked = {"reference": reference, "exported": candidate}
        evaluation = evaluate_attributes(
            catalogue, candidate, TASK, KEPT, rows=[COMPOSED], composers=asked, queries_per_image=2
        )
    report: dict[str, Any] = {"task": f"drawn: {TASK} (kept: {', '.join(KEPT)})", "pictures": count}
    report["queries"] = len(evaluation.benchmark.queries)
    for metric in ("recall@1", "recall@10"):
        change = evaluation.compare("exported", "reference", metric)
        report[metric] = {
            "reference": round(evaluation.row("reference").scores.percent()[metric], 2),
            "exported": round(evaluation.row("exported").scores.percent()[metric], 2),
            "change": [round(value, 2) for value in (change.mean, change.low, change.high)],
        }
    return report


def check_parity(parity: dict[str, Any], floors: Floors) -> None:
    """Raises DriftError naming the first measure that is below its floor."""
    for name, least in _cosine_floors(floors).items():
        for measure, floor in zip(("min", "mean"), least, strict=True):
            if name in parity:
                _require(f"{measure} cosine of {name}", parity[name][measure], floor)
    _require("top10_overlap", parity["top10_overlap"], floors.top10_overlap)
    if "match" in parity:
        _require("correlation of match", parity["match"]["correlation"], floors.match)
    if "benchmark" in parity:
        for metric in ("recall@1", "recall@10"):
            change = parity["benchmark"][metric]["change"][0]
            _require(f"change of the benchmark's {metric}", change, floors.recall)


def _cosine_floors(floors: Floors) -> dict[str, tuple[float, float]]:
    own = {name: getattr(floors, name) for name in ("gallery_image", "composed_query", "text_query")}
    return own | {"fixed_query": floors.composed_query}


def _require(name: str, value: float, floor: float) -> None:
    if not value >= floor:
        raise DriftError(
            f"export refused: the graphs drift from torch ({name} is {value:.5g}, its floor {floor:g}); nothing "
            "written. Try more calibration pictures like those that will be asked with, or without int8 or half"
        )


def _logits(encoder: Any, pictures: Sequence[Image.Image], words: Sequence[str]) -> NDArray[np.float32]:
    """What the matching encoder says to each query with its own picture, and with the next one."""
    sentences, patches = encoder.encode_sentences(pictures), encoder.encode_patches(pictures)
    shifted = (patches, np.roll(patches, 1, axis=0))
    return np.concatenate([encoder.match(sentences, words, seen) for seen in shifted])


def _agreement(a: NDArray[np.float32], b: NDArray[np.float32]) -> dict[str, float]:
    """The correlation of two encoders' logits, and how far the two are apart at most."""
    return {
        "correlation": round(float(np.corrcoef(a, b)[0, 1]), 6),
        "max_difference": round(float(np.abs(a - b).max()), 6),
    }


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> dict[str, float]:
    """The least and the mean cosine of rows (n, d) and (n, d)."""
    cosines = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return {"min": round(float(cosines.min()), 6), "mean": round(float(cosines.mean()), 6)}


def _overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    k = min(10, a.shape[1])
    first, second = (np.argsort(-scores, axis=1)[:, :k] for scores in (a, b))
    return float(np.mean([len(set(x) & set(y)) / k for x, y in zip(first, second, strict=True)]))
