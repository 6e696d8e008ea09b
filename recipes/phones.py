"""A model's fixed query graphs in the formats that phones take, each asked and compared with the ONNX graphs.

    image2sentence export MODEL --out FIXED --pictures PICTURES --fixed 16
    python -m recipes.phones FIXED OUT --to ort               # ONNX Runtime Mobile
    python -m recipes.phones FIXED OUT --to litert            # pip install litert-torch
    python -m recipes.phones FIXED OUT --to coreml            # pip install coremltools; compared on macOS only

LiteRT's and Core ML's graphs are made from torch, in float32 and float16, not from the ONNX graphs.
"""

from __future__ import annotations

import platform
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from image2sentence.catalogue import draw, sample
from image2sentence.encoders.model_folder import ModelFolder
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.errors import ConfigError
from image2sentence.training.export.fixed_shape import FIXED_TEXT, IMAGE_OUTPUTS, TEXT_INPUTS, FixedEncoder

PICTURES = 24
TEXTS = ("in red", "but with long sleeves", "", "with stripes on a white background")

Array = NDArray[Any]
Run = Callable[[Sequence[Array]], Sequence[Array]]
"""Inputs in the graph's order -> outputs in its order."""


def compare(encoder: FixedEncoder, image: Run, text: Run) -> NDArray[np.float64]:
    """Cosines between query vectors of the ONNX graphs and of the two given, of drawn products and some words."""
    rng, cosines = random.Random(0), []
    for turn in range(PICTURES):
        picture, words = draw(sample(rng), 224), TEXTS[turn % len(TEXTS)]
        expected = encoder.encode_queries(encoder.encode_sentences([picture]), [words])[0]
        sentence = image([to_pixels([picture], encoder.config.query_preprocessing)])[0]
        padded = encoder.padded(words)
        found = text([sentence, padded["ids"], padded["bias"]])[0][0]
        cosines.append(found @ expected / np.linalg.norm(found) / np.linalg.norm(expected))
    return np.array(cosines)


def to_ort(encoder: FixedEncoder, out: Path) -> tuple[Run, Run]:
    """ONNX Runtime's own format, by its own tool."""
    source = (encoder.folder.path / FIXED_TEXT).parent
    shutil.copytree(source, out, dirs_exist_ok=True)
    tool = "onnxruntime.tools.convert_onnx_models_to_ort"
    subprocess.run([sys.executable, "-m", tool, str(out)], check=True, stdout=subprocess.DEVNULL)
    return _ort(out / "query_image.ort"), _ort(out / "query_text.ort")


def _ort(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    run: Run = lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))  # noqa: E731
    return run


def to_litert(encoder: FixedEncoder, out: Path) -> tuple[Run, Run]:
    """LiteRT (TensorFlow Lite), by litert-torch."""
    import litert_torch

    runs = []
    for name, (module, inputs) in _modules(encoder).items():
        converted = litert_torch.convert(module, inputs)
        converted.export(str(out / f"{name}.tflite"))
        runs.append(_litert(out / f"{name}.tflite"))
    return runs[0], runs[1]


def _litert(path: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()

    def run(inputs: Sequence[Array]) -> Sequence[Array]:
        for detail, value in zip(interpreter.get_input_details(), inputs, strict=True):
            interpreter.set_tensor(detail["index"], value)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]

    return run


def to_coreml(encoder: FixedEncoder, out: Path) -> tuple[Run, Run]:
    """Core ML's ML programs, by coremltools, which runs them on macOS only."""
    import coremltools
    import torch

    names = {"query_image": (["pixels"], IMAGE_OUTPUTS), "query_text": (TEXT_INPUTS, ["vectors"])}
    runs = []
    for name, (module, inputs) in _modules(encoder).items():
        program = _without_aliases(torch.export.export(module, inputs).run_decompositions({}))
        takes, gives = names[name]
        model = coremltools.convert(
            program,
            inputs=[
                coremltools.TensorType(each, tuple(value.shape), value.numpy().dtype.type)
                for each, value in zip(takes, inputs, strict=True)
            ],
            outputs=[coremltools.TensorType(each) for each in gives],
            minimum_deployment_target=coremltools.target.iOS16,
        )
        model.save(str(out / f"{name}.mlpackage"))
        runs.append(_coreml(model, takes, gives))
    return runs[0], runs[1]


def _without_aliases(program: Any) -> Any:
    """Torch's exporter leaves nodes that only name another one's value again; coremltools 9 does not know them."""
    import torch

    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten.alias.default:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    return program


def _coreml(model: Any, takes: Sequence[str], gives: Sequence[str]) -> Run:
    def run(inputs: Sequence[Array]) -> Sequence[Array]:
        found = model.predict(dict(zip(takes, inputs, strict=True)))
        return [found[name] for name in gives]

    return run


def _modules(encoder: FixedEncoder) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Both torch modules and inputs of their shapes."""
    import torch

    from image2sentence.training.export.fixed_shape import text_inputs
    from image2sentence.training.export.graphs import FixedTextGraph, QueryImageGraph
    from image2sentence.training.text_distillation import restore_text
    from image2sentence.training.trained_model import Trained

    trained, config = Trained.open(encoder.folder.path), encoder.config
    light = restore_text(trained.folder, trained.vl)
    tower = light.fold() if light is not None else trained.vl.text_tower()
    text = FixedTextGraph(tower, config.word_width, config.head_length, config.learner.gates)
    size = config.query_preprocessing.size
    image = QueryImageGraph(trained.query, config.learner.gates)
    return {
        "query_image": (image.eval(), (torch.rand(1, 3, size, size),)),
        "query_text": (text.eval(), text_inputs(text, config.learner.tokens, encoder.words)),
    }


FORMATS = {"ort": to_ort, "litert": to_litert, "coreml": to_coreml}


@click.command()
@click.argument("model", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--to", "wanted", multiple=True, type=click.Choice(list(FORMATS)), default=("ort",))
def main(model: Path, out: Path, wanted: tuple[str, ...]) -> None:
    """Convert the fixed graphs of MODEL into OUT and compare."""
    encoder = FixedEncoder(ModelFolder.open(model))
    if FIXED_TEXT not in encoder.config.files:
        raise ConfigError(f"{model} has no fixed graphs: export it with --fixed N")
    for name in wanted:
        place = out / name
        place.mkdir(parents=True, exist_ok=True)
        runs = FORMATS[name](encoder, place)
        size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
        if name == "coreml" and platform.system() != "Darwin":
            click.echo(f"{name}: converted, {size / 1e6:.1f} MB; it can be compared on macOS only")
            continue
        cosines = compare(encoder, *runs)
        click.echo(f"{name}: least cosine {cosines.min():.6f}, mean {cosines.mean():.6f}")


if __name__ == "__main__":
    main()
