"""The bundled model's table: the method alone is its main row, what ships is named so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the recipes need the [train] extra")

from image2sentence.catalogue import write_catalogue
from image2sentence.encoders import load_encoder
from image2sentence.evaluation.datasets.labels import load_catalogue
from image2sentence.evaluation.evaluate import evaluate_attributes
from image2sentence.images import load_image
from recipes.bundled.evaluate import PLAIN, has_variants, plain, table


def test_the_method_alone_has_no_share_no_phrases_and_no_fallback() -> None:
    encoder = load_encoder()
    alone = plain(encoder)
    assert has_variants(encoder)
    assert not has_variants(alone)
    assert alone.fingerprint == encoder.config.vl.fingerprint != encoder.fingerprint


def test_the_table_has_the_method_alone_first_and_what_ships_beside_it(tmp_path: Path) -> None:
    catalogue = load_catalogue(write_catalogue(tmp_path / "drawn", 40, 5))
    encoder = load_encoder()
    both = [evaluate_attributes(catalogue, one, "colour", "type") for one in (plain(encoder), encoder)]
    text = table({"drawn: colour": both[0]}, {"drawn: colour": both[1]})
    rows = [line.split(" | ")[2] for line in text.splitlines()[2:]]
    assert rows[:3] == ["image only", "text only", "image + text sum"]
    assert rows.index(PLAIN) < rows.index("as shipped: composed")
    assert rows[-3:] == [
        f"as shipped: {name}"
        for name in ("image + text sum", "composed", "composed, without guiding phrases")
    ]
    alone = both[0].row("composed").scores.percent()["recall@1"]
    (line,) = [line for line in text.splitlines() if f"| {PLAIN} |" in line]
    assert line.split(" | ")[3].startswith(f"{alone:.1f} (")
    images = [load_image(catalogue.path(row["file"])) for row in catalogue.rows[:2]]
    assert not np.allclose(plain(encoder).encode_images(images), encoder.encode_images(images))
