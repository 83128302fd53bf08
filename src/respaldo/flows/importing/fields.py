"""Fields of tar headers and pax records, from bytes that may be hostile. Pure; raises `FieldError` alone.

Reads what V7, ustar, GNU tar, star, bsdtar and pax write: octal and base-256 numbers, decimal times, records, ACLs as
text, file flags as words.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
import urllib.parse
from array import array
from collections.abc import Callable

BLOCK = 512
SIZE_END = 1 << 63
_EXTENTS_MAX = 1 << 20
_NS = 10**9
_TIME_NS_END = 1 << 63
_RECORD = re.compile(rb"(\d{1,8}) ([^=]+)=", re.DOTALL)
_DECIMAL = re.compile(rb"(-?)(\d{1,18})(?:\.(\d*))?")
_ACL_VERSION, _ACL_ROW, _NOBODY = 2, struct.Struct("<HHI"), 0xFFFF_FFFF
_ACL_TAGS = {(b"user", False): 1, (b"user", True): 2, (b"group", False): 4, (b"group", True): 8}
_ACL_ALONE = {b"mask": 16, b"other": 32}
_PERMISSIONS = re.compile(rb"[r-][w-][x-]")
_ACL_ENTRIES_MAX = 1024
_ID_DIGITS_MAX = 10
_MINIMAL = 3
_FLAGS = {
    b"secdel": 0x1,
    b"securedeletion": 0x1,
    b"undel": 0x2,
    b"uunlnk": 0x2,
    b"compr": 0x4,
    b"compress": 0x4,
    b"ucompressed": 0x4,
    b"sync": 0x8,
    b"schg": 0x10,
    b"schange": 0x10,
    b"simmutable": 0x10,
    b"immutable": 0x10,
    b"sappnd": 0x20,
    b"sappend": 0x20,
    b"append": 0x20,
    b"nodump": 0x40,
    b"noatime": 0x80,
    b"journal": 0x4000,
    b"notail": 0x8000,
    b"dirsync": 0x1_0000,
    b"topdir": 0x2_0000,
    b"nocow": 0x80_0000,
    b"dax": 0x200_0000,
    b"projinherit": 0x2000_0000,
}
Records = dict[bytes, bytes]


class FieldError(Exception):
    """Says that a field is not what it must be."""


def number(field: bytes) -> int:
    """Returns a number: octal digits, or base 256 where the highest bit is set; none is 0."""
    if field[:1] and field[0] & 0x80:
        value = int.from_bytes(field, "big")
        if field[0] == 0xFF:
            return value - (1 << (8 * len(field)))
        return value & ((1 << (8 * len(field) - 1)) - 1)
    text = field.split(b"\0", 1)[0].strip()
    if not text:
        return 0
    if text.strip(b"01234567"):
        raise FieldError("a number of its header is none")
    return int(text, 8)


def text(field: bytes) -> bytes:
    """Returns a string that ends with its field or a NUL."""
    return field.split(b"\0", 1)[0]


def has_checksum(block: bytes) -> bool:
    """Whether a block is a header: its checksum fits, over bytes without or, as some old programs had it, with sign."""
    try:
        wanted = number(block[148:156])
    except FieldError:
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(rest)
    return wanted == unsigned or (wanted < unsigned and wanted == unsigned - 256 * sum(byte > 127 for byte in rest))


def records(data: bytes) -> list[tuple[bytes, bytes]]:
    """Returns the records of a pax header, in order."""
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(data) and data[at]:
        head = _RECORD.match(data, at)
        if head is None:
            raise FieldError("a record of its pax header is none")
        end = at + int(head[1])
        if end > len(data) or end <= head.end() or data[end - 1] != 0x0A:
            raise FieldError("a record of its pax header has an impossible length")
        found.append((head[2], data[head.end() : end - 1]))
        at = end
    return found


def whole(value: bytes) -> int:
    """Returns a decimal number that is not negative."""
    if not value.isdigit() or len(value) > 19:
        raise FieldError("a number of its pax header is none")
    return int(value)


def moment_ns(value: bytes) -> int:
    """Returns a decimal time as ns since the epoch, the nearest there is."""
    found = _DECIMAL.fullmatch(value)
    if found is None:
        raise FieldError("a time of its pax header is none")
    sign, seconds, fraction = found.groups()
    ns = int(seconds) * _NS + int(((fraction or b"") + b"0" * 9)[:9])
    return within(-ns if sign else ns)


def within(time_ns: int) -> int:
    """Returns the nearest time that can be recorded."""
    return max(-_TIME_NS_END, min(time_ns, _TIME_NS_END - 1))


def acl(value: bytes, uid_of: Callable[[bytes], int | None], gid_of: Callable[[bytes], int | None]) -> bytes:
    """Returns an ACL in text as the kernel has it, empty where it says no more than the mode does."""
    rows: list[tuple[int, int, int]] = []
    for item in re.split(rb"[,\n]", value):
        words = item.split(b"#", 1)[0].strip().split(b":")
        if words == [b""]:
            continue
        if len(words) == 2 and words[0] in _ACL_ALONE:
            words.insert(1, b"")
        if len(words) < 3 or len(rows) == _ACL_ENTRIES_MAX:
            raise FieldError("its ACL cannot be read")
        what, who, letters = words[:3]
        if len(letters) != 3 or any(
            letter not in (ord(sign), ord("-")) for letter, sign in zip(letters, "rwx", strict=True)
        ):
            raise FieldError("its ACL cannot be read")
        perm = sum(bit for letter, bit in zip(letters, (4, 2, 1), strict=True) if letter != ord("-"))
        if what in _ACL_ALONE and not who:
            rows.append((_ACL_ALONE[what], _NOBODY, perm))
        elif (what, bool(who)) in _ACL_TAGS:
            rows.append((_ACL_TAGS[what, bool(who)], _id(what, who, words[3:], uid_of, gid_of), perm))
        else:
            raise FieldError("its ACL cannot be read")
    if len(rows) <= _MINIMAL and not any(tag in {2, 8, 16} for tag, _, _ in rows):
        return b""
    body = b"".join(_ACL_ROW.pack(tag, perm, who) for tag, who, perm in sorted(rows))
    return _ACL_VERSION.to_bytes(4, "little") + body


def _id(
    what: bytes,
    who: bytes,
    more: list[bytes],
    uid_of: Callable[[bytes], int | None],
    gid_of: Callable[[bytes], int | None],
) -> int:
    if not who:
        return _NOBODY
    digits = who if who.isdigit() else more[0] if more and more[0].isdigit() else b""
    if digits:
        found: int | None = int(digits) if len(digits) <= _ID_DIGITS_MAX else None
    else:
        found = uid_of(who) if what == b"user" else gid_of(who)
    if found is None or not 0 <= found < _NOBODY:
        raise FieldError(f"its ACL names {who.decode('utf-8', 'backslashreplace')}, whom nobody here knows")
    return found


def flags(value: bytes) -> int:
    """Returns file flags in words as inode flags, those that are known."""
    return sum({_FLAGS.get(word.strip().removeprefix(b"no_"), 0) for word in value.split(b",")})


def mark(comment: bytes) -> int:
    """Returns the mark that an export of Respaldo says an entry had, 0 for any other comment."""
    found = re.fullmatch(rb"respaldo mark=([345])", comment)
    return int(found[1]) if found else 0


def attribute(key: bytes, value: bytes) -> tuple[bytes, bytes] | None:
    """Returns the extended attribute that a record is, None where it is none."""
    if key.startswith(b"SCHILY.xattr."):
        name = key[len(b"SCHILY.xattr.") :]
        return name.replace(b"%3D", b"=").replace(b"%25", b"%"), value
    if key == b"RHT.security.selinux":
        return b"security.selinux", value.rstrip(b"\0") + b"\0"
    if key.startswith(b"LIBARCHIVE.xattr."):
        try:
            raw = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
        except binascii.Error:
            raise FieldError("an extended attribute of its pax header is not base64") from None
        return urllib.parse.unquote_to_bytes(key[len(b"LIBARCHIVE.xattr.") :]), raw
    return None


def add_extent(extents: array[int], start: int, length: int) -> None:
    """Adds an extent, joined to the one before where they touch."""
    if not (0 <= start < SIZE_END and 0 <= length < SIZE_END):
        raise FieldError("its map of holes is impossible")
    if not length:
        return
    if extents and extents[-2] + extents[-1] == start:
        extents[-1] += length
        return
    if len(extents) >= 2 * _EXTENTS_MAX:
        raise FieldError("it has too many holes")
    extents.append(start)
    extents.append(length)
