"""The example that trains on one's own folder runs start to finish, with BLIP and with CLIP."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="training needs the [train] extra")

from examples import train_your_own  # noqa: E402
from image2sentence.catalogue import write_catalogue  # noqa: E402
from tiny_vl import save_tiny_vl  # noqa: E402


@pytest.mark.parametrize(("kind", "words"), [("blip", True), ("clip", False)])
def test_train_on_your_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, words: bool
) -> None:
    monkeypatch.setitem(train_your_own.VL, kind, str(save_tiny_vl(kind, tmp_path / "vl", length=64)))
    pictures = write_catalogue(tmp_path / "catalogue", 12, seed=3, size=64) / "images"
    (tmp_path / "titles.txt").write_text("a red shirt\na blue mug\ngreen stripes\n")
    arguments = [str(pictures), "--vl", kind, "--light", "tiny/32", "--steps", "2", "--words", "red"]
    titles = ["--titles", str(tmp_path / "titles.txt")] if words else []
    done = CliRunner().invoke(train_your_own.main, [*arguments, *titles, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert "trained on 10 pictures" in done.output
    assert "indexed 12 pictures, 12 of them new" in done.output
    assert len([line for line in done.output.splitlines() if line.startswith("  ")]) == 5
