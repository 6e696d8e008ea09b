"""Indexing of pictures: find, read, encode and record them."""

from image2sentence.indexing.index_pictures import IndexReport, index_pictures

__all__ = ["IndexReport", "index_pictures"]
