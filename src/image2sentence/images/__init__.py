"""Picture files to pixels: formats, limits, colours, dates, decoding processes."""

from image2sentence.images.decode import (
    MAX_PIXELS,
    MIN_DECODE_SIDE,
    Decoded,
    DecodeLimits,
    date_taken,
    decode_image,
    load_image,
)
from image2sentence.images.files import (
    MAX_BYTES,
    PathLike,
    content_hash,
    display_path,
    open_regular,
    printable,
    read_regular,
)
from image2sentence.images.formats import EXTENSIONS, FORMATS, ending_of
from image2sentence.images.pool import (
    DecodePool,
    DecodersBusyError,
    DecodingStoppedError,
    own_pool,
    untrusted_pool,
)

__all__ = [
    "EXTENSIONS",
    "FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "MIN_DECODE_SIDE",
    "DecodeLimits",
    "DecodePool",
    "Decoded",
    "DecodersBusyError",
    "DecodingStoppedError",
    "PathLike",
    "content_hash",
    "date_taken",
    "decode_image",
    "display_path",
    "ending_of",
    "load_image",
    "open_regular",
    "own_pool",
    "printable",
    "read_regular",
    "untrusted_pool",
]
