"""Rot: a sample of the files that count as unchanged is read again, and held against what is stored of them.

A file whose content is another one while its times, size and inode are the same was changed by nothing that the system
knows of: a failing disk, memory or cable, or somebody who put the times back. The snapshot goes on referring to what
was read when the times were true: whoever restores gets that, and so does every snapshot to come, whatever retention
takes away. The file is named, and whoever wants its present content stored gives it a new time.

Which files are read is decided by a keyed hash of their paths and by where the last sample ended, so that as many runs
as there are samples in the whole read every file once. Stores nothing, changes no entry; a file that is changed while
it is read is no rot, and a difference counts only when it was found in the bytes themselves.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence

from blake3 import blake3

from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import Content
from respaldo.core.seams import Buffer, Progress
from respaldo.flows.backup.before import as_remembered
from respaldo.flows.backup.frame import Frame
from respaldo.flows.backup.memo import Memo, Remembered
from respaldo.flows.backup.options import Counts
from respaldo.flows.backup.reader import BUFFER_BYTES, FileReader, open_source
from respaldo.format.content import HOLE, Row
from respaldo.store.source import ChunkSource

SAMPLE_START_BYTES = 8
_WHOLE = 1 << 8 * SAMPLE_START_BYTES
_HINT = "restore it with --overwrite always, or touch it to have it stored as it is"


class Sample:
    """Is a share of all paths: those whose keyed hash lies in a window, which begins where the last one ended."""

    def __init__(self, share: float, start: bytes, key: bytes) -> None:
        self._start = int.from_bytes(start, "big") % _WHOLE
        self._length = min(round(share * _WHOLE), _WHOLE)
        self._key = key

    @property
    def next(self) -> bytes:
        """Where the next one begins."""
        return ((self._start + self._length) % _WHOLE).to_bytes(SAMPLE_START_BYTES, "big")

    def __contains__(self, path: bytes) -> bool:
        at = int.from_bytes(blake3(b"paranoid\0" + path, key=self._key).digest(SAMPLE_START_BYTES), "big")
        return (at - self._start) % _WHOLE < self._length


class NamingSink:
    """Names chunks as a sink does, and stores none."""

    def __init__(self, id_keys: dict[Kind, bytes]) -> None:
        self._id_keys = id_keys

    def put(self, kind: Kind, raw: Buffer) -> ChunkId:
        """Returns the id that a chunk would have."""
        return ChunkId(blake3(raw, key=self._id_keys[kind]).digest())

    def put_each(self, kind: Kind, data: memoryview, spans: Sequence[tuple[int, int]]) -> list[ChunkId]:
        """Returns the ids that chunks of a buffer would have."""
        return [self.put(kind, data[start:end]) for start, end in spans]

    def knows(self, kind: Kind, chunk_id: ChunkId) -> bool:  # noqa: ARG002 - a sink's
        """Knows nothing."""
        return False

    def separate(self) -> None:
        """Does nothing: there are no blocks."""


class Paranoid:
    """Reads a sample again. One thread. ``reader``: one of its own, into a `NamingSink`."""

    def __init__(
        self,
        *,
        sample: Sample,
        reader: FileReader,
        trees: TreeReader,
        source: ChunkSource,
        counts: Counts,
        progress: Progress,
    ) -> None:
        self.sample = sample
        self._reader = reader
        self._trees = trees
        self._source = source
        self._counts = counts
        self._progress = progress

    def look_at_same(self, frame: Frame, remembered: Remembered) -> None:
        """Samples the files of a directory that looks as it did; what is in the sample of its files is looked up."""
        names = bytes(remembered.names).split(b"\0")[:-1]
        wanted = {name: row for row, name in enumerate(names) if frame.child_path(name) in self.sample}
        if not wanted:
            return
        before = as_remembered(remembered)
        for name, row in wanted.items():
            if before.find(name) is not None and before.entry().is_regular:
                self.look_at(frame, row, before.entry().content, sampled=True)

    def look_at(self, frame: Frame, row: int, content: Content, *, sampled: bool = False) -> None:
        """Reads one file that counts as unchanged, if it is in the sample."""
        name = frame.child_name(row)
        path = frame.child_path(name)
        if not content.ids or frame.reread or not (sampled or path in self.sample):
            return
        self._progress.at(path)
        self._progress.note(2, "reading it again", path)
        before = self._reader.read_bytes
        try:
            self._drop_cached(frame, row)
            read = self._reader.read(*frame.where(name), lambda _fd: ((), 0))
            self._counts.reread_files += 1
            if read.changing or not frame.is_as_scanned(row, read.status) or read.content == content:
                return
            self._compare(frame, row, path, content)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ESTALE}:
                self._say(path, f"it could not be read again, what is stored of it stays: {error.strerror or error}")
        finally:
            self._counts.reread_bytes += self._reader.read_bytes - before

    @staticmethod
    def _drop_cached(frame: Frame, row: int) -> None:
        """Has the file read from its disk: what memory still holds of it says nothing of that."""
        fd = open_source(*frame.where(frame.child_name(row)))
        try:
            with contextlib.suppress(OSError):
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)

    def _compare(self, frame: Frame, row: int, path: bytes, content: Content) -> None:
        """Finds the first byte that differs: chunks may be cut otherwise where a file system moved its holes."""
        fd = open_source(*frame.where(frame.child_name(row)))
        try:
            at = self._difference(fd, content)
            if at is None or not frame.is_as_scanned(row, os.fstat(fd)):
                return
            what = f"its content differs from byte {at:,} on"
        except (ChunkMissing, Corruption, ObjectMissing) as error:
            what = f"its content differs, and what is stored cannot be read ({error})"
        finally:
            os.close(fd)
        self._counts.rotten.append(path)
        self._say(path, f"{what}, though its times and size do not; the old content is kept: {_HINT}")

    def _difference(self, fd: int, content: Content) -> int | None:
        at = 0
        rows = self._trees.list_rows(content) if content.level else (Row(chunk_id, 0) for chunk_id in content)
        for row in rows:
            stored = b"" if row.id == HOLE else self._source.get(Kind.DATA, row.id)
            end = at + (row.length if row.id == HOLE else len(stored))
            for start in range(at, end, BUFFER_BYTES):
                length = min(BUFFER_BYTES, end - start)
                expected = stored[start - at : start - at + length] if stored else bytes(length)
                found = os.pread(fd, length, start)
                if found != expected:
                    return start + _first_difference(found, expected)
            at = end
        return None

    def _say(self, path: bytes, reason: str) -> None:
        self._counts.fail(path, reason)
        self._progress.note(-1, reason, path)


def _first_difference(one: bytes, other: bytes) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def sample_start(memo: Memo, recorded: tuple[bytes, ...], fallback: bytes) -> bytes:
    """Returns where the sample of some sources begins; ``fallback`` where nobody remembers."""
    found = memo.get_file(_key(recorded))
    return found if len(found) == len(fallback) else fallback


def keep_start(memo: Memo, recorded: tuple[bytes, ...], start: bytes) -> None:
    """Remembers where the next sample begins: once a snapshot is made, so that nothing is left out by a run cut off."""
    memo.put_file(_key(recorded), start)


def _key(recorded: tuple[bytes, ...]) -> bytes:
    return Memo.key(b"\0".join([b"", *recorded]), partial_listing=True)
