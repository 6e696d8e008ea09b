"""The documented cut-off for words, on real photographs of clothes."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from image2sentence import Gallery, load_encoder
from image2sentence.indexing.index_pictures import index_pictures
from image2sentence.query import Query, QueryEngine

PICTURES = 80
CUT_OFF = 4


def test_a_clear_thing_fits_better_than_one_that_is_not_there(shared_data: Path, tmp_path: Path) -> None:
    with open(shared_data / "clothing" / "labels.csv", encoding="utf-8") as file:
        files = [row["file"] for row in csv.DictReader(file)][:PICTURES]
    (tmp_path / "in").mkdir()
    for name in files:
        shutil.copy(shared_data / "clothing" / name, tmp_path / "in")
    encoder = load_encoder()
    with Gallery.create(tmp_path / "g", encoder.fingerprint, encoder.width) as gallery:
        index_pictures(tmp_path / "in", gallery, encoder)
        engine = QueryEngine(encoder, gallery)

        def fit(words: str) -> float:
            best = engine.rank(Query(words=words, k=1)).best_fit
            assert best is not None
            return best

        absent = [fit(words) for words in ("a bowl of soup", "a helicopter", "a horse", "a lamp")]
        there = [fit(words) for words in ("shoes", "shorts", "a t-shirt")]
    assert max(absent) < CUT_OFF
    assert min(there) > max(absent)
