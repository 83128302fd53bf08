"""Tar: entries of a snapshot as a POSIX archive (pax) that GNU tar, bsdtar and star read.

The same entries make the same bytes on every machine. What ustar cannot say stands in pax records: times to the
nanosecond, long or unusual names, extended attributes (``SCHILY.xattr``), ACLs (``SCHILY.acl``), holes (the sparse
format 1.0 of GNU). Holds a piece of a file at a time, and the first name of each hard-linked file.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Iterable, Iterator, MutableMapping

from respaldo.core.model import Entry, Mark
from respaldo.core.seams import Buffer
from respaldo.views.content import WITHOUT_CONTENT, ZEROS, Contents, Span

BLOCK = 512
RECORD_BYTES = 20 * BLOCK
NAME_MAX, _PREFIX_MAX, OWNER_MAX = 100, 155, 31
OCTAL_7, OCTAL_11 = 8**7, 8**11
_NS = 10**9
_TYPES = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_LINK, _PAX, _GLOBAL = b"1", b"x", b"g"
_ACLS = {b"system.posix_acl_access": b"SCHILY.acl.access", b"system.posix_acl_default": b"SCHILY.acl.default"}
_ACL_VERSION, _ACL_ROW = 2, struct.Struct("<HHI")
_ACL_TAGS = {1: b"user:", 2: b"user:", 4: b"group:", 8: b"group:", 16: b"mask:", 32: b"other:"}
_ACL_NAMED = frozenset({2, 8})
_MARKS_KEPT = frozenset({Mark.EXCLUDED, Mark.PARTIAL, Mark.CHANGED})
"""What an import is told of an entry, in a comment that other readers pass over."""
Records = dict[bytes, bytes]


class Tar:
    """Writes an archive, member by member."""

    def __init__(self, write: Callable[[Buffer], object], contents: Contents) -> None:
        self._out = write
        self._contents = contents
        self._firsts: MutableMapping[bytes, bytes] = {}
        self._at = 0

    def comment(self, text: bytes) -> None:
        """Says something of the whole archive, before its first member; readers pass over it."""
        body = _record(b"comment", text)
        self._block(b"PaxHeaders/comment", (0o644, 0, 0), len(body), 0, _GLOBAL)
        self._padded(body)

    def add(self, name: bytes, entry: Entry) -> str:
        """Appends an entry under a name; returns "", or why it is left out."""
        kind = stat.S_IFMT(entry.mode)
        if kind not in _TYPES:
            return "a tar archive cannot hold a socket"
        if entry.mark in WITHOUT_CONTENT and not entry.is_dir:
            return WITHOUT_CONTENT[entry.mark]
        first = self._firsts.get(entry.link_group) if entry.link_group else None
        if first is not None and first != name:
            self._header(name, entry, _LINK, target=first)
            return ""
        records = _attributes(entry)
        if entry.mark in _MARKS_KEPT:
            records[b"comment"] = b"respaldo mark=%d" % entry.mark
        if entry.is_dir:
            self._header(name + b"/", entry, _TYPES[kind], records)
        elif entry.is_regular:
            self._file(name, entry, records)
        else:
            self._header(name, entry, _TYPES[kind], records, target=entry.target)
        if entry.link_group:
            self._firsts[entry.link_group] = name
        return ""

    def finish(self) -> None:
        """Ends the archive."""
        self._write(bytes(2 * BLOCK))
        self._write(bytes(-self._at % RECORD_BYTES))

    def _write(self, data: Buffer) -> None:
        self._at += len(data)
        self._out(data)

    def _header(
        self,
        name: bytes,
        entry: Entry,
        kind: bytes,
        records: Records | None = None,
        *,
        size: int = 0,
        target: bytes = b"",
    ) -> None:
        records = dict(records or {})
        fields = [stat.S_IMODE(entry.mode), entry.uid, entry.gid]
        for place, key in ((1, b"uid"), (2, b"gid")):
            if fields[place] >= OCTAL_7:
                records[key] = b"%d" % fields[place]
                fields[place] = 0
        seconds, rest = divmod(entry.mtime_ns, _NS)
        if rest or not 0 <= seconds < OCTAL_11:
            records[b"mtime"] = _decimal(entry.mtime_ns)
            seconds = min(max(seconds, 0), OCTAL_11 - 1)
        if size >= OCTAL_11:
            records[b"size"] = b"%d" % size
        owners = [entry.user.encode("utf-8", "surrogateescape"), entry.group.encode("utf-8", "surrogateescape")]
        for key, owner in zip((b"uname", b"gname"), owners, strict=True):
            if len(owner) > OWNER_MAX:
                records[key] = owner
        prefix, short = split(name)
        if not short:
            short = name[:NAME_MAX]
            records.setdefault(b"path", name)
        if len(target) > NAME_MAX:
            records[b"linkpath"] = target
        if records:
            body = b"".join(_record(key, value) for key, value in sorted(records.items()))
            self._block(b"PaxHeaders/" + short[-80:].strip(b"/"), (0o644, 0, 0), len(body), 0, _PAX)
            self._padded(body)
        device = (entry.rdev >> 32, entry.rdev & 0xFFFF_FFFF)
        shown = size if size < OCTAL_11 else 0
        self._block(short, fields, shown, seconds, kind, target[:NAME_MAX], owners, device, prefix)

    def _block(
        self,
        name: bytes,
        fields: Iterable[int],
        size: int,
        seconds: int,
        kind: bytes,
        target: bytes = b"",
        owners: Iterable[bytes] = (b"", b""),
        device: tuple[int, int] = (0, 0),
        prefix: bytes = b"",
    ) -> None:
        head = name.ljust(NAME_MAX, b"\0") + b"".join(b"%07o\0" % field for field in fields)
        head += b"%011o\0%011o\0" % (size, seconds)
        rest = kind + target.ljust(NAME_MAX, b"\0") + b"ustar\x0000"
        rest += b"".join(owner[:OWNER_MAX].ljust(OWNER_MAX + 1, b"\0") for owner in owners)
        rest += b"".join(b"%07o\0" % min(number, OCTAL_7 - 1) for number in device)
        rest += prefix.ljust(_PREFIX_MAX, b"\0")
        total = sum(head) + sum(rest) + 8 * ord(" ")
        self._write((head + b"%06o\0 " % total + rest).ljust(BLOCK, b"\0"))

    def _padded(self, data: bytes) -> None:
        self._write(data + bytes(-len(data) % BLOCK))

    def _file(self, name: bytes, entry: Entry, records: Records) -> None:
        if entry.content.level and next(self._spans(entry), None) != Span(0, entry.size):
            self._sparse_file(name, entry, records)
            return
        self._header(name, entry, b"0", records, size=entry.size)
        self._whole(entry)
        self._write(bytes(-entry.size % BLOCK))

    def _whole(self, entry: Entry) -> None:
        """Writes all of a file."""
        for raw in self._contents.read(entry):
            self._write(raw)

    def _spans(self, entry: Entry) -> Iterator[Span]:
        """Yields what is stored of a file with holes: its data, widened to whole blocks, as readers expect it."""
        start = end = 0
        for offset, length in self._contents.spans(entry):
            low, high = offset // BLOCK * BLOCK, min(-(-(offset + length) // BLOCK) * BLOCK, entry.size)
            if low > end:
                if end > start:
                    yield Span(start, end - start)
                start = low
            end = high
        if end > start:
            yield Span(start, end - start)

    def _sparse_file(self, name: bytes, entry: Entry, records: Records) -> None:
        ends_in_hole = True
        count = map_bytes = stored = 0
        for span in self._spans(entry):
            count += 1
            map_bytes += len(_map_lines(span))
            stored += span.length
            ends_in_hole = span.offset + span.length < entry.size
        last = Span(entry.size, 0)
        head = b"%d\n" % (count + ends_in_hole)
        map_bytes += len(head) + (len(_map_lines(last)) if ends_in_hole else 0)
        padding = -map_bytes % BLOCK
        folder, slash, leaf = name.rpartition(b"/")
        records |= {
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": name,
            b"GNU.sparse.realsize": b"%d" % entry.size,
        }
        inner = folder + slash + b"GNUSparseFile.0/" + leaf
        self._header(inner, entry, b"0", records, size=map_bytes + padding + stored)
        self._write(head)
        for span in self._spans(entry):
            self._write(_map_lines(span))
        if ends_in_hole:
            self._write(_map_lines(last))
        self._write(bytes(padding))
        self._data(entry)
        self._write(bytes(-stored % BLOCK))

    def _data(self, entry: Entry) -> None:
        """Writes what `_spans` describes: the data, and the zeros that fill its first and last blocks."""
        spans = self._spans(entry)
        start, length = next(spans, Span(0, 0))
        at = 0
        for size, raw in self._contents.pieces(entry):
            piece_at, piece_end = at, at + size
            while length and start < piece_end:
                low, high = max(piece_at, start), min(piece_end, start + length)
                if raw is not None:
                    self._write(raw[low - at : high - at])
                else:
                    self._write(ZEROS[: high - low])
                if high < start + length:
                    break
                piece_at = high
                start, length = next(spans, Span(0, 0))
            at = piece_end


def _map_lines(span: Span) -> bytes:
    return b"%d\n%d\n" % span


def _decimal(time_ns: int) -> bytes:
    whole, rest = divmod(abs(time_ns), _NS)
    fraction = b".%09d" % rest if rest else b""
    return (b"-" if time_ns < 0 else b"") + b"%d" % whole + fraction.rstrip(b"0")


def split(name: bytes) -> tuple[bytes, bytes]:
    """Returns a name as ustar's prefix and name, both empty where it does not fit."""
    if len(name) <= NAME_MAX:
        return b"", name
    slash = name.find(b"/", max(len(name) - NAME_MAX - 1, 1))
    if 0 < slash <= _PREFIX_MAX and slash < len(name) - 1:
        return name[:slash], name[slash + 1 :]
    return b"", b""


def _record(key: bytes, value: bytes) -> bytes:
    """Returns a pax record: its own length in decimal, which counts itself, key and value."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _attributes(entry: Entry) -> Records:
    """Returns the records of extended attributes, those of ACLs in the text form that tar has for them."""
    records: Records = {}
    for key, value in entry.xattrs:
        text = _acl_text(value) if key in _ACLS else b""
        if text:
            records[_ACLS[key]] = text
        else:
            records[b"SCHILY.xattr." + key.replace(b"%", b"%25").replace(b"=", b"%3D")] = value
    return records


def _acl_text(value: bytes) -> bytes:
    """Returns an ACL as text with numbers for names, empty where it is none that has such a form."""
    if len(value) < 4 or (len(value) - 4) % _ACL_ROW.size or int.from_bytes(value[:4], "little") != _ACL_VERSION:
        return b""
    lines = []
    for tag, perm, number in _ACL_ROW.iter_unpack(value[4:]):
        if tag not in _ACL_TAGS or perm > 7:
            return b""
        who = b"%d" % number if tag in _ACL_NAMED else b""
        letters = bytes(letter if perm & bit else ord("-") for letter, bit in zip(b"rwx", (4, 2, 1), strict=True))
        lines.append(_ACL_TAGS[tag] + who + b":" + letters)
    return b",".join(lines)
