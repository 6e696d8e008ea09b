"""Puts the recipe's model into the package, with its VL model, the words it was trained with and a card.

python -m recipes.default_model.ship --data ../shared/data
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click

from image2sentence.encoders.model_folder import CARD, bundled, write_sealed
from image2sentence.hub.table import BUNDLED, EVERYDAY
from image2sentence.training.export.model_folder import PARITY
from image2sentence.training.export.vl_folder import write_vl
from image2sentence.training.trained_model import BUNDLED_VL
from recipes.default_model import wordnet
from recipes.default_model.__main__ import Recipe, Settings
from recipes.default_model.glove import FILE as VECTORS
from recipes.default_model.query_side import banks

LIMIT = 20_000_000
SEARCH_LIMIT = 14_000_000  # what index and search need
SEARCHED = ("onnx/gallery_image.onnx", "onnx/query_image.onnx", "onnx/query_text.onnx", "tokenizer.json")
PHRASES = 8_000  # of either list, at most, for size


def ship(recipe: Recipe) -> Path:
    """Replaces the package's model; returns its folder. Raises click.ClickException where it weighs too much."""
    target, made = bundled(), recipe.runs / "query" / "model"
    draft = target.with_name(f"{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(made, draft, ignore=shutil.ignore_patterns(PARITY))  # config.json holds it, too
    write_vl(recipe.runs / "vl" / "model", draft)
    lists = banks(recipe.pictures, recipe.nouns, recipe.settings.query.train).values()
    _write(draft / "vl" / "phrases.txt", [phrase for words in lists for phrase in words.phrases])
    _write(draft / "vl" / "modifiers.txt", [text for words in lists for text in words.modifiers])
    config = json.loads((draft / "config.json").read_text(encoding="utf-8"))
    config["vl"]["name"] = BUNDLED_VL  # no path of the machine that trained it
    config["training"]["vl"] = config["vl"]
    write_sealed(draft / "config.json", config)
    shutil.copyfile(Path(__file__).with_name("card.md"), draft / CARD)
    _check_size([draft / name for name in SEARCHED], SEARCH_LIMIT)
    _check_size([path for path in draft.rglob("*") if path.is_file()], LIMIT)
    shutil.rmtree(target)
    draft.replace(target)
    return target


def ship_towers(recipe: Recipe) -> Path:
    """Puts the towers alone into the package, as the model for everyday photographs; returns its folder."""
    target = bundled(BUNDLED[EVERYDAY])
    draft = target.with_name(f"{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(recipe.runs / "towers" / "model", draft)
    shutil.copyfile(Path(__file__).with_name("everyday_card.md"), draft / CARD)
    _check_size([path for path in draft.rglob("*") if path.is_file()], SEARCH_LIMIT)
    shutil.rmtree(target, ignore_errors=True)
    draft.replace(target)
    return target


def _write(path: Path, lines: list[str]) -> None:
    every = -(-len(lines) // PHRASES)
    path.write_text("\n".join(dict.fromkeys(lines[::every])) + "\n", encoding="utf-8")


def _check_size(files: list[Path], limit: int) -> None:
    total = sum(path.stat().st_size for path in files)
    if total > limit:
        raise click.ClickException(f"the model weighs {total / 1e6:.1f} MB, more than {limit / 1e6:.0f} MB")


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"), show_default=True)
@click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs/default_model"), show_default=True
)
@click.option(
    "--wordnet", "words", type=click.Path(path_type=Path), default=wordnet.FOLDER, show_default=True
)
@click.option("--glove", type=click.Path(path_type=Path), default=VECTORS, show_default=True)
@click.option("--everyday", is_flag=True, help="Ship the towers alone, beside the starter model.")
def main(data: Path, runs: Path, words: Path, glove: Path, everyday: bool) -> None:
    """Replaces the package's model by that of RUNS."""
    recipe = Recipe(data, runs, words, glove, Settings())
    click.echo(ship_towers(recipe) if everyday else ship(recipe))


if __name__ == "__main__":
    main()
