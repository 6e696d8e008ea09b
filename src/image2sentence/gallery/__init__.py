"""Galleries: pictures with their vectors on disk, kept up to date, and searched."""

from image2sentence.gallery.indexing import IndexReport, index_pictures
from image2sentence.gallery.searcher import Hit, Searcher
from image2sentence.gallery.store import Gallery, Picture

__all__ = ["Gallery", "Hit", "IndexReport", "Picture", "Searcher", "index_pictures"]
