"""One query vector from pictures and words, and an engine that answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes import FakeEncoder
from image2sentence.errors import GalleryError, ImageError, QueryError
from image2sentence.gallery import Gallery, index_pictures
from image2sentence.query import Answer, QueryEngine, compose

COLOURS = ("red", "blue", "lime", "white")


def plain(colour: str) -> Image.Image:
    """A picture of one colour."""
    return Image.new("RGB", (40, 30), colour)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[QueryEngine]:
    """An engine over one picture of each colour, and a copy of the red one."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for colour in COLOURS:
        plain(colour).save(photos / f"{colour}.png")
    (photos / "red again.png").write_bytes((photos / "red.png").read_bytes())
    encoder = FakeEncoder()
    with Gallery.create(tmp_path / "gallery", encoder.fingerprint, encoder.width) as gallery:
        index_pictures(photos, gallery, encoder)
        yield QueryEngine(encoder, gallery)


def names(answer: Answer) -> list[str]:
    """The results' names without ending, best first."""
    return [result.path.stem for result in answer.results]


def test_words_alone_are_text_search() -> None:
    encoder = FakeEncoder()
    assert np.array_equal(compose(encoder, [], "red"), encoder.encode_queries(None, ["red"]))


def test_several_pictures_are_the_mean_of_their_composed_vectors() -> None:
    encoder = FakeEncoder()
    both = compose(encoder, [plain("red"), plain("blue")], "bright")
    each = [compose(encoder, [plain(colour)], "bright") for colour in ("red", "blue")]
    mean = (each[0] + each[1]) / 2
    assert both.shape == (1, encoder.width)
    assert both.dtype == np.float32
    np.testing.assert_allclose(both, mean / np.linalg.norm(mean), atol=1e-6)


def test_pictures_that_cancel_out_are_refused() -> None:
    class Opposite(FakeEncoder):
        width = 2

        def encode_queries(self, sentences: object, texts: object) -> np.ndarray:
            return np.array([[1, 0], [-1, 0]], np.float32)

    with pytest.raises(QueryError, match="nothing in common"):
        compose(Opposite(), [plain("red"), plain("blue")], "")


@pytest.mark.parametrize("words", ["", "  \n"])
def test_nothing_asked_is_refused(words: str) -> None:
    with pytest.raises(QueryError, match="got neither"):
        compose(FakeEncoder(), [], words)


def test_with_words_the_reference_and_its_copies_are_left_out(engine: QueryEngine, tmp_path: Path) -> None:
    red = tmp_path / "photos" / "red.png"
    assert set(names(engine.search([red], "blue"))) == {"blue", "lime", "white"}
    assert set(names(engine.search([red.read_bytes()], "blue"))) == {"blue", "lime", "white"}
    assert len(names(engine.search([red], "blue", k=2))) == 2
    assert set(names(engine.search([red], "blue", keep_references=True))) == {*COLOURS, "red again"}


def test_a_picture_alone_finds_itself_and_its_copies(engine: QueryEngine, tmp_path: Path) -> None:
    red = tmp_path / "photos" / "red.png"
    assert set(names(engine.search([red]))[:2]) == {"red", "red again"}
    assert "red" not in names(engine.search([red], keep_references=False))


def test_a_picture_in_memory_is_no_file_of_the_gallery(engine: QueryEngine) -> None:
    assert "red" in names(engine.search([plain("red")], "blue"))


def test_results_are_ranked_and_described(engine: QueryEngine, tmp_path: Path) -> None:
    first, second = engine.search([], "lime", k=2).results
    assert (first.rank, second.rank) == (1, 2)
    assert first.score >= second.score
    assert (first.path, first.width, first.height) == (tmp_path / "photos" / "lime.png", 40, 30)


def test_pictures_that_have_been_forgotten_since_are_left_out(engine: QueryEngine, tmp_path: Path) -> None:
    (tmp_path / "photos" / "lime.png").unlink()
    index_pictures(tmp_path / "photos", engine.gallery, engine.encoder)
    assert set(names(engine.search([], "lime"))) == {"red", "blue", "white", "red again"}


def test_an_unreadable_reference_is_named(engine: QueryEngine, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"missing\.jpg: no such file"):
        engine.search([tmp_path / "missing.jpg"], "red")
    with pytest.raises(ImageError, match="the picture: the file is empty"):
        engine.search([b""], "red")


def test_the_sheet_shows_results_whose_files_are_gone(engine: QueryEngine, tmp_path: Path) -> None:
    answer = engine.search([tmp_path / "photos" / "red.png"], "blue")
    whole = answer.draw()
    (tmp_path / "photos" / "blue.png").unlink()
    assert answer.draw().size == whole.size
    assert answer.draw(right={answer.results[1].path}).tobytes() != answer.draw().tobytes()


def test_a_gallery_of_another_model_is_refused(engine: QueryEngine) -> None:
    other = FakeEncoder()
    other.fingerprint = "another"
    with pytest.raises(GalleryError, match="was made with the encoder"):
        QueryEngine(other, engine.gallery)


def test_preparing_loads_the_query_side_and_no_more(engine: QueryEngine) -> None:
    before = engine.encoder.encoded
    engine.prepare()
    engine.prepare(pictures=False)
    assert engine.encoder.encoded == before
