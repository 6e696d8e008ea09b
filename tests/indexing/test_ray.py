"""Indexing on a Ray cluster of two nodes, one of which is killed half-way."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image
from test_sources import jpeg, shard
from test_stores import COUNTS, state

from fakes import FakeEncoder
from image2sentence.cli.main import cli
from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import ConfigError, GalleryError
from image2sentence.gallery.opening import open_or_create_gallery
from image2sentence.indexing.index_pictures import IndexReport, index_pictures
from image2sentence.indexing.ray import index_on_ray

ray = pytest.importorskip("ray", reason="needs the extra `ray`: pip install image2sentence[ray]")


class OtherEncoder(FakeEncoder):
    """A model that is not the gallery's."""

    fingerprint = "other"


class DyingEncoder(FakeEncoder):
    """Takes its process down with the fifth picture that it encodes."""

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        if self.encoded >= 4:
            time.sleep(0.5)  # what was encoded before is on its way
            os._exit(1)
        return super().encode_images(images)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that only coordinates, and two nodes of one core each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="i2s") as folder:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        # Ray writes its address into a folder of this one, and does not make it.
        patch.setenv("RAY_TMPDIR", folder)
        Path(folder, "ray").mkdir()
        patch.setenv("RAY_worker_niceness", "0")  # otherwise whatever else runs comes first
        quick = {f"health_check_{name}_ms": 500 for name in ("initial_delay", "period", "timeout")}
        head = {"num_cpus": 0, "temp_dir": folder, "_system_config": quick}
        node = {"object_store_memory": 100 << 20, "include_dashboard": False}
        try:
            made = Cluster(initialize_head=True, head_node_args={**head, **node})
            made.workers = [made.add_node(num_cpus=1, **node) for _ in range(2)]
            ray.init(address=made.address, log_to_driver=False, configure_logging=False)
            made.wait_for_nodes()
        except (OSError, RuntimeError, ValueError) as error:
            pytest.skip(f"Ray does not start a cluster on this machine: {error}")
        yield made
        ray.shutdown()
        made.shutdown()


def run(folder: Path, gallery: str, make: Any = FakeEncoder, **options: Any) -> IndexReport:
    encoder = FakeEncoder()
    with open_or_create_gallery(gallery, encoder.fingerprint, encoder.width) as opened:
        return index_on_ray(
            folder, opened, encoder, make_encoder=make, **{"workers": 2, "batch_size": 4, **options}
        )


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(120):
        (folder / f"{number:03}.jpg").write_bytes(jpeg(number))
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(jpeg(3))
    (folder / "bad.jpg").write_bytes(b"bad")
    (folder / "0.tar").write_bytes(shard({f"{n}.jpg": jpeg(n) for n in range(110, 150)}))
    (folder / "1.tar").write_bytes(shard({"a.jpg": jpeg(200), "../b.jpg": jpeg(1), "c.jpg": b"bad"}))
    (folder / "2.tar").write_bytes(shard({"a.jpg": jpeg(201), "b.jpg": jpeg(202)})[:2500])
    return folder


def ordinary(folder: Path, gallery: str) -> IndexReport:
    encoder = FakeEncoder()
    with open_or_create_gallery(gallery, encoder.fingerprint, encoder.width) as opened:
        return index_pictures(folder, opened, encoder, shards=True)


def test_changed_files_are_encoded_and_moved_ones_recognised(
    cluster: Any, pictures: Path, tmp_path: Path
) -> None:
    gallery, reference = str(tmp_path / "gallery"), str(tmp_path / "reference")
    ordinary(pictures, gallery)
    (pictures / "000.jpg").rename(pictures / "moved.jpg")
    (pictures / "001.jpg").unlink()
    (pictures / "002.jpg").write_bytes(jpeg(300))
    report = run(pictures, gallery)
    assert (report.encoded, report.moved, report.deleted) == (1, 1, 1)
    ordinary(pictures, reference)
    assert state(gallery) == state(reference)


def test_a_node_with_another_model_stops_the_run(cluster: Any, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="the model on this node is other"):
        run(pictures, str(tmp_path / "gallery"), OtherEncoder)
    with pytest.raises(ConfigError, match="at least 1, got 0 and 4"):
        run(pictures, str(tmp_path / "gallery"), workers=0)


def test_workers_that_die_at_once_and_again_stop_the_run(
    cluster: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("image2sentence.indexing.ray.ATTEMPTS", 1)
    gallery = str(tmp_path / "gallery")
    with pytest.raises(GalleryError, match=r"died at or after \S+/004.jpg; what was committed is kept"):
        run(pictures, gallery, DyingEncoder, workers=1)
    assert [Path(path).name for path in state(gallery)] == [f"00{number}.jpg" for number in range(4)]
    assert run(pictures, gallery).encoded == 116


def test_the_command_indexes_on_the_cluster(cluster: Any, pictures: Path, tmp_path: Path) -> None:
    asked = ["index", str(pictures), "--gallery", str(tmp_path / "gallery"), "--workers", "1"]
    done = CliRunner().invoke(cli, [*asked, "--engine", "ray", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["encoded"], report["duplicates"], len(report["failed"])) == (120, 1, 1)
    refused = CliRunner().invoke(cli, asked)
    assert (refused.exit_code, "--workers goes with --engine ray" in refused.output) == (2, True)


def test_workers_load_a_precision_of_a_folder(
    cluster: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from tests.hub.exports import publish, tiny

    publish(tiny("clip"), tmp_path / "half", precision="fp16")
    monkeypatch.chdir(tmp_path)
    asked = ["index", str(pictures), "--gallery", "gallery", "--model", "half:fp16", "--workers", "1"]
    done = CliRunner().invoke(cli, [*asked, "--engine", "ray", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["encoded"] == 120


def test_a_killed_node_changes_nothing_in_a_database(cluster: Any, pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite")
    gallery, reference = f"milvus+file://{tmp_path}/gallery.db", str(tmp_path / "reference")
    killed = []

    def kill(done: int, _: int) -> None:
        if done >= 80 and not killed:
            killed.append(cluster.workers.pop())
            cluster.remove_node(killed[0], allow_graceful=False)

    report = run(pictures, gallery, partial(FakeEncoder, pause=0.05), shards=True, progress=kill)
    assert killed
    expected = ordinary(pictures, reference)
    assert state(gallery) == state(reference)
    assert [getattr(report, name) for name in COUNTS] == [getattr(expected, name) for name in COUNTS]
    assert report.failed == expected.failed
    again = run(pictures, gallery)
    assert (again.encoded, again.unchanged) == (0, expected.encoded + expected.duplicates)


@pytest.mark.parametrize(
    ("address", "reason"), [("127.0.0.1:1", "refused"), ("ray://head:1", "on a node of")]
)
def test_a_cluster_that_cannot_be_reached_is_named(
    address: str, reason: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(GalleryError, match=f"no Ray cluster at {address}: expected HOST:PORT.*{reason}"):
        run(pictures, str(tmp_path / "gallery"))
