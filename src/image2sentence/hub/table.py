"""Short names of published models, and what each of them knows."""

from __future__ import annotations

from dataclasses import dataclass

STARTER = "starter"
EVERYDAY = "everyday"
BUNDLED = {STARTER: "default", EVERYDAY: "everyday"}
"""Models of the package, and their folders in it."""
GENERAL = "clip-b32-datacomp"
"""The model that is suggested for photographs of anything."""


@dataclass(frozen=True)
class KnownModel:
    """A row of `image2sentence models`.

    Attributes:
        name: What `--model` takes.
        repository: On the Hub; "" for a model of the package.
        folder: Where in the repository its files lie.
        text_repository: Where its text graph lies, if in a repository of its own.
        weights: Its torch weights in the format of transformers, for training; "" where none are known.
        knows: What it was trained on, in a few words.
        languages: That it reads.
        license: As its authors state it; what the repository says is shown before anything is fetched.
        megabytes: To fetch, about; the exact figure is shown before anything is fetched.
    """

    name: str
    repository: str
    knows: str
    languages: str
    license: str
    megabytes: int
    folder: str = ""
    text_repository: str = ""
    weights: str = ""


_PHOTOGRAPHS = "photographs of anything"
MODELS = (
    KnownModel(STARTER, "", "garments, drawn products, emoji", "English", "Apache-2.0", 0),
    KnownModel(EVERYDAY, "", "everyday things, animals, food, garments", "English", "Apache-2.0", 0),
    KnownModel(
        GENERAL,
        "yurijmikhalevich/rclip-models",
        _PHOTOGRAPHS,
        "English",
        "MIT",
        610,
        folder="ViT-B-32-256-datacomp_s34b_b86k",
    ),
    KnownModel(
        "clip-b32",
        "Xenova/clip-vit-base-patch32",
        _PHOTOGRAPHS,
        "English",
        "not stated",
        420,
        weights="openai/clip-vit-base-patch32",
    ),
    KnownModel(
        "clip-b16",
        "Xenova/clip-vit-base-patch16",
        _PHOTOGRAPHS,
        "English",
        "not stated",
        410,
        weights="openai/clip-vit-base-patch16",
    ),
    KnownModel(
        "clip-l14",
        "Xenova/clip-vit-large-patch14",
        _PHOTOGRAPHS,
        "English",
        "not stated",
        1340,
        weights="openai/clip-vit-large-patch14",
    ),
    KnownModel(
        "clip-b32-qdrant",
        "Qdrant/clip-ViT-B-32-vision",
        _PHOTOGRAPHS,
        "English",
        "MIT",
        610,
        text_repository="Qdrant/clip-ViT-B-32-text",
        weights="openai/clip-vit-base-patch32",
    ),
    KnownModel(
        "siglip-b16",
        "Xenova/siglip-base-patch16-224",
        _PHOTOGRAPHS,
        "English",
        "Apache-2.0",
        490,
        weights="google/siglip-base-patch16-224",
    ),
    KnownModel(
        "siglip2-b16",
        "onnx-community/siglip2-base-patch16-224-ONNX",
        _PHOTOGRAPHS,
        "many",
        "Apache-2.0",
        690,
        weights="google/siglip2-base-patch16-224",
    ),
    KnownModel("fashion-siglip", "Marqo/marqo-fashionSigLIP", "fashion", "English", "Apache-2.0", 490),
    KnownModel(
        "mobileclip2-s0",
        "plhery/mobileclip2-onnx",
        _PHOTOGRAPHS,
        "English",
        "apple-amlr (research only)",
        300,
        folder="onnx/s0",
    ),
)


def known_model(name: str) -> KnownModel | None:
    """The row of a short name."""
    return next((model for model in MODELS if model.name == name), None)
