"""An empty gallery that stands for one which is not there yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from image2sentence.encoders.protocols import Encoder
from image2sentence.gallery import Gallery
from image2sentence.gallery.locations import Identity, identity
from image2sentence.gallery.sqlite.database import DATABASE
from image2sentence.images import display_path


class AwaitedGallery(Gallery):
    """Holds nothing, and says which file is in the place that it stands for: `SearchService` then opens that one."""

    place_awaited: Path

    @property
    def name(self) -> str:
        """Where the gallery will be, ready to be shown."""
        return display_path(self.place_awaited)

    @property
    def own_folder(self) -> Path:
        """Where the gallery will be."""
        return self.place_awaited

    def file_identity(self) -> Identity | None:  # type: ignore[override]
        """Device and inode of the file in the awaited place; None as long as there is none."""
        return identity(self.place_awaited / DATABASE)


@contextmanager
def awaited_gallery(place: Path, encoder: Encoder) -> Iterator[AwaitedGallery]:
    """An empty gallery of this encoder, in a folder that is deleted in the end; nothing is written to `place`."""
    with TemporaryDirectory(prefix="image2sentence-") as folder:
        gallery = AwaitedGallery.create(Path(folder, "empty"), encoder.fingerprint, encoder.width)
        assert isinstance(gallery, AwaitedGallery)
        gallery.place_awaited = place.absolute()
        with gallery:
            yield gallery
