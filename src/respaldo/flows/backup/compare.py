"""Comparing what is with what was: as much of an identity as options and file system allow.

Identity rows are inode, ctime, number of links, flags. All of it counts by default; on network and FUSE file systems
inode numbers may change though nothing else does. A row that is not to be trusted was remembered with an impossible
number of links: `UNSETTLED` where it has to be looked at again in any case, `UNPROVEN` where its times say too little,
which whoever trusts times accepts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from respaldo.flows.backup.options import BackupOptions
from respaldo.format.tree import META
from respaldo.kernel.layout import ENTRY_RECENT, IDENT

if TYPE_CHECKING:
    from respaldo.core.model import Entry
    from respaldo.flows.backup.before import Old

_TIMELESS_BYTES = 12
"""Mode, uid and gid, at the start of a row of metadata; a time of birth, at its end, is another file's."""
UNSETTLED = 0xFFFFFFFF
UNPROVEN = 0xFFFFFFFE


def equal_ident(now: bytes, before: bytes | memoryview, options: BackupOptions, *, network: bool) -> bool:
    """Whether two identity columns of the same entries are equal."""
    if before == now:
        return True
    if not (network or options.ignore_ctime or options.trust_times) or len(now) != len(before):
        return False
    rows = zip(IDENT.iter_unpack(now), IDENT.iter_unpack(before), strict=True)
    if options.trust_times:
        return all(old[2] != UNSETTLED for _, old in rows)
    for (inode, ctime_ns, links, flags), (old_inode, old_ctime_ns, old_links, old_flags) in rows:
        if links != old_links or (flags | ENTRY_RECENT) != (old_flags | ENTRY_RECENT):
            return False
        if ctime_ns != old_ctime_ns and not options.ignore_ctime:
            return False
        if inode != old_inode and not network:
            return False
    return True


def reason_to_read(old: Old, entry: Entry, meta: bytes, ident: bytes) -> str:  # noqa: PLR0911 - one a reason
    """Returns why a file that was there before is read, for a person."""
    _, _, _, _, size, mtime_ns, _ = META.unpack(meta)
    if entry.size != size:
        return f"size was {entry.size}, is {size}"
    if entry.mtime_ns != mtime_ns:
        return "modification time differs"
    if not old.ident:
        return "its content is not in the repository any more"
    inode, ctime_ns, links, _ = IDENT.unpack(ident)
    old_inode, old_ctime_ns, old_links, _ = IDENT.unpack(old.ident)
    if old_links == UNSETTLED:
        return "it could not be read as it should last time"
    if old.meta[:_TIMELESS_BYTES] != meta[:_TIMELESS_BYTES]:
        return "mode or owner differs"
    if old_links == UNPROVEN:
        return "it had changed within 2 s of the last scan"
    if inode != old_inode or old.meta != meta:
        return "inode differs (it was replaced)"
    if ctime_ns != old_ctime_ns:
        return "status change time differs"
    if links != old_links:
        return "number of links differs"
    return "its content is not in the repository any more"
