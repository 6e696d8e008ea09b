"""Drawn product pictures with exactly known attributes."""

from image2sentence.catalogue.attributes import Product, change, sample
from image2sentence.catalogue.draw import draw
from image2sentence.catalogue.folder import write_catalogue

__all__ = ["Product", "change", "draw", "sample", "write_catalogue"]
