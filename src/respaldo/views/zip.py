"""Zip: entries of a snapshot as an archive that every system opens; what zip cannot say is lost.

Streams: sizes and checksums stand behind each member, and the directory at the end, which is spooled to a file. Names
are UTF-8 where they can be; modes, owners and times to the second are kept as Info-ZIP keeps them. Hard-linked files
are members of their own, holes are zeros. The same entries make the same bytes.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO

from respaldo.core.model import Entry
from respaldo.views.content import WITHOUT_CONTENT, Contents

LEVEL = 6
_LOCAL = struct.Struct("<IHHHHHIIIHH")
_DESCRIPTOR = struct.Struct("<IIQQ")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END_64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR = struct.Struct("<IIQI")
_END = struct.Struct("<IHHHHIIH")
_VERSION, _MADE_BY = 45, 3 << 8 | 45
_STREAMED, _UTF_8 = 1 << 3, 1 << 11
_STORED, _DEFLATED = 0, 8
_MAX_16, _MAX_32 = 0xFFFF, 0xFFFF_FFFF
_SPOOL_BYTES = 4 << 20
_DOS_DIRECTORY = 0x10
_COPY_BYTES = 1 << 16


class Zip:
    """Writes an archive, member by member. The spool goes with `finish`."""

    def __init__(self, write: Callable[[bytes], object], contents: Contents) -> None:
        self._out = write
        self._contents = contents
        self._at = 0
        self._count = 0
        self._directory: IO[bytes] = tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115 - closed by `finish`

    def add(self, name: bytes, entry: Entry) -> str:
        """Appends an entry under a name; returns "", or why it is left out."""
        if not (entry.is_dir or entry.is_regular or entry.is_symlink):
            return "a zip archive cannot hold special files"
        if entry.mark in WITHOUT_CONTENT and not entry.is_dir:
            return WITHOUT_CONTENT[entry.mark]
        name = name.removeprefix(b"./") + (b"/" if entry.is_dir else b"")
        if len(name) > _MAX_16:
            return "a zip archive cannot hold so long a name"
        if name == b"./":
            return ""
        flags = _STREAMED | (_UTF_8 if _is_utf_8(name) else 0)
        method = _DEFLATED if entry.is_regular and entry.size else _STORED
        clock, extra = _dos_time(entry.mtime_ns), _unix_fields(entry)
        start = self._at
        placeholder = struct.pack("<HHQQ", 1, 16, 0, 0)
        fields = placeholder + extra
        self._write(
            _LOCAL.pack(0x04034B50, _VERSION, flags, method, *clock, 0, _MAX_32, _MAX_32, len(name), len(fields))
        )
        self._write(name + fields)
        crc, packed, size = self._body(entry, method)
        self._write(_DESCRIPTOR.pack(0x08074B50, crc, packed, size))
        fields = struct.pack("<HHQQQ", 1, 24, size, packed, start) + extra
        attributes = entry.mode << 16 | (_DOS_DIRECTORY if entry.is_dir else 0)
        head = (0x02014B50, _MADE_BY, _VERSION, flags, method, *clock, crc, _MAX_32, _MAX_32, len(name), len(fields))
        self._directory.write(_CENTRAL.pack(*head, 0, 0, 0, attributes, _MAX_32))
        self._directory.write(name + fields)
        self._count += 1
        return ""

    def finish(self) -> None:
        """Writes the directory, and ends the archive."""
        start, length = self._at, self._directory.tell()
        self._directory.seek(0)
        with self._directory as directory:
            while piece := directory.read(_COPY_BYTES):
                self._write(piece)
        end = self._at
        self._write(_END_64.pack(0x06064B50, 44, _MADE_BY, _VERSION, 0, 0, self._count, self._count, length, start))
        self._write(_LOCATOR.pack(0x07064B50, 0, end, 1))
        self._write(_END.pack(0x06054B50, 0, 0, _MAX_16, _MAX_16, _MAX_32, _MAX_32, 0))

    def _write(self, data: bytes) -> None:
        self._at += len(data)
        self._out(data)

    def _body(self, entry: Entry, method: int) -> tuple[int, int, int]:
        """Writes a member's content; returns its CRC, and its length packed and plain."""
        start = self._at
        if method == _STORED:
            self._write(entry.target)
            return zlib.crc32(entry.target), len(entry.target), len(entry.target)
        crc = size = 0
        packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        for raw in self._contents.read(entry):
            crc = zlib.crc32(raw, crc)
            size += len(raw)
            self._write(packer.compress(raw))
        self._write(packer.flush())
        return crc, self._at - start, size


def _is_utf_8(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _dos_time(time_ns: int) -> tuple[int, int]:
    """Returns time and date as DOS has them, in UTC, so that they are the same everywhere."""
    seconds = min(max(time_ns // 10**9, 315_532_800), 4_354_819_198)  # 1980 to 2107
    moment = datetime.fromtimestamp(seconds, UTC)
    date = (moment.year - 1980) << 9 | moment.month << 5 | moment.day
    return moment.hour << 11 | moment.minute << 5 | moment.second // 2, date


def _unix_fields(entry: Entry) -> bytes:
    """Returns Info-ZIP's fields: the time of modification, where 32 bits hold it, and the owner."""
    seconds = entry.mtime_ns // 10**9
    time = struct.pack("<HHBi", 0x5455, 5, 1, seconds) if -(1 << 31) <= seconds < 1 << 31 else b""
    return time + struct.pack("<HHBBIBI", 0x7875, 11, 1, 4, entry.uid, 4, entry.gid)
