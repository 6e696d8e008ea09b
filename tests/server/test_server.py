"""The server as a client sees it: what it answers, what it refuses, and what it never gives away."""

from __future__ import annotations

import asyncio
import base64
import builtins
import hashlib
import io
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click import ClickException
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("fastapi", reason="the server needs the [server] extra")

from fastapi.testclient import TestClient
from tokenizers import Tokenizer

from benchmarks.server.process import free_port
from fakes import FakeEncoder, encoded, model_config, photo, png_bomb, rotated_jpeg
from image2sentence import server
from image2sentence.cli.addresses import address
from image2sentence.cli.main import cli
from image2sentence.cli.serve import server_extra, taken
from image2sentence.encoders import load_encoder
from image2sentence.encoders.config import Preprocessing
from image2sentence.encoders.model_folder import bundled
from image2sentence.encoders.onnx_encoder import Explanation
from image2sentence.errors import GalleryError, ImageError, ModelError, QueryError
from image2sentence.gallery import Gallery
from image2sentence.gallery.filters.language import MAX_FILTER_LENGTH
from image2sentence.indexing import index_pictures
from image2sentence.lru_cache import LruCache
from image2sentence.server.admission import Busy, Rates
from image2sentence.server.app import RUNTIME_FILES, create_app
from image2sentence.server.batching import Batcher
from image2sentence.server.forms import MAX_FIELDS, MAX_JSON_BYTES, UploadLimits
from image2sentence.server.nearest_words import NearestWords
from image2sentence.server.requests import Load
from image2sentence.server.schemas import (
    MAX_NEGATIVES,
    MAX_OFFSET,
    MAX_REFERENCES,
    MAX_RESULTS,
    MAX_TEXT_LENGTH,
    MAX_VECTOR_WIDTH,
    SearchFields,
)
from image2sentence.server.security import WRONG_TOKENS, AllowedHosts, host_name, security_headers
from image2sentence.server.service import SearchService, covered
from image2sentence.server.thread_pool import Workers

PAGE = Path(server.__file__).parent / "static"
COLOURS = ("red", "blue", "green", "white", "purple")
CONFIG = model_config(query_preprocessing=Preprocessing(32, fit="crop"))


class Reader(FakeEncoder):
    """The fake encoder with attention maps; counts the pictures it reads, and waits where it is asked to."""

    config = CONFIG

    def __init__(self) -> None:
        super().__init__()
        self.read = 0
        self.may_compose = threading.Event()
        self.may_compose.set()

    def explain(self, image: Image.Image) -> Explanation:
        self.read += 1
        attention = np.full((1, 2, 2), 0.25, np.float32)
        return Explanation(self.encode_sentences([image])[0], attention, np.array([0.5], np.float32))

    def encode_queries(self, sentences: Any, texts: Any) -> Any:
        if sentences is None and not texts[0]:
            raise QueryError("expected a picture, words, or both; got neither")
        assert self.may_compose.wait(20)
        return super().encode_queries(sentences, texts)


class Shop:
    """A gallery of one picture per colour (the red one twice), its service, and a client."""

    def __init__(self, folder: Path) -> None:
        self.pictures = folder / "pictures"
        self.pictures.mkdir()
        for colour in COLOURS:
            (self.pictures / f"{colour}.png").write_bytes(plate(colour))
        (self.pictures / "zz-red-again.png").write_bytes(plate("red"))
        self.encoder = Reader()
        self.gallery = Gallery.create(folder / "gallery", self.encoder.fingerprint, self.encoder.width)
        index_pictures(self.pictures, self.gallery, self.encoder)
        self.names = {picture.id: picture.path.stem for picture in self.gallery.pictures()}
        self.ids = {name: number for number, name in self.names.items()}
        self.gallery.add_columns({"name": "text", "hue": "number"})
        self.gallery.set_metadata((number, values_of(name)) for number, name in self.names.items())
        self.service = SearchService(self.encoder, self.gallery)

    def found(self, answer: Any) -> list[str]:
        """The names of the pictures that a search found, best first."""
        assert answer.status_code == 200, answer.text
        return [self.names[result["id"]] for result in answer.json()["results"]]


def values_of(name: str) -> dict[str, Any]:
    """Metadata of the picture of a colour: what it is called, and its hue where it has one."""
    hues = {"red": 0, "zz-red-again": 0, "blue": 240, "green": 120, "purple": 300}
    return {"name": name} | ({"hue": hues[name]} if name in hues else {})


def plate(colour: str) -> bytes:
    return encoded(Image.new("RGB", (60, 40), colour), "PNG")


def form(picture: bytes | None = None, **fields: Any) -> dict[str, Any]:
    """A multipart form: text fields as parts without a file name."""
    parts: dict[str, Any] = {name: (None, str(value)) for name, value in fields.items()}
    if picture is not None:
        parts["picture"] = ("upload", picture)
    return {"files": parts or {"text": (None, "")}}


def part_with(more: bytes) -> dict[str, Any]:
    """A form of one field, whose part has more in its headers."""
    head = b'--x\r\nContent-Disposition: form-data; name="text"' + more
    return {
        "content": head + b"\r\n\r\nred\r\n--x--\r\n",
        "headers": {"content-type": "multipart/form-data; boundary=x"},
    }


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    with shop.gallery:
        yield shop


@pytest.fixture
def client(shop: Shop) -> Iterator[TestClient]:
    with TestClient(create_app(shop.service), raise_server_exceptions=False) as client:
        yield client


def test_words_alone_find_what_they_describe(client: TestClient, shop: Shop) -> None:
    answer = client.post("/v1/search", **form(text="green", k=2))
    assert shop.found(answer)[0] == "green"
    assert len(answer.json()["results"]) == 2
    assert answer.json()["sentence"] is None
    assert (answer.json()["fits_from"], answer.json()["best_fit"]) == (4.0, None)  # too small to tell


def test_a_picture_alone_finds_itself(client: TestClient, shop: Shop) -> None:
    answer = client.post("/v1/search", **form(plate("purple")))
    assert shop.found(answer)[0] == "purple"
    first = answer.json()["results"][0]
    assert (first["rank"], first["width"], first["height"]) == (1, 60, 40)
    assert 0.99 < first["score"] <= 1
    assert answer.json()["fits_from"] == 1.6


def test_a_picture_with_words_leaves_out_all_copies_of_itself(client: TestClient, shop: Shop) -> None:
    answer = client.post("/v1/search", **form(plate("red"), text="but blue"))
    assert shop.found(answer)[0] == "blue"
    assert not {"red", "zz-red-again"} & set(shop.found(answer))
    assert answer.json()["total"] == len(COLOURS) - 1


def test_an_item_asks_like_its_picture(client: TestClient, shop: Shop) -> None:
    by_id = client.post("/v1/search", **form(item=shop.ids["red"], text="but blue"))
    by_picture = client.post("/v1/search", **form(plate("red"), text="but blue"))
    assert by_id.json()["results"] == by_picture.json()["results"]


def test_a_picture_is_read_once_while_the_words_change(client: TestClient, shop: Shop) -> None:
    first = client.post("/v1/search", **form(plate("red"), text="blue")).json()
    again = client.post("/v1/search", **form(plate("red"), text="green"))
    by_name = client.post("/v1/search", **form(sentence=first["sentence"], text="green"))
    client.post("/v1/sentence", **form(item=shop.ids["red"]))
    assert shop.encoder.read == 1
    assert first["sentence"] == hashlib.sha256(plate("red")).hexdigest()
    assert by_name.json()["results"] == again.json()["results"]
    assert shop.found(by_name)[0] == "green"


def test_several_references_count_by_their_weights(client: TestClient, shop: Shop) -> None:
    blue = client.post("/v1/sentence", **form(plate("blue"))).json()["sentence"]
    green = shop.ids["green"]
    both = {"item": shop.ids["red"], "also_item": [green], "also_sentence": [blue]}

    def scores(**fields: Any) -> dict[str, float]:
        answer = client.post("/v1/search", json=fields)
        assert answer.status_code == 200, answer.text
        return {shop.names[one["id"]]: one["score"] for one in answer.json()["results"]}

    equal = scores(**both)
    assert equal == scores(**both, weight=[2, 2, 2])
    for number, colour in enumerate(("red", "green", "blue")):
        heavy = scores(**both, weight=[9 if at == number else 1 for at in range(3)])
        assert max(heavy, key=heavy.__getitem__) in (colour, f"zz-{colour}-again")
        assert heavy[colour] > equal[colour]
    without_itself = scores(**both, weight=[1, 1, 1], muted=[1])
    assert without_itself == scores(also_item=[green], also_sentence=[blue])
    assert set(scores(**both, text="white")) == {"white", "purple"}  # all references are left out


def test_a_form_names_several_references_by_repeating_fields(client: TestClient, shop: Shop) -> None:
    fields = {"also_item": [str(shop.ids["green"]), str(shop.ids["blue"])], "weight": ["1", "5"]}
    as_form = client.post("/v1/search", data=fields, files={"text": (None, "")})
    as_json = client.post(
        "/v1/search", json={"also_item": [shop.ids["green"], shop.ids["blue"]], "weight": [1, 5]}
    )
    assert as_form.json()["results"] == as_json.json()["results"]
    assert shop.found(as_json)[0] == "blue"


def test_pages_follow_one_another(client: TestClient) -> None:
    whole = client.post("/v1/search", **form(text="red", k=6)).json()["results"]
    second = client.post("/v1/search", **form(text="red", k=2, offset=2)).json()
    assert second["results"] == whole[2:4]
    assert [result["rank"] for result in second["results"]] == [3, 4]
    assert client.post("/v1/search", **form(text="red", offset=100)).json()["results"] == []


def test_a_sentence_says_where_each_pseudo_word_looks(client: TestClient, shop: Shop) -> None:
    answer = client.post("/v1/sentence", **form(plate("red"))).json()
    assert answer["pseudo_words"] == [
        {"attention": [[0.25, 0.25], [0.25, 0.25]], "gate": 0.5, "near": [], "adds": []}
    ]
    assert answer["region"] == pytest.approx([1 / 6, 0, 2 / 3, 1])  # the middle square of 60 x 40
    assert answer["sentence"] == hashlib.sha256(plate("red")).hexdigest()


def test_an_encoder_that_cannot_explain_gives_no_pseudo_words(shop: Shop) -> None:
    service = SearchService(FakeEncoder(), shop.gallery)
    service.prepare()
    with TestClient(create_app(service)) as client:
        assert client.post("/v1/sentence", **form(plate("red"))).json()["pseudo_words"] == []
        assert shop.found(client.post("/v1/search", **form(plate("red"), text="but blue")))[0] == "blue"


def test_the_region_is_what_the_query_encoder_sees() -> None:
    assert covered((60, 40), Preprocessing(32, fit="squash")) == (0, 0, 1, 1)
    assert covered((40, 80), Preprocessing(32, fit="crop")) == (0, 0.25, 1, 0.5)


def asked_as_json(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/search", json=fields)


def test_a_ready_vector_asks_like_what_it_was_made_of(client: TestClient, shop: Shop) -> None:
    (vector,) = shop.encoder.encode_queries(None, ["green"])
    by_words = client.post("/v1/search", **form(text="green")).json()
    written = base64.b64encode(vector.astype("<f4").tobytes()).decode()
    for answer in (
        client.post("/v1/search", **form(vector=written)),
        asked_as_json(client, vector=written),
        asked_as_json(client, vector=vector.tolist()),
    ):
        assert shop.found(answer) == [shop.names[one["id"]] for one in by_words["results"]]
    for scale in (1e-30, 1e30):  # whose squares float32 does not hold
        scaled = [scale * value for value in vector.tolist()]
        assert [one["id"] for one in asked_as_json(client, vector=scaled).json()["results"]] == [
            one["id"] for one in by_words["results"]
        ]
    for wrong in ("not base64", [1.0, float(10**40)], [], [0.0] * 49, [1.0] * 3, "AAAA" * 7):
        refused = asked_as_json(client, vector=wrong)
        assert refused.status_code == 422, refused.text
        assert "vector" in refused.json()["error"]


def test_a_condition_keeps_to_what_meets_it(client: TestClient, shop: Shop) -> None:
    answer = client.post("/v1/search", **form(text="red", where="hue > 100"))
    assert set(shop.found(answer)) == {"blue", "green", "purple"}
    assert answer.json()["total"] == 3
    assert {"name": "blue", "hue": 240} in [result["metadata"] for result in answer.json()["results"]]
    listed = client.get("/v1/items", params={"where": "hue = 0"}).json()
    assert (listed["total"], [item["metadata"]["name"] for item in listed["items"]]) == (
        2,
        ["red", "zz-red-again"],
    )
    for refused in (
        client.post("/v1/search", **form(text="red", where="hoe > 1")),
        client.get("/v1/items", params={"where": "hue >"}),
    ):
        assert refused.status_code == 422
        assert not leaks(refused.text, shop)


def test_columns_are_described(client: TestClient) -> None:
    about = client.get("/v1/gallery").json()
    columns = {column["name"]: column for column in about["columns"]}
    assert (about["pictures"], about["device"]) == (6, False)
    assert (columns["hue"]["least"], columns["hue"]["greatest"]) == (0, 300)
    assert ["blue", 1] in columns["name"]["values"]


def test_what_is_not_wanted_is_pushed_back(client: TestClient, shop: Shop) -> None:
    def score(name: str, **fields: Any) -> float:
        results = asked_as_json(client, text="red purple", **fields).json()["results"]
        return next(one["score"] for one in results if one["id"] == shop.ids[name])

    assert score("purple") > score("purple", not_text=["purple"]) + 0.1
    assert score("purple") > score("purple", not_item=[shop.ids["purple"]]) + 0.1
    repeated = [("text", (None, "red purple")), ("not_text", (None, "purple")), ("not_text", (None, "blue"))]
    by_form = client.post("/v1/search", files=repeated).json()["results"]
    assert by_form == asked_as_json(client, text="red purple", not_text=["purple", "blue"]).json()["results"]
    assert asked_as_json(client, text="red", not_text=[" "]).status_code == 422
    assert asked_as_json(client, text="red", not_item=[999]).status_code == 404


def test_the_balance_goes_from_the_picture_to_the_words(client: TestClient, shop: Shop) -> None:
    def best(balance: float) -> str:
        return shop.found(asked_as_json(client, item=shop.ids["white"], text="blue", balance=balance))[0]

    assert best(1.0) == "blue"
    picture = client.post("/v1/search", **form(item=shop.ids["white"], k=2))
    assert best(0.0) == shop.found(picture)[1]
    assert asked_as_json(client, text="blue", balance=1.1).status_code == 422


def test_a_pseudo_word_that_is_switched_off_is_not_asked(client: TestClient, shop: Shop) -> None:
    words = asked_as_json(client, text="green").json()["results"]
    muted = asked_as_json(client, item=shop.ids["red"], text="green", muted=[1]).json()["results"]
    assert muted == words
    assert asked_as_json(client, item=shop.ids["red"], text="green").json()["results"] != words
    assert asked_as_json(client, item=shop.ids["red"], muted=[1]).status_code == 422
    assert asked_as_json(client, item=shop.ids["red"], text="green", muted=[2]).status_code == 422


def test_pictures_indexed_meanwhile_are_found(
    client: TestClient, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("image2sentence.server.service.LOOKS_FOR_CHANGES", 0.0)
    (shop.pictures / "yellow.png").write_bytes(plate("yellow"))
    index_pictures(shop.pictures, shop.gallery, shop.encoder)
    found = client.post("/v1/search", **form(text="yellow")).json()
    assert found["total"] == len(COLOURS) + 2
    assert found["results"][0]["id"] not in shop.names


def replaced(shop: Shop, *colours: str) -> dict[str, int]:
    """Deletes the gallery and indexes other pictures into a new one in its place; their ids by name."""
    folder = shop.gallery.folder
    shutil.rmtree(folder)
    for picture in shop.pictures.iterdir():
        picture.unlink()
    for colour in colours:
        (shop.pictures / f"{colour}.png").write_bytes(plate(colour))
    with Gallery.create(folder, shop.encoder.fingerprint, shop.encoder.width) as gallery:
        index_pictures(shop.pictures, gallery, shop.encoder)
        return {picture.path.stem: picture.id for picture in gallery.pictures()}


@pytest.mark.parametrize("first", ["/v1/search", "/ready", "/v1/items", "/v1/gallery"])
def test_another_gallery_in_the_same_place_is_served(
    client: TestClient, shop: Shop, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.setattr("image2sentence.server.service.LOOKS_FOR_CHANGES", 0.0)
    shown = {number: client.get(f"/v1/items/{number}/thumbnail").content for number in sorted(shop.names)[:2]}
    asked_as_json(client, item=min(shop.names))
    ids = replaced(shop, "yellow", "black")
    assert set(ids.values()) == set(shown)
    assert (asked_as_json(client, text="x") if first == "/v1/search" else client.get(first)).is_success
    assert client.get("/health").json()["pictures"] == client.get("/ready").json()["pictures"] == 2
    found = asked_as_json(client, text="yellow").json()
    assert (found["total"], found["results"][0]["id"]) == (2, ids["yellow"])
    assert client.get("/v1/gallery").json() == {
        "pictures": 2,
        "columns": [],
        "device": False,
        "originals": False,
        "local": False,
        "model": None,
        "fetches_from": [],
    }
    for number, former in shown.items():
        assert client.get(f"/v1/items/{number}/thumbnail").content != former
    itself = asked_as_json(client, item=min(shop.names)).json()["results"][0]
    assert (itself["id"], itself["score"] > 0.99) == (min(shop.names), True)
    with pytest.raises(GalleryError):  # closed, so that the disk gets its room back
        len(shop.gallery)


def test_a_gallery_that_has_gone_is_not_served_from_memory(
    client: TestClient, shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("image2sentence.server.service.LOOKS_FOR_CHANGES", 0.0)
    folder, away = shop.gallery.folder, shop.gallery.folder.with_name("away")

    def statuses() -> set[int]:
        answers = [client.get(path) for path in ("/ready", "/v1/items", "/v1/gallery")]
        return {answer.status_code for answer in (*answers, asked_as_json(client, text="red"))}

    folder.rename(away)
    assert statuses() == {503}
    assert "cannot be reached any more" in caplog.text
    Gallery.create(folder, "another model", shop.encoder.width).close()
    assert statuses() == {503}
    assert "use that model" in caplog.text
    shutil.rmtree(folder)
    away.rename(folder)
    assert statuses() == {200}


def test_the_page_s_own_encoder_is_handed_out_only_where_it_is_wanted(tmp_path: Path, shop: Shop) -> None:
    for name in RUNTIME_FILES:
        (tmp_path / name).write_bytes(b"runtime")
    (tmp_path / "other.js").write_bytes(b"private")
    service = SearchService(load_encoder(), real_gallery(tmp_path))
    names = ["config.json", "tokenizer.json", "onnx/query_image.onnx", "onnx/query_text.onnx"]
    with TestClient(create_app(service)) as client:
        assert client.get("/v1/model/config.json").status_code == 404
        assert client.get("/runtime/ort.wasm.bundle.min.mjs").status_code == 404
        assert "wasm" not in client.get("/").headers["content-security-policy"]
    with TestClient(create_app(service, runtime=tmp_path)) as client:
        for name in names:
            answer = client.get(f"/v1/model/{name}")
            assert answer.content == (bundled() / name).read_bytes()
            again = client.get(f"/v1/model/{name}", headers={"If-None-Match": answer.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        for name in (
            "onnx/gallery_image.onnx",
            "README.md",
            "../default/config.json",
            "vl/int8.safetensors",
        ):
            assert client.get(f"/v1/model/{name}").status_code == 404
        assert (
            client.get("/runtime/ort-wasm-simd-threaded.wasm").headers["content-type"] == "application/wasm"
        )
        assert client.get("/runtime/other.js").status_code == 404
        assert "'wasm-unsafe-eval'" in client.get("/").headers["content-security-policy"]


def real_gallery(folder: Path) -> Gallery:
    """An empty gallery of the bundled model."""
    encoder = load_encoder()
    return Gallery.create(folder / "real", encoder.fingerprint, encoder.width)


def test_pseudo_words_are_near_real_words_of_the_same_meaning() -> None:
    encoder = load_encoder(threads=1)
    wording = NearestWords(encoder)
    onnx = pytest.importorskip("onnx")
    tokenizer = Tokenizer.from_file(str(bundled() / "tokenizer.json"))
    table = next(
        onnx.numpy_helper.to_array(one)
        for one in onnx.load(bundled() / "onnx" / "query_text.onnx").graph.initializer
        if "word_embeddings" in one.name
    )
    words = ["umbrella", "red"]
    rows = np.stack([table[tokenizer.token_to_id(word)] for word in words]).astype(np.float32)
    near = wording.nearest(rows[None], 3)
    assert [one[0].word for one in near] == words
    assert near[0][0].nearness > near[0][1].nearness > near[0][2].nearness
    assert near[0][0].nearness == pytest.approx(1, abs=0.01)
    assert not {"umbrellas", "reds"} & {
        one.word for pseudo_word in near for one in pseudo_word
    }  # read alike: once
    assert NearestWords(FakeEncoder()).nearest(np.zeros((1, 1, 49), np.float32), 3) == []


def test_items_are_listed_and_described(client: TestClient, shop: Shop) -> None:
    page = client.get("/v1/items", params={"k": 2, "offset": 1}).json()
    assert page["total"] == len(COLOURS) + 1
    assert [item["id"] for item in page["items"]] == sorted(shop.names)[1:3]
    one = client.get(f"/v1/items/{shop.ids['green']}").json()
    assert one == {
        "id": shop.ids["green"],
        "name": "green.png",
        "path": None,
        "size": len(plate("green")),
        "width": 60,
        "height": 40,
        "metadata": {"hue": 120, "name": "green"},
        "missing": False,
    }


def test_pictures_are_shown_small_upright_and_without_metadata(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "turned.jpg").write_bytes(rotated_jpeg())
    (tmp_path / "pictures" / "wide.png").write_bytes(encoded(photo(1, (3000, 1500)), "PNG"))
    encoder = Reader()
    with Gallery.create(tmp_path / "gallery", encoder.fingerprint, encoder.width) as gallery:
        index_pictures(tmp_path / "pictures", gallery, encoder)
        ids = {picture.path.stem: picture.id for picture in gallery.pictures()}
        with TestClient(create_app(SearchService(encoder, gallery))) as client:
            turned = client.get(f"/v1/items/{ids['turned']}/thumbnail")
            wide = client.get(f"/v1/items/{ids['wide']}/image")
    shown = Image.open(io.BytesIO(turned.content))
    assert turned.headers["content-type"] == "image/jpeg"
    assert (shown.format, shown.size, len(shown.getexif())) == ("JPEG", (64, 48), 0)
    assert Image.open(io.BytesIO(wide.content)).size == (1280, 640)


def test_a_thumbnail_is_made_once(client: TestClient, shop: Shop) -> None:
    address = f"/v1/items/{shop.ids['red']}/thumbnail"
    first = client.get(address).content
    (shop.pictures / "red.png").unlink()
    assert client.get(address).content == first


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        (form(), 422, "expected a picture, words, or both"),
        (form(text="   "), 422, "expected a picture, words, or both"),
        (form(b"no picture", text="red"), 422, "its content is not a"),
        (form(b""), 422, "the file is empty"),
        (form(encoded(photo(1, (300, 200)), "JPEG")[:900]), 422, "cut short"),
        (form(png_bomb()), 422, "30,000 x 30,000"),
        (form(item=10**30), 404, "has no picture"),
        (form(item="one"), 422, "item: "),
        (form(plate("red"), item=1), 422, "expected one reference"),
        (form(sentence="0" * 64), 404, "send the picture again"),
        (form(sentence="../../etc/passwd"), 422, "sentence: "),
        (form(text="red", k=0), 422, "k: "),
        (form(text="red", k=MAX_RESULTS + 1), 422, "k: "),
        (form(text="red", offset=MAX_OFFSET + 1), 422, "offset: "),
        (form(text="x" * (MAX_TEXT_LENGTH + 1)), 422, "text: "),
        (form(text="red", url="http://127.0.0.1/x.png"), 422, "url: "),
        (form(text="x" * 100_000), 400, "the form cannot be read"),
        ({"files": {"picture": (None, "words")}}, 422, "picture: expected a file"),
        ({"content": b"text=red", "headers": {"content-type": "text/plain"}}, 415, "multipart/form-data"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "Invalid JSON"),
        ({"json": ["red"]}, 422, "the request: "),
        ({"json": {"text": "red", "picture": "x"}}, 422, "picture: "),
        ({"json": {"text": "red", "not_text": ["dots"] * (MAX_NEGATIVES + 1)}}, 422, "not_text: "),
        ({"json": {"text": "red", "not_item": [1] * (MAX_NEGATIVES + 1)}}, 422, "not_item: "),
        ({"json": {"text": "red", "exclude": [1] * (MAX_NEGATIVES + 1)}}, 422, "exclude: "),
        ({"json": {"text": "red", "exclude": [10**30]}}, 404, "has no picture"),
        ({"json": {"also_item": [10**30]}}, 404, "has no picture"),
        ({"json": {"also_sentence": ["0" * 64]}}, 404, "send the picture again"),
        ({"json": {"also_sentence": ["x"]}}, 422, "also_sentence"),
        ({"json": {"also_item": [1] * MAX_REFERENCES, "item": 1}}, 422, "at most 8 references"),
        ({"json": {"also_item": [1] * (MAX_REFERENCES + 1)}}, 422, "also_item: "),
        ({"json": {"also_item": [1, 2], "weight": [1]}}, 422, "expected one for each of 2 references"),
        ({"json": {"text": "red", "weight": [1]}}, 422, "expected one for each of 0 references"),
        ({"json": {"item": 1, "weight": [0]}}, 422, "weight"),
        (
            {"content": b'{"item": 1, "weight": [1e999]}', "headers": {"content-type": "application/json"}},
            422,
            "weight",
        ),
        ({"json": {"text": "red", "muted": [1] * 65}}, 422, "muted: "),
        ({"json": {"text": "red", "where": "x" * (MAX_FILTER_LENGTH + 1)}}, 422, "where: "),
        ({"json": {"text": "red", "where": "((" * 400 + "name = 'x'"}}, 422, "filter"),
        ({"json": {"vector": [0.5] * (MAX_VECTOR_WIDTH + 1)}}, 422, "vector"),
        ({"json": {"vector": "A" * (6 * MAX_VECTOR_WIDTH)}}, 422, "vector"),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 422, "Invalid JSON"),
        (form(**{f"x{number}": "" for number in range(MAX_FIELDS + 1)}), 400, "cannot be read"),
        ({"files": [("picture", ("a", b"x")), ("picture", ("b", b"y"))]}, 400, "cannot be read"),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400, "cannot be read"),
        (part_with(b"; a=b" * 2_000), 400, "cannot be read"),
        (part_with(b'; filename="' + b'\\"' * 3_000), 400, "cannot be read"),
        (part_with(b"\r\na: b" * 70), 400, "cannot be read"),
        (
            {"content": b"junk", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
            "cannot be read",
        ),
        ({"json": {"vector": [0.0] * 48 + [1e-60]}}, 422, "vector"),
        (
            {"content": b'{"text": "\\ud800"}', "headers": {"content-type": "application/json"}},
            422,
            "Invalid JSON",
        ),
    ],
)
def test_what_cannot_be_answered_is_said(
    client: TestClient, shop: Shop, asked: dict[str, Any], status: int, part: str
) -> None:
    answer = client.post("/v1/search", **asked)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert part in answer.json()["error"]
    assert not leaks(answer.text, shop)


WRITTEN = (
    b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nred\r\n'
    b'--x\r\nContent-Disposition: form-data; name="where"\r\n\r\nhue = 240\r\n--x--'
)


def sent(client: TestClient, body: bytes, parameters: str = "boundary=x") -> Any:
    """The answer to a form written by hand."""
    headers = {"content-type": f"multipart/form-data; {parameters}"}
    return client.post("/v1/search", content=body, headers=headers)


def test_a_form_that_breaks_off_anywhere_is_refused(client: TestClient) -> None:
    for length in range(len(WRITTEN)):
        answer = sent(client, WRITTEN[:length])
        assert answer.status_code == 400, WRITTEN[:length]
        assert "the form cannot be read" in answer.json()["error"]


def test_a_form_may_end_as_clients_end_it(client: TestClient, shop: Shop) -> None:
    for ending in (b"", b"\r\n", b"\r\nan epilogue\r\n--x\r\n"):
        assert shop.found(sent(client, WRITTEN + ending)) == ["blue"]
    for parameters in ('boundary="x"', 'boundary=x; charset="utf-8"', "charset=latin-1; boundary=x"):
        assert shop.found(sent(client, WRITTEN, parameters)) == ["blue"]
    quoted = WRITTEN.replace(b"--x", b"--a b:c")
    assert shop.found(sent(client, quoted, 'boundary="a b:c"')) == ["blue"]


@pytest.mark.parametrize("charset", ["undefined", "punycode", "utf-16", "unicode_escape"])
def test_an_odd_charset_is_the_askers_mistake(client: TestClient, charset: str) -> None:
    odd = WRITTEN.replace(b"red", b"r\xe9d\\ud800")
    assert sent(client, odd, f"boundary=x; charset={charset}").status_code in (400, 422)
    if charset in ("undefined", "punycode"):
        answer = sent(client, odd, f"boundary=x; charset={charset}")
        assert (answer.status_code, "UTF-8" in answer.json()["error"]) == (400, True)


def leaks(body: str, shop: Shop) -> list[str]:
    """What must not stand in an answer: places on this disk, names of files, code."""
    private = (str(shop.pictures.parent), "pictures/", ".png", ".py", "Traceback", "sqlite")
    return [text for text in private if text in body]


@pytest.mark.parametrize("kind", ["", "/thumbnail", "/image"])
def test_unknown_items_are_not_found(client: TestClient, kind: str) -> None:
    assert client.get(f"/v1/items/999{kind}").status_code == 404
    assert client.get(f"/v1/items/-1{kind}").status_code == 404
    for number in (10**23, -(10**23), 2**63, -(2**63) - 1):
        assert client.get(f"/v1/items/{number}{kind}").status_code == 404
    assert client.get(f"/v1/items/x{kind}").status_code == 422
    assert client.get(f"/v1/items/..%2F..%2Fred.png{kind}").status_code in (404, 422)


def test_a_picture_that_is_gone_is_not_found_and_not_named(client: TestClient, shop: Shop) -> None:
    (shop.pictures / "blue.png").unlink()
    (shop.pictures / "green.png").write_bytes(b"no picture any more")
    for name in ("blue", "green"):
        answer = client.get(f"/v1/items/{shop.ids[name]}/thumbnail")
        assert answer.status_code == 404
        assert not leaks(answer.text, shop)
    asked = client.post("/v1/search", **form(item=shop.ids["blue"]))
    assert (asked.status_code, leaks(asked.text, shop)) == (404, [])


def test_a_body_too_large_is_refused(shop: Shop) -> None:
    app = create_app(shop.service, limits=UploadLimits(body_bytes=50_000))
    with TestClient(app) as client:
        announced = client.post("/v1/search", **form(bytes(60_000)))
        assert announced.status_code == 413
        assert "50,000 bytes" in announced.json()["error"]
        assert client.post("/v1/search", **form(plate("red"))).status_code == 200


def test_json_may_be_as_large_as_a_vector_not_as_a_picture(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    refused = client.post("/v1/search", content=b" " * (MAX_JSON_BYTES + 1), headers=headers)
    assert (refused.status_code, f"{MAX_JSON_BYTES:,} bytes" in refused.text) == (413, True)
    widest = asked_as_json(client, vector=[-0.123456789012345678] * MAX_VECTOR_WIDTH)
    assert (widest.status_code, "width" in widest.text) == (422, True)
    written = base64.b64encode(bytes(4 * MAX_VECTOR_WIDTH)).decode()
    assert "vector" in client.post("/v1/search", **form(vector=written)).text


def test_an_endless_body_is_not_read_to_its_end(shop: Shop) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
        while sent < 1000:
            sent += 1
            yield bytes(10_000)

    app = create_app(shop.service, limits=UploadLimits(body_bytes=50_000))
    with TestClient(app) as client:
        headers = {"content-type": "multipart/form-data; boundary=x"}
        assert client.post("/v1/search", content=endless(), headers=headers).status_code == 413


def test_a_body_too_slow_is_given_up(shop: Shop) -> None:
    app = create_app(shop.service, limits=UploadLimits(seconds=0.0))
    with TestClient(app) as client:
        answer = client.post("/v1/search", **form(text="red"))
    assert (answer.status_code, "to arrive" in answer.text) == (408, True)


AUDITED: list[tuple[str, Any]] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect" or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        AUDITED.append((event, args))


sys.addaudithook(_audit)


@contextmanager
def audited() -> Iterator[list[tuple[str, Any]]]:
    """Files opened for writing and connections made meanwhile, by any thread, as the interpreter tells them."""
    AUDITED.clear()
    yield AUDITED


def test_uploads_are_never_written_to_disk(client: TestClient) -> None:
    large = encoded(Image.effect_noise((1400, 1400), 90).convert("RGB"), "PNG")
    assert len(large) > 2 << 20
    with audited() as done:
        assert client.post("/v1/search", **form(large)).status_code == 200
        assert client.post("/v1/search", **form(large[:-900])).status_code == 422
        assert client.post("/v1/sentence", **form(large)).status_code == 200
        assert not done
        with tempfile.TemporaryFile():
            assert done  # it would have been noticed


def test_nothing_is_fetched_for_a_stranger(client: TestClient) -> None:
    address = "http://127.0.0.1:9/x.png"
    with audited() as done:
        for asked in (
            form(address.encode(), text="red"),
            form(text=address),
            form(item=address),
            form(sentence=address),
            {"json": {"picture": address}},
            {"json": {"text": "red", "exclude_content": [address]}},
        ):
            assert client.post("/v1/search", **asked).status_code in (200, 422)
        assert client.get(f"/v1/model/{address}").status_code == 404
        assert not done


def test_why_a_store_cannot_be_read_is_not_told(
    client: TestClient, shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    item = replace(shop.gallery.picture(shop.ids["blue"]), path="s3://secret-bucket/blue.png")
    monkeypatch.setattr(shop.gallery, "pictures_of", lambda numbers: [item])

    def refuse(picture: Any) -> bytes:
        raise ImageError(f"it cannot be read (PermissionError: {picture.path})")

    monkeypatch.setattr("image2sentence.server.service.read_picture", refuse)
    answer = client.get(f"/v1/items/{item.id}/thumbnail")
    assert (answer.status_code, "secret" in answer.text) == (404, False)
    assert "secret-bucket" in caplog.text


def test_a_picture_just_forgotten_does_not_tell_where_the_gallery_is(client: TestClient, shop: Shop) -> None:
    asked = {"item": shop.ids["blue"], "text": "but red"}
    assert asked_as_json(client, **asked).status_code == 200
    shop.gallery.delete([shop.ids["blue"]])
    refused = asked_as_json(client, **asked)
    assert refused.status_code in (404, 422)
    assert not leaks(refused.text, shop)


def test_threads_take_no_more_calls_than_there_is_room_for() -> None:
    async def ask() -> list[Any]:
        free = threading.Event()
        workers = Workers(1, 1)
        calls = [asyncio.ensure_future(workers.run(free.wait, 20)) for _ in range(3)]
        await asyncio.sleep(0.01)
        free.set()
        done = await asyncio.gather(*calls, return_exceptions=True)
        again = await workers.run(len, "ab")
        workers.close()
        return [*done, again]

    assert [type(one) if isinstance(one, Exception) else one for one in asyncio.run(ask())] == [
        True,
        True,
        Busy,
        2,
    ]


def test_a_call_that_gets_no_thread_in_time_is_refused_and_never_run() -> None:
    async def ask() -> list[Any]:
        free, run = threading.Event(), list[int]()
        workers = Workers(1, 5, patience=0.05)
        calls = [
            asyncio.ensure_future(one) for one in (workers.run(free.wait, 20), workers.run(run.append, 1))
        ]
        left = asyncio.ensure_future(workers.run(run.append, 2))
        await asyncio.sleep(0.01)
        left.cancel()
        (late,) = await asyncio.gather(calls[1], return_exceptions=True)
        free.set()
        done = [await calls[0], type(late), (await asyncio.gather(left, return_exceptions=True))[0]]
        again = await workers.run(len, "ab")
        workers.close()
        return [*done, again, run]

    began, late, left, again, run = asyncio.run(ask())
    assert (began, late, again, run) == (True, Busy, 2, [])
    assert isinstance(left, asyncio.CancelledError)


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/health", "/v1/items", "/v1/items/999", "/nothing"])
def test_every_answer_has_the_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert {name: headers.get(name) for name in security_headers()} == security_headers()
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere(client: TestClient) -> None:
    html = client.get("/").text
    assert "<style" not in html
    assert " style=" not in html
    assert html.count("<script") == html.count("<script src=") + html.count('<script type="module" src=')
    sources = [source for source in PAGE.iterdir() if source.is_file() and source.name != "index.html"]
    assert {"app.js", "style.css", "icon.svg"} <= {source.name for source in sources}
    for source in sources:
        content = client.get(f"/static/{source.name}")
        assert content.status_code == 200
        assert "://" not in content.text.replace("http://www.w3.org/2000/svg", "")
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/static/%2e%2e/app.py").status_code == 404


def test_a_token_keeps_strangers_out(shop: Shop) -> None:
    with TestClient(create_app(shop.service, token="sésame")) as client:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic sésame".encode()}):
            answer = client.get("/v1/items", headers=given)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert client.post("/v1/search", headers=given, **form(text="red")).status_code == 401
        assert client.get("/v1/items", headers={"Authorization": "Bearer sésame".encode()}).status_code == 200
        assert client.get("/").status_code == client.get("/health").status_code == 200


def test_every_described_address_below_v1_wants_the_token(shop: Shop) -> None:
    with TestClient(create_app(shop.service, token="secret"), raise_server_exceptions=False) as client:
        paths = client.get("/openapi.json").json()["paths"]
        asked = [(method, path) for path, ways in paths.items() for method in ways if path.startswith("/v1/")]
        assert {("post", "/v1/search"), ("post", "/v1/sentence/json")} < set(asked)
        for method, path in asked:
            assert client.request(method, path.replace("{number}", "1")).status_code == 401, path


def test_every_query_counts(shop: Shop) -> None:
    asked = [("post", f"/v1/{name}") for name in ("search", "search/json", "sentence", "sentence/json")]
    for method, path in [*asked, ("get", "/v1/items/1/similar")]:
        app = create_app(shop.service, load=Load(rate=1.0))
        app.state.serving.rates = Rates(1.0, clock=lambda: 0.0)
        with TestClient(app) as client:
            body = {"json": {"item": shop.ids["red"]}} if method == "post" else {}
            answers = [client.request(method, path, **body).status_code for _ in range(3)]
        assert answers == [200, 200, 429], path


def test_a_search_without_a_condition_waits_for_no_thread(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(*_: object) -> None:
        raise AssertionError("a thread was asked")

    with TestClient(create_app(shop.service)) as client:
        monkeypatch.setattr(client.app.state.serving.pictures, "run", run)  # type: ignore[attr-defined]
        assert shop.found(client.post("/v1/search", **form(text="green", k=1))) == ["green"]


def test_wrong_tokens_are_limited_and_right_ones_are_not(shop: Shop) -> None:
    right, wrong = ({"Authorization": f"Bearer {token}"} for token in ("secret", "guess"))
    app = create_app(shop.service, token="secret")
    app.state.wrong_tokens = Rates(
        WRONG_TOKENS, clock=lambda: 0.0
    )  # a slow machine would give some back meanwhile
    with TestClient(app) as client:
        assert {client.get("/v1/gallery", headers=right).status_code for _ in range(30)} == {200}
        answers = [client.get("/v1/gallery", headers=wrong) for _ in range(30)]
        assert [one.status_code for one in answers[:10]] == [401] * 10
        assert answers[-1].status_code == 429
        assert "retry-after" in answers[-1].headers
        assert (
            client.get("/v1/gallery", headers=right).status_code == 429
        )  # nor does a right guess get through
        assert client.get("/v1/gallery").status_code == 401


def test_only_its_own_names_reach_a_server_on_the_loopback(shop: Shop) -> None:
    with TestClient(create_app(shop.service, hosts=AllowedHosts.of("127.0.0.1"))) as client:
        assert client.get("/v1/items", headers={"Host": "localhost:8000"}).status_code == 200
        assert client.get("/v1/items", headers={"Host": "[::1]:8000"}).status_code == 200
        refused = client.get("/v1/items", headers={"Host": "127.0.0.1.example.org"})
    assert (refused.status_code, "x-frame-options" in refused.headers) == (400, True)
    assert host_name("LOCALHOST:1") == "localhost"


def test_a_name_pointed_at_an_open_server_is_refused(shop: Shop) -> None:
    hosts = AllowedHosts.of("0.0.0.0", ["Photos.example.org"])
    own = ["192.168.1.7:8000", "[fe80::1]:8000", "photos.example.org", "localhost", socket.gethostname()]
    with TestClient(create_app(shop.service, hosts=hosts)) as client:
        assert {client.get("/v1/items", headers={"Host": name}).status_code for name in own} == {200}
        for name in ("evil.example", "192.168.1.7.example", "", "photos.example.org.evil.example"):
            refused = client.get("/v1/items", headers={"Host": name})
            assert refused.status_code == 400, name
            assert "--allow-host" in refused.json()["error"]
        twice = [("Host", "localhost"), ("Host", "evil.example")]
        assert client.get("/v1/items", headers=twice).status_code == 400


SAME, OTHER, NONE = ({"Sec-Fetch-Site": site} for site in ("same-origin", "cross-site", "none"))
LINK = OTHER | {"Sec-Fetch-Mode": "navigate"}
NEIGHBOUR = {"Sec-Fetch-Site": "same-site"}  # another port of this computer


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {}, 200),
        ("POST", SAME, 200),
        ("POST", NONE, 200),
        ("POST", OTHER, 403),
        ("POST", NEIGHBOUR, 403),
        ("POST", LINK, 403),
        ("GET", OTHER, 403),
        ("GET", LINK, 200),
        ("POST", {"Origin": "http://testserver"}, 200),
        ("POST", {"Origin": "http://testserver:80"}, 200),
        ("POST", {"Origin": "http://testserver:3000"}, 403),
        ("POST", {"Origin": "http://evil.example"}, 403),
        ("POST", {"Origin": "null"}, 403),
        ("POST", {"Origin": "http://[evil"}, 403),
        ("POST", {"Origin": "http://testserver:x"}, 403),
        ("POST", {"Origin": "http://allowed.example:3000"} | OTHER, 200),
    ],
)
def test_pages_of_other_sites_cannot_ask(
    shop: Shop, method: str, headers: dict[str, str], status: int
) -> None:
    hosts = AllowedHosts.of("0.0.0.0", ["testserver", "allowed.example"])
    hosts = replace(hosts, named=frozenset({"allowed.example"}))
    with TestClient(create_app(shop.service, hosts=hosts)) as client:
        sent = form(text="red") if method == "POST" else {}
        path = "/v1/search" if method == "POST" else "/v1/items"
        assert client.request(method, path, headers=headers, **sent).status_code == status


def test_a_full_server_refuses_before_it_reads_a_body(shop: Shop) -> None:
    read = []

    def body() -> Iterator[bytes]:
        read.append(1)
        yield b"x"

    with TestClient(create_app(shop.service, load=Load(waiting=0))) as client, ThreadPoolExecutor(1) as pool:
        shop.encoder.may_compose.clear()
        first = pool.submit(client.post, "/v1/search", **form(text="red"))
        while not client.app.state.serving.admission.inside:  # type: ignore[attr-defined]
            time.sleep(0.01)
        headers = {"content-type": "multipart/form-data; boundary=x"}
        refused = client.post("/v1/search", content=body(), headers=headers)
        shop.encoder.may_compose.set()
        assert first.result().status_code == 200
    assert refused.status_code == 429


def test_an_announced_body_without_room_is_refused(shop: Shop) -> None:
    with TestClient(create_app(shop.service, load=Load(bodies=50_000))) as client:
        assert client.post("/v1/search", **form(bytes(60_000))).status_code == 429
        assert client.post("/v1/search", **form(plate("red"))).status_code == 200


def test_a_client_that_asks_too_fast_is_slowed_down(shop: Shop) -> None:
    with TestClient(create_app(shop.service, load=Load(rate=1.0))) as client:
        statuses = [client.post("/v1/search", **form(text="red")).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert client.get("/health").status_code == 200


def test_a_picture_costs_a_twentieth_of_a_query(shop: Shop) -> None:
    with TestClient(create_app(shop.service, load=Load(rate=0.5))) as client:
        address = f"/v1/items/{shop.ids['red']}/thumbnail"
        assert [client.get(address).status_code for _ in range(15)] == [200] * 15
        assert client.post("/v1/search", **form(text="red")).status_code == 429
        assert client.get(address).status_code == 200


def test_a_filtered_or_sorted_list_costs_as_much_as_a_query(shop: Shop) -> None:
    with TestClient(create_app(shop.service, load=Load(rate=1.0))) as client:
        for asked in ("where=size>0", "sort=@name"):
            assert client.get(f"/v1/items?{asked}").status_code == 200
        assert client.get("/v1/items?where=size>1").status_code == 429
        assert client.get("/health").status_code == 200


def test_queries_that_wait_together_are_answered_in_one_call() -> None:
    sizes: list[int] = []
    free = threading.Event()

    def answer(queries: list[int]) -> list[int | Exception]:
        assert free.wait(20)
        return [QueryError("odd") if query % 2 else 10 * query for query in queries]

    async def ask() -> list[Any]:
        batcher: Batcher[int, int] = Batcher(answer, 3, sizes.append)
        asked = [asyncio.ensure_future(batcher.ask(query)) for query in range(8)]
        await asyncio.sleep(0.01)
        asked[2].cancel()  # gave up while waiting
        asked[0].cancel()  # gave up while being answered
        free.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        batcher.close()
        return answers

    answers = asyncio.run(ask())
    assert sizes == [1, 3, 3]
    assert [answers[4], answers[6]] == [40, 60]
    assert [type(answers[n]) for n in (0, 1, 2, 3)] == [
        asyncio.CancelledError,
        QueryError,
        asyncio.CancelledError,
        QueryError,
    ]


def test_what_breaks_a_batch_breaks_all_of_it_and_nothing_else() -> None:
    async def ask() -> list[Any]:
        batcher: Batcher[int, float] = Batcher(lambda queries: [1 / query for query in queries], 4)
        broken = await asyncio.gather(batcher.ask(0), return_exceptions=True)
        fine = await batcher.ask(2)
        batcher.close()
        return [*broken, fine]

    broken, fine = asyncio.run(ask())
    assert (type(broken), fine) == (ZeroDivisionError, 0.5)


def test_metrics_count_requests_by_route(client: TestClient, shop: Shop) -> None:
    client.post("/v1/search", **form(text="red"))
    client.get(f"/v1/items/{shop.ids['red']}/thumbnail")
    client.get("/nothing/that/exists")
    text = client.get("/metrics").text
    for line in (
        'image2sentence_requests_total{route="/v1/search",status="200"} 1.0',
        'image2sentence_requests_total{route="/v1/items/{number}/thumbnail",status="200"} 1.0',
        'image2sentence_requests_total{route="none",status="404"} 1.0',
        'image2sentence_query_stage_seconds_count{stage="search"} 1.0',
        "image2sentence_batch_queries_count 1.0",
        "image2sentence_gallery_pictures 6.0",
    ):
        assert line in text
    with TestClient(create_app(shop.service, token="secret")) as guarded:
        assert guarded.get("/metrics").status_code == 401


def test_past_the_queue_requests_are_told_to_come_back(shop: Shop) -> None:
    waiting = 2
    with (
        TestClient(create_app(shop.service, load=Load(waiting=waiting))) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        shop.encoder.may_compose.clear()
        asked = [pool.submit(client.post, "/v1/search", **form(text="red")) for _ in range(8)]
        refused = [next_done(asked) for _ in range(8 - 1 - waiting)]
        assert client.get("/health").status_code == 200  # answers while queries wait
        shop.encoder.may_compose.set()
        served = [future.result() for future in asked]
    assert {answer.status_code for answer in refused} == {429}
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert [answer.status_code for answer in served] == [200] * (1 + waiting)


def next_done(futures: list[Any]) -> Any:
    """The result of a future that is done first; takes it from the list."""
    done, _ = wait(futures, 20, FIRST_COMPLETED)
    first = done.pop()
    futures.remove(first)
    return first.result()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (GalleryError("/home/me/gallery.sqlite is damaged"), 503),
        (ModelError("/home/me/model is damaged"), 503),
        (ZeroDivisionError("in /home/me/code.py"), 500),
    ],
)
def test_what_the_asker_did_not_cause_is_not_told_in_detail(
    client: TestClient, shop: Shop, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def broken(*_: Any) -> None:
        raise error

    monkeypatch.setattr(shop.encoder, "encode_queries", broken)
    monkeypatch.setattr(shop.service, "check", broken)
    for answer in (client.post("/v1/search", **form(text="red")), client.get("/ready")):
        assert answer.status_code == status
        assert "log" in answer.json()["error"]
        assert "/home" not in answer.text


def test_health_and_readiness(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "pictures": 6}
    assert client.get("/ready").json() == {"status": "ready", "pictures": 6}


def test_openapi_describes_the_form(client: TestClient) -> None:
    form = client.get("/openapi.json").json()["components"]["schemas"]["SearchForm"]
    assert set(form["properties"]) == {"picture", *SearchFields.model_fields}


def test_a_service_refuses_the_gallery_of_another_model(shop: Shop) -> None:
    other = Reader()
    other.fingerprint = "another"
    with pytest.raises(GalleryError, match="was made with the encoder"):
        SearchService(other, shop.gallery)


def test_recent_values_stay_within_the_weight() -> None:
    recent: LruCache[bytes] = LruCache(10, len)
    recent.put("a", bytes(4))
    recent.put("b", bytes(4))
    assert recent.get("a") == bytes(4)
    recent.put("c", bytes(4))
    assert (recent.get("b"), len(recent)) == (None, 2)
    recent.put("a", bytes(6))
    assert (recent.get("a"), recent.get("c")) == (bytes(6), bytes(4))
    recent.put("huge", bytes(11))
    assert len(recent) == 0


def test_serve_refuses_an_empty_token(shop: Shop) -> None:
    result = CliRunner().invoke(cli, ["serve", "--gallery", str(shop.gallery.folder), "--token", ""])
    assert (result.exit_code, "leave it out" in result.stderr) == (2, True)


def test_serve_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without = import_without("uvicorn")
    (tmp_path / "gallery").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(builtins, "__import__", without)
        result = CliRunner().invoke(cli, ["serve", "--gallery", str(tmp_path / "gallery")])
    assert result.exit_code == 1
    assert "pip install 'image2sentence[server]'" in result.stderr
    with pytest.raises(ModuleNotFoundError), server_extra():
        raise ModuleNotFoundError("No module named 'other'", name="other")


def import_without(missing: str) -> Callable[..., Any]:
    """The import function of an installation that lacks one package."""
    real = builtins.__import__

    def imported(name: str, *rest: Any, **named: Any) -> Any:
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **named)

    return imported


def serve(shop: Shop, *options: str) -> Any:
    return CliRunner().invoke(cli, ["serve", "--gallery", str(shop.gallery.folder), *options])


def test_serve_says_where_only_once_the_port_is_its_own(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        refused = serve(shop, "--port", str(other.getsockname()[1]))
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "choose another --port" in refused.stderr


@pytest.mark.parametrize(
    ("host", "code"), [("192.0.2.1", 1), ("no.such.host.invalid", 1), ("a..b", 2), (f"{'x' * 70}.org", 2)]
)
def test_serve_refuses_a_host_that_is_not_here(shop: Shop, host: str, code: int) -> None:
    refused = serve(shop, "--host", host, "--port", str(free_port()))
    assert (refused.exit_code, refused.stdout) == (code, "")
    assert "--host" in refused.stderr


def test_a_name_is_listened_at_where_it_has_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, port = socket.SOCK_STREAM, free_port()
    missing = (socket.AF_INET, stream, 6, "", ("192.0.2.1", port))
    here = (socket.AF_INET, stream, 6, "", ("127.0.0.1", port))
    for known in ([missing, here], [here, missing]):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, known=known, **__: known)
        with taken("some.name", port) as sockets:
            assert [one.getsockname() for one in sockets] == [("127.0.0.1", port)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [missing, missing])
    with pytest.raises(ClickException, match="choose another --host"), taken("some.name", port):
        pass


def test_serve_runs_the_app_on_the_loopback(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn

    from image2sentence import encoders

    started: list[Any] = []
    monkeypatch.setattr(encoders, "load_encoder", lambda *_, **__: shop.encoder)
    monkeypatch.setattr(
        uvicorn.Server, "run", lambda server, sockets: started.extend(one.getsockname() for one in sockets)
    )
    port = free_port()
    quiet = serve(shop, "--port", str(port))
    assert (quiet.exit_code, quiet.stderr) == (0, "")
    assert f"6 pictures at http://127.0.0.1:{port}" in quiet.stdout
    warned = serve(shop, "--port", str(port), "--host", "0.0.0.0")
    assert "--token keeps others out" in warned.stderr
    assert started == [("127.0.0.1", port), ("0.0.0.0", port)]
    assert address("::1", 80) == "http://[::1]:80"
