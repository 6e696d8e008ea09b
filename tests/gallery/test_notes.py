"""Notes in the gallery file: damage is named, and files without them are as before."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from image2sentence.errors import GalleryError
from image2sentence.gallery.sqlite.gallery import DATABASE, Gallery


@pytest.mark.parametrize("change", ["value = '[2]'", "value = '['", "name = 'b'", "kind = 'forgotten'"])
def test_a_changed_note_is_damage(tmp_path: Path, change: str) -> None:
    with Gallery.create(tmp_path / "g", "model", 4) as gallery:
        gallery.set_notes("mounts", {"a": [1]})
    with closing(sqlite3.connect(tmp_path / "g" / DATABASE)) as connection:
        connection.execute(f"UPDATE notes SET {change}")
        connection.commit()
    with Gallery.open(tmp_path / "g") as gallery, pytest.raises(GalleryError, match="note 1 has a wrong"):
        gallery.verify()


def test_a_gallery_without_notes_needs_none(tmp_path: Path) -> None:
    Gallery.create(tmp_path / "g", "model", 4).close()
    with Gallery.open(tmp_path / "g") as gallery:
        gallery.verify()
        assert gallery.notes("mounts") == {}
        with pytest.raises(GalleryError, match="reading only"):
            gallery.set_notes("mounts", {"a": [1]})
