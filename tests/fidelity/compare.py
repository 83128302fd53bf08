"""Comparisons of two trees: rsync's, and one of our own for what rsync does not look at.

Ours walks by descriptors, a name at a time, so that no path is too long for it. It leaves out what the kernel gives no
way to set: the times of access, of change of status and of birth.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from respaldo.fs.meta import beside, read_flags, sync_filesystem

BLOCK_BYTES = 4096


OWN_OF_XFS = ("--filter=-x trusted.SGI_ACL_*", "--filter=-x system.*")
"""What rsync is told to leave out: ACLs that XFS shows root a second time, and, as it does untold, once."""


def rsync_differences(source: Path, target: Path, *more: str) -> list[str]:
    """Returns what rsync would do to make a target equal to a source: nothing, where they are."""
    if shutil.which("rsync") is None:
        pytest.fail("rsync is needed to compare what was restored: apt-get install rsync")
    if os.geteuid() == 0 and kind_of(source) == "xfs" != kind_of(target):
        more += OWN_OF_XFS
    words = ["rsync", "-naHAXi", "--checksum", "--delete", *more, f"{source}/", f"{target}/"]
    ran = subprocess.run(words, check=False, capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode("utf-8", "replace")
    return ran.stdout.decode("utf-8", "backslashreplace").splitlines()


@dataclass(frozen=True)
class Seen:
    """Is everything about one name that a restore gives back.

    ``digest`` is of the blocks that are not zero and where they lie, ``runs`` says where there is data; ``mate`` is the
    first name of the file that this is a name of.
    """

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    links: int
    rdev: int = 0
    target: bytes = b""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    flags: int = 0
    digest: str = ""
    runs: tuple[tuple[int, int], ...] = ()
    mate: bytes = b""


def picture(top: Path | bytes, *, root: bool = True) -> dict[bytes, Seen]:
    """Returns everything below a directory, by path; ``root``: and itself, as ``b""``."""
    found: dict[bytes, Seen] = {}
    firsts: dict[tuple[int, int], bytes] = {}
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    # Space that a file system has set aside beforehand shows as data until it is written back.
    sync_filesystem(fd)
    try:
        if root:
            found[b""] = _of_open(fd, os.fstat(fd))
        levels = [(b"", _names(fd))]
        while True:
            path, below = levels[-1]
            name = next(below, None)
            if name is None:
                levels.pop()
                if not levels:
                    return found
                fd = _move(fd, b"..")
                continue
            here = path + b"/" + name if path else name
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            found[here] = _look(fd, name, status, here, firsts)
            if stat.S_ISDIR(status.st_mode):
                fd = _move(fd, name)
                levels.append((here, _names(fd)))
    finally:
        os.close(fd)


def _move(fd: int, name: bytes) -> int:
    """Opens a directory from another, which is closed: of a tree of any depth, one is open."""
    moved = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
    os.close(fd)
    return moved


def _names(fd: int) -> Iterator[bytes]:
    return iter(sorted(map(os.fsencode, os.listdir(fd))))


def _look(dir_fd: int, name: bytes, status: os.stat_result, here: bytes, firsts: dict[tuple[int, int], bytes]) -> Seen:
    kind = stat.S_IFMT(status.st_mode)
    if kind in (stat.S_IFREG, stat.S_IFDIR):
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dir_fd)
        try:
            seen = _of_open(fd, status)
        finally:
            os.close(fd)
    else:
        target = os.readlink(name, dir_fd=dir_fd) if kind == stat.S_IFLNK else b""
        special = kind in (stat.S_IFBLK, stat.S_IFCHR)
        seen = replace(
            _plain(status),
            rdev=status.st_rdev if special else 0,
            target=target,
            xattrs=_xattrs(beside(dir_fd, name)),
        )
    if status.st_nlink > 1 and kind != stat.S_IFDIR:
        seen = replace(seen, mate=firsts.setdefault((status.st_dev, status.st_ino), here), links=status.st_nlink)
    return seen


def _plain(status: os.stat_result) -> Seen:
    kind = stat.S_IFMT(status.st_mode)
    return Seen(
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        size=0 if kind == stat.S_IFDIR else status.st_size,
        mtime_ns=status.st_mtime_ns,
        links=1,
    )


def _of_open(fd: int, status: os.stat_result) -> Seen:
    seen = replace(_plain(status), xattrs=_xattrs(fd), flags=read_flags(fd))
    if not stat.S_ISREG(status.st_mode):
        return seen
    runs = holes_of(fd, status.st_size)
    digest = hashlib.blake2b()
    for start, end in runs:
        begin = start
        while begin < end:
            raw = os.pread(fd, min(BLOCK_BYTES - begin % BLOCK_BYTES, end - begin), begin)
            assert raw
            if raw.count(0) != len(raw):
                digest.update(b"%d\0" % begin)
                digest.update(raw)
            begin += len(raw)
    return replace(seen, digest=digest.hexdigest(), runs=runs)


def _xattrs(where: int | bytes) -> tuple[tuple[str, bytes], ...]:
    follow = isinstance(where, int)
    try:
        names = os.listxattr(where, follow_symlinks=follow)
    except OSError:
        return ()
    kept = [name for name in names if not name.startswith("trusted.SGI_ACL_")]  # the ACLs once more, on XFS
    return tuple(sorted((name, os.getxattr(where, name, follow_symlinks=follow)) for name in kept))


def holes_of(fd: int, size: int) -> tuple[tuple[int, int], ...]:
    """Returns where a file has data, as (begin, end)."""
    runs: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, begin, os.SEEK_HOLE)
        runs.append((begin, at))
    return tuple(runs)


def differences(
    source: dict[bytes, Seen], target: dict[bytes, Seen], *, leaving_out: tuple[str, ...] = ()
) -> list[str]:
    """Returns a line for each thing that two pictures do not agree on."""
    lines = [f"{name!r} is missing" for name in sorted(source.keys() - target.keys())]
    lines += [f"{name!r} is too many" for name in sorted(target.keys() - source.keys())]
    for name in sorted(source.keys() & target.keys()):
        one, other = source[name], target[name]
        for field in Seen.__dataclass_fields__:
            if field not in leaving_out and getattr(one, field) != getattr(other, field):
                lines.append(f"{name!r}: {field} was {getattr(one, field)!r}, is {getattr(other, field)!r}")
    return lines


def kind_of(path: Path) -> str:
    """Returns what kind of file system something lies on."""
    ran = subprocess.run(["stat", "-f", "-c", "%T", str(path)], check=True, capture_output=True, text=True)
    return ran.stdout.strip()


def inexact(*places: Path) -> tuple[str, ...]:
    """Returns what cannot be compared: where there is data is as xfs likes, which sets space aside beforehand."""
    return ("runs",) if any(kind_of(place) == "xfs" for place in places) else ()


def assert_equal(source: Path, target: Path, *, leaving_out: tuple[str, ...] = (), more: tuple[str, ...] = ()) -> None:
    """Fails unless two trees are equal to rsync's eyes and to ours."""
    assert rsync_differences(source, target, *more) == []
    leaving_out += inexact(source, target)
    assert differences(picture(source), picture(target), leaving_out=leaving_out) == []


def leftovers(top: Path) -> list[str]:
    """Returns the temporary names that a restore left."""
    return [
        os.path.join(folder, name)
        for folder, below, files in os.walk(top)
        for name in [*below, *files]
        if name.startswith(".respaldo-")
    ]
