"""From members to a spool: what is taken over of each, under which name, and what is wrong with the others."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace

from respaldo.core.model import Mark
from respaldo.core.seams import Progress
from respaldo.flows.importing.content import Contents
from respaldo.flows.importing.fields import FieldError, acl
from respaldo.flows.importing.members import EndedError, Member, Members
from respaldo.flows.importing.spool import Inode, Spool
from respaldo.format.leafcheck import NAME_BYTES_MAX
from respaldo.format.tree import META
from respaldo.fs.meta import Names, Xattrs

_DEPTH_MAX = 2048
_OWNERS_MAX = 1 << 16
_ID_END = 1 << 32
_XATTR_NAME_MAX = 255
_MAJOR_END, _MINOR_END = 1 << 12, 1 << 20


class Taker:
    """Takes members over. One thread. ``base_of`` says which names lead to what members are relative to."""

    def __init__(
        self,
        spool: Spool,
        contents: Contents,
        base_of: Callable[[], tuple[bytes, ...]],
        fail: Callable[[bytes, str], None],
        progress: Progress,
    ) -> None:
        self._spool = spool
        self._contents = contents
        self._base_of = base_of
        self._base: tuple[bytes, ...] | None = None
        self._fail = fail
        self._progress = progress
        self._names = Names()
        self._uids: dict[bytes, int] = {}
        self._gids: dict[bytes, int] = {}
        self._absolute = False
        self.users: dict[int, str] = {}
        self.groups: dict[int, str] = {}
        self.members = 0
        self.times_ns: int | None = None
        """The newest time that counts."""
        self.before_ns = 0

    def take(self, members: Members) -> None:
        """Takes all members over, each before the next is read."""
        for member in members:
            self._progress.at(member.name)
            path = self._path(member.name)
            if member.wrong or path is None:
                self._fail(member.name, f"left out: {member.wrong or 'its name is none that a file can have here'}")
                continue
            self.members += 1
            try:
                self._member(members, member, path)
            except FieldError as error:
                self._fail(member.name, f"left out: {error}")
            for replaced in self._spool.replaced:
                self._fail(replaced, "it was replaced by a directory: other members lie below its name")
            self._spool.replaced.clear()

    def _path(self, name: bytes) -> list[bytes] | None:
        """Returns the names that a member's name leads over, None where it may lead elsewhere."""
        if name.startswith(b"/") and not self._absolute:
            self._absolute = True
            self._progress.note(0, "the archive holds absolute names: they are taken as relative")
        parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
        if not name or b"\0" in name or b".." in parts or len(parts) > _DEPTH_MAX:
            return None
        if any(len(part) > NAME_BYTES_MAX for part in parts):
            return None
        if self._base is None:  # known once the first member is there: an export says it before
            self._base = self._base_of()
        return [*self._base, *parts]

    def _member(self, members: Members, member: Member, path: list[bytes]) -> None:
        self._owners(member)
        if member.link:
            self._link(members, member, path)
            return
        self._note_time(member.mtime_ns)
        if stat.S_ISDIR(member.mode):
            if path:
                self._spool.put_directory(path, self._inode(member))
            return
        if not path:
            raise FieldError("what it is relative to is a directory")
        inode = self._inode(member)  # what is wrong is found before content is stored for it
        if stat.S_ISREG(member.mode):
            try:
                content = self._contents.store(members, member)
            except EndedError:
                self._spool.put(path, replace(inode, mark=Mark.UNREADABLE))
                self._fail(member.name, "its content is cut off, and was left out")
                raise
            inode = replace(inode, level=content.level, ids=content.ids)
        self._spool.put(path, inode)
        self._progress.advance(files=1)

    def _link(self, members: Members, member: Member, path: list[bytes]) -> None:
        target = self._path(member.target)
        if target is None or not path:
            raise FieldError("it is a hard link to a name that no file can have here")
        why = self._spool.link(path, target)
        if not why:
            self._progress.advance(files=1)
            return
        if not member.stored and not members.left:
            raise FieldError(why)
        # Its content comes with it: the name that it links to was left out of the archive.
        member.link, member.size = False, members.left
        content = self._contents.store(members, member)
        self._spool.put(path, replace(self._inode(member), level=content.level, ids=content.ids))

    def _note_time(self, mtime_ns: int) -> None:
        if self.before_ns and mtime_ns > self.before_ns:
            return
        self.times_ns = mtime_ns if self.times_ns is None else max(self.times_ns, mtime_ns)

    def _owners(self, member: Member) -> None:
        for names, ids, number, name in (
            (self.users, self._uids, member.uid, member.user),
            (self.groups, self._gids, member.gid, member.group),
        ):
            if not 0 <= number < _ID_END:
                raise FieldError("its owner is impossible")
            if name and len(names) < _OWNERS_MAX and len(ids) < _OWNERS_MAX:
                names[number] = name.decode("utf-8", "surrogateescape")
                ids[name] = number

    def _uid(self, name: bytes) -> int | None:
        return self._uids[name] if name in self._uids else self._names.uid(name.decode("utf-8", "surrogateescape"))

    def _gid(self, name: bytes) -> int | None:
        return self._gids[name] if name in self._gids else self._names.gid(name.decode("utf-8", "surrogateescape"))

    def _inode(self, member: Member) -> Inode:
        """Returns what a member is, without its content."""
        size = member.size
        if stat.S_ISLNK(member.mode):
            size = len(member.target)
            if not size or b"\0" in member.target:
                raise FieldError("it leads nowhere")
        elif stat.S_ISCHR(member.mode) or stat.S_ISBLK(member.mode):
            major, minor = member.rdev >> 32, member.rdev & 0xFFFF_FFFF
            if not (0 <= major < _MAJOR_END and 0 <= minor < _MINOR_END):
                raise FieldError("its device number is impossible")
            size = member.rdev
        elif not stat.S_ISREG(member.mode):
            size = 0
        return Inode(
            meta=META.pack(
                member.mode,
                member.uid,
                member.gid,
                member.attributes,
                size,
                member.mtime_ns,
                member.btime_ns,
            ),
            target=member.target if stat.S_ISLNK(member.mode) else b"",
            xattrs=self._xattrs(member),
            mark=_mark(member),
        )

    def _xattrs(self, member: Member) -> Xattrs:
        found: dict[bytes, bytes] = {}
        for name, value in member.xattrs:
            if not 0 < len(name) <= _XATTR_NAME_MAX or b"\0" in name:
                self._fail(member.name, "an extended attribute of it has an impossible name, and was left out")
            else:
                found[name] = value
        for name, value in member.acls:
            try:
                packed = acl(value, self._uid, self._gid)
            except FieldError as error:
                self._fail(member.name, f"{error}; it was left out")
                continue
            if packed:
                found[name] = packed
        return tuple(sorted(found.items()))


def _mark(member: Member) -> int:
    """Returns the mark that an archive of ours says, where it says something about what the member is."""
    if stat.S_ISDIR(member.mode):
        return 0 if member.mark == Mark.CHANGED else member.mark
    return member.mark if stat.S_ISREG(member.mode) and member.mark == Mark.CHANGED else 0
