"""`scan` in Python: a whole directory as three columns, in the order of its names' bytes."""

from __future__ import annotations

import errno
import os
import stat

from respaldo.kernel import layout
from respaldo.kernel.reference import libc
from respaldo.kernel.reference.arguments import descriptor, flags, integer

_ALL_OPTIONS = layout.SCAN_IGNORE_INO | layout.SCAN_IGNORE_CTIME | layout.SCAN_TRUST_TIMES
_INODE_FLAGS = (
    (libc.STATX_ATTR_IMMUTABLE, layout.ENTRY_IMMUTABLE),
    (libc.STATX_ATTR_APPEND, layout.ENTRY_APPEND),
    (libc.STATX_ATTR_NODUMP, layout.ENTRY_NODUMP),
)


def scan(dir_fd: int, recent_ns: int, options: int) -> tuple[bytes, bytes, bytes]:
    """Lists and stats a directory: names, META rows, IDENT rows; see `respaldo.kernel`."""
    dir_fd = descriptor(dir_fd)
    recent_ns = integer(recent_ns, libc.INT64_MIN, libc.INT64_MAX + 1)
    options = flags(options, _ALL_OPTIONS)
    device = os.fstat(dir_fd).st_dev
    os.lseek(dir_fd, 0, os.SEEK_SET)
    rows: dict[bytes, tuple[bytes, bytes]] = {}
    for name, ino, kind in list(libc.getdents(dir_fd)):
        if name in (b".", b"..") or name in rows:
            continue
        try:
            rows[name] = _rows(libc.statx(dir_fd, name), device, recent_ns, options)
        except OSError as error:
            if error.errno != errno.ENOENT:
                rows[name] = _failed_rows(error.errno or errno.EIO, ino, kind, options)
    names = sorted(rows)
    return (
        b"".join(name + b"\0" for name in names),
        b"".join(rows[name][0] for name in names),
        b"".join(rows[name][1] for name in names),
    )


def _failed_rows(error: int, ino: int, kind: int, options: int) -> tuple[bytes, bytes]:
    if options & (layout.SCAN_IGNORE_INO | layout.SCAN_TRUST_TIMES):
        ino = 0
    # DT_* are the type bits of st_mode, shifted.
    return layout.META.pack(kind << 12, 0, 0, 0, 0, 0, 0), layout.IDENT.pack(ino, 0, error, layout.ENTRY_FAILED)


def _rows(found: libc.Statx, device: int, recent_ns: int, options: int) -> tuple[bytes, bytes]:
    kind = stat.S_IFMT(found.stx_mode)
    size = 0
    if kind in (stat.S_IFREG, stat.S_IFLNK):
        size = found.stx_size
    elif kind in (stat.S_IFBLK, stat.S_IFCHR):
        size = found.stx_rdev_major << 32 | found.stx_rdev_minor
    mtime_ns, ctime_ns = found.stx_mtime.ns, found.stx_ctime.ns
    btime_ns = found.stx_btime.ns if found.stx_mask & libc.STATX_BTIME else 0

    attributes = found.stx_attributes & found.stx_attributes_mask
    marks = 0
    # Files of an overlay may show the devices of its layers: of them the kernel knows better, where it tells.
    told = kind != stat.S_IFDIR and found.stx_attributes_mask & libc.STATX_ATTR_MOUNT_ROOT
    elsewhere = not told and os.makedev(found.stx_dev_major, found.stx_dev_minor) != device
    if elsewhere or attributes & libc.STATX_ATTR_MOUNT_ROOT:
        marks |= layout.ENTRY_MOUNT
    if kind == stat.S_IFREG and found.stx_blocks * 512 < found.stx_size:
        marks |= layout.ENTRY_SPARSE
    trust = bool(options & layout.SCAN_TRUST_TIMES)
    no_ctime = trust or bool(options & layout.SCAN_IGNORE_CTIME)
    if not trust and (mtime_ns >= recent_ns or (ctime_ns >= recent_ns and not no_ctime)):
        marks |= layout.ENTRY_RECENT
    for attribute, mark in _INODE_FLAGS:
        if attributes & attribute:
            marks |= mark

    meta = layout.META.pack(found.stx_mode, found.stx_uid, found.stx_gid, 0, size, mtime_ns, btime_ns)
    ino = 0 if trust or options & layout.SCAN_IGNORE_INO else found.stx_ino
    nlink = 0 if trust or kind == stat.S_IFDIR else found.stx_nlink
    return meta, layout.IDENT.pack(ino, 0 if no_ctime else ctime_ns, nlink, marks)
