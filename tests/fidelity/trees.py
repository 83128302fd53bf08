"""Trees with everything in them that a file system can hold."""

from __future__ import annotations

import os
import random
import socket
import stat
import struct
import subprocess
from pathlib import Path

from respaldo.fs.meta import FLAGS_IN_THE_WAY, write_flags

NODUMP, APPEND, IMMUTABLE, NOATIME = 0x40, 0x20, 0x10, 0x80
CAPABILITY = struct.pack("<IIIII", 0x0200_0001, 1 << 13, 0, 0, 0)
"""cap_net_raw+ep, as the kernel stores it."""
TIME_NS = 1_600_000_000_123_456_789
_UNDEFINED = 0xFFFF_FFFF


def data(length_bytes: int, seed: int = 1) -> bytes:
    """Returns bytes that do not compress and follow from a seed."""
    return random.Random(seed).randbytes(length_bytes)


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Returns a POSIX ACL as the kernel stores it, of (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def wide_acl(uid: int = 1234) -> bytes:
    """Returns an ACL that lets a user in beside the owner."""
    none = _UNDEFINED
    return acl((1, 7, none), (2, 7, uid), (4, 4, none), (8, 5, 5678), (16, 7, none), (32, 4, none))


def set_flags(path: Path | str | bytes, flags: int) -> bool:
    """Sets inode flags; whether the file system knows them."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return write_flags(fd, flags) == 0
    finally:
        os.close(fd)


def thaw(top: Path) -> None:
    """Takes away the flags of everything that would forbid removal."""
    if os.geteuid() != 0:
        return
    for folder, _, names in os.walk(top):
        for name in [".", *names]:
            path = os.path.join(folder, name)
            if stat.S_IFMT(os.lstat(path).st_mode) in (stat.S_IFREG, stat.S_IFDIR):
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    write_flags(fd, 0, FLAGS_IN_THE_WAY)
                finally:
                    os.close(fd)


def holes(path: Path, *runs: tuple[int, bytes], size: int) -> None:
    """Makes a file that has data in some places and nothing between."""
    with path.open("wb") as file:
        for at, raw in runs:
            file.seek(at)
            file.write(raw)
        file.truncate(size)


def set_time(path: Path | str | bytes, ns: int) -> None:
    """Sets the time of modification, of a link itself."""
    os.utime(path, ns=(ns, ns), follow_symlinks=False)


def write_ordinary(top: Path) -> None:
    """Makes what any user can make."""
    top.mkdir(exist_ok=True)
    (top / "plain").write_bytes(data(100))
    (top / "empty").touch()
    (top / "large").write_bytes(data(3_000_000))
    (top / "empty directory").mkdir()
    deep = top / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(data(70_000, 2))
    for name in (b"\xff\xfe not utf-8", b"new\nline", b"n" * 255, b"\x1b[31m", b" ", b"-rf", b"back\\slash", b"*"):
        path = os.path.join(os.fsencode(top), name)
        with open(path, "wb") as file:
            file.write(name)
    os.mkdir(os.path.join(os.fsencode(top), b"d" * 255))
    for number, name in enumerate(("a/linked", "first", "a/b/linked too")):
        path = top / name
        if number:
            os.link(top / "a" / "linked", path)
        else:
            path.write_bytes(data(5000, 3))
    os.symlink("nowhere at all", top / "dangling")
    os.symlink(b"\xff" * 200, os.fsencode(top / "odd link"))
    os.symlink("dangling", top / "link")
    os.link(top / "link", top / "a" / "link of a link", follow_symlinks=False)
    os.mkfifo(top / "fifo", 0o640)
    os.link(top / "fifo", top / "fifo too")
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(top)
        one.bind("socket")
        os.chdir(here)
    for mode in (0o400, 0o777, 0o600, 0o7755, 0o6711, 0o1640, 0o405, 0o4555, 0o444):
        path = top / f"mode {mode:04o}"
        path.write_bytes(b"%o" % mode)
        path.chmod(mode)
    for mode in (0o555, 0o1777, 0o2750, 0o700, 0o500):
        path = top / f"directory {mode:04o}"
        path.mkdir()
        (path / "inside").write_bytes(b"inside")
        path.chmod(mode)
    holes(top / "holes", (1 << 20, data(5000)), (5 << 20, b"end"), size=(8 << 20) + 17)
    holes(top / "only a hole", size=1 << 20)
    holes(top / "small with a hole", (0, b"begin"), (64 << 10, b"end"), size=80_000)
    (top / "zeros").write_bytes(bytes(200_000))
    times = {"plain": 1, "link": TIME_NS, "fifo": 999_999_999, "dangling": 1_000_000_001, "empty": -1}
    times |= {"a/b/c/file": -1_500_000_000_999_999_999, "large": 9_000_000_000_000_000_001, "empty directory": -5}
    for name, ns in times.items():
        set_time(top / name, ns)


def write_attributes(top: Path) -> None:
    """Adds extended attributes and ACLs, as far as any user may set them."""
    for name in ("plain", "empty", "empty directory", "large", "a/linked", "holes"):
        os.setxattr(top / name, "user.respaldo", f"of {name}".encode() * 10)
        os.setxattr(top / name, "user.empty", b"")
    os.setxattr(top / "plain", "user.binary", bytes(range(256)))
    os.setxattr(top / "plain", "system.posix_acl_access", wide_acl())
    os.setxattr(top / "a", "system.posix_acl_default", wide_acl())
    os.setxattr(top / "a" / "b", "system.posix_acl_access", wide_acl(4321))
    set_time(top / "a" / "b", TIME_NS)


def write_roots(top: Path) -> None:
    """Adds what only root can make."""
    os.mknod(top / "character", stat.S_IFCHR | 0o620, os.makedev(5, 1))
    os.mknod(top / "block", stat.S_IFBLK | 0o660, os.makedev(259, 200_000))
    os.mknod(top / "whiteout", stat.S_IFCHR, os.makedev(0, 0))
    os.link(top / "block", top / "a" / "block too")
    for name, uid, gid in (
        ("plain", 0, 12345),
        ("a", 54321, 0),
        ("link", 1000, 1001),
        ("fifo", 7, 8),
        ("character", 2**32 - 2, 2**32 - 2),
        ("mode 7755", 1, 2),
        ("mode 6711", 3_000_000_000, 4),
        ("directory 2750", 5, 6),
        ("empty", 65534, 65534),
        ("socket", 11, 12),
    ):
        mode = stat.S_IMODE(os.lstat(top / name).st_mode)
        os.lchown(top / name, uid, gid)
        if name != "link":
            os.chmod(top / name, mode)
    for name in ("capable", "capable and another's", "capable and linked"):
        (top / name).write_bytes(data(5000))
        (top / name).chmod(0o755)
    os.chown(top / "capable and another's", 1000, 1000)
    os.link(top / "capable and linked", top / "a" / "capable too")
    for name in ("capable", "capable and another's", "capable and linked"):
        os.setxattr(top / name, "security.capability", CAPABILITY)
    for name in ("plain", "link", "fifo", "character", "a", "socket", "dangling"):
        os.setxattr(top / name, "trusted.respaldo", name.encode(), follow_symlinks=False)
    set_time(top / "link", TIME_NS)
    set_time(top / "a", TIME_NS + 1)


def write_flagged(top: Path) -> bool:
    """Adds inode flags, files and directories that they forbid to be changed; whether the file system knows them."""
    folder = top / "flagged"
    folder.mkdir()
    (folder / "inside").write_bytes(b"inside")
    (folder / "below").mkdir()
    (folder / "below" / "too").write_bytes(data(2000))
    os.link(folder / "inside", folder / "inside too")
    wanted = {"immutable": IMMUTABLE, "append only": APPEND, "no dump": NODUMP, "no atime": NOATIME | NODUMP}
    for name in wanted:
        (folder / name).write_bytes(data(3000, len(name)))
    os.link(folder / "immutable", folder / "linked immutable")
    os.link(folder / "append only", top / "linked append only")
    wanted |= {"below": APPEND, "inside": IMMUTABLE, ".": IMMUTABLE | NODUMP}
    for path in (folder / "below", folder):
        set_time(path, TIME_NS)
    return all(set_flags(folder / name, flags) for name, flags in wanted.items())


def lsattr(path: Path) -> str:
    """Returns what lsattr says of a file."""
    return subprocess.run(["lsattr", "-d", str(path)], check=True, capture_output=True, text=True).stdout.split()[0]
