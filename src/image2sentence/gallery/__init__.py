"""Galleries: pictures with their vectors on disk, kept up to date, and searched."""

from image2sentence.gallery.filters import Filter, parse_filter
from image2sentence.gallery.indexing import IndexReport, index_pictures
from image2sentence.gallery.searcher import Hit, Searcher, VectorSearch
from image2sentence.gallery.store import Gallery, Picture

__all__ = [
    "Filter",
    "Gallery",
    "Hit",
    "IndexReport",
    "Picture",
    "Searcher",
    "VectorSearch",
    "index_pictures",
    "parse_filter",
]
