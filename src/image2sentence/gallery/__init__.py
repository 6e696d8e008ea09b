"""Galleries: pictures with their vectors and metadata, stored and searched."""

from image2sentence.gallery.filters.language import Filter, parse_filter
from image2sentence.gallery.records import Picture
from image2sentence.gallery.search.base import Hit, VectorSearch
from image2sentence.gallery.search.searcher import Searcher
from image2sentence.gallery.sqlite.gallery import Gallery

__all__ = [
    "Filter",
    "Gallery",
    "Hit",
    "Picture",
    "Searcher",
    "VectorSearch",
    "parse_filter",
]
