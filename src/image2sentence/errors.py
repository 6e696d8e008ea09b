"""The exceptions this package raises on purpose.

Each message says what was expected, what came, and what to do about it. The library raises; only the edges (command
line, server) turn these into exit codes and HTTP answers.
"""


class Image2SentenceError(Exception):
    """Base of every error this package raises on purpose."""


class ImageError(Image2SentenceError):
    """A picture that cannot be read: missing, damaged, of an unknown format, or too large."""


class ModelError(Image2SentenceError):
    """A model folder that is incomplete, damaged, of another format version, or not what was asked for."""


class GalleryError(Image2SentenceError):
    """A gallery that is missing, damaged, locked, of another format version, or of another model."""


class StorageAwayError(GalleryError):
    """Pictures that a gallery knows are not there: their disk, share or network may be away; nothing is forgotten."""


class DataError(Image2SentenceError):
    """Benchmark or training data that is missing, inconsistent or damaged; the message names the item."""


class QueryError(Image2SentenceError):
    """A query that cannot be answered: empty, too long, or asking for something that does not exist."""


class ConfigError(Image2SentenceError):
    """A setting with an unknown name or an impossible value."""
