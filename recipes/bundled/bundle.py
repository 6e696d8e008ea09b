"""Puts a trained query side and its VL model into the package, with the words it was trained with and a model card.

python -m recipes.bundled.bundle --vl runs/vl --query runs/query --material runs/material
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click

from image2sentence.encoders import load_encoder
from image2sentence.encoders.config import FallbackConfig
from image2sentence.encoders.guide_files import add_fallback, add_guide, read_lines
from image2sentence.encoders.model_folder import CARD, bundled, write_sealed
from image2sentence.training import trained_model
from image2sentence.training.export.model_folder import PARITY, ExportOptions
from image2sentence.training.export.vl_folder import write_vl
from recipes.bundled.guide import SETTINGS, guiding_phrases

LIMIT = 20_000_000
SENTENCE_SHARE = 0.4  # of a gallery vector: docs/method.md, "Sentence share"
COMPARED = 400  # drawn products on which the shipped graphs answer beside torch
FALLBACK = FallbackConfig(0.6, 0.7, 0.4)  # chosen by recipes/fallback.py
SHARES = {"phrases-emoji.txt": 4, "modifiers.txt": 4}  # every fourth of these ships, for size


@click.command()
@click.option("--vl", type=click.Path(path_type=Path), default=Path("runs/vl"))
@click.option("--query", type=click.Path(path_type=Path), default=Path("runs/query"))
@click.option("--material", type=click.Path(path_type=Path), default=Path("runs/material"))
def main(vl: Path, query: Path, material: Path) -> None:
    """Replaces the package's default model."""
    target = bundled()
    small = ExportOptions(int8_storage=True, benchmark=COMPARED, sentence_share=SENTENCE_SHARE)
    trained_model.export_and_compare(query / "model", target, material / "pictures" / "drawn", None, small)
    (target / PARITY).unlink()  # config.json holds it, too
    add_guide(load_encoder(target), guiding_phrases(), SETTINGS, target)
    write_vl(vl / "model", target)
    lists = {"phrases.txt": ("phrases-drawn.txt", "phrases-photos.txt", "phrases-emoji.txt")}
    for name, parts in (lists | {"modifiers.txt": ("modifiers.txt",)}).items():
        lines = [line for part in parts for line in _shipped(material / part)]
        (target / "vl" / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    add_fallback(load_encoder(target), read_lines(target / "vl" / "modifiers.txt"), FALLBACK, target)
    config = json.loads((target / "config.json").read_text())
    for record in (config["vl"], config["training"]["vl"]):
        record["name"] = trained_model.BUNDLED_VL  # no path of the machine that trained it
    write_sealed(target / "config.json", config)
    shutil.copyfile(Path(__file__).with_name("card.md"), target / CARD)
    total = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    if total > LIMIT:
        raise click.ClickException(
            f"the bundled model weighs {total / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f} MB"
        )
    click.echo(f"{target}: {total / 1e6:.1f} MB")


def _shipped(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()[:: SHARES.get(path.name, 1)]


if __name__ == "__main__":
    main()
