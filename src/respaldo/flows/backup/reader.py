"""Reads regular files: many small ones of a directory by one call, big ones as a stream, holes left out.

Invariant: what is stored for a file is what was read between two looks at it that agree; a file that goes on changing
is read a bounded number of times and then kept as read last, and says so. Opens nothing but regular files, follows no
link, never blocks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import msgpack

from respaldo.catalog.trees import ListBuilder, Sink
from respaldo.chunk.chunker import Chunker
from respaldo.core.errors import StorageFailed
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import Content
from respaldo.core.seams import Buffer, Cancel, Progress
from respaldo.flows.backup.options import READ_AGAIN_MAX
from respaldo.format.content import HOLE, ROW

BUFFER_BYTES = 4 << 20
SMALL_BYTES = 1 << 20
"""Files up to this size are read together with others of their directory."""
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_RESUMABLE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFile:
    """Is one file as read: what it refers to, its status before and after, and whether it changed all the time."""

    content: Content
    length: int
    status: os.stat_result
    changing: bool
    fd_xattrs: tuple[tuple[bytes, bytes], ...]
    attributes: int


class Progresses:
    """Is where a big file's reading got to, to go on from there in another run."""

    def __init__(self, load: Callable[[], bytes], save: Callable[[bytes], None], drop: Callable[[], None]) -> None:
        self.load = load
        self.save = save
        self.drop = drop


class FileReader:
    """Reads files into a sink. One thread; owns one buffer."""

    def __init__(self, sink: Sink, chunker: Chunker, progress: Progress, cancel: Cancel) -> None:
        self._sink = _StrictSink(sink)
        self._chunker = chunker
        self._minimum = chunker.params.minimum
        self._progress = progress
        self._cancel = cancel
        self.buffer = bytearray(BUFFER_BYTES)
        self.checkpoint: Callable[[], bool] = lambda: False
        """Is asked now and then; makes everything durable if it is time, and says whether it did."""
        self.known: Callable[[Content], bool] = lambda content: False  # noqa: ARG005 - nothing is known of old content
        """Says whether content that an earlier run stored is all there still."""
        self.read_bytes = 0

    def check(self) -> None:
        """Raises `Interrupted` when a stop was asked for."""
        self._cancel.check()

    def cut_small(self, data: memoryview, start: int, end: int) -> list[tuple[int, int]]:
        """Returns the chunks (from, to) of a file that lies in a buffer."""
        if end - start <= self._minimum:
            return [(start, end)]
        ends = list(accumulate(self._chunker.lengths(data[start:end], final=True), initial=start))
        return list(pairwise(ends))

    def store_small(self, data: memoryview, spans: Sequence[tuple[int, int]]) -> list[ChunkId]:
        """Stores chunks that lie in a buffer; returns their ids."""
        return self._sink.put_each(Kind.DATA, data, spans)

    def read(
        self,
        name: bytes,
        dir_fd: int | None,
        look: Callable[[int], tuple[tuple[tuple[bytes, bytes], ...], int]],
        resume: Progresses | None = None,
    ) -> ReadFile:
        """Reads one file, again while it changes; raises OSError where it cannot be opened or read.

        ``look`` returns extended attributes and inode flags of an open file.
        """
        tries = 0
        while True:
            tries += 1
            fd = open_source(name, dir_fd)
            try:
                before = os.fstat(fd)
                if not stat.S_ISREG(before.st_mode):
                    raise OSError(errno.ESTALE, "it is no regular file any more")
                use = resume if before.st_size >= _RESUMABLE_BYTES else None
                content, length, more = self._stream(fd, before, use)
                xattrs, attributes = look(fd)
                after = os.fstat(fd)
            finally:
                os.close(fd)
            changing = more or length != before.st_size or _identity(before) != _identity(after)
            if not changing or tries >= READ_AGAIN_MAX:
                if use is not None:
                    use.drop()
                return ReadFile(
                    content=content,
                    length=length,
                    status=after,
                    changing=changing,
                    fd_xattrs=xattrs,
                    attributes=attributes,
                )

    def _stream(self, fd: int, status: os.stat_result, resume: Progresses | None) -> tuple[Content, int, bool]:
        """Stores up to ``st_size`` bytes; returns content, length, and whether there was more."""
        size = status.st_size
        builder = ListBuilder(self._sink)
        start = 0
        if resume is not None:
            start = self._resume(builder, resume.load(), status)
            if start:
                os.lseek(fd, start, os.SEEK_SET)
        # Not by its blocks: preallocated and extended ones, and a file's own map of them, can outweigh its holes.
        sparse = bool(size) and _has_hole(fd, start, size)
        for begin, end in _extents(fd, start, size) if sparse else ((start, size),):
            builder.hole(begin - builder.length)
            if not self._stream_extent(fd, begin, end, builder, status, resume):
                break
            self._checkpoint(builder, status, resume)  # a file with many holes consists of short extents only
        if sparse and _data_after(fd, builder.length) is None:
            builder.hole(max(0, min(size, os.fstat(fd).st_size) - builder.length))
        with contextlib.suppress(OSError):
            os.lseek(fd, size, os.SEEK_SET)
        more = bool(os.read(fd, 1))
        return builder.finish(), builder.length, more

    def _stream_extent(
        self, fd: int, begin: int, end: int, builder: ListBuilder, status: os.stat_result, resume: Progresses | None
    ) -> bool:
        """Stores one run of data; returns False where the file ended early."""
        view = memoryview(self.buffer)
        held = 0
        position = begin
        put = self._sink.put
        while True:
            self._cancel.check()
            wanted = min(len(view) - held, end - position)
            got = os.preadv(fd, [view[held : held + wanted]], position) if wanted else 0
            position += got
            held += got
            self.read_bytes += got
            if got and position < end:
                with contextlib.suppress(OSError):
                    os.posix_fadvise(fd, position, 2 * BUFFER_BYTES, os.POSIX_FADV_WILLNEED)
            final = position >= end or not got
            at = 0
            for length in self._chunker.lengths(view[:held], final=final):
                builder.add(put(Kind.DATA, view[at : at + length]), length)
                at += length
            self._progress.advance(length_bytes=got)
            if final:
                return position >= end
            if at:
                view[: held - at] = bytes(view[at:held])
                held -= at
            self._checkpoint(builder, status, resume)

    def _checkpoint(self, builder: ListBuilder, status: os.stat_result, resume: Progresses | None) -> None:
        if self.checkpoint() and resume is not None:
            resume.save(_save(builder, status))

    def _resume(self, builder: ListBuilder, state: bytes, status: os.stat_result) -> int:
        if not state:
            return 0
        identity, direct, listed, levels, length = msgpack.unpackb(state, use_list=True)
        if tuple(identity) != _identity(status):
            return 0
        for level, rows in enumerate(levels):
            ids = b"".join(chunk_id for chunk_id, _ in ROW.iter_unpack(rows) if chunk_id != HOLE)
            if not self.known(Content(level=level, ids=ids)):
                return 0
        builder.resume(direct, levels, length, listed=listed)
        return int(length)

    def store_stream(self, read: Callable[[int], bytes]) -> Content:
        """Stores what a stream yields until it is empty; returns what the entry refers to; counts in `read_bytes`."""
        builder = ListBuilder(self._sink)
        held = bytearray()
        final = False
        while not final:
            self._cancel.check()
            piece = read(BUFFER_BYTES // 4)
            final = not piece
            held += piece
            self.read_bytes += len(piece)
            self._progress.advance(length_bytes=len(piece))
            at = 0
            with memoryview(held) as view:
                for length in self._chunker.lengths(view, final=final):
                    builder.add(self._sink.put(Kind.DATA, view[at : at + length]), length)
                    at += length
            del held[:at]
            self.checkpoint()
        return builder.finish()


class _StrictSink:
    """Keeps apart what goes wrong where content is stored from what goes wrong where it is read.

    A full disk under the temporary files of this machine raises OSError, too, and is no unreadable file.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.knows = sink.knows
        self.separate = sink.separate

    def put(self, kind: Kind, raw: Buffer) -> ChunkId:
        return self.put_each(kind, memoryview(raw), ((0, len(raw)),))[0]

    def put_each(self, kind: Kind, data: memoryview, spans: Sequence[tuple[int, int]]) -> list[ChunkId]:
        try:
            return self._sink.put_each(kind, data, spans)
        except OSError as error:
            raise StorageFailed("local files", error.strerror or str(error)) from error


def _save(builder: ListBuilder, status: os.stat_result) -> bytes:
    state: bytes = msgpack.packb([_identity(status), *builder.state()])
    return state


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def open_source(name: bytes, dir_fd: int | None, flags: int = 0) -> int:
    """Opens an entry for reading without following links or blocking, and if permitted without touching its atime."""
    try:
        return os.open(name, _OPEN | os.O_NOATIME | flags, dir_fd=dir_fd)
    except PermissionError:
        return os.open(name, _OPEN | flags, dir_fd=dir_fd)


def _extents(fd: int, start: int, size: int) -> Iterator[tuple[int, int]]:
    """Yields the runs of data from ``start`` on; one run where the file system knows no holes."""
    position = start
    while position < size:
        try:
            begin = os.lseek(fd, position, os.SEEK_DATA)
            end = os.lseek(fd, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            yield position, size
            return
        begin, end = min(begin, size), min(end, size)
        if begin >= end:
            return
        yield begin, end
        position = end


def _has_hole(fd: int, start: int, size: int) -> bool:
    """Whether the file system names a hole before the end; every file has one there."""
    try:
        return os.lseek(fd, start, os.SEEK_HOLE) < size if start < size else False
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            os.lseek(fd, start, os.SEEK_SET)


def _data_after(fd: int, position: int) -> int | None:
    try:
        return os.lseek(fd, position, os.SEEK_DATA)
    except OSError:
        return None
