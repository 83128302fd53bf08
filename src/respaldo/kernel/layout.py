"""The rows and constants of the kernel's verbs.

Rows have a fixed width and no padding, and are little-endian on every machine. Columns travel as joined rows
(``bytes``), and two columns that are equal byte for byte say the same; that is what change detection rests on.
`native.c` defines the same numbers; ``REVISION`` changes with any of them.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

REVISION: Final = 3

# One entry of a directory as it is backed up: mode (all of st_mode), uid, gid, attributes (inode flags; 0 in `scan`),
# size (bytes of a file or a link's target; major << 32 | minor of a device; else 0), mtime_ns, btime_ns (0: none).
META: Final = Struct("<IIIIQqq")
# What change detection looks at besides: ino, ctime_ns, nlink (0 for a directory), flags.
IDENT: Final = Struct("<QqII")
# One file read by `gather`: length (bytes read), error (errno; 0: none), flags, attributes (inode flags), reserved.
GATHERED: Final = Struct("<QiIII")
# One file written by `scatter`: error (errno; 0: none), stage, flags.
SCATTERED: Final = Struct("<iII")

# Flags of an IDENT row.
ENTRY_MOUNT: Final = 1  # a mount point, or a directory of another device (a subvolume)
ENTRY_SPARSE: Final = 2  # has fewer blocks than its size asks for
ENTRY_RECENT: Final = 4  # mtime or ctime at or after `recent_ns`: it may change again without showing it
ENTRY_IMMUTABLE: Final = 8
ENTRY_APPEND: Final = 16
ENTRY_NODUMP: Final = 32
ENTRY_FAILED: Final = 64  # could not be looked at: nlink is the errno, mode the type if known, the rest 0

# Options of `scan`.
SCAN_IGNORE_INO: Final = 1  # the ino column is 0
SCAN_IGNORE_CTIME: Final = 2  # the ctime column is 0, ENTRY_RECENT looks at mtime only
SCAN_TRUST_TIMES: Final = 4  # ino, ctime and nlink are 0, ENTRY_RECENT is never set

# Flags of a GATHERED row.
GATHER_CHANGED: Final = 1  # not, or not all the time, the file that its rows describe
GATHER_XATTRS: Final = 2  # has extended attributes, or a list of them that could not be measured
GATHER_NOT_REGULAR: Final = 4  # something else took its place; nothing was read

# Options of `scatter`.
SCATTER_OWNER: Final = 1  # gives files their owner
SCATTER_SYNC: Final = 2  # brings the content to the disk before the file gets its name
SCATTER_SPARSE: Final = 4  # leaves whole aligned blocks of zeros out
SCATTER_PRIVATE: Final = 8  # nobody looks into the directory yet: files have their names from the first
# Flags of a SCATTERED row.
SCATTER_OWNER_FAILED: Final = 1  # the owner could not be set; set-id bits were left out

# Stages of a SCATTERED row: how far a file got.
STAGE_OK: Final = 0
STAGE_CHECK: Final = 1  # the arguments contradict one another, or the name would leave the directory
STAGE_OPEN: Final = 2
STAGE_WRITE: Final = 3
STAGE_OWNER: Final = 4
STAGE_MODE: Final = 5
STAGE_TIMES: Final = 6
STAGE_CLOSE: Final = 7
STAGE_RENAME: Final = 8

PREFIX_MAX_BYTES: Final = 200  # leaves room for a decimal index in a name of 255 bytes
HOLE_BYTES: Final = 4096  # the unit of ENTRY_SPARSE's holes that `scatter` leaves out

# The inode flags (FS_IOC_GETFLAGS) that a user can set and a restore gives back; the others (extents, encrypted,
# verity, inline data …) are the file system's own doing.
INODE_FLAGS: Final = (
    0x0000_0001  # s  secure deletion
    | 0x0000_0002  # u  undelete
    | 0x0000_0004  # c  compress
    | 0x0000_0008  # S  synchronous
    | 0x0000_0010  # i  immutable
    | 0x0000_0020  # a  append-only
    | 0x0000_0040  # d  no dump
    | 0x0000_0080  # A  no atime
    | 0x0000_4000  # j  journal data
    | 0x0000_8000  # t  no tail merging
    | 0x0001_0000  # D  synchronous directory
    | 0x0002_0000  # T  top directory
    | 0x0080_0000  # C  no copy-on-write
    | 0x0200_0000  # x  direct access to files (DAX)
    | 0x2000_0000  # P  project inheritance
)
