"""Indexing and searching beside rclip (PyPI), on the same graphs and pictures, in one run.

    python -m venv RCLIP && RCLIP/bin/pip install rclip==3.3.0
    python -m benchmarks.indexing.beside_rclip PICTURES --rclip RCLIP/bin/python --graphs WORK

rclip's model is a CLIP ViT-B/32 at 256 pixels. WORK is a folder in the layout that rclip fetches; where it is empty,
graphs of that size with random weights are written into it (needs torch, transformers and onnx). Both programs then
read the same bytes: rclip in its data folder, this one as `--model WORK`, which is adapted before anything is timed.

All turns are taken by both, one after the other, so that whatever else the machine does meets both alike. Timed are
whole processes for indexing and for first searches (the gallery is there, rclip is told `--no-indexing`), and calls in
a process that has searched before for warm ones; before them, each searches once. Printed are medians of the wall time,
and medians of the rounds' ratios, of wall time and of the processor time of all threads, which a busy machine changes
little.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import resource
import shutil
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import click

SUBFOLDER, MERGES = "ViT-B-32-256-datacomp_s34b_b86k", "tokenizer/bpe_simple_vocab_16e6.txt.gz"
WORDS = "two red dogs run on a beach at night"
COUNTED_MERGES = 49_152 - 256 - 2
PAUSE = 0.3  # seconds
INDEX = "import os; from rclip.main import init_rclip; init_rclip(os.getcwd(), 8)"
RCLIP_WARM = """
import os, sys, time
from rclip.main import init_rclip
rclip, _, _ = init_rclip(os.getcwd(), 8, no_indexing=True)
for line in sys.stdin:
    asked = line.rstrip("\\n").split("\\t")
    start, busy = time.perf_counter(), time.process_time()
    found = rclip.search(asked[0], os.getcwd(), 10, asked[1:], [])
    print(time.perf_counter() - start, time.process_time() - busy, len(found), flush=True)
"""
OWN_WARM = """
import sys, time
from pathlib import Path
from image2sentence import Gallery, QueryEngine, load_encoder
with Gallery.open(sys.argv[2]) as gallery:
    engine = QueryEngine(load_encoder(sys.argv[1]), gallery)
    for line in sys.stdin:
        asked = line.rstrip("\\n").split("\\t")
        start, busy = time.perf_counter(), time.process_time()
        words = [one for one in asked if not Path(one).is_file()]
        found = engine.search([one for one in asked if one not in words], " ".join(words), k=10).results
        print(time.perf_counter() - start, time.process_time() - busy, len(found), flush=True)
"""


def make_graphs(out: Path) -> None:
    """Write graphs of the published size with random weights, and merges of as many as are published."""
    import torch
    from torch import Tensor, nn
    from transformers import CLIPConfig, CLIPModel

    class Vision(nn.Module):
        """Pixels (n, 3, 256, 256) to vectors (n, 512)."""

        def forward(self, given: Tensor) -> Tensor:
            found: Tensor = model.visual_projection(model.vision_model(pixel_values=given).pooler_output)
            return found

    class Text(nn.Module):
        """Ids (n, 77) to vectors (n, 512)."""

        def forward(self, given: Tensor) -> Tensor:
            found: Tensor = model.text_projection(model.text_model(input_ids=given).pooler_output)
            return found

    torch.manual_seed(0)
    ends = {"bos_token_id": 49_406, "eos_token_id": 49_407, "pad_token_id": 0}
    model = CLIPModel(CLIPConfig(vision_config={"image_size": 256}, text_config=ends)).eval()
    vision, text = Vision(), Text()
    vision.model, text.model = model, model
    (out / MERGES).parent.mkdir(parents=True, exist_ok=True)
    for module, file, given in (
        (vision, "visual.onnx", torch.rand(2, 3, 256, 256)),
        (text, "textual.onnx", torch.randint(3, 49_000, (2, 77))),
    ):
        torch.onnx.export(
            module,
            (given,),
            str(out / file),
            dynamo=False,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
            opset_version=17,
        )
    lines = ["#version: 0.2", *itertools.islice(merges(), COUNTED_MERGES), ""]
    (out / MERGES).write_bytes(gzip.compress("\n".join(lines).encode()))


def merges() -> Iterator[str]:
    """Merges of letters into words of up to four letters."""
    letters = string.ascii_lowercase
    for end, length in itertools.product(("", "</w>"), (2, 3)):
        for word in map("".join, itertools.product(letters, repeat=length)):
            yield f"{word[:-1]} {word[-1]}{end}"
    for word in map("".join, itertools.product(letters, repeat=4)):
        yield f"{word[:-1]} {word[-1]}</w>"


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """That of processes that are timed: compiled modules are kept, as an installation has them."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | more


class Spent(NamedTuple):
    """Seconds of wall time, and of the processor in all threads."""

    wall: float
    cpu: float


def spent_by(command: list[str], folder: Path, more: Mapping[str, str]) -> Spent:
    """What a process took, which has to succeed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment(more), capture_output=True, text=True, check=False
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command[:4])} failed: {done.stderr[-2000:]}")
    return Spent(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


class Asked:
    """A process that searches when it is asked, and says how long that took."""

    def __init__(self, command: list[str], folder: Path, more: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def search(self, asked: list[str]) -> Spent:
        """What one search took, after which ten results have to be there.

        Threads of the other program may still spin for its last answer: they get PAUSE to sleep.
        """
        time.sleep(PAUSE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\t".join(asked) + "\n")
        self._process.stdin.flush()
        wall, cpu, count = self._process.stdout.readline().split()
        assert int(count) == 10, f"found {count}"
        return Spent(float(wall), float(cpu))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def in_turns(
    ours: Callable[[], Spent], theirs: Callable[[], Spent], rounds: int
) -> list[tuple[Spent, Spent]]:
    """What both took, round by round; who begins changes."""
    found = []
    for number in range(rounds):
        if number % 2:
            other = theirs()
            found.append((ours(), other))
        else:
            own = ours()
            found.append((own, theirs()))
    return found


def told(name: str, spent: list[tuple[Spent, Spent]], count: int = 0) -> dict[str, object]:
    """Medians of both, and the rounds' ratios of their speeds: above 1 this program is the faster."""
    own, other = (statistics.median(one.wall for one in side) for side in zip(*spent, strict=True))
    wall = sorted(theirs.wall / ours.wall for ours, theirs in spent)
    cpu = sorted(theirs.cpu / ours.cpu for ours, theirs in spent)
    shown = (count / own, count / other) if count else (1000 * own, 1000 * other)
    unit = "pictures/s" if count else "ms"
    click.echo(
        f"{name:34} {shown[0]:9.1f} {shown[1]:9.1f} {unit:10}  {statistics.median(wall):5.2f} "
        f"({wall[0]:.2f} to {wall[-1]:.2f})  {statistics.median(cpu):5.2f} ({cpu[0]:.2f} to {cpu[-1]:.2f})"
    )
    return {"ours": shown[0], "rclip": shown[1], "unit": unit, "wall_ratios": wall, "processor_ratios": cpu}


@click.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rclip", required=True, help="Python of an environment in which rclip is installed.")
@click.option("--graphs", required=True, type=click.Path(file_okay=False, path_type=Path), help="WORK.")
@click.option("--count", default=256, show_default=True, help="Pictures taken of the folder.")
@click.option(
    "--rounds", default=3, show_default=True, help="Of indexing; three and five times as many of the others."
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures, too."
)
def main(pictures: Path, rclip: str, graphs: Path, count: int, rounds: int, file: Path | None) -> None:
    """Measure with the pictures of PICTURES."""
    if not (graphs / "visual.onnx").is_file():
        make_graphs(graphs)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        photos, data = work / "photos", work / "rclip"
        (data / SUBFOLDER).mkdir(parents=True)
        photos.mkdir()
        for name in ("visual.onnx", "textual.onnx"):
            (data / SUBFOLDER / name).symlink_to((graphs / name).resolve())
        shutil.copytree(graphs / "tokenizer", data / "tokenizer")
        for path in sorted(one for one in pictures.iterdir() if one.is_file())[:count]:
            shutil.copy(path, photos)
        count = len(list(photos.iterdir()))
        result = measure(photos, graphs.resolve(), data, rclip, count, rounds)
    if file is not None:
        file.write_text(json.dumps(result, indent=1) + "\n")


def measure(
    photos: Path, graphs: Path, data: Path, rclip: str, count: int, rounds: int
) -> dict[str, dict[str, object]]:
    """All figures, printed as they come."""
    more = {"RCLIP_DATADIR": str(data), "HF_HUB_OFFLINE": "1"}
    own, gallery = [sys.executable, "-m", "image2sentence"], photos.parent / "gallery"
    with_model = ["--model", str(graphs), "--gallery", str(gallery)]
    picture = str(sorted(photos.iterdir())[7])
    spent_by([*own, "info", *with_model[:2]], photos.parent, more)  # adapts the graphs

    def index_own() -> Spent:
        shutil.rmtree(gallery, ignore_errors=True)
        return spent_by([*own, "index", str(photos), *with_model], photos.parent, more)

    def index_other() -> Spent:
        (data / "db.sqlite3").unlink(missing_ok=True)
        return spent_by([rclip, "-c", INDEX], photos, more)

    click.echo(f"{'':34} {'ours':>9} {'rclip':>9}             times as fast       by processor time")
    result = {"indexing": told("indexing, whole process", in_turns(index_own, index_other, rounds), count)}
    kinds = {"words": [WORDS], "picture": [picture], "picture and words": [picture, WORDS]}
    for name, asked in kinds.items():
        added = [word for one in asked[1:] for word in ("--add", one)]
        spent = in_turns(
            lambda asked=asked: spent_by([*own, "search", *asked, *with_model], photos.parent, more),
            lambda asked=asked, added=added: spent_by(
                [rclip, "-m", "rclip.main", "--no-indexing", asked[0], *added], photos, more
            ),
            3 * rounds,
        )
        result[f"first, {name}"] = told(f"first search, {name}", spent)
    ours = Asked([sys.executable, "-c", OWN_WARM, str(graphs), str(gallery)], photos.parent, more)
    theirs = Asked([rclip, "-c", RCLIP_WARM], photos, more)
    for name, asked in kinds.items():
        for one in (ours, theirs):
            one.search(asked)
        spent = in_turns(
            lambda asked=asked: ours.search(asked), lambda asked=asked: theirs.search(asked), 5 * rounds
        )
        result[f"warm, {name}"] = told(f"warm search, {name}", spent)
    ours.close()
    theirs.close()
    return result


if __name__ == "__main__":
    main()
