"""What goes wrong in training, on the command line: what was expected, what came; nothing saved is lost."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

torch = pytest.importorskip("torch", reason="training needs the [train] extra")

from image2sentence.catalogue import write_catalogue  # noqa: E402
from image2sentence.cli.main import cli  # noqa: E402
from image2sentence.encoders.model_folder import CONFIG, WEIGHTS  # noqa: E402
from image2sentence.training import checkpoint as state  # noqa: E402
from image2sentence.training import dataset as pictures  # noqa: E402
from image2sentence.training import trainer as loop  # noqa: E402
from tiny_vl import save_tiny_vl  # noqa: E402

SETTINGS = (
    *("steps=3", "save_every=1", "batch=8", "lar_batch=4", "warmup=1", "modifier_weight=0", "precision=no"),
    *("learner.tokens=2", "learner.width=16", "learner.heads=2", "learner.blocks=1"),
)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    save_tiny_vl("conv_blip", folder / "vl")
    write_catalogue(folder / "catalogue", 20, seed=3, size=64)
    return folder


def train(material: Path, out: Path, *more: str, vl: str = "vl", pictures: str = "catalogue") -> Result:
    settings = [word for change in SETTINGS for word in ("--set", change)]
    paths = [str(material / pictures), "--vl", str(material / vl), "--out", str(out)]
    return CliRunner().invoke(cli, ["train", *paths, "--light", "tiny/32", *settings, *more])


@pytest.fixture(scope="module")
def trained(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    done = train(material, out)
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run that a test may break."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and "tensorboard" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def refused(done: Result, *words: str) -> None:
    """Exit code 1 and one message, not a traceback."""
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit)
    said = " ".join(done.output.split())
    for word in words:
        assert word in said


def test_a_wrong_vl_path(material: Path, run: Path) -> None:
    before = contents(run)
    refused(train(material, run, vl="nothing"), "no usable vision-language model", "there is no such folder")
    assert contents(run) == before


def test_an_unknown_light_encoder(material: Path, tmp_path: Path) -> None:
    refused(
        train(material, tmp_path, "--light", "huge"), "unknown light encoder 'huge'; known: efficientnet-b0"
    )


def test_a_folder_without_pictures(material: Path, run: Path) -> None:
    (material / "empty").mkdir(exist_ok=True)
    (material / "empty" / "notes.txt").write_text("no picture")
    before = contents(run)
    refused(train(material, run, pictures="empty"), "no pictures in", "expected files such as .jpg")
    refused(train(material, run, pictures="nowhere"), "expected a folder of pictures")
    assert contents(run) == before


def test_a_folder_of_damaged_pictures(material: Path, tmp_path: Path) -> None:
    (material / "damaged").mkdir(exist_ok=True)
    for name in ("a.jpg", "b.jpg"):
        (material / "damaged" / name).write_bytes(b"\xff\xd8\xff nothing")
    refused(
        train(material, tmp_path, pictures="damaged"), "none of 2 pictures can be read; the first:", "a.jpg"
    )


def test_a_checkpoint_of_another_vl_model(material: Path, run: Path) -> None:
    save_tiny_vl("conv_blip", material / "other", seed=5)
    before = contents(run / "model") | {name: (run / name).read_bytes() for name in ("state.safetensors",)}
    refused(train(material, run, vl="other"), "state.safetensors belongs to another run (its vl differs)")
    start = ["--start", str(run / "model")]
    refused(train(material, run.parent / "new", *start, vl="other"), "was trained for VL model", "--other-vl")
    assert contents(run / "model") | {"state.safetensors": (run / "state.safetensors").read_bytes()} == before
    assert train(material, run.parent / "other", *start, "--other-vl", vl="other").exit_code == 0


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (["--light", "tiny/48"], "light"),
        (["--start", "model"], "start"),
    ],
)
def test_going_on_with_something_else(material: Path, run: Path, other: list[str], key: str) -> None:
    before = contents(run / "model")
    asked = train(material, run, *[str(run / "model") if part == "model" else part for part in other])
    refused(asked, f"state.safetensors belongs to another run (its {key} differs): choose another --out")
    assert contents(run / "model") == before


def test_going_on_with_other_words(material: Path, tmp_path: Path) -> None:
    def trained_on(modifier: str) -> Result:
        (tmp_path / "phrases").write_text("a red mug\na blue shirt\n")
        (tmp_path / "modifiers").write_text(f"{modifier}\n")
        words = ["--phrases", str(tmp_path / "phrases"), "--modifiers", str(tmp_path / "modifiers")]
        return train(material, tmp_path / "run", "--set", "modifier_weight=1", *words)

    assert trained_on("in green").exit_code == 0
    assert trained_on("in green").exit_code == 0
    refused(trained_on("in red"), "state.safetensors belongs to another run (its words differs)")


def test_a_start_from_another_light_encoder(material: Path, run: Path) -> None:
    start = ["--start", str(run / "model")]
    asked = train(material, run.parent / "new", *start, "--light", "efficientnet-b0/32")
    refused(asked, "has the light encoder 'tiny/32'", "ask for the same", "another side of its input")
    larger = run.parent / "larger" / "model"
    assert train(material, larger.parent, *start, "--light", "tiny/48", "--set", "steps=1").exit_code == 0
    config = json.loads((larger / CONFIG).read_text())
    assert (config["light"], config["query_preprocessing"]["size"]) == ("tiny/48", 48)


@pytest.mark.parametrize("name", ["state.safetensors", "targets.safetensors", "best.safetensors"])
@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda _: b"\x00" * 64])
def test_a_corrupt_safetensors_file(material: Path, run: Path, name: str, damage: object) -> None:
    (run / name).write_bytes(damage((run / name).read_bytes()))  # type: ignore[operator]
    before = contents(run)
    refused(train(material, run), f"{name} is not a readable safetensors file", "or delete it and run again")
    assert contents(run) == before


def test_corrupt_weights_of_a_model_folder(material: Path, run: Path, tmp_path: Path) -> None:
    weights = run / "model" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-9])
    paths = ["--out", str(tmp_path / "exported"), "--pictures", str(material / "catalogue")]
    refused(CliRunner().invoke(cli, ["export", str(run / "model"), *paths]), WEIGHTS, "damaged")
    assert not (tmp_path / "exported").exists()


# --- a full disk ---


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Writing further into any file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_while_saving(
    material: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second save fails; the first stays, and when there is room again the run goes on from it, bit for bit."""
    checkpoint = loop.Trainer._checkpoint

    def fills(self: loop.Trainer) -> float:
        if self.progress.step != 2:
            return checkpoint(self)
        with files_no_larger_than(100_000):
            return checkpoint(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_checkpoint", fills)
        refused(train(material, tmp_path), "could not write", "what was there before is untouched")
    assert state.load_tensors(tmp_path / "state.safetensors")[1]["step"] == 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert train(material, tmp_path).exit_code == 0
    expected, _ = state.load_tensors(trained / "state.safetensors")
    tensors, _ = state.load_tensors(tmp_path / "state.safetensors")
    assert all(torch.equal(expected[key], tensors[key]) for key in expected)


@pytest.mark.parametrize("size", [1_000, 20_000, 200_000])
def test_a_full_disk_while_exporting(material: Path, run: Path, size: int) -> None:
    before = contents(run / "model")
    paths = ["--out", str(run / "model"), "--pictures", str(material / "catalogue"), "--benchmark", "0"]
    with files_no_larger_than(size):
        done = CliRunner().invoke(cli, ["export", str(run / "model"), *paths])
    refused(done, "could not write", "what was there before is untouched")
    assert contents(run / "model") == before
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []
    assert CliRunner().invoke(cli, ["info", "--model", str(run / "model")]).exit_code == 0


def test_an_interruption_while_gallery_vectors_are_computed(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "PART", 6)
    encoded: list[int] = []
    encode = pictures._encode

    def dies(paths: list[Path], block: range, *rest: object) -> object:
        if not encoded and block.start == 12:
            raise KeyboardInterrupt
        encoded.extend(block if block.start >= 12 else ())
        assert not (encoded and block.start < 12), "the first parts are kept"
        return encode(paths, block, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(pictures, "_encode", dies)
    assert train(material, tmp_path).exit_code == 130
    encoded.append(-1)
    assert train(material, tmp_path).exit_code == 0
    assert encoded == [-1, *range(12, 20)]
    assert not (tmp_path / "targets.parts").exists()


def test_the_config_names_what_it_was_trained_with(trained: Path) -> None:
    assert '"revision": "local"' in (trained / "model" / CONFIG).read_text()
