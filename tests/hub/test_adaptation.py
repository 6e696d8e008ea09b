"""Published pairs of graphs as model folders: the same vectors as transformers' own classes and processors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

pytest.importorskip("torch")
pytest.importorskip("onnx")
import transformers

from image2sentence.encoders import OnnxEncoder, load_encoder
from image2sentence.encoders.composition import TrainingFreeEncoder, compose_vectors
from image2sentence.encoders.config import CompositionConfig
from image2sentence.encoders.model_folder import ModelFolder
from image2sentence.errors import ModelError, QueryError
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.hub.find import find_model
from image2sentence.hub.graphs import text as cut
from image2sentence.hub.tokenizers import from_merges
from image2sentence.images import load_image
from image2sentence.indexing.index_pictures import index_pictures
from image2sentence.query import QueryEngine
from tests.hub.exports import Tiny, clip_merges, merges_file, publish, store, tiny, vectors

KINDS = ("clip", "clip-l14", "mobileclip", "siglip", "siglip2")
TEXTS = (
    "DOGS' ÉTÉ: 3½?",
    "a red dress",
    "A Red DRESS, with long sleeves.",
    "two dogs on the beach",
    "café",
    "the same; but in blue!",
    "  not   green\t",
)
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of this test's own for model folders that are made."""
    monkeypatch.setenv("IMAGE2SENTENCE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 picture files that are not square; some turned by EXIF, some in CMYK, grey or with a palette."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for number in range(60):
        width, height = (int(side) for side in rng.integers(33, 190, 2))
        low = rng.integers(0, 256, (5, 4, 3), np.uint8)
        picture = Image.fromarray(low).resize((width, height + (width == height)), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x0112] = 1 + number % 8
        mode = ("RGB", "RGB", "CMYK", "L")[number % 4]
        picture.convert(mode).save(folder / f"{number:02d}.jpg", quality=95, exif=exif)
    return folder


def pixels_of(made: Tiny, files: list[Path]) -> NDArray[np.float32]:
    """As transformers' processor makes them of picture files."""
    kinds = {
        "CLIPImageProcessor": transformers.CLIPImageProcessorPil,
        "SiglipImageProcessor": transformers.SiglipImageProcessorPil,
    }
    settings = {name: value for name, value in made.processor.items() if name != "image_processor_type"}
    processor = kinds[made.processor["image_processor_type"]](**settings)
    pictures = [ImageOps.exif_transpose(Image.open(file)).convert("RGB") for file in files]
    return np.concatenate([processor(one, return_tensors="np")["pixel_values"] for one in pictures])


def ids_of(made: Tiny, text: str) -> list[int]:
    """As transformers' tokenizer makes them, filled up where the model was trained so."""
    if made.kind == "siglip2":
        own = transformers.Siglip2Tokenizer(
            vocab=made.tokenizer.get_vocab(),
            merges=[tuple(pair) for pair in json.loads(made.tokenizer.to_str())["model"]["merges"]],
        )
        ids = [*own(text, add_special_tokens=False)["input_ids"], 1]
    else:
        own = transformers.PreTrainedTokenizerFast(tokenizer_object=made.tokenizer)
        ids = own(text)["input_ids"]
    pad = {"clip": None, "siglip": 1, "siglip2": 0}[made.kind]
    return ids if pad is None else [*ids, *[pad] * (made.length - len(ids))]


@pytest.mark.parametrize(
    ("kind", "precision", "dynamo"),
    [
        (kind, precision, dynamo)
        for kind in KINDS
        for precision in ("fp32", "fp16")
        for dynamo in (False, True)
    ],
)
def test_vectors_equal_those_of_transformers(
    kind: str, precision: Any, dynamo: bool, photographs: Path, tmp_path: Path
) -> None:
    made = tiny(kind)
    folder = publish(made, tmp_path / kind, precision=precision, dynamo=dynamo)
    encoder = TrainingFreeEncoder(find_model(str(folder), precision=precision))
    files = sorted(photographs.iterdir())
    seen = encoder.encode_images([load_image(file) for file in files])
    assert np.abs(seen - vectors(made, pixels_of(made, files), None)).max() < TOLERANCE[precision]
    read = encoder.encode_queries(None, TEXTS)
    expected = np.concatenate([vectors(made, None, [ids_of(made, text)]) for text in TEXTS])
    assert np.abs(read - expected).max() < TOLERANCE[precision]


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_words_put_in_as_pseudo_words_equal_the_words(kind: str, dynamo: bool, tmp_path: Path) -> None:
    made = tiny(kind)
    folder = find_model(str(publish(made, tmp_path / kind, dynamo=dynamo)), precision="fp32")
    encoder = OnnxEncoder(ModelFolder(folder.path, with_tokens(folder.config, 8)))
    table = made.model.text_model.embeddings.token_embedding.weight.detach().numpy()
    plain = encoder._tokenizer.encode("a red dress", add_special_tokens=False).ids
    said = encoder.encode_queries(table[plain][None], ["but in blue"])
    expected = encoder.encode_queries(None, ["a red dress but in blue"])
    assert np.abs(said - expected).max() < 1e-5
    assert np.abs(encoder.encode_queries(table[plain][None], [""]) - expected).max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "precision", "dynamo"),
    [
        (kind, precision, dynamo)
        for kind in ("clip", "siglip", "siglip2")
        for precision in ("fp16", "int8")
        for dynamo in (False, True)
    ],
)
def test_words_of_a_small_graph_equal_its_pseudo_words(
    kind: str, precision: Any, dynamo: bool, tmp_path: Path
) -> None:
    made = tiny(kind)
    published = publish(made, tmp_path / kind, precision=precision, dynamo=dynamo)
    folder = find_model(str(published), precision=precision)
    encoder = OnnxEncoder(ModelFolder(folder.path, with_tokens(folder.config, 8)))
    suffix = {"fp16": "fp16", "int8": "quantized"}[precision]
    own = cut(published / "onnx" / f"text_model_{suffix}.onnx", folder.config.head_length, 0, None).words
    plain = encoder._tokenizer.encode("a red dress", add_special_tokens=False).ids
    said = encoder.encode_queries(own[plain][None], ["but in blue"])
    expected = encoder.encode_queries(None, ["a red dress but in blue"])
    assert np.abs(said - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("clip", "immich"),
        ("siglip", "immich"),
        ("clip", "fastembed"),
        ("clip", "rclip"),
        ("siglip2", "immich"),
    ],
)
def test_every_layout_gives_the_same_vectors(kind: str, layout: str, tmp_path: Path) -> None:
    made = tiny(kind)
    encoder = load_encoder(publish(made, tmp_path / "own" / layout, layout))
    plain = TrainingFreeEncoder(find_model(str(publish(made, tmp_path / "own" / "plain")), precision="fp32"))
    pictures = [Image.effect_noise((50, 70), 90).convert("RGB") for _ in range(3)]
    assert np.abs(encoder.encode_images(pictures) - plain.encode_images(pictures)).max() < 1e-5
    texts = ["a red dress", "two dogs"]
    assert np.abs(encoder.encode_queries(None, texts) - plain.encode_queries(None, texts)).max() < 1e-5
    assert encoder.config.origin is not None
    assert encoder.config.origin.layout == layout


@pytest.mark.parametrize("dynamo", [False, True])
def test_int8_texts_are_taken_and_int8_pictures_are_not(dynamo: bool, tmp_path: Path) -> None:
    made = tiny("clip")
    folder = publish(made, tmp_path / "clip", dynamo=dynamo)
    shutil.copy(folder / "onnx/text_model.onnx", folder / "onnx/text_model_quantized.onnx")
    shutil.copy(folder / "onnx/vision_model.onnx", folder / "onnx/vision_model_quantized.onnx")
    store(folder / "onnx/text_model_quantized.onnx", "int8")
    encoder = load_encoder(folder)
    assert encoder.config.origin is not None
    assert sorted(encoder.config.origin.files)[:3] == [
        "config.json",
        "onnx/text_model_quantized.onnx",
        "onnx/vision_model.onnx",
    ]
    expected = vectors(made, None, [ids_of(made, "a red dress")])
    assert float((encoder.encode_queries(None, ["a red dress"]) * expected).sum()) > 0.99


def test_a_gallery_is_indexed_and_searched_with_it(photographs: Path, tmp_path: Path) -> None:
    encoder = load_encoder(publish(tiny("clip"), tmp_path / "clip"))
    with Gallery.create(tmp_path / "gallery", encoder.fingerprint, encoder.width) as gallery:
        report = index_pictures(photographs, gallery, encoder)
        assert report.encoded == 60
        engine = QueryEngine(encoder, gallery)
        alone = engine.search([photographs / "07.jpg"])
        assert alone.results[0].score == pytest.approx(1, abs=1e-5)
        both = engine.search([photographs / "07.jpg", photographs / "08.jpg"], "in red", k=60)
        assert len(both.results) == 58
        assert engine.search((), "a red dress").results


def test_the_model_is_made_once_and_again_when_a_file_changes(tmp_path: Path, cache: Path) -> None:
    folder = publish(tiny("clip"), tmp_path / "clip")
    first = load_encoder(folder).folder.path
    assert load_encoder(folder).folder.path == first
    assert first.parent == cache / "models"
    publish(tiny("clip", seed=1), folder)
    other = load_encoder(folder)
    assert other.folder.path != first
    assert other.fingerprint != load_encoder(first).fingerprint


def with_tokens(config: Any, tokens: int) -> Any:
    """The config of a model whose sentences have up to so many tokens."""
    from dataclasses import replace

    return replace(config, learner=replace(config.learner, tokens=tokens), composition=None)


# --- what cannot be used --------------------------------------------------------------------------------------------


def broken(folder: Path, how: str) -> None:
    """Damages a published model."""
    text = folder / "onnx" / "text_model.onnx"
    if how == "tokenizer":
        (folder / "tokenizer.json").unlink()
    elif how == "fused":
        shutil.move(text, folder / "onnx" / "model.onnx")
        (folder / "onnx" / "vision_model.onnx").unlink()
    elif how == "empty":
        text.write_bytes(b"")
    elif how == "cut short":
        text.write_bytes(text.read_bytes()[:5000])
    elif how == "swapped":
        shutil.copy(folder / "onnx" / "vision_model.onnx", text)
    elif how == "processor":
        (folder / "preprocessor_config.json").unlink()
    elif how == "size":
        settings = json.loads((folder / "preprocessor_config.json").read_text())
        settings |= {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    elif how == "pointer":
        text.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 254000000\n")
    elif how == "words":
        (folder / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("tokenizer", "no tokenizer: expected tokenizer.json"),
        ("fused", "both are fused cannot be cut"),
        ("empty", "is an empty graph"),
        ("cut short", "fetch it again"),
        ("swapped", "expected one input of token ids"),
        ("processor", "nothing of how pictures are prepared"),
        ("words", "not a tokenizer that can be read"),
        ("pointer", "run `git lfs pull`"),
    ],
)
def test_what_cannot_be_used_is_told(how: str, message: str, tmp_path: Path, cache: Path) -> None:
    folder = publish(tiny("clip"), tmp_path / "clip")
    broken(folder, how)
    with pytest.raises(ModelError, match=message):
        load_encoder(folder)
    assert not list(cache.rglob("config.json"))


def test_a_table_that_onnx_runtime_fused_is_refused(tmp_path: Path) -> None:
    import onnx

    folder = publish(tiny("clip"), tmp_path / "clip")
    path = folder / "onnx" / "text_model.onnx"
    model = onnx.load(str(path))
    next(node for node in model.graph.node if node.op_type == "Gather").op_type = "EmbedLayerNormalization"
    onnx.save(model, str(path))
    with pytest.raises(ModelError, match="optimised by ONNX Runtime"):
        load_encoder(folder)


def test_without_the_package_onnx_its_installation_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    folder = publish(tiny("clip"), tmp_path / "clip")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match=r"pip install 'image2sentence\[hub\]'"):
        load_encoder(folder)


def test_weights_beside_the_graph_are_taken_in(tmp_path: Path) -> None:
    import onnx

    made = tiny("siglip")
    folder = publish(made, tmp_path / "siglip")
    expected = TrainingFreeEncoder(find_model(str(folder), precision="fp32")).encode_queries(None, ["a dog"])
    path = folder / "onnx" / "text_model.onnx"
    onnx.save(
        onnx.load(str(path)),
        str(path),
        save_as_external_data=True,
        location="text_model.onnx_data",
        size_threshold=0,
    )
    encoder = load_encoder(folder)
    assert encoder.config.origin is not None
    assert "onnx/text_model.onnx_data" in encoder.config.origin.files
    assert np.abs(encoder.encode_queries(None, ["a dog"]) - expected).max() < 1e-6
    (folder / "onnx" / "text_model.onnx_data").unlink()
    with pytest.raises(ModelError, match="data beside it"):
        load_encoder(folder)


# --- tokenizers and compositions ------------------------------------------------------------------------------------


def test_merges_give_the_tokenizer_of_transformers() -> None:
    own = from_merges(merges_file(clip_merges()), "merges")
    other = tiny("clip").tokenizer
    for text in (*TEXTS, "it's 42 dogs' dress!!", "naïve 漢字 ☂ <|endoftext|> x", ""):
        expected = other.encode(text).ids
        if "<|" not in text:
            assert own.encode(text).ids == expected, text
    with pytest.raises(ModelError, match="no gzip file"):
        from_merges(b"no gzip", "merges")


def unit(rows: list[list[float]]) -> NDArray[np.float32]:
    """Rows of length 1."""
    table = np.array(rows, np.float32)
    return np.asarray(table / np.linalg.norm(table, axis=1, keepdims=True), np.float32)


def test_sum_and_slerp_are_what_they_say() -> None:
    pictures, words = unit([[1, 0], [1, 0], [0, 1]]), unit([[0, 1], [1, 0], [0, -1]])
    half = compose_vectors(CompositionConfig("slerp", 0.5), pictures, words)
    assert np.allclose(half[:2], [[0.5**0.5, 0.5**0.5], [1, 0]], atol=1e-6)
    third = compose_vectors(CompositionConfig("slerp", 1 / 3), pictures, words)
    assert np.allclose(third[0], [np.cos(np.pi / 6), np.sin(np.pi / 6)], atol=1e-6)
    summed = compose_vectors(CompositionConfig("sum", 0.25), pictures, words)
    assert np.allclose(summed[0], unit([[3, 1]])[0], atol=1e-6)
    for rows in (half, third, summed):
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_a_sentence_of_another_shape_is_refused(tmp_path: Path) -> None:
    encoder = load_encoder(publish(tiny("clip"), tmp_path / "clip"))
    with pytest.raises(QueryError, match="expected sentences of shape"):
        encoder.encode_queries(np.zeros((1, 2, encoder.width), np.float32), ["a"])
