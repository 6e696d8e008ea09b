"""The main job with full-size models of the Hub's layout, where torch is not installed: rates, memory, searches.

    python -m benchmarks.indexing.hub_models make WORK --kind siglip2       # needs torch; random weights
    LEAN/bin/python -m benchmarks.indexing.hub_models measure WORK PICTURES # LEAN has [hub,server] alone

`make` writes a model of the published size (CLIP ViT-B/32; SigLIP 2 base, patches of 16 at 224 px, 256,000 tokens) as
transformers.js publishes it. `measure` gives it to the commands as `--model WORK`: adapts it, indexes PICTURES, asks by
words, a picture, both, with a negative and a filter, each a process of its own; then serves the gallery and, where
Playwright is there, asks on the page in a headless Chromium. Printed are wall time and the most resident memory of the
process and its children. Last, indexing beside the bare graph on the same pictures, prepared beforehand, in turns.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.indexing.beside_rclip import merges
from benchmarks.indexing.rate import BATCH, decode, index, seconds
from benchmarks.server.process import resident, server
from image2sentence.encoders import OnnxEncoder, load_encoder

if TYPE_CHECKING:
    from tests.hub.exports import Tiny

COUNTED_MERGES = 49_152 - 256 - 2
GEMMA_WORDS = 256_000
LENGTHS = {"clip": 77, "siglip2": 64}
PIXELS = 224
WORDS = "two red dogs run on a beach at night"
PATIENCE = 120_000
"""Milliseconds that the page has for an answer."""


# --- models ---------------------------------------------------------------------------------------------------------


def full_size(kind: str) -> Tiny:
    """The model of `kind`, "clip" or "siglip2", with random weights, its tokenizer and settings."""
    import torch
    from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

    from tests.hub import exports

    torch.manual_seed(0)
    small, length = exports.tiny(kind), LENGTHS[kind]
    processor = json.loads(json.dumps(small.processor).replace(f": {exports.SIZE}", f": {PIXELS}"))
    if kind == "clip":
        pairs = [tuple(line.split(" ")) for line in itertools.islice(merges(), COUNTED_MERGES)]
        tokenizer = exports.clip_tokenizer(pairs)
        ends = {"bos_token_id": 49_406, "eos_token_id": 49_407, "pad_token_id": 49_407}
        model: Any = CLIPModel(CLIPConfig(text_config=ends))
    else:
        tokenizer = small.tokenizer
        tokenizer.add_tokens([f"word{number}" for number in range(GEMMA_WORDS - tokenizer.get_vocab_size())])
        text = {"vocab_size": GEMMA_WORDS, "pad_token_id": 0, "max_position_embeddings": length}
        model = SiglipModel(SiglipConfig(text_config=text))
    return exports.Tiny(kind, model.eval(), tokenizer, processor, small.tokenizer_config, length, PIXELS)


# --- commands as processes ------------------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[float, float, str]:
    """Seconds, most memory in MiB, and output of an image2sentence command, which has to succeed."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([sys.executable, "-m", "image2sentence", *arguments], stdout=out)
        _, status, used = os.wait4(process.pid, 0)
        spent = time.perf_counter() - start
        out.seek(0)
        if status:
            raise click.ClickException(f"image2sentence {arguments[0]} failed: {out.read()}")
        return spent, used.ru_maxrss / 1024, out.read()


def told(name: str, spent: tuple[float, float, str], count: int = 0) -> None:
    """A row: seconds, MiB, and pictures per second where pictures were counted."""
    rate = f"  {count / spent[0]:6.1f} pictures/s" if count else ""
    click.echo(f"{name:32} {spent[0]:8.2f} s {spent[1]:8.0f} MiB{rate}")


def searches(picture: str) -> Iterator[tuple[str, list[str]]]:
    """Names and arguments of the searches."""
    yield "search by words", [WORDS]
    yield "search by a picture", [picture]
    yield "search by both", [picture, WORDS]
    yield "both, with a negative", [picture, WORDS, "--not", "a cat"]
    yield "both, filtered", [picture, WORDS, "--where", "name like '%1%'"]


def page(gallery: Path, model: Path, picture: str, count: int) -> None:
    """Ask on the page by a picture and words, and see results."""
    from playwright.sync_api import expect, sync_playwright

    with server(gallery, "--model", str(model)) as one, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        shown = browser.new_page()
        shown.goto(f"http://localhost:{one.port}/")
        expect(shown.locator("#status")).to_contain_text(f"{count:,} pictures", timeout=PATIENCE)
        shown.set_input_files("#file", picture)
        shown.fill("#text", WORDS)
        start = time.perf_counter()
        shown.press("#text", "Enter")
        expect(shown.locator("#results [data-id], #results li").first).to_be_visible(timeout=PATIENCE)
        expect(shown.locator("#results")).not_to_have_attribute("aria-busy", "true", timeout=PATIENCE)
        told("page: ready, both asked", (time.perf_counter() - start, resident(one.process.pid), ""))
        browser.close()


# --- indexing beside the bare graph ----------------------------------------------------------------------------------


def beside_bare_graph(photos: Path, encoder: OnnxEncoder, count: int, rounds: int) -> None:
    """Print the ratio of indexing's rate to the graph's own, on `count` of the pictures, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(shutil.copy(one, folder)) for one in sorted(photos.iterdir())[:count]]
        rows = [encoder.prepare(decode(one)) for one in paths]
        batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        encoder.encode_prepared(batches[0])
        spent = []
        with ThreadPoolExecutor(encoder.parallel) as calls:  # side by side, as indexing does
            for _ in range(rounds):
                own = seconds(lambda: index(Path(folder), encoder))
                spent.append((own, seconds(lambda: list(calls.map(encoder.encode_prepared, batches)))))
    ratios = sorted(bare / own for own, bare in spent)
    own, bare = (count / statistics.median(side) for side in zip(*spent, strict=True))
    click.echo(
        f"indexing {own:.1f}, bare graph {bare:.1f} pictures/s: {statistics.median(ratios):.3f} of it "
        f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
    )


@click.group()
def main() -> None:
    """Make a model, or measure with it."""


@main.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--kind", type=click.Choice(sorted(LENGTHS)), required=True)
def make(work: Path, kind: str) -> None:
    """Write a model of KIND into WORK."""
    from tests.hub.exports import publish

    publish(full_size(kind), work)


@main.command()
@click.argument("work", type=click.Path(exists=True, path_type=Path))
@click.argument("pictures", type=click.Path(exists=True, path_type=Path))
@click.option("--count", default=1_000, show_default=True, help="Pictures taken of the folder.")
@click.option("--turns", default=3, show_default=True, help="Turns of indexing and the bare graph.")
def measure(work: Path, pictures: Path, count: int, turns: int) -> None:
    """Do the main job with the model in WORK on PICTURES."""
    if importlib.util.find_spec("torch"):
        raise click.UsageError("torch is installed here: measure in an environment without it")
    with tempfile.TemporaryDirectory() as place:
        os.environ["IMAGE2SENTENCE_CACHE"] = f"{place}/cache"  # adapted anew
        photos, gallery = Path(place, "photos"), Path(place, "gallery")
        photos.mkdir()
        for path in sorted(one for one in pictures.iterdir() if one.is_file())[:count]:
            shutil.copy(path, photos)
        count, picture = len(list(photos.iterdir())), str(sorted(photos.iterdir())[7])
        named = ["--model", str(work.resolve()), "--gallery", str(gallery)]
        told("adapt, and info", run("info", *named[:2]))
        told("index", run("index", str(photos), *named), count)
        for name, asked in searches(picture):
            found = run("search", *asked, *named, "--json")
            assert json.loads(found[2])["results"], name
            told(name, found)
        if importlib.util.find_spec("playwright"):
            page(gallery, work.resolve(), picture, count)
        beside_bare_graph(photos, load_encoder(str(work)), min(count, 8 * BATCH), turns)


if __name__ == "__main__":
    main()
