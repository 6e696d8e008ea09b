"""Update of a gallery from a folder: reads only what changed.

Files are read, hashed and made the encoder's input in threads, and decoded in processes of their own; the calling
thread sorts the outcomes into batches; further threads encode the batches, and one writes them in their order.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from typing import TypeAlias

from image2sentence.encoders.protocols import Encoder
from image2sentence.errors import ConfigError
from image2sentence.gallery.base import GalleryStore
from image2sentence.images import MAX_PIXELS, MIN_DECODE_SIDE, own_pool
from image2sentence.indexing.overlap import walk_root
from image2sentence.indexing.pipeline import EncodeAndWrite
from image2sentence.indexing.reader import Inputs, Reader, read_ahead, read_shards
from image2sentence.indexing.report import IndexReport
from image2sentence.indexing.run import Run

__all__ = ["MIN_DECODE_SIDE", "IndexReport", "Progress", "index_pictures"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (files dealt with, files to deal with) as the run goes on."""


def index_pictures(
    pictures: str | os.PathLike[str],
    gallery: GalleryStore,
    encoder: Encoder,
    *,
    batch_size: int = 32,
    threads: int | None = None,
    at_least: int = MIN_DECODE_SIDE,
    max_pixels: int = MAX_PIXELS,
    retry_failed: bool = False,
    shards: bool = False,
    allow_empty: bool = False,
    exclude: Sequence[str] = (),
    forget: Collection[int] | None = None,
    progress: Progress | None = None,
) -> IndexReport:
    """Bring a gallery up to date with the pictures below a folder or URL, or in a tar shard.

    Files whose size and modification time are as before are not opened. Moved and duplicate files are
    recognised by content and not encoded again. Every batch is committed, so a run that is killed or
    interrupted loses only the batches being encoded or written at that moment, and the next run goes on.
    The date of each picture (EXIF, XMP, PNG, or in its name) is kept as its metadata `taken`.

    Args:
        pictures: A folder, a URL that fsspec reads, or a .tar file in either. A gallery can hold several, none
            inside another: those below this one become a part of it. A folder that the gallery holds under another
            name (a link) is that one; links to what another one holds are passed over.
        gallery: Opened for writing, made with this encoder.
        encoder: Gives the vectors.
        batch_size: Pictures encoded and committed at once, at most; fewer where they are few, or so large that they
            take more than 256 MiB.
        threads: Decoding threads; None takes one per processor core, at most 8.
        at_least: Smallest side the encoder needs, see `load_image`. Vectors depend (slightly) on it: keep it.
        max_pixels: Largest picture decoded, see `load_image`.
        retry_failed: Read again files that failed before and have not changed since.
        shards: Take the .tar files there as shards of pictures; always so where it was done before.
        allow_empty: Forget pictures whose files are gone even if they are most of the folder's, or all.
        exclude: Patterns, as in `.gitignore`, of files and folders to pass over, beside those in
            `.image2sentenceignore` files and `EXCLUDED_FOLDERS`; known pictures there are forgotten.
        forget: Ids of the pictures that are forgotten if their files are gone; None for all. Others are reported
            as `missing`.
        progress: Called with how far the run is.

    Returns:
        What was found and done. Pictures that cannot be read are listed there; they never stop the run.

    Raises:
        GalleryError: the folder is missing or lies within an indexed one; the gallery is of another model,
            read-only or damaged; the disk is full; most of the known pictures are not there (their disk may be
            away) and `allow_empty` is not set: then new ones are in, and none is forgotten.
        ModelError: the encoder returned something other than finite unit vectors.
        ConfigError: `batch_size`, `threads` or `at_least` is less than 1.
        Exception: whatever the encoder raises; batches committed before stay.
    """
    start = time.perf_counter()
    for name, value in (("batch_size", batch_size), ("threads", threads), ("at_least", at_least)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    gallery.require(encoder.fingerprint, encoder.width)
    source, found = walk_root(pictures, gallery, exclude)
    inputs = Inputs(encoder)
    reader = Reader(
        source, inputs, lambda sha256: gallery.find_content(sha256) is not None, at_least, max_pixels
    )
    ahead = read_ahead(reader, threads, batch_size)
    with closing(EncodeAndWrite(inputs.parallel)) as line:
        run = Run(
            source.place,
            gallery,
            inputs,
            batch_size,
            found,
            line,
            shards=shards,
            allow_empty=allow_empty,
            forget=forget,
        )
        changed = [file for file in found.files if run.is_changed(file, retry_failed)]
        opened = [shard for shard in run.shards if run.is_changed_shard(shard, retry_failed)]
        if not opened:
            run.spread(len(changed), inputs.parallel)
        outcomes = ahead.over(chain(changed, read_shards(source, opened)))
        with closing(outcomes), _decoding_ends_with_the_run():
            for done, outcome in enumerate(outcomes, 1):
                run.take(outcome)
                if progress is not None:
                    progress(done, max(done, len(changed)))
        run.finish()
    return run.report(time.perf_counter() - start)


@contextmanager
def _decoding_ends_with_the_run() -> Iterator[None]:
    """Where the run is interrupted or fails, end what is being decoded: nobody waits for it any more."""
    try:
        yield
    except BaseException:
        own_pool().interrupt()
        raise
