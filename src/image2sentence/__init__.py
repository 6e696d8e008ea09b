"""Search your own pictures with a picture plus words.

The names below are loaded when first used, so `import image2sentence` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from image2sentence.encoders import Encoder, OnnxEncoder, load_encoder
    from image2sentence.errors import (
        ConfigError,
        DataError,
        GalleryError,
        Image2SentenceError,
        ImageError,
        ModelError,
        QueryError,
        StorageAwayError,
    )
    from image2sentence.gallery.search.base import Hit
    from image2sentence.gallery.search.searcher import Searcher
    from image2sentence.gallery.sqlite.gallery import Gallery
    from image2sentence.images import load_image
    from image2sentence.indexing.index_pictures import IndexReport, index_pictures
    from image2sentence.query import Answer, Query, QueryEngine, Reference, Result, compose
    from image2sentence.visualize.contact_sheet import contact_sheet

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "ConfigError",
    "DataError",
    "Encoder",
    "Gallery",
    "GalleryError",
    "Hit",
    "Image2SentenceError",
    "ImageError",
    "IndexReport",
    "ModelError",
    "OnnxEncoder",
    "Query",
    "QueryEngine",
    "QueryError",
    "Reference",
    "Result",
    "Searcher",
    "StorageAwayError",
    "compose",
    "contact_sheet",
    "index_pictures",
    "load_encoder",
    "load_image",
]

_HOMES = {
    "encoders": ("Encoder", "OnnxEncoder", "load_encoder"),
    "errors": (
        "ConfigError",
        "DataError",
        "GalleryError",
        "Image2SentenceError",
        "ImageError",
        "ModelError",
        "QueryError",
        "StorageAwayError",
    ),
    "indexing": ("IndexReport", "index_pictures"),
    "gallery.search.searcher": ("Hit", "Searcher"),
    "gallery.sqlite.gallery": ("Gallery",),
    "images": ("load_image",),
    "query": ("Answer", "Query", "QueryEngine", "Reference", "Result", "compose"),
    "visualize.contact_sheet": ("contact_sheet",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
