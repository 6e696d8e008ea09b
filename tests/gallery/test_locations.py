"""Places that a gallery from somebody else may name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes import FakeEncoder
from image2sentence.errors import GalleryError
from image2sentence.gallery import Gallery
from image2sentence.gallery.locations import (
    PROTOCOLS_VARIABLE,
    as_place,
    file_system,
    joined,
    read_url,
    stored_place,
)
from image2sentence.gallery.sqlite.schema import checksum


@pytest.mark.parametrize("path", ["../x.jpg", "a/../../x.jpg", "/etc/x.jpg", "..", "a/.."])
def test_a_file_outside_its_folder_is_refused(path: str) -> None:
    # An object's key may begin with a slash, which leads nowhere.
    for root in (Path("/photos"), "s3://bucket/photos")[: 1 if path.startswith("/") else 2]:
        with pytest.raises(GalleryError, match="outside its folder"):
            joined(root, path)


@pytest.mark.parametrize("path", ["a/b.jpg", "..b.jpg", "a..b/c..jpg", "a/...", "::"])
def test_dots_in_names_are_names(path: str) -> None:
    assert joined(Path("/photos"), path) == Path("/photos") / path


@pytest.mark.parametrize(
    "name",
    ["reference://::file:///tmp/x", "http://127.0.0.1/", "https://example.org/a", "ftp://host/a", "zip://a"]
    + ["github://org:repo@main/", "jupyter://host", "local://etc", "file:///etc::s3://b", "HTTP://127.0.0.1"],
)
def test_protocols_that_reach_further_are_refused_wherever_they_come_from(name: str) -> None:
    for way in (stored_place, as_place, file_system, read_url):
        with pytest.raises(GalleryError):
            way(name)


@pytest.mark.parametrize(
    "name", ["relative/folder", "/photos/../etc", "/photos/", "file:///etc", "s3://b/a/"]
)
def test_a_stored_place_is_one_that_indexing_writes(name: str) -> None:
    with pytest.raises(GalleryError, match="indexing never writes"):
        stored_place(name)


def test_the_owner_may_allow_a_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROTOCOLS_VARIABLE, "ftp HTTPS")
    assert stored_place("https://example.org/photos") == "https://example.org/photos"
    with pytest.raises(GalleryError, match="IMAGE2SENTENCE_PROTOCOLS=http"):
        stored_place("http://example.org/photos")


@pytest.mark.parametrize("root", ["reference://::file:///tmp/x", "http://169.254.169.254", "photos/../.."])
def test_a_gallery_with_such_a_root_is_not_used(root: str, tmp_path: Path) -> None:
    encoder = FakeEncoder()
    with Gallery.create(tmp_path / "g", encoder.fingerprint, encoder.width) as gallery:
        gallery.add_root(tmp_path)
        connection = gallery._database.connection
        stored = os.fsencode(root)
        connection.execute("UPDATE roots SET path = ?, checksum = ?", (stored, checksum(stored)))
    with Gallery.open(tmp_path / "g") as gallery, pytest.raises(GalleryError):
        gallery.roots()
