"""One indexing run: known files, outcomes, and what is written."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.facts import TAKEN
from image2sentence.gallery.filters.language import Value
from image2sentence.gallery.locations import SHARD, Place, file_may_exist, joined
from image2sentence.gallery.metadata import MAX_COLUMNS
from image2sentence.gallery.records import Content, FileEntry, KnownFile
from image2sentence.indexing.absence import (
    add_mounts,
    check_forgetting,
    find_missing,
    kept_reasons,
    write_mounts,
)
from image2sentence.indexing.forgotten import Forgotten, remember
from image2sentence.indexing.moves import follow_to_other_roots
from image2sentence.indexing.pipeline import EncodeAndWrite
from image2sentence.indexing.reader import BATCH_BYTES, Decoded, Input, Inputs, Outcome, ShardEnd
from image2sentence.indexing.report import IndexReport, VectorSample
from image2sentence.indexing.sources import shard_path
from image2sentence.indexing.walk import UNSEEN, FoundFile, Walk

_ENTRY_BATCH = 1_024
_MIN_BATCH, _TURNS = 8, 8  # pictures, and how many batches each encoding thread should get


class DateColumn:
    """The metadata column of EXIF dates, made when the first date comes.

    There is none where the user has a column of that name and another type, or every column that a gallery may have.
    """

    def __init__(self, gallery: GalleryStore) -> None:
        self._gallery = gallery
        columns = gallery.columns()
        self._type = columns.get(TAKEN)
        self._has_room = len(columns) < MAX_COLUMNS

    def takes(self, taken: str | None) -> bool:
        """Whether a picture's date, or that it has none, can be written."""
        if taken is not None and self._type is None and self._has_room:
            self._gallery.add_columns({TAKEN: "date"})
            self._type = "date"
        return self._type == "date"


@dataclass
class _Batch:
    """Outcomes that wait to be encoded and committed."""

    entries: list[FileEntry] = field(default_factory=list)
    contents: dict[bytes, Decoded | Content] = field(default_factory=dict)
    bytes: int = 0

    def inputs(self) -> list[Input]:
        """The inputs of those that have yet to be encoded."""
        return [one.input for one in self.contents.values() if isinstance(one, Decoded)]


@dataclass
class _Shard:
    """What is known of a shard's members, and how far it has been taken in this run.

    Until all of it has been taken, its first member is kept without the shard's time: so a run that is killed
    leaves a shard that looks changed, and the next one reads it again.
    """

    file: FoundFile
    known: dict[str, KnownFile]
    seen: set[str] = field(default_factory=set)
    first: Outcome | None = None
    end: ShardEnd | None = None

    def taken(self, outcome: Outcome) -> Outcome:
        """Note a member; gives it as it is to be written."""
        self.seen.add(outcome.file.path)
        if self.first is not None:
            return outcome
        self.first = outcome
        return replace(outcome, file=replace(outcome.file, mtime_ns=UNSEEN))


class Run:
    """One indexing run: what the gallery knew, what waits, and what has been done."""

    def __init__(
        self,
        place: Place,
        gallery: GalleryStore,
        inputs: Inputs,
        batch_size: int,
        found: Walk,
        line: EncodeAndWrite,
        *,
        shards: bool,
        allow_empty: bool = False,
        forget: Collection[int] | None = None,
    ) -> None:
        self._place = place
        self._forget = forget
        self._allow_empty = allow_empty
        self._gallery = gallery
        self._inputs = inputs
        self._line = line
        self._batch_size = batch_size
        self._found = found
        self._root = gallery.add_root(place)
        self._known = gallery.known(self._root)
        members = _by_shard(self._known, found)
        only = [shard.path for shard in found.shards] == [""]
        self.shards = found.shards if shards or members or only else []
        self._shards = {shard.path: _Shard(shard, members.get(shard.path, {})) for shard in self.shards}
        self._mounts = add_mounts(gallery, self._root, found.mounts) if isinstance(place, Path) else []
        there = {path for shard in self._shards.values() for path in shard.known}
        missing = find_missing(self._known, found, there, self._mounts)
        self._kept = {one.known.id: one.away for one in missing if one.away is not None and not allow_empty}
        self._missing = {one.known.id for one in missing} - self._kept.keys()
        self._excluded = {one.id for path, one in self._known.items() if found.is_excluded(path)}
        self._left_shards: set[int] = set()  # pictures that a shard which was read to its end no longer has
        self._movable = gallery.gone(self._root)
        for one in sorted(missing, key=lambda one: one.away is not None):
            if one.known.content_id is not None:
                self._movable.setdefault(one.known.content_id, deque()).append(one.known.id)
        self._changed: set[int] = set()  # contents of known files that have another size or time now
        self._aside: list[tuple[Outcome, bytes, str]] = []
        self._batch = _Batch()
        self._under_way: deque[set[bytes]] = deque(maxlen=inputs.parallel + 2)
        self._dates = DateColumn(gallery)
        self._forgotten = Forgotten(gallery)
        self._sample = VectorSample()
        self._counts: Counter[str] = Counter()
        self._failed: list[tuple[Place, str]] = []
        self._relinked = False
        self._looked_elsewhere: set[int] = set()  # contents whose pictures in other roots have been looked at

    def spread(self, count: int, calls: int) -> None:
        """Make batches of `count` pictures so small that none of `calls` threads encodes for long alone at the end."""
        self._batch_size = min(self._batch_size, max(_MIN_BATCH, count // (_TURNS * calls)))

    def is_changed(self, file: FoundFile, retry_failed: bool) -> bool:
        """Whether a file must be read; counts it as unchanged or failed where not."""
        known = self._known.get(file.path)
        if known is None or file.size == UNSEEN or (file.size, file.mtime_ns) != (known.size, known.mtime_ns):
            if known is not None and known.content_id is not None:
                self._changed.add(known.content_id)
            return True
        if known.reason is None:
            self._counts["unchanged"] += 1
            return False
        if not retry_failed:
            self._failed.append((joined(self._place, file.path), known.reason))
        return retry_failed

    def is_changed_shard(self, file: FoundFile, retry_failed: bool) -> bool:
        """Whether a shard must be read; counts what is known of its members where not."""
        shard = self._shards[file.path]
        reasons = {path: known.reason for path, known in shard.known.items() if known.reason is not None}
        complete = bool(shard.known) and all(k.mtime_ns == file.mtime_ns for k in shard.known.values())
        if not complete or file.size == UNSEEN or (retry_failed and reasons):
            return True
        self._counts["unchanged"] += len(shard.known) - len(reasons)
        self._counts["members"] += len(shard.known)
        self._failed += [(joined(self._place, path), reason) for path, reason in reasons.items()]
        return False

    def take(self, outcome: Outcome | ShardEnd) -> None:
        """Sort one file in; encode and commit when enough wait."""
        if isinstance(outcome, ShardEnd):
            self._shards[outcome.shard.path].end = outcome
            self._finish_shard(outcome.shard)
            return
        if outcome.shard is not None:
            self._counts["members"] += 1
            outcome = self._shards[outcome.shard.path].taken(outcome)
        if outcome.sha256 is None:
            if not self._is_away(outcome):
                self._add(outcome)
            self._failed.append((joined(self._place, outcome.file.path), outcome.reason or ""))
        else:
            self._take_content(outcome, outcome.sha256)
        if outcome.shard is not None:
            self._finish_shard(outcome.shard)
        self._commit_when_full()

    def _is_away(self, outcome: Outcome) -> bool:
        """Whether a known picture's file cannot be read, or is empty now, which says nothing about the picture.

        Disks fail, links lead nowhere for a while, and synchronisation leaves empty files.
        """
        known = self._known.get(outcome.file.path)
        return (
            not self._allow_empty
            and known is not None
            and known.content_id is not None
            and outcome.file.size in (UNSEEN, 0)
        )

    def _finish_shard(self, file: FoundFile) -> None:
        """Where all of a shard has been taken: forget what it no longer has, and note that it is complete."""
        shard = self._shards[file.path]
        if shard.end is None or len(shard.seen) < shard.end.members:
            return
        if shard.end.reason is not None:
            self._counts["broken"] += 1
            self._failed.append((joined(self._place, file.path), shard.end.reason))
            return
        left = {known.id for path, known in shard.known.items() if path not in shard.seen}
        self._missing |= left
        self._left_shards |= left
        if shard.first is not None:
            self._add(replace(shard.first, decoded=None), fresh=False)
            self._commit_when_full()

    def _commit_when_full(self) -> None:
        batch = self._batch
        full = len(batch.contents) >= self._batch_size or batch.bytes > BATCH_BYTES
        if full or len(batch.entries) >= _ENTRY_BATCH:
            self._commit()

    def finish(self) -> None:
        """Commit what waits, settle which file is which picture, and forget the pictures whose files are gone."""
        self._commit()
        self._line.wait()
        self._settle()
        self._forgotten.save()
        forgets = self._forget is None or len(self._forget) > 0
        if forgets:
            self._follow_moved()
        if forgets and not self._allow_empty:
            left = self._missing - self._left_shards
            check_forgetting(len(left), len(self._known), self._place, len(left & self._excluded))
        gone = self._missing if self._forget is None else self._missing.intersection(self._forget)
        if gone or self._relinked:
            remember(self._gallery, sorted(gone))
            self._gallery.delete(sorted(gone))
        self._missing = self._missing - gone
        self._counts["deleted"] = len(gone)
        self._counts["excluded"] = len(gone & self._excluded)
        if forgets and isinstance(self._place, Path):
            write_mounts(self._gallery, self._root, [*self._found.mounts, *self._mounts_away()])

    def _follow_moved(self) -> None:
        """Keep what has moved to another root, where the next run over that one would find it."""
        lost = (self._missing - self._excluded - self._left_shards) | self._kept.keys()
        moved = follow_to_other_roots(self._gallery, self._place, lost) if lost else set()
        self._missing -= moved
        self._kept = {picture: away for picture, away in self._kept.items() if picture not in moved}
        self._counts["left"] += len(moved)

    def _mounts_away(self) -> list[str]:
        """Folders where disks were mounted, with pictures that are kept."""
        away = {folder for folder, _ in self._kept.values()}
        return [
            mount
            for mount in self._mounts
            if any(mount == one or mount.startswith(f"{one}/") for one in away)
        ]

    def report(self, seconds: float) -> IndexReport:
        """The run in numbers."""
        return IndexReport(
            found=len(self._found.files) + self._counts["members"] + self._counts["broken"],
            encoded=self._counts["encoded"],
            unchanged=self._counts["unchanged"],
            moved=self._counts["moved"],
            duplicates=self._counts["duplicates"],
            deleted=self._counts["deleted"],
            left=self._counts["left"],
            failed=sorted(self._failed, key=lambda reason: str(reason[0])),
            unreadable_folders=[
                (joined(self._place, path), reason) for path, reason in self._found.unreadable
            ],
            skipped_other=self._found.others.total() + len(self._found.shards) - len(self.shards),
            seconds=seconds,
            undated=self._counts["undated"],
            passed_over=self._passed_over(),
            excluded=dict(Counter(self._found.excluded.values()).most_common()),
            deleted_excluded=self._counts["excluded"],
            missing=sorted(self._missing),
            kept=len(self._kept),
            away=kept_reasons(self._place, self._kept.values()),
            elsewhere=[joined(self._place, path) for path in self._found.elsewhere],
            sample=self._sample.rows(),
        )

    def _passed_over(self) -> dict[str, int]:
        shards = Counter({SHARD: len(self._found.shards) - len(self.shards)})
        return dict(sorted((self._found.others + shards).items(), key=lambda one: (-one[1], one[0])))

    def _take_content(self, outcome: Outcome, sha256: bytes) -> None:
        content = self._gallery.find_content(sha256)
        before = self._known.get(outcome.file.path)
        waiting = sha256 in self._batch.contents or any(sha256 in batch for batch in self._under_way)
        if content is None and outcome.decoded is not None and not waiting:
            self._batch.contents[sha256] = outcome.decoded
            self._batch.bytes += outcome.bytes()
            kind = "encoded"
        elif content is not None and before is not None and before.content_id == content:
            kind = "unchanged"
        else:
            kind = "duplicates"
        if self._is_for_later(outcome, before, content, kind):
            self._aside.append((replace(outcome, decoded=None), sha256, kind))
            return
        moved_from = self._moved(content) if kind == "duplicates" else None
        kind = kind if moved_from is None else "moved"
        self._counts[kind] += 1
        self._counts["undated"] += outcome.taken is None and kind == "encoded"
        self._add(outcome, moved_from, fresh=kind not in ("unchanged", "moved"))

    def _moved(self, content: int | None) -> int | None:
        """The picture with this content whose file is gone, which is then no longer missing; None: there is none."""
        if content is None:
            return None
        if not self._movable.get(content) and content not in self._looked_elsewhere:
            self._looked_elsewhere.add(content)
            self._movable.setdefault(content, deque()).extend(self._lost_elsewhere(content))
        if not self._movable.get(content):
            return None
        picture = self._movable[content].popleft()
        self._missing.discard(picture)
        self._kept.pop(picture, None)
        return picture

    def _lost_elsewhere(self, content: int) -> Iterator[int]:
        """Pictures of other roots with this content whose files are gone."""
        for picture in self._gallery.pictures_of(self._gallery.with_content(content)):
            if picture is None or picture.offset is not None or _is_below(picture.path, self._place):
                continue
            if not file_may_exist(picture.path):
                yield picture.id

    def _is_for_later(
        self, outcome: Outcome, before: KnownFile | None, content: int | None, kind: str
    ) -> bool:
        """Whether only the end of the run can tell which picture this file is.

        A known file that shows something else now has been edited, or another file was given its name; what it
        showed may turn up under any name, before it or after it.
        """
        if not self._gallery.keeps_contents or outcome.shard is not None or kind == "unchanged":
            return False
        if before is not None and before.content_id is not None:
            return True
        return content is not None and content in self._changed and not self._movable.get(content)

    def _settle(self) -> None:
        """Write what was put aside: a picture goes where its content went, and stays where that is nowhere."""
        for outcome, *_ in self._aside:
            before = self._known.get(outcome.file.path)
            if before is not None and before.content_id is not None:
                self._movable.setdefault(before.content_id, deque()).append(before.id)
        settled = []
        for outcome, sha256, kind in self._aside:
            moved_from = self._moved(self._gallery.find_content(sha256)) if kind == "duplicates" else None
            self._counts[kind if moved_from is None else "moved"] += 1
            settled.append((outcome, moved_from))
        for outcome, moved_from in settled:
            self._add(outcome, moved_from, fresh=moved_from is None)
        if self._batch.entries:
            self._gallery.commit(self._root, [], self._batch.entries)

    def _add(self, outcome: Outcome, moved_from: int | None = None, fresh: bool = True) -> None:
        """Have a file's state written; `fresh`: its picture did not show this content before."""
        file = outcome.file
        before = self._known.get(file.path)
        self._relinked |= before is not None and before.content_id is not None
        self._batch.entries.append(
            FileEntry(
                file.path,
                file.size,
                file.mtime_ns,
                outcome.sha256,
                outcome.reason,
                moved_from,
                self._metadata(outcome, known=before is not None) if fresh else {},
                outcome.offset,
            )
        )

    def _metadata(self, outcome: Outcome, known: bool) -> dict[str, Value | None]:
        """What is known of a content that its picture did not show before: its date, and what a forgotten one had.

        A known one's date may have been corrected by hand.
        """
        changes = outcome.taken is not None or (known and outcome.sha256 is not None)
        dated = {TAKEN: outcome.taken} if changes and self._dates.takes(outcome.taken) else {}
        before = {} if known or outcome.sha256 is None else self._forgotten.take(outcome.sha256)
        return {**dated, **before}

    def _commit(self) -> None:
        batch, self._batch = self._batch, _Batch()
        if batch.entries or batch.contents:
            self._line.submit(
                lambda: self._inputs.encoded(batch.inputs()),
                lambda vectors: self._write(batch, vectors),
            )
            self._under_way.append(set(batch.contents))

    def _write(self, batch: _Batch, vectors: Vectors) -> None:
        rows = iter(vectors)
        contents = [
            given if isinstance(given, Content) else Content(sha256, given.width, given.height, next(rows))
            for sha256, given in batch.contents.items()
        ]
        self._gallery.commit(self._root, contents, batch.entries)
        for content in contents:
            self._sample.add(content.vector)


def _is_below(place: Place, root: Place) -> bool:
    return isinstance(place, Path) and isinstance(root, Path) and place.is_relative_to(root)


def _by_shard(known: Mapping[str, KnownFile], found: Walk) -> dict[str, dict[str, KnownFile]]:
    """Known members by the shard that they lie in."""
    members: dict[str, dict[str, KnownFile]] = {}
    whole = [shard.path for shard in found.shards] == [""]
    for path, entry in known.items():
        shard = "" if whole else shard_path(path)
        if shard is not None:
            members.setdefault(shard, {})[path] = entry
    return members
