"""What one composed query costs beside the kinds of query it replaces, at the size of published models, in one run.

    python -m benchmarks.query.cost build WORK      # writes about 3 GB of ONNX graphs with random weights, minutes
    python -m benchmarks.query.cost measure WORK    # a minute

The query is a picture (its pixels prepared beforehand) and eight words, L = 4, batch 1, through ONNX Runtime:

- ours: a light encoder and token learner, then BLIP-base's text encoder (or a light one); fp32 and int8;
- (a) the symmetric query: BLIP-base's ViT-B/16 at 384 px, token learner, text encoder, fp32;
- (b) the SEARLE and LinCIR kind: CLIP ViT-L/14 at 224 px, CLIP's text encoder on 77 tokens, fp32.

Weights do not change what a graph costs, so they are random. All variants take turns in every round, so that whatever
else the machine does meets them alike; the figures are medians.
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

from image2sentence.encoders.config import LearnerConfig, Preprocessing
from image2sentence.encoders.model_folder import TOKENIZER, bundled

TOKENS, WORDS = 4, 8
BLIP_IDS, CLIP_IDS = WORDS + 2, 76  # with start and end; CLIP's query has one pseudo-word among its 77
LIGHT = ("mobilenet-v2/160", "mobilenet-v2/224", "tiny")
CALIBRATION = 16
SYMMETRIC, CLIP = ("symmetric_image", "text"), ("clip_image", "clip_text")
ROWS = {"image": {0: "rows"}, "sentence": {0: "rows", 1: "tokens"}, "ids": {0: "rows", 1: "words"}}


def graph_name(light: str) -> str:
    """A light encoder's name as a file's."""
    return f"light-{light.replace('/', '-')}"


# --- building -------------------------------------------------------------------------------------------------------


def build_blip(work: Path) -> None:
    """BLIP-base: the symmetric query's visual side with a token learner, text towers, and the light encoders."""
    import torch
    from tokenizers import Tokenizer
    from transformers import BlipConfig, BlipForImageTextRetrieval

    from image2sentence.training.export.graphs import QueryImageGraph, QueryTextGraph
    from image2sentence.training.export.model_folder import quantize as quantise
    from image2sentence.training.models.query_model import build_query_model
    from image2sentence.training.models.text_student import LightText, LightTextConfig
    from image2sentence.training.vl.blip import BlipVL

    torch.manual_seed(0)
    tokenizer = Tokenizer.from_file(str(bundled() / TOKENIZER))
    vl = BlipVL(
        BlipForImageTextRetrieval(BlipConfig()), tokenizer, Preprocessing(384), "random BLIP-base", "none"
    )
    learner = LearnerConfig(tokens=TOKENS)
    for name, light in (("symmetric_image", "symmetric"), *((graph_name(light), light) for light in LIGHT)):
        model = build_query_model(vl, light, learner, pretrained=False)
        write_image_graph(
            QueryImageGraph(model, gated=False), model.preprocessing.size, work / f"{name}.onnx"
        )
        if light != "symmetric":
            quantise.static_int8(
                work / f"{name}.onnx",
                work / f"{name}.int8.onnx",
                drawn_pixels(model.preprocessing),
                keep="/model/learner/",
            )
    towers = {"text": vl.text_tower(), "light_text": LightText(LightTextConfig(256, 4), vl).fold()}
    for name, tower in towers.items():
        write_text_graph(
            QueryTextGraph(tower, vl.word_width, 1, gated=False), vl.word_width, work / f"{name}.onnx"
        )
        quantise.dynamic_int8(work / f"{name}.onnx", work / f"{name}.int8.onnx")


def build_clip(work: Path) -> None:
    """CLIP ViT-L/14 at 224 px, and its text encoder."""
    import torch
    from tokenizers import Tokenizer
    from transformers import CLIPConfig, CLIPModel

    from image2sentence.training.export.graphs import GalleryImageGraph, QueryTextGraph
    from image2sentence.training.vl.clip import ClipVL

    torch.manual_seed(0)
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    }
    config = CLIPConfig(text_config=text, vision_config=vision | {"patch_size": 14}, projection_dim=768)
    tokenizer = Tokenizer.from_file(str(bundled() / TOKENIZER))
    vl = ClipVL(CLIPModel(config), tokenizer, Preprocessing(224), "random CLIP ViT-L/14", "none")
    write_image_graph(GalleryImageGraph(vl, patches=False), 224, work / "clip_image.onnx")
    graph = QueryTextGraph(vl.text_tower(), vl.word_width, 1, gated=False)
    write_text_graph(graph, vl.word_width, work / "clip_text.onnx")


def write_image_graph(graph: Any, size: int, path: Path) -> None:
    """Traces pixels (n, 3, size, size) -> all outputs; ONNX Runtime gives them in the graph's order."""
    import torch

    from image2sentence.training.export.graphs import trace

    pixels = torch.rand(1, 3, size, size)
    outputs = ["sentence", "attention", "gates"] if type(graph).__name__ == "QueryImageGraph" else ["vectors"]
    trace(graph, (pixels,), path, ["pixels"], outputs, {"pixels": ROWS["image"]})


def write_text_graph(graph: Any, width: int, path: Path) -> None:
    """Traces sentence and ids -> vectors."""
    import torch

    from image2sentence.training.export.graphs import trace

    inputs = (torch.randn(1, TOKENS, width), torch.ones(1, BLIP_IDS, dtype=torch.long))
    names = ["sentence", "ids"]
    trace(graph, inputs, path, names, ["vectors"], {name: ROWS[name] for name in names})


def drawn_pixels(preprocessing: Preprocessing) -> list[np.ndarray]:
    """A few drawn products as an encoder's input, to calibrate with."""
    from image2sentence.catalogue import draw, sample
    from image2sentence.encoders.preprocess import to_pixels

    rng = random.Random(0)
    return [to_pixels([draw(sample(rng), 256)], preprocessing) for _ in range(CALIBRATION)]


# --- measuring ------------------------------------------------------------------------------------------------------


class Graph:
    """One loaded graph and an input for it."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.use_per_session_threads, options.log_severity_level = False, 3
        self.session = onnxruntime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
        self.feed = {item.name: self._input(item, "clip" in path.name) for item in self.session.get_inputs()}

    @staticmethod
    def _input(item: Any, clip: bool) -> np.ndarray:
        rng = np.random.default_rng(0)
        if item.name == "ids":
            return rng.integers(4, 1000, (1, CLIP_IDS if clip else BLIP_IDS))
        if item.name == "sentence":
            return rng.standard_normal((1, 1 if clip else TOKENS, item.shape[2]), np.float32)
        return rng.standard_normal((1, *item.shape[1:]), np.float32)

    def milliseconds(self) -> float:
        """Of one run."""
        start = time.perf_counter()
        self.session.run(None, self.feed)
        return 1000 * (time.perf_counter() - start)


def queries(light: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each kind of query and the two graphs it runs."""
    image = graph_name(light)
    yield "ours, fp32", (image, "text")
    yield "ours, int8", (f"{image}.int8", "text.int8")
    yield "ours, fp32, light text", (image, "light_text")
    yield "ours, int8, light text", (f"{image}.int8", "light_text.int8")


def measure(work: Path, light: str, threads: int, rounds: int) -> dict[str, Any]:
    """Medians of every graph over `rounds` turns, and the queries made of them."""
    import onnxruntime

    # One pool for all graphs: with a pool each, the threads of one would still spin while another is timed.
    onnxruntime.set_global_thread_pool_sizes(threads, 1)
    kinds = dict(queries(light)) | {"(a) symmetric, fp32": SYMMETRIC, "(b) CLIP-L, fp32": CLIP}
    graphs = {name: Graph(work / f"{name}.onnx") for pair in kinds.values() for name in pair}
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for turn in range(rounds + 2):
        for name, graph in graphs.items():
            spent = [graph.milliseconds() for _ in range(3)][-1]  # the first two bring its weights back
            if turn >= 2:
                times[name].append(spent)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "light": light,
        "threads": threads,
        "rounds": rounds,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "bytes": {name: (work / f"{name}.onnx").stat().st_size for name in graphs},
        "milliseconds": medians,
        "queries": {kind: [medians[name] for name in pair] for kind, pair in kinds.items()},
    }


def table(result: dict[str, Any]) -> str:
    """Readable: parts, sum, and how many times cheaper than (a) and (b)."""
    total = {kind: sum(parts) for kind, parts in result["queries"].items()}
    symmetric, clip = (total[kind] for kind in total if kind.startswith("("))
    lines = [
        f"| query ({result['light']}, {result['threads']} threads) | image | text | sum | × (a) | × (b) |"
    ]
    lines.append("| --- " * 6 + "|")
    for kind, (image, text) in result["queries"].items():
        ratios = f"{symmetric / total[kind]:.1f} | {clip / total[kind]:.1f}"
        lines.append(f"| {kind} | {image:.2f} ms | {text:.2f} ms | {total[kind]:.2f} ms | {ratios} |")
    return "\n".join(lines)


@click.group()
def main() -> None:
    """Build graphs of full size, then measure them."""


@main.command()
@click.argument("work", type=click.Path(file_okay=False, path_type=Path))
def build(work: Path) -> None:
    """Write all graphs into WORK."""
    work.mkdir(parents=True, exist_ok=True)
    build_blip(work)
    build_clip(work)


@main.command("measure")
@click.argument("work", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--light", type=click.Choice(LIGHT), default=LIGHT[0], show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=15, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def measure_command(work: Path, light: str, threads: int, rounds: int, as_json: bool) -> None:
    """Measure the graphs in WORK."""
    result = measure(work, light, threads, rounds)
    click.echo(json.dumps(result) if as_json else table(result))


if __name__ == "__main__":
    main()
