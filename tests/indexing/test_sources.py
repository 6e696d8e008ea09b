"""Folders, shards and URLs: what is found there, what is refused, and what is read back."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from fakes import FakeEncoder, encoded, photo
from image2sentence.errors import GalleryError, ImageError
from image2sentence.gallery.locations import as_place, read_picture
from image2sentence.gallery.records import Picture
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.indexing import sources
from image2sentence.indexing.index_pictures import IndexReport, index_pictures
from image2sentence.query import QueryEngine


def jpeg(number: int) -> bytes:
    return encoded(photo(number), "JPEG")


def shard(members: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of plain files, and what is of no interest."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in {"0.json": b"{}", **members}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def run(pictures: object, gallery: Path, **options: object) -> IndexReport:
    encoder = FakeEncoder()
    with Gallery.open_or_create(gallery, encoder.fingerprint, encoder.width) as opened:
        options = {"batch_size": 4, "threads": 2, **options}
        report = index_pictures(pictures, opened, encoder, **options)  # type: ignore[arg-type]
        opened.verify()
    counted = report.encoded + report.unchanged + report.moved + report.duplicates + len(report.failed)
    assert report.found == counted
    return report


def stored(gallery: Path) -> dict[str, Picture]:
    with Gallery.open(gallery) as opened:
        return {str(picture.path): picture for picture in opened.pictures()}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_indexed_searched_and_read_back(tmp_path: Path, form: int) -> None:
    names = [f"{'long/' * 15 * (n % 2)}{n}.jpg" for n in range(6)]
    tar = tmp_path / "0.tar"
    tar.write_bytes(shard({name: jpeg(n) for n, name in enumerate(names)}, form))
    report = run(tar, tmp_path / "g")
    assert (report.found, report.encoded, report.failed) == (6, 6, [])
    pictures = stored(tmp_path / "g")
    assert list(pictures) == [f"{tar}/{name}" for name in names]
    for number, picture in enumerate(pictures.values()):
        assert read_picture(picture) == jpeg(number)
    with Gallery.open(tmp_path / "g") as gallery:
        answer = QueryEngine(FakeEncoder(), gallery).search([jpeg(3)], k=1)
        assert answer.results[0].path == tar / names[3]
        assert "cannot be read" not in str(answer.draw().size)
    again = run(tar, tmp_path / "g")
    assert (again.found, again.unchanged, again.encoded) == (6, 6, 0)


def test_shards_in_a_folder_are_taken_when_asked_and_from_then_on(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(jpeg(0))
    (folder / "deep" / "0.tar").write_bytes(shard({"x.jpg": jpeg(1), "y.jpg": jpeg(0)}))
    first = run(folder, tmp_path / "g")
    assert (first.found, first.skipped_other) == (1, 1)
    second = run(folder, tmp_path / "g", shards=True)
    assert (second.found, second.encoded, second.duplicates, second.unchanged) == (3, 1, 1, 1)
    (folder / "deep" / "1.tar").write_bytes(shard({"z.jpg": jpeg(2)}))
    third = run(folder, tmp_path / "g")
    assert (third.found, third.encoded, third.unchanged, third.deleted, third.skipped_other) == (
        4,
        1,
        3,
        0,
        0,
    )
    (folder / "deep" / "0.tar").unlink()
    assert run(folder, tmp_path / "g").deleted == 2
    assert list(stored(tmp_path / "g")) == [str(folder / "a.jpg"), str(folder / "deep" / "1.tar" / "z.jpg")]


def test_a_shard_that_is_packed_anew_is_read_anew(tmp_path: Path) -> None:
    tar = tmp_path / "0.tar"
    tar.write_bytes(shard({f"{n}.jpg": jpeg(n) for n in range(5)}))
    run(tar, tmp_path / "g")
    before = stored(tmp_path / "g")
    tar.write_bytes(shard({"bad.jpg": b"bad", "3.jpg": jpeg(3), "1.jpg": jpeg(7), "new.jpg": jpeg(8)}))
    os.utime(tar, ns=(1, 1))
    report = run(tar, tmp_path / "g")
    assert (report.encoded, report.unchanged, report.deleted, len(report.failed)) == (2, 1, 3, 1)
    after = stored(tmp_path / "g")
    assert after[f"{tar}/1.jpg"].id == before[f"{tar}/1.jpg"].id
    assert read_picture(after[f"{tar}/3.jpg"]) == jpeg(3)
    with pytest.raises(ImageError, match="changed"):
        read_picture(before[f"{tar}/3.jpg"])
    tar.rename(tmp_path / "renamed.tar")
    assert run(tmp_path / "renamed.tar", tmp_path / "g").moved == 3


def test_a_run_killed_within_a_shard_reads_it_again(tmp_path: Path) -> None:
    class Stumbling(FakeEncoder):
        def encode_images(self, images):  # type: ignore[no-untyped-def]
            if len(self.batches) == 2:
                raise RuntimeError("out of memory")
            return super().encode_images(images)

    tar = tmp_path / "0.tar"
    tar.write_bytes(shard({f"{n}.jpg": jpeg(n) for n in range(20)}))
    encoder = Stumbling()
    with (
        Gallery.create(tmp_path / "g", encoder.fingerprint, encoder.width) as gallery,
        pytest.raises(RuntimeError, match="out of memory"),
    ):
        index_pictures(tar, gallery, encoder, batch_size=4)
    assert len(stored(tmp_path / "g")) == 8
    report = run(tar, tmp_path / "g")
    assert (report.encoded, report.unchanged) == (12, 8)
    assert run(tar, tmp_path / "g").unchanged == 20


def special(name: str, kind: bytes, link: str = "") -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        tar.addfile(info)

    return add


def test_hostile_members_are_listed_and_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg(9))
    tar = tmp_path / "d" / "0.tar"
    tar.parent.mkdir()
    with tarfile.open(tar, "w", format=tarfile.GNU_FORMAT) as file:
        for name in (
            "../secret.jpg",
            "/etc/x.jpg",
            "a//b.jpg",
            "./ok.jpg",
            "ok.jpg",
            "._mac.jpg",
            "x" * 5000 + ".jpg",
        ):
            info = tarfile.TarInfo(name)
            info.size = len(jpeg(1))
            file.addfile(info, io.BytesIO(jpeg(1)))
        for add in (
            special("link.jpg", tarfile.SYMTYPE, "../secret.jpg"),
            special("hard.jpg", tarfile.LNKTYPE, "/etc/passwd"),
            special("device.jpg", tarfile.CHRTYPE),
            special("folder.jpg", tarfile.DIRTYPE),
        ):
            add(file)
    report = run(tar, tmp_path / "g")
    assert (report.found, report.encoded) == (9, 1)
    reasons = " | ".join(reason for _, reason in report.failed)
    for part in (
        "../secret.jpg",
        "/etc/x.jpg",
        "a//b.jpg",
        "ok.jpg came before",
        "link.jpg is a link",
        "hard.jpg is a",
    ):
        assert part in reasons
    ready = [path for path, picture in stored(tmp_path / "g").items() if picture.state == "ready"]
    assert ready == [str(tar / "ok.jpg")]
    assert all(".." not in path for path in stored(tmp_path / "g"))


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


BROKEN = {
    "truncated": shard({"a.jpg": jpeg(1), "b.jpg": jpeg(2)})[:2500],
    "no tar": b"this is no tar" * 100,
    "gzip": b"\x1f\x8b" + bytes(600),
    "huge member": shard({"a.jpg": jpeg(1)})[:-10240] + header("b.jpg", 1 << 60),
    "huge header": header("x", 1 << 40, tarfile.XHDTYPE) + bytes(1024),
    "huge long name": header("x", 1 << 40, tarfile.GNUTYPE_LONGNAME) + bytes(1024),
    "negative size": header("b.jpg", -1536) + bytes(4096),
    "headers within headers": header("x", 0, tarfile.XHDTYPE) * 3000,
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_shards_are_named_and_tried_again(tmp_path: Path, content: bytes) -> None:
    tar = tmp_path / "0.tar"
    tar.write_bytes(content)
    for _ in range(2):
        report = run(tar, tmp_path / "g")
        assert len(report.failed) >= 1
        assert any(
            "damaged" in reason or "limit" in reason or "backwards" in reason for _, reason in report.failed
        )
    tar.write_bytes(shard({"a.jpg": jpeg(1)}))
    assert run(tar, tmp_path / "g").failed == []
    assert list(stored(tmp_path / "g")) == [str(tar / "a.jpg")]


def test_members_are_bounded_in_size_and_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = tmp_path / "0.tar"
    tar.write_bytes(shard({f"{n}.jpg": jpeg(n) for n in range(4)}))
    with monkeypatch.context() as small:
        small.setattr(sources, "MAX_MEMBER_BYTES", len(jpeg(1)) - 1)
        reasons = [member.reason or "" for member in sources.read_members(tar)]
        assert any("more than the limit" in reason for reason in reasons)
    monkeypatch.setattr(sources, "MAX_MEMBERS", 3)
    with pytest.raises(ImageError, match="too many members"):
        list(sources.read_members(tar))


@pytest.fixture
def bucket() -> str:
    """A URL in memory, with pictures and a shard below it."""
    system = fsspec.filesystem("memory")
    if system.exists("/bucket"):
        system.rm("/bucket", recursive=True)
    for number in range(3):
        system.pipe(f"/bucket/shop/{number}.jpg", jpeg(number))
    system.pipe("/bucket/shop/.hidden/9.jpg", jpeg(9))
    system.pipe("/bucket/shop/notes.txt", b"")
    system.pipe("/bucket/shop/deep/größe 100%.png", encoded(photo(3), "PNG"))
    system.pipe("/bucket/shop/0.tar", shard({"x.jpg": jpeg(4), "y.jpg": jpeg(5)}))
    return "memory://bucket/shop"


def test_urls_are_indexed_and_read_back(tmp_path: Path, bucket: str) -> None:
    report = run(bucket, tmp_path / "g", shards=True)
    assert (report.found, report.encoded, report.skipped_other, report.failed) == (6, 6, 1, [])
    pictures = stored(tmp_path / "g")
    assert set(pictures) == {
        f"{bucket}/{name}"
        for name in ("0.jpg", "1.jpg", "2.jpg", "deep/größe 100%.png", "0.tar/x.jpg", "0.tar/y.jpg")
    }
    assert read_picture(pictures[f"{bucket}/2.jpg"]) == jpeg(2)
    assert read_picture(pictures[f"{bucket}/0.tar/y.jpg"]) == jpeg(5)
    assert run(f"{bucket}/", tmp_path / "g").unchanged == 6
    system = fsspec.filesystem("memory")
    system.pipe("/bucket/shop/1.jpg", jpeg(7))
    system.rm("/bucket/shop/0.jpg")
    report = run(bucket, tmp_path / "g")
    assert (report.encoded, report.deleted, report.unchanged) == (1, 1, 4)
    with pytest.raises(ImageError, match="cannot be read"):
        read_picture(pictures[f"{bucket}/0.jpg"])


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    """An object store of this machine that speaks S3, with an empty bucket `shop`."""
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs and moto[server], which no extra brings")
    moto = pytest.importorskip("moto.server", reason="needs s3fs and moto[server], which no extra brings")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    system = s3fs.S3FileSystem(skip_instance_cache=True)
    system.mkdir("shop")
    yield system
    server.stop()


def test_an_object_store_is_indexed_and_followed(tmp_path: Path, s3: fsspec.AbstractFileSystem) -> None:
    names = [f"{number} ü#?.jpg" for number in range(3)]
    for number, name in enumerate(names):
        s3.pipe(f"shop/p/{name}", jpeg(number))
    s3.pipe("shop/p/0.tar", shard({"x.jpg": jpeg(4), "y.jpg": jpeg(5)}))
    assert run("s3://shop/p", tmp_path / "g", shards=True).encoded == 5
    pictures = stored(tmp_path / "g")
    assert read_picture(pictures[f"s3://shop/p/{names[1]}"]) == jpeg(1)
    assert read_picture(pictures["s3://shop/p/0.tar/y.jpg"]) == jpeg(5)
    s3.pipe(f"shop/p/{names[1]}", jpeg(7))
    s3.rm(f"shop/p/{names[2]}")
    report = run("s3://shop/p", tmp_path / "g")
    assert (report.unchanged, report.encoded, report.deleted) == (3, 1, 1)
    with pytest.raises(GalleryError, match="nosuch/x cannot be listed"):
        run("s3://nosuch/x", tmp_path / "g")


def test_a_shard_behind_a_url(tmp_path: Path, bucket: str) -> None:
    assert run(f"{bucket}/0.tar", tmp_path / "g").encoded == 2
    assert list(stored(tmp_path / "g")) == [f"{bucket}/0.tar/x.jpg", f"{bucket}/0.tar/y.jpg"]
    before = stored(tmp_path / "g")
    report = run(bucket, tmp_path / "g")  # takes the shard in
    assert (report.unchanged, report.deleted) == (2, 0)
    assert list(stored(tmp_path / "g").items())[:2] == list(before.items())


def test_file_urls_are_paths(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.jpg").write_bytes(jpeg(1))
    run(f"file://{tmp_path}/p", tmp_path / "g")
    assert list(stored(tmp_path / "g")) == [str(tmp_path / "p" / "a.jpg")]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("memory://nothing/here", "there is nothing at memory://nothing/here"),
        ("memory://nothing/here.tar", "cannot be listed"),
        ("nosuch://bucket/a", r"nosuch:// is not among the protocols that are read"),
        ("simplecache::s3://bucket/a", "there is no folder|chained"),
        ("zip://a::memory://b", "chained"),
    ],
)
def test_urls_that_lead_nowhere_are_named(tmp_path: Path, url: str, reason: str) -> None:
    with pytest.raises(GalleryError, match=reason):
        run(url, tmp_path / "g")


def test_passwords_are_not_kept_in_galleries() -> None:
    with pytest.raises(GalleryError, match="the URL holds a password") as caught:
        as_place("ftp://me:hunter2@host/folder")
    assert "hunter2" not in str(caught.value)


def test_queries_fetch_no_urls(tmp_path: Path, bucket: str) -> None:
    run(bucket, tmp_path / "g")
    with Gallery.open(tmp_path / "g") as gallery, pytest.raises(ImageError, match="no such file"):
        QueryEngine(FakeEncoder(), gallery).search([f"{bucket}/1.jpg"])
