"""Queries to a gallery, and the engine that answers them.

The command line and the server ask through this, and whatever else serves people can: one engine holds a model and
a gallery, and answers any number of queries.
"""

from image2sentence.encoders.protocols import KnowsWords
from image2sentence.query.composition import compose
from image2sentence.query.engine import QueryEngine
from image2sentence.query.query import NEUTRAL, Asked, Query, Reference
from image2sentence.query.results import Answer, Result, fit_word
from image2sentence.query.unknown_words import UnknownWord, words_not_understood

__all__ = [
    "NEUTRAL",
    "Answer",
    "Asked",
    "KnowsWords",
    "Query",
    "QueryEngine",
    "Reference",
    "Result",
    "UnknownWord",
    "compose",
    "fit_word",
    "words_not_understood",
]
