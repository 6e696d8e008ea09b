"""Light side for an adapted model.

Its graphs make the gallery vectors, torch weights of the same model the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from image2sentence.encoders.model_folder import CONFIG, TOKENIZER, ModelFolder, split_revision
from image2sentence.encoders.onnx_encoder import OnnxEncoder
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.encoders.tokenizer_file import read_tokenizer
from image2sentence.errors import ModelError
from image2sentence.hub.find import find_model
from image2sentence.hub.table import known_model
from image2sentence.strict_json import read_json
from image2sentence.training.vl.base import VisionLanguageModel

MIN_COSINE = 0.95
"""Between vectors of graphs and weights, whatever precision the graphs are in; of two models it is about 0."""
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_TEXTS = ("a red dress", "two dogs on a beach", "but in blue")


def open_adapted(model: str) -> ModelFolder:
    """The adapted model of a name. Raises ModelError where there is none, or it is another kind of model."""
    folder = find_model(model)
    if folder.config.origin is None:
        raise ModelError(
            f"{model} was not adapted from published graphs: for a trained model give --vl and --start"
        )
    return folder


def weights_of(model: str) -> str:
    """Hub id or path of the torch weights of a model that `--model` names. Raises ModelError where none are known."""
    path = Path(model)
    if path.is_dir():
        settings = read_json(path / CONFIG, ModelError) if (path / CONFIG).is_file() else {}
        if (
            isinstance(settings, dict)
            and "model_type" in settings
            and any((path / one).is_file() for one in _WEIGHTS)
        ):
            return model
    row = known_model(split_revision(model)[0])
    if row is None or not row.weights:
        raise ModelError(
            f"it is not known where the torch weights of {model} are: name them with --vl, a Hub id or a folder in the "
            "format of transformers"
        )
    return row.weights


def take_over(vl: VisionLanguageModel, folder: ModelFolder) -> VisionLanguageModel:
    """The VL model with the preprocessing and tokenizer that the folder's gallery side and queries have.

    Raises ModelError where widths or vocabularies differ.
    """
    config = folder.config
    _require_equal(folder, vl, "width of vectors", config.width, vl.width)
    _require_equal(folder, vl, "width of words", config.word_width, vl.word_width)
    tokenizer = read_tokenizer(folder.read(TOKENIZER), folder.path / TOKENIZER)
    _require_equal(
        folder,
        vl,
        "reading of words",
        [tokenizer.encode(text, add_special_tokens=False).ids for text in _TEXTS],
        [vl.tokenizer.encode(text, add_special_tokens=False).ids for text in _TEXTS],
    )
    tokenizer.encode_special_tokens = True
    vl.tokenizer, vl.preprocessing = tokenizer, config.gallery_preprocessing
    return vl


@torch.no_grad()
def require_same_model(
    vl: VisionLanguageModel,
    encoder: OnnxEncoder,
    pictures: Sequence[Image.Image],
    vectors: NDArray[np.float32],
) -> None:
    """Raises ModelError where graphs and weights give other vectors.

    Args:
        vl: Of the weights, after `take_over`.
        encoder: Of the graphs.
        pictures: At least one.
        vectors: (n, d) unit rows that the graphs give for them.
    """
    device = next(vl.parameters()).device
    pixels = torch.from_numpy(to_pixels(pictures, vl.preprocessing)).to(device)
    seen = vl.encode_images(pixels).vectors.float().cpu().numpy()
    read = vl.encode_words(vl.words(_TEXTS)).float().cpu().numpy()
    for what, ours, theirs in (
        ("pictures", seen, vectors),
        ("words", read, encoder.encode_queries(None, _TEXTS)),
    ):
        cosine = float(np.mean(np.sum(ours * theirs, axis=1)))
        if not cosine >= MIN_COSINE:
            raise ModelError(
                f"the weights {vl.record.name} are not those of the graphs in {encoder.folder.path}: mean cosine of "
                f"{what} {cosine:.2f}, expected at least {MIN_COSINE}; name the same model's with --vl"
            )


def _require_equal(
    folder: ModelFolder, vl: VisionLanguageModel, what: str, graphs: object, weights: object
) -> None:
    if graphs != weights:
        raise ModelError(
            f"the weights {vl.record.name} are not those of the graphs in {folder.path}: {what} {weights}, the graphs "
            f"have {graphs}; name the same model's with --vl"
        )
