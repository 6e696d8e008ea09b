"""Steps of training, settings against settings and code against code, interleaved in one run; where the time goes.

    python -m benchmarks.training.steps clip|blip [--batch 32] [--rounds 2]

VL models have random weights and full size: CLIP ViT-B/32 and BLIP-base (see full_size.py). Three rows take turns:

- `before`: a light encoder at 224 px, LAR on a quarter of each batch at the VL model's own size, every text padded to
  the longest of its batch, frozen weights rounded in every pass, strided convolutions in bfloat16: what `train` did.
- `code`: the same settings as the code runs them now.
- `now`: `--preset laptop` for CLIP, the light encoder at 112 px, no LAR, and modifiers for half of each batch; for BLIP
  with LAR on half as many rows at half the side.

All take batches of the same size, so steps compare. The measure is processor time, all threads together, which a
machine shared with other programs changes least; a ratio is of sums over the rounds.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import torch
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel

from benchmarks.training.full_size import KINDS, save_vl
from image2sentence.catalogue import write_catalogue
from image2sentence.encoders.model_folder import bundled
from image2sentence.training import phrase_bank as phrases
from image2sentence.training.dataset import BatchLoader, Collection
from image2sentence.training.depthwise import Float32Conv2d
from image2sentence.training.lowered import Lowered
from image2sentence.training.models.query_model import QueryModel, build_query_model
from image2sentence.training.objective import Objective
from image2sentence.training.presets import read_preset
from image2sentence.training.settings import TrainSettings
from image2sentence.training.train import read_settings
from image2sentence.training.trainer import Trainer
from image2sentence.training.vl.base import VisionLanguageModel
from image2sentence.training.vl.load import load_vl

OLD, NEW = "mobilenet-v2", "mobilenet-v2/112"


def clip_b32(layers: int) -> Any:
    """CLIP ViT-B/32 at 224 px."""
    deep = {"num_hidden_layers": layers} if layers else {}
    return CLIPModel(CLIPConfig(text_config=dict(deep), vision_config={"patch_size": 32, **deep}))


MODELS = {"clip": replace(KINDS["clip"], model=clip_b32), "blip": KINDS["blip"]}


@dataclass
class Row:
    """A trainer, whether it runs as the code did before, and processor seconds by part."""

    name: str
    trainer: Trainer
    old_code: bool
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def settings_of(row: str, kind: str, batch: int) -> TrainSettings:
    """The row's settings at `batch` pictures."""
    quarter = max(2, batch // 4)
    if row != "now":
        return TrainSettings(batch=batch, lar_batch=quarter, validation=8)
    if kind == "clip":
        laptop = read_settings(None, {}, read_preset("laptop"))
        return replace(laptop, batch=batch, modifier_batch=batch // 2, validation=8)
    half = {"lar_batch": max(2, quarter // 2), "lar_side": 192, "modifier_batch": batch // 2}
    return TrainSettings(batch=batch, validation=8, **half)  # type: ignore[arg-type]


@contextmanager
def timed(row: Row, part: str, owner: type, method: str) -> Iterator[None]:
    """Adds the processor time of a method's calls, without those of backward passes, to a part of the row's."""
    plain: Callable[..., Any] = getattr(owner, method)

    def measured(*arguments: Any, **named: Any) -> Any:
        started = time.process_time()
        try:
            return plain(*arguments, **named)
        finally:
            row.seconds[part] += time.process_time() - started

    with patch.object(owner, method, measured):
        yield


@contextmanager
def as_before(kind: type[VisionLanguageModel]) -> Iterator[None]:
    """The code as it was: one group of texts, each of them whole, bfloat16 for every convolution."""
    with (
        patch.object(kind, "encode_rows", lambda vl, words: vl.encode_words(words)),
        patch.object(kind, "encode_both", VisionLanguageModel.encode_both),
        patch.object(Float32Conv2d, "forward", torch.nn.Conv2d.forward),
        patch.object(Lowered, "used", nullcontext),
    ):
        yield


def step(row: Row, number: int) -> None:
    """One step, from files to moved weights."""
    parts = (
        ("pictures", BatchLoader, "load"),
        ("light", QueryModel, "forward"),
        ("texts", Objective, "_read_both"),
        ("texts", Objective, "_read"),
        ("lar", Objective, "_lar"),
        ("lar", type(row.trainer.vl), "encode_images"),
        ("backward", torch.Tensor, "backward"),
    )
    with ExitStack() as stack:
        if row.old_code:
            stack.enter_context(as_before(type(row.trainer.vl)))
        for part, owner, method in parts:
            stack.enter_context(timed(row, part, owner, method))
        started = time.process_time()
        batch = next(row.trainer.loader.ahead(number, number + 1))
        row.trainer._step(number, [batch])
        row.seconds["all"] += time.process_time() - started


def make_rows(kind: str, batch: int, folder: Path, layers: int) -> list[Row]:
    """The rows that take turns, over one VL model, pictures and words."""
    save_vl(MODELS[kind], folder / "vl", layers)
    vl = load_vl(str(folder / "vl"))
    drawn = write_catalogue(folder / "drawn", 2 * batch + 8, 0, 384) / "images"
    paths = sorted(drawn.iterdir())
    torch.manual_seed(0)
    vectors = functional.normalize(torch.randn(len(paths), vl.width), dim=-1)
    own = bundled() / "vl"
    lists = [
        (own / name).read_text(encoding="utf-8").splitlines() for name in ("phrases.txt", "modifiers.txt")
    ]
    bank = phrases.build_bank(vl, phrases.WordLists(lists[0][::200], lists[1]))
    rows = []
    for name in ("before", "code", "now"):
        settings = settings_of(name, kind, batch)
        model = build_query_model(vl, NEW if name == "now" else OLD, settings.learner)
        trainer = Trainer(vl, model, Collection(paths, vectors, [], ""), settings, folder / name, bank)
        rows.append(Row(name, trainer, name == "before"))
    return rows


@click.command()
@click.argument("kind", type=click.Choice(sorted(MODELS)))
@click.option("--batch", default=32, show_default=True, help="Pictures of a step, in every row.")
@click.option(
    "--rounds", default=2, show_default=True, help="Steps of each row, after one that is not counted."
)
@click.option("--layers", default=0, help="Of each tower, for a quick look; 0: as many as the real one has.")
def main(kind: str, batch: int, rounds: int, layers: int) -> None:
    """Print processor seconds a step of each row, their parts, and ratios."""
    with tempfile.TemporaryDirectory() as scratch:
        rows = make_rows(kind, batch, Path(scratch), layers)
        for number in range(rounds + 1):
            for row in rows:
                step(row, number)
                if number == 0:
                    row.seconds.clear()
    parts = ("all", "pictures", "light", "texts", "lar", "backward")
    print(
        f"{kind}, batches of {batch}, {rounds} steps each, {torch.get_num_threads()} threads, processor seconds"
    )
    print(f"{'':<8}" + "".join(f"{part:>10}" for part in parts) + f"{'ratio':>8}")
    for row in rows:
        figures = "".join(f"{row.seconds[part] / rounds:>10.3f}" for part in parts)
        print(f"{row.name:<8}{figures}{rows[0].seconds['all'] / row.seconds['all']:>8.2f}")


if __name__ == "__main__":
    main()
