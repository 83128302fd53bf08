"""Targets: archives that anybody may have made, and what becomes a snapshot of them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard

from respaldo.core.errors import SourceError
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.importing import fields
from respaldo.flows.importing.about import parse_about
from respaldo.flows.importing.members import EndedError, Members
from respaldo.flows.importing.options import ImportOptions
from respaldo.flows.importing.run import run_import
from respaldo.flows.importing.unpack import unpacked
from respaldo.store.repo import Repo
from tests.fuzz.mutate import Form, Wrapping
from tests.fuzz.target import Target
from tests.store.repositories import MemoryBackend, Tape, initialise, opened

_BLOCK = fields.BLOCK
_ROOM = tempfile.TemporaryDirectory(prefix="respaldo-fuzz-")
_READ_MAX = 4 << 20
"""A hole is as long as an archive likes; reading all of it is what the archive asks for."""


def _archive(form: int, *, sparse: bool = False) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as archive:
        for name, kind, size in (
            ("d", tarfile.DIRTYPE, 0),
            ("d/file", tarfile.REGTYPE, 700),
            ("d/" + "long" * 40, tarfile.REGTYPE, 3),
            ("link", tarfile.SYMTYPE, 0),
            ("hard", tarfile.LNKTYPE, 0),
            ("tty", tarfile.CHRTYPE, 0),
            ("fifo", tarfile.FIFOTYPE, 0),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.size, member.mtime = kind, size, 1_780_000_000
            member.linkname = "d/file" if kind in {tarfile.SYMTYPE, tarfile.LNKTYPE} else ""
            member.uname, member.gname, member.uid, member.gid = "ana", "users", 1000, 100
            if form == tarfile.PAX_FORMAT:
                member.pax_headers = {
                    "mtime": "1780000000.123456789",
                    "SCHILY.xattr.user.note": "x",
                    "SCHILY.acl.access": "user::rw-,user:ana:r--:1000,group::r--,mask::r--,other::---",
                    "SCHILY.fflags": "nodump,schg",
                    "LIBARCHIVE.creationtime": "1.5",
                    "LIBARCHIVE.xattr.user.b": "YWI",
                    **(
                        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5000"}
                        if sparse
                        else {}
                    ),
                    **({"GNU.sparse.name": "sparse"} if sparse else {}),
                }
            content = b"1\n100\n2\n".ljust(_BLOCK, b"\0") if sparse and size == 700 else b""
            archive.addfile(member, io.BytesIO((content + b"x" * size)[:size]))
    return made.getvalue()


def _archives() -> Iterator[bytes]:
    yield _archive(tarfile.GNU_FORMAT)
    yield _archive(tarfile.PAX_FORMAT)
    yield _archive(tarfile.PAX_FORMAT, sparse=True)
    yield _old_sparse()


def _old_sparse() -> bytes:
    """Returns an archive of one sparse file as GNU tar made them of old."""
    header = bytearray(_BLOCK)
    header[0:6], header[100:108], header[124:136] = b"sparse", b"0000644\0", b"00000000012\0"
    header[156:157], header[257:265] = b"S", b"ustar  \0"
    header[386:410] = b"00000000000\0" + b"00000000012\0"
    header[483:495] = b"00000010000\0"
    return _summed(bytes(header) + b"0123456789".ljust(_BLOCK, b"\0") + bytes(2 * _BLOCK))


_HEADER = bytearray(_BLOCK)
_HEADER[0:4], _HEADER[100:108], _HEADER[257:265] = b"name", b"0000644\0", b"ustar\00000"


def _part(kind: bytes, content: bytes) -> bytes:
    """Returns a member of an archive."""
    header = _HEADER.copy()
    header[156:157], header[124:136] = kind, b"%011o\0" % len(content)
    return bytes(header) + content + bytes(-len(content) % _BLOCK)


def _of_records(data: bytes) -> bytes:
    """Makes an archive of pax records, one a line and behind an empty line what follows them, which have true lengths.

    The first letter says what kind of member they are of.
    """
    records, _, content = data[1:].partition(b"\n\n")
    made = b""
    for record in records.split(b"\n"):
        length = len(record) + 3
        while len(b"%d %s\n" % (length, record)) != length:
            length = len(b"%d %s\n" % (length, record))
        made += b"%d %s\n" % (length, record)
    return _summed(_part(b"g" if data[:1] == b"g" else b"x", made) + _part(data[:1], content) + bytes(2 * _BLOCK))


def _records(data: bytes) -> None:
    """Reads and imports a member that is described by records."""
    archive = _of_records(data)
    _read(archive)
    _import(archive)


_RECORDS = (
    b"0path=a/b\nmtime=1780000000.5\nuid=70000\nuname=ana\nSCHILY.xattr.user.note=x\nSCHILY.fflags=nodump\n\ncontent",
    b"0GNU.sparse.major=1\nGNU.sparse.minor=0\nGNU.sparse.realsize=5000\nGNU.sparse.name=s\n\n2\n0\n5\n100\n3\n"
    + bytes(500),
    b"0GNU.sparse.map=0,5,100,3\nGNU.sparse.size=500\nGNU.sparse.numblocks=2\n\n12345678",
    b"0GNU.sparse.offset=0\nGNU.sparse.numbytes=5\nGNU.sparse.offset=9\nGNU.sparse.numbytes=3\nGNU.sparse.size=99\n\n12345678",
    b"2path=l\nlinkpath=../../x\nctime=1",
    b"1path=h\nlinkpath=a/b\nsize=7",
    b"5path=d/\nSCHILY.acl.default=user::rwx,group::r-x,other::---,mask::rwx,user:7:rwx\nLIBARCHIVE.creationtime=5.5",
    b"3path=c\nSCHILY.devmajor=5\nSCHILY.devminor=1\nSCHILY.realsize=5",
    b"gcomment=respaldo mark=3\nhdrcharset=BINARY\nRHT.security.selinux=a:b:c\nLIBARCHIVE.xattr.user.b=YWI",
)


def _summed(data: bytes) -> bytes:
    """Gives every block that looks like a header its checksum."""
    made = bytearray(data)
    for at in range(0, len(data) - _BLOCK + 1, _BLOCK):
        block = made[at : at + _BLOCK]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            made[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    return bytes(made)


_SUMMED = Wrapping(off=lambda data: data, on=_summed)


def _read(data: bytes) -> None:
    """Reads all members, and the content of each."""
    said: list[str] = []
    members = Members(io.BytesIO(data), lambda _, text: said.append(text))
    read = 0
    try:
        for member in members:
            assert member.stored >= 0
            while read < _READ_MAX and (piece := members.read(1 << 16)):
                read += len(piece)
    except EndedError as error:
        said.append(str(error))
    assert members.at <= len(data)
    assert len(said) <= len(data) // 100 + 10, "more complaints than there is to complain about"
    parse_about(members.comment)


def _unpack(data: bytes) -> None:
    """Unpacks a stream, as far as 64 MiB, with bounded memory."""
    stream = unpacked(io.BytesIO(data))
    left = 64 << 20
    while left > 0 and (piece := stream.read(min(left, 1 << 18))):
        left -= len(piece)


def _packed() -> Iterator[bytes]:
    plain = _old_sparse()
    yield gzip.compress(plain, mtime=0)
    yield bz2.compress(plain)
    yield lzma.compress(plain)
    yield lzma.compress(plain, lzma.FORMAT_ALONE)
    yield zstandard.compress(plain)
    yield gzip.compress(bytes(1 << 20), mtime=0) * 2
    yield plain


_REPOS: list[Repo] = []


def _import(data: bytes) -> None:
    """Imports an archive into a repository, of which nothing is kept."""
    if not _REPOS:
        backend = MemoryBackend()
        initialise(backend, random=Tape())
        _REPOS.append(opened(backend, Path(_ROOM.name)))
    options = ImportOptions(dry_run=True, default_host="granja", user="ana", program="respaldo")
    result = run_import(_REPOS[0], b"archive", io.BytesIO(data), options, progress=Silent(), cancel=Cancel())
    for path in result.manifest.sources:
        assert path.startswith(b"/")
        assert b".." not in path.split(b"/")
    result.manifest.encode()


_NAMES: dict[bytes, int] = {b"ana": 1000}
_PARTS: tuple[Callable[[bytes], object], ...] = (
    fields.number,
    fields.text,
    fields.records,
    fields.whole,
    fields.moment_ns,
    fields.flags,
    fields.mark,
    fields.has_checksum,
    lambda value: fields.acl(value, _NAMES.get, _NAMES.get),
    lambda value: fields.attribute(b"LIBARCHIVE.xattr.a%20b", value),
    lambda value: fields.attribute(*value.split(b"=", 1)) if b"=" in value else None,
)


def _fields(data: bytes) -> None:
    for part in _PARTS:
        try:
            part(data)
        except fields.FieldError:
            continue


_ABOUT = b"""{"respaldo": 1, "path": "/home/ana", "sources": ["/", "/home/ana"], "time_ns": 1780000000000000000,
"host": "granja", "user": "ana", "kind": "full", "label": "v1.0.0-20261125_101500", "reason": "x", "tags": ["a"]}"""

TARGETS = [
    Target(
        name="tar",
        parse=_read,
        seeds=_archives,
        refusals=(),
        wrappings=(_SUMMED,),
        modules=("respaldo.flows.importing",),
    ),
    Target(
        name="tar-records",
        parse=_records,
        seeds=lambda: _RECORDS,
        refusals=(SourceError,),
        form=Form.TEXT,
        modules=("respaldo.flows.importing",),
    ),
    Target(
        name="tar-fields",
        parse=_fields,
        seeds=lambda: (
            b"0000644\0",
            b"\x80\0\0\0\0\0\0\x01",
            b"30 mtime=1780000000.123456789\n",
            b"1780000000.5",
            b"user::rw-,user:ana:r--:1000,group:9:r-x,mask::r--,other::---",
            b"nodump,schg",
            b"respaldo mark=3",
            b"LIBARCHIVE.xattr.user.b=YWI",
        ),
        refusals=(),
        form=Form.TEXT,
        modules=("respaldo.flows.importing.fields",),
    ),
    Target(
        name="tar-about",
        parse=parse_about,
        seeds=lambda: (_ABOUT,),
        refusals=(),
        form=Form.TEXT,
        modules=("respaldo.flows.importing.about",),
    ),
    Target(
        name="unpack",
        parse=_unpack,
        seeds=_packed,
        refusals=(OSError, EOFError, ValueError, lzma.LZMAError, zstandard.ZstdError, __import__("zlib").error),
        slow_s=4.0,
    ),
    Target(
        name="import",
        parse=_import,
        seeds=_archives,
        refusals=(SourceError,),
        wrappings=(_SUMMED,),
        modules=("respaldo.flows.importing",),
    ),
]
