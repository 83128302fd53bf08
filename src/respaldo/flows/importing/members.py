"""Members of a tar archive, in the order in which they stand: V7, ustar, GNU, star, pax.

Invariant: whatever the bytes, reading comes to an end with them, holds one member's headers in memory, and what was not
understood is told to `trouble`, never passed over in silence. A damaged header is skipped up to the next one.
"""

from __future__ import annotations

import stat
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from respaldo.flows.importing.fields import (
    BLOCK,
    SIZE_END,
    FieldError,
    Records,
    add_extent,
    attribute,
    flags,
    has_checksum,
    mark,
    moment_ns,
    number,
    records,
    text,
    whole,
    within,
)
from respaldo.flows.importing.unpack import DAMAGED, Stream
from respaldo.kernel.layout import INODE_FLAGS

HEADER_BYTES_MAX = 4 << 20
"""Pax headers and long names are longer in no honest archive, and fit into a tree."""
_NS = 10**9
_TYPES = {
    b"0": stat.S_IFREG,
    b"\0": stat.S_IFREG,
    b"7": stat.S_IFREG,
    b"S": stat.S_IFREG,
    b"1": stat.S_IFREG,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"D": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}
_WITH_DATA = frozenset({b"0", b"\0", b"7", b"S", b"D"})
_VOLUME = frozenset({b"V"})
Trouble = Callable[[bytes, str], None]


class EndedError(Exception):
    """Says that the archive ended, or became unreadable, in the middle of something."""


@dataclass(slots=True, kw_only=True)
class Member:
    """Is one member. ``mode`` holds the type; ``link``: it is a hard link to ``target``. ``size``: of the file itself.

    ``holes``: (offset, length) of what is stored, one behind the other, of a sparse file; None for any other.
    """

    name: bytes
    mode: int
    link: bool = False
    uid: int = 0
    gid: int = 0
    user: bytes = b""
    group: bytes = b""
    size: int = 0
    mtime_ns: int = 0
    btime_ns: int = 0
    attributes: int = 0
    rdev: int = 0
    mark: int = 0
    target: bytes = b""
    xattrs: list[tuple[bytes, bytes]] = field(default_factory=list)
    acls: list[tuple[bytes, bytes]] = field(default_factory=list)
    extents: array[int] | None = None
    stored: int = 0
    wrong: str = ""
    """Why it cannot be taken over, if so."""


class Members:
    """Reads an archive. One thread. A member's content is to be read, with `read`, before the next member is."""

    def __init__(self, stream: Stream, trouble: Trouble) -> None:
        self._stream = stream
        self._trouble = trouble
        self._held = b""
        self._left = 0
        self._padding = 0
        self._globals: Records = {}
        self.at = 0
        """How many bytes were read."""
        self.comment = b""
        """The first comment of a global header: what an export says of itself."""
        self.pax = False

    def __iter__(self) -> Iterator[Member]:
        try:
            yield from self._members()
        except EndedError as error:
            self._trouble(b"", str(error))

    @property
    def left(self) -> int:
        """How many bytes of content the member still has."""
        return self._left

    def read(self, length: int) -> bytes:
        """Returns the next bytes of a member's content, none at its end; raises `EndedError`."""
        length = min(length, self._left)
        data = self._exactly(length) if length else b""
        self._left -= len(data)
        return data

    def skip(self) -> None:
        """Passes over what is left of a member's content."""
        while self._left:
            self.read(1 << 18)
        while self._padding:
            self._padding -= len(self._exactly(min(self._padding, BLOCK)))

    # --- bytes -----------------------------------------------------------------------------------------------------

    def _exactly(self, length: int) -> bytes:
        data = self._up_to(length)
        if len(data) < length:
            raise EndedError(f"the archive ends in the middle of something, after {self.at} bytes")
        return data

    def _up_to(self, length: int) -> bytes:
        parts = []
        wanted = length
        while wanted:
            try:
                part = self._stream.read(wanted)
            except DAMAGED as error:
                raise EndedError(f"the archive cannot be read beyond {self.at} bytes: {error}") from None
            if not part:
                break
            parts.append(part)
            wanted -= len(part)
            self.at += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # --- headers ---------------------------------------------------------------------------------------------------

    def _members(self) -> Iterator[Member]:
        more: list[tuple[bytes, bytes]] = []
        long_name = long_target = b""
        wrong = ""
        for block in self._headers():
            kind = block[156:157]
            try:
                size = number(block[124:136])
                if not 0 <= size < SIZE_END:
                    raise FieldError("its size is impossible")
                if kind in {b"x", b"X", b"g", b"L", b"K"}:
                    self._expect(size)
                    if size > HEADER_BYTES_MAX:
                        self.skip()
                        raise FieldError(f"its header takes {size} bytes")
                    data = self.read(size) if size else b""
                    self.skip()
                    if kind == b"L":
                        long_name = text(data)
                    elif kind == b"K":
                        long_target = text(data)
                    elif kind == b"g":
                        self._note_globals(records(data))
                    else:
                        self.pax = True
                        more = records(data)
                    continue
            except FieldError as error:
                wrong = str(error)
                if kind in {b"x", b"X", b"g", b"L", b"K"}:
                    continue
            member = self._member(block, kind, more, long_name, long_target)
            member.wrong = wrong or member.wrong
            more, long_name, long_target, wrong = [], b"", b"", ""
            if kind in _VOLUME:
                self.skip()
                continue
            yield member
            self.skip()

    def _headers(self) -> Iterator[bytes]:
        """Yields blocks that are headers; looks for the next one where one is damaged, or an archive ended."""
        skipped = ended = 0
        any_yet = False
        while True:
            block = self._up_to(BLOCK)
            if not block:
                break
            if len(block) == BLOCK and has_checksum(block):
                if skipped:
                    self._trouble(b"", f"{skipped} bytes of the archive are damaged and were passed over")
                skipped = ended = 0
                any_yet = True
                yield block
                continue
            if block.strip(b"\0"):
                skipped += len(block)
                if not any_yet:
                    raise EndedError("it is no tar archive")
            elif not skipped:
                ended += 1
        if skipped:
            self._trouble(b"", f"{skipped} bytes at the end of the archive are no part of it, or damaged")
        elif any_yet and not ended:
            self._trouble(b"", "the archive has no end: it may lack members")

    def _expect(self, size: int) -> None:
        self._left, self._padding = size, -size % BLOCK

    def _note_globals(self, found: list[tuple[bytes, bytes]]) -> None:
        for key, value in found:
            if key == b"comment":
                self.comment = self.comment or value
            elif value:
                self._globals[key] = value
            else:
                self._globals.pop(key, None)

    def _member(
        self, block: bytes, kind: bytes, more: list[tuple[bytes, bytes]], long_name: bytes, long_target: bytes
    ) -> Member:
        posix = block[257:263] == b"ustar\0"
        name = text(block[:100])
        if posix and (prefix := text(block[345:500])):
            name = prefix + b"/" + name
        member = Member(name=long_name or name, mode=0, target=long_target or text(block[157:257]))
        self._left = self._padding = 0
        try:
            size = number(block[124:136])
            member.mode = number(block[100:108]) & 0o7777
            member.uid, member.gid = number(block[108:116]), number(block[116:124])
            member.mtime_ns = within(number(block[136:148]) * _NS)
            if block[257:262] == b"ustar":
                member.user, member.group = text(block[265:297]), text(block[297:329])
            if kind in {b"3", b"4"}:
                member.rdev = number(block[329:337]) << 32 | number(block[337:345])
        except FieldError as error:
            member.wrong, size = str(error), 0
        known = self._globals | dict(more)
        try:
            size = self._apply(member, known, size)
        except FieldError as error:
            member.wrong = str(error)
        if not 0 <= size < SIZE_END:
            size, member.wrong = 0, "its size is impossible"
        self._type(member, kind, size)
        if kind not in _TYPES and not member.wrong:
            member.wrong = f"its type {kind!r} is none that a file has"
        try:
            if kind == b"S":
                self._old_sparse(member, block)
            elif any(key.startswith(b"GNU.sparse.") for key in known) and stat.S_ISREG(member.mode) and not member.link:
                self._sparse(member, known, more)
        except FieldError as error:
            member.wrong = str(error)
        return member

    def _apply(self, member: Member, known: Records, size: int) -> int:
        """Takes over what a pax header says; returns the size of what follows."""
        for key, value in known.items():
            if key in _FIELDS:
                attribute_name, parse = _FIELDS[key]
                setattr(member, attribute_name, parse(value))
            elif key == b"SCHILY.devmajor":
                member.rdev = whole(value) << 32 | member.rdev & 0xFFFF_FFFF
            elif key == b"SCHILY.devminor":
                member.rdev = member.rdev >> 32 << 32 | whole(value)
            elif key in {b"SCHILY.acl.access", b"SCHILY.acl.default"}:
                member.acls.append((b"system.posix_acl_" + key.rpartition(b".")[2], value))
            elif (found := attribute(key, value)) is not None:
                member.xattrs.append(found)
        return whole(known[b"size"]) if b"size" in known else size

    def _type(self, member: Member, kind: bytes, size: int) -> None:
        """Says what a member is, and how much content follows it."""
        file_type = _TYPES.get(kind, stat.S_IFREG)
        if file_type == stat.S_IFREG and kind in {b"0", b"\0"} and member.name.endswith(b"/"):
            file_type = stat.S_IFDIR  # V7
        member.mode |= file_type
        member.link = kind == b"1"
        has_data = kind in _WITH_DATA or kind not in _TYPES or (member.link and self.pax)
        self._expect(size if has_data else 0)
        if file_type == stat.S_IFREG and not member.link:
            member.size = member.stored = size
        if file_type != stat.S_IFLNK and not member.link:
            member.target = b""
        if file_type not in {stat.S_IFCHR, stat.S_IFBLK}:
            member.rdev = 0

    # --- holes -----------------------------------------------------------------------------------------------------

    def _old_sparse(self, member: Member, block: bytes) -> None:
        member.size = number(block[483:495])
        extents = array("Q")
        extended = self._old_entries(block[386:482], extents) and block[482]
        while extended:
            more = self._exactly(BLOCK)
            extended = self._old_entries(more[:504], extents) and more[504]
        self._take_map(member, extents)

    def _old_entries(self, data: bytes, extents: array[int]) -> bool:
        """Adds the entries of an old map; returns whether all there is room for are there."""
        for at in range(0, len(data), 24):
            if not data[at : at + 24].strip(b"\0"):
                return False
            add_extent(extents, number(data[at : at + 12]), number(data[at + 12 : at + 24]))
        return True

    def _sparse(self, member: Member, known: Records, more: list[tuple[bytes, bytes]]) -> None:
        member.name = known.get(b"GNU.sparse.name", member.name)
        extents = array("Q")
        if known.get(b"GNU.sparse.major") == b"1":
            member.size = whole(known.get(b"GNU.sparse.realsize", b""))
            count = self._line()
            for _ in range(count):
                add_extent(extents, self._line(), self._line())
            self._held = b""
        else:
            member.size = whole(known.get(b"GNU.sparse.size") or known.get(b"GNU.sparse.realsize", b""))
            if b"GNU.sparse.map" in known:
                numbers = [whole(item) for item in known[b"GNU.sparse.map"].split(b",") if item]
            else:
                keys = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
                numbers = [whole(value) for key, value in more if key in keys]
            if len(numbers) % 2:
                raise FieldError("its map of holes is impossible")
            for at in range(0, len(numbers), 2):
                add_extent(extents, numbers[at], numbers[at + 1])
        member.stored = self._left
        self._take_map(member, extents)

    def _line(self) -> int:
        """Returns the number in the next line of a map that stands before the content."""
        while b"\n" not in self._held:
            if len(self._held) > BLOCK or not self._left:
                raise FieldError("its map of holes is impossible")
            self._held += self.read(BLOCK)
        line, _, self._held = self._held.partition(b"\n")
        return whole(line)

    def _take_map(self, member: Member, extents: array[int]) -> None:
        end = stored = 0
        for at in range(0, len(extents), 2):
            start, length = extents[at], extents[at + 1]
            if start < end or start + length > member.size:
                raise FieldError("its map of holes is impossible")
            end, stored = start + length, stored + length
        if stored != self._left or member.size >= SIZE_END:
            raise FieldError("its map of holes does not fit its content")
        member.extents = extents


def _as_it_is(value: bytes) -> bytes:
    return value


def _flags(value: bytes) -> int:
    return flags(value) & INODE_FLAGS


_FIELDS: dict[bytes, tuple[str, Callable[[bytes], object]]] = {
    b"path": ("name", _as_it_is),
    b"linkpath": ("target", _as_it_is),
    b"mtime": ("mtime_ns", moment_ns),
    b"LIBARCHIVE.creationtime": ("btime_ns", moment_ns),
    b"uid": ("uid", whole),
    b"gid": ("gid", whole),
    b"uname": ("user", _as_it_is),
    b"gname": ("group", _as_it_is),
    b"SCHILY.fflags": ("attributes", _flags),
    b"comment": ("mark", mark),
}
"""Which field of a member a record says, and how it is read."""
