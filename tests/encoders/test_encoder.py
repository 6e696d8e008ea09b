"""The runtime's encoder and its model folder: what is promised about vectors, and every way a folder can be wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image2sentence.catalogue import draw, sample
from image2sentence.encoders import Encoder, OnnxEncoder, load_encoder
from image2sentence.encoders.config import Preprocessing
from image2sentence.encoders.model_folder import ModelFolder, bundled
from image2sentence.encoders.preprocess import fit, to_pixels
from image2sentence.encoders.template import Template
from image2sentence.errors import ConfigError, ModelError, QueryError

SPINNING = ("session.intra_op.spin_duration_us", "session.force_spinning_stop")
BRIEF = ["100", "1"]


@pytest.fixture(scope="module")
def encoder() -> OnnxEncoder:
    return load_encoder()


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    import random

    rng = random.Random(1)
    return [draw(sample(rng), 96) for _ in range(4)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled model that a test may break."""
    shutil.copytree(bundled(), tmp_path / "model")
    return tmp_path / "model"


def test_it_satisfies_the_protocol(encoder: OnnxEncoder) -> None:
    assert isinstance(encoder, Encoder)


def test_gallery_vectors_hold_a_share_of_the_pictures_own_sentence(
    encoder: OnnxEncoder, pictures: list[Image.Image]
) -> None:
    share, alone = encoder.config.sentence_share, encoder.without_sentences()
    assert 0 < share < 1
    assert alone.fingerprint == encoder.config.vl.fingerprint != encoder.fingerprint
    said = encoder.encode_sentences(pictures)
    sentence_vectors = np.concatenate([encoder.encode_queries(sentence[None], [""]) for sentence in said])
    expected = (1 - share) * alone.encode_images(pictures) + share * sentence_vectors
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = encoder.encode_images(pictures)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(
        encoder.encode_images(pictures[:1]), found[:1], atol=1e-6
    )  # whatever came with it


def test_a_share_that_cannot_be_is_refused(folder: Path) -> None:
    edit_config(folder, {"sentence_share": 1.5})
    with pytest.raises(ModelError, match=r"0 or more and below 1, got 1\.5"):
        load_encoder(folder)


def test_vectors_are_unit_rows_of_the_promised_shapes(
    encoder: OnnxEncoder, pictures: list[Image.Image]
) -> None:
    sentences = encoder.encode_sentences(pictures)
    gallery, queries = encoder.encode_images(pictures), encoder.encode_queries(sentences, ["but red"] * 4)
    assert sentences.shape == (4, encoder.config.learner.tokens, encoder.config.sentence_width)
    for vectors in (gallery, queries):
        assert vectors.shape == (4, encoder.width)
        assert vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_threads_of_the_query_side_spin_briefly_and_small_graphs_have_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def chosen(encoder: OnnxEncoder) -> list[tuple[int, list[str]]]:
        options = [
            graph._session.get_session_options() for graph in (encoder._query_image, encoder._query_text)
        ]
        return [
            (o.intra_op_num_threads, [o.get_session_config_entry(name) for name in SPINNING]) for o in options
        ]

    assert chosen(load_encoder()) == [(1, BRIEF), (1, BRIEF)]
    assert chosen(load_encoder(threads=2)) == [(2, BRIEF), (2, BRIEF)]
    monkeypatch.setattr(
        "image2sentence.encoders.onnx_encoder._SMALL", 2_000_000
    )  # bytes between the two graphs'
    assert chosen(load_encoder()) == [(1, BRIEF), (0, BRIEF)]


def test_a_query_does_not_depend_on_its_neighbours(encoder: OnnxEncoder, pictures: list[Image.Image]) -> None:
    texts = ["in red", "but with long sleeves and on a white background", "", "plain"]
    sentences = encoder.encode_sentences(pictures)
    together = encoder.encode_queries(sentences, texts)
    alone = np.concatenate([encoder.encode_queries(sentences[i : i + 1], [texts[i]]) for i in range(4)])
    assert np.allclose(together, alone, atol=3e-2)  # int8 activations are scaled by batch
    assert ((together * alone).sum(1) > 0.998).all()


def test_a_sentence_does_not_depend_on_its_neighbours(
    encoder: OnnxEncoder, pictures: list[Image.Image]
) -> None:
    together = encoder.encode_sentences(pictures)
    assert np.allclose(together[1], encoder.encode_sentences(pictures[1:2])[0], atol=1e-4)


def test_words_move_the_query_and_the_picture_does_too(
    encoder: OnnxEncoder, pictures: list[Image.Image]
) -> None:
    sentences = encoder.encode_sentences(pictures[:2])
    red, long = (encoder.encode_queries(sentences, [words] * 2) for words in ("in red", "with long sleeves"))
    assert float(red[0] @ red[1]) < 0.95
    assert float(red[0] @ long[0]) < 0.95


def test_attention_maps_sum_to_one(encoder: OnnxEncoder, pictures: list[Image.Image]) -> None:
    explained = encoder.explain(pictures[0])
    assert explained.attention.ndim == 3
    assert np.allclose(explained.attention.sum((1, 2)), 1, atol=1e-4)
    assert ((explained.gates >= 0) & (explained.gates <= 1)).all()


def test_no_words_ask_for_the_picture_itself(encoder: OnnxEncoder, pictures: list[Image.Image]) -> None:
    sentences = encoder.encode_sentences(pictures)
    assert np.array_equal(
        encoder.encode_queries(sentences, [""] * 4), encoder.encode_queries(sentences, ["  "] * 4)
    )


@pytest.mark.parametrize(
    "text", ["costs $20", "5* rating", "{sentence}", "[CLS] [SEP]", "\x00", "ünïcödé 赤い"]
)
def test_nothing_in_user_text_is_special(
    encoder: OnnxEncoder, pictures: list[Image.Image], text: str
) -> None:
    composed = encoder.encode_queries(encoder.encode_sentences(pictures[:1]), [text])
    assert np.isfinite(composed).all()


@pytest.mark.parametrize("token", ["[SEP]", "[CLS]", "[PAD]", "[UNK]", "[MASK]"])
def test_a_special_token_in_user_text_is_read_as_its_letters(encoder: OnnxEncoder, token: str) -> None:
    name = token.strip("[]").lower()
    written, spelled = encoder.encode_queries(None, [f"red {token} dress", f"red [ {name} ] dress"])
    assert np.array_equal(written, spelled)


@pytest.mark.parametrize("with_picture", [False, True])
def test_words_may_fill_all_the_room_there_is(
    encoder: OnnxEncoder, pictures: list[Image.Image], with_picture: bool
) -> None:
    sentences = encoder.encode_sentences(pictures[:1]) if with_picture else None
    room = encoder.config.max_length - (encoder.config.learner.tokens if with_picture else 0)
    for words in range(room, 0, -1):
        try:
            vectors = encoder.encode_queries(sentences, ["red " * words])
        except QueryError as error:
            refused = str(error)
        else:
            break
    assert f"{room + 1} tokens, room for {room}" in refused
    assert np.isfinite(vectors).all()


def test_unknown_words_are_named_once_as_written(encoder: OnnxEncoder) -> None:
    assert encoder.unknown_words("Periwinkle red, periWINKLE xyzzy Periwinkle") == [
        "Periwinkle",
        "periWINKLE",
        "xyzzy",
    ]
    assert encoder.unknown_words("") == []


def test_neither_picture_nor_words_is_an_error(encoder: OnnxEncoder) -> None:
    with pytest.raises(QueryError, match="got neither"):
        encoder.encode_queries(None, ["red", " "])


def test_words_beyond_the_encoders_length_are_an_error(encoder: OnnxEncoder) -> None:
    with pytest.raises(QueryError, match="too long"):
        encoder.encode_queries(None, ["red " * 500])


def test_sentences_of_another_shape_are_an_error(encoder: OnnxEncoder) -> None:
    with pytest.raises(QueryError, match="expected sentences of shape"):
        encoder.encode_queries(np.zeros((2, 1, 3), np.float32), ["a", "b"])


def test_no_pictures_give_no_vectors(encoder: OnnxEncoder) -> None:
    assert encoder.encode_images([]).shape == (0, encoder.width)


def edit_config(folder: Path, change: dict[str, object]) -> None:
    """Changes a config on purpose: without the checksum, as its error message says."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | change
    config.pop("checksum", None)
    path.write_text(json.dumps(config))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a model folder at"):
        load_encoder(tmp_path / "none")


def test_a_newer_format_is_refused(folder: Path) -> None:
    edit_config(folder, {"format": 99})
    with pytest.raises(ModelError, match="format 99"):
        load_encoder(folder)


def test_an_unknown_key_is_refused(folder: Path) -> None:
    edit_config(folder, {"surprise": 1})
    with pytest.raises(ModelError, match="unknown key 'surprise'"):
        load_encoder(folder)


def test_a_wrong_type_is_refused(folder: Path) -> None:
    edit_config(folder, {"width": "wide"})
    with pytest.raises(ModelError, match=r"width: expected int, got 'wide'"):
        load_encoder(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"format": ' * 200_000,
        b'{"format": %s}' % (b"1" * 5_000),
    ],
    ids=["empty", "cut short", "a list", "not UTF-8", "nested lists", "nested objects", "a long number"],
)
def test_a_damaged_config_is_refused(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("learner", "heads", 0),
        ("learner", "heads", -4),
        ("learner", "width", 0),
        ("learner", "blocks", -1),
        ("query_preprocessing", "size", 10**9),
        ("gallery_preprocessing", "size", 0),
        pytest.param(None, "word_norm", 10**400, id="word_norm-huge"),
    ],
)
def test_a_number_that_cannot_be_is_refused(folder: Path, section: str | None, name: str, value: int) -> None:
    raw = json.loads((folder / "config.json").read_text())
    edit_config(folder, {name: value} if section is None else {section: raw[section] | {name: value}})
    with pytest.raises(ModelError, match=rf"config\.json.*{name.split('_')[-1]}"):
        load_encoder(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"query_preprocessing": {"size": 64}},
        {"gallery_preprocessing": {"size": 4_096}},
        {"width": 60_000},
        {"word_width": 64},
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_the_graphs_is_refused(folder: Path, change: dict[str, object]) -> None:
    edit_config(folder, change)
    broken, pictures = load_encoder(folder), [Image.new("RGB", (9, 9))]

    def all_graphs() -> None:
        broken.encode_queries(broken.encode_sentences(pictures), ["red"])
        broken.encode_images(pictures)

    with pytest.raises(ModelError, match=r"config\.json does not fit onnx/"):
        all_graphs()


@pytest.mark.parametrize("name", ["onnx/query_image.onnx", "onnx/query_text.onnx", "tokenizer.json"])
def test_a_flipped_byte_is_found(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    broken = load_encoder(folder)
    with pytest.raises(ModelError, match="damaged"):
        broken.encode_queries(broken.encode_sentences([Image.new("RGB", (9, 9))]), ["red"])


def test_a_missing_graph_is_named(folder: Path) -> None:
    (folder / "onnx" / "gallery_image.onnx").unlink()
    with pytest.raises(ModelError, match="gallery_image"):
        load_encoder(folder).encode_images([Image.new("RGB", (9, 9))])


def test_a_file_that_is_no_graph_is_refused_even_with_a_right_checksum(folder: Path) -> None:
    name = "onnx/gallery_image.onnx"
    (folder / name).write_bytes(b"no graph at all")
    files = ModelFolder.open(folder).config.files | {name: hashlib.sha256(b"no graph at all").hexdigest()}
    edit_config(folder, {"files": files})
    with pytest.raises(ModelError, match="no ONNX graph that can be read"):
        load_encoder(folder).encode_images([Image.new("RGB", (9, 9))])


def test_the_bundled_model_says_what_made_it() -> None:
    config = ModelFolder.open(bundled()).config
    assert config.training["pictures"] > 1000
    assert config.parity["gallery_image"]["min"] > 0.999


def test_squashing_and_cropping() -> None:
    wide = Image.new("RGB", (40, 20))
    wide.paste((255, 0, 0), (0, 0, 10, 20))  # the left quarter
    squashed, cropped = (fit(wide, Preprocessing(size=20, fit=how)) for how in ("squash", "crop"))
    assert squashed.size == cropped.size == (20, 20)
    assert squashed.getpixel((0, 10)) == (255, 0, 0)
    assert cropped.getpixel((0, 10)) == (0, 0, 0)


def test_a_very_long_picture_is_cropped_while_it_is_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    how = Preprocessing(size=32, fit="crop")
    sizes: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def noted(image: Image.Image, size: tuple[int, int], *rest: object) -> Image.Image:
        sizes.append(size)
        return resize(image, size, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", noted)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 400, 3), np.uint8))
    in_one_step = fit(noise, how)
    assert sizes == [(32, 32)]
    whole = resize(noise, (1600, 32), Image.Resampling.BICUBIC).crop((784, 0, 816, 32))
    assert np.array_equal(np.asarray(in_one_step), np.asarray(whole))
    for size in ((30_000, 1), (1, 30_000)):
        assert fit(Image.new("RGB", size), how).size == (32, 32)
    assert set(sizes) == {(32, 32)}


def test_pixels_are_normalised_by_mean_and_deviation() -> None:
    how = Preprocessing(size=4, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    pixels = to_pixels([Image.new("RGB", (4, 4), (255, 0, 51))], how)
    assert pixels.shape == (1, 3, 4, 4)
    assert np.allclose(pixels[0, :, 0, 0], [1.0, -1.0, 0.2], atol=1e-6)


def test_templates_are_read_by_position() -> None:
    template = Template.parse("a photo of {sentence} that is {modifier} now")
    assert (template.prefix, template.middle, template.suffix) == ("a photo of", "that is", "now")
    assert template.tail(" red ") == "that is red now"
    assert template.tail("") == ""


@pytest.mark.parametrize("text", ["", "{modifier} {sentence}", "{sentence}", "{sentence} {modifier} {more}"])
def test_other_templates_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a template"):
        Template.parse(text)
