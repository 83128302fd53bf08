"""Stands for the kernel where a hostile repository is mounted: asks for all that is in the newest snapshot, in process.

The command is the product's, and so is every answer; only ``/dev/fuse`` is not there, so that it takes no right and
leaves nothing mounted. What is no error of the product's own ends the command with a trace, as anywhere.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import struct

from respaldo.api import mount
from respaldo.core.errors import RespaldoError
from respaldo.views import fuse_wire as wire
from respaldo.views.fuse_answers import Request, _Failed, errno_of
from respaldo.views.fuse_wire import Op
from respaldo.views.made import ROOT
from tests.hostile.ground import KEPT

ENTRIES_MAX = 400
WAYS_MAX, WAYS_DEEP = 20, 2
READ_BYTES = 1 << 16
BUFFER_BYTES = 1 << 20
FAR = (1 << 40, (1 << 63) - READ_BYTES)
"""Where else a file that is longer is read."""


class Kernel:
    """Asks in the place of the kernel; a context manager, as `respaldo.views.fuse.Session` is."""

    def __init__(self, answers, *_more) -> None:
        self._answers = answers
        self._tree = answers._tree
        self.found: dict[str, object] = {}

    def __enter__(self):
        self._ask(Op.INIT, 0, struct.pack("<IIII", 7, 38, 1 << 16, 0) + bytes(48))
        return self

    def __exit__(self, *_error) -> None:
        pass

    def wait(self, cancel) -> None:
        """Goes through all ways into snapshots, then ``latest/source``, as far as a bound; prints what is there."""
        self._ways(ROOT, 0)
        node = ROOT
        for name in (b"latest", b"source"):
            node = self._node(node, name)
        if isinstance(node, str):
            self.found["."] = node
        else:
            waiting = [(node, "")]
            while waiting and len(self.found) < ENTRIES_MAX:
                cancel.check()
                waiting += self._directory(*waiting.pop(0))
        print(json.dumps(self.found))

    def _ask(self, op, node, body=b""):
        """Returns the bytes of an answer, or the name of the error number that it is instead."""
        try:
            answer = self._answers.answer(Request(op, 1, node, body))
        except (RespaldoError, _Failed) as error:
            return errno.errorcode[errno_of(error)]
        return answer if isinstance(answer, bytes) else b"".join(map(bytes, answer))

    def _ways(self, node, depth):
        """Looks at what is made up: its first entries, and theirs, as a file manager does; reads of each file there."""
        for op in (Op.READDIR, Op.READDIRPLUS):
            self._ask(op, node, wire.READ_IN.pack(0, 0, BUFFER_BYTES))
        try:
            items = self._tree.listing(node, 0, WAYS_MAX)
        except RespaldoError:
            return
        for item in items:
            if isinstance(self._node(node, item.name), str):
                continue  # the kernel asks no more of it
            answer = self._ask(Op.GETATTR, item.node)
            kind = stat.S_IFMT(item.attributes.mode)
            if kind == stat.S_IFDIR and depth < WAYS_DEEP:
                self._ways(item.node, depth + 1)
            elif kind == stat.S_IFREG and not isinstance(answer, str):
                self._file(item.node, wire.ATTRIBUTES_OUT.unpack_from(answer)[4])

    def _node(self, node, name):
        if isinstance(node, str):
            return node
        answer = self._ask(Op.LOOKUP, node, name + b"\0")
        if isinstance(answer, str):
            return answer
        return struct.unpack_from("<Q", answer)[0] or "ENOENT"

    def _directory(self, node, path):
        """Notes what is in a directory; returns the directories below it."""
        for op in (Op.READDIR, Op.READDIRPLUS):
            answer = self._ask(op, node, wire.READ_IN.pack(0, 0, BUFFER_BYTES))
        if isinstance(answer, str):
            self.found[path or "."] = f"directory {answer}"
            return []
        below = []
        for item in self._tree.listing(node, 0, ENTRIES_MAX):
            where = f"{path}/{os.fsdecode(item.name)}".lstrip("/")
            again = self._node(node, item.name)
            if again != item.node:  # of two of one name
                where += " beside another"
            self._ask(Op.GETATTR, item.node)
            self._ask(Op.LISTXATTR, item.node, wire.XATTR_IN.pack(1 << 16, 0))
            kind = stat.S_IFMT(item.attributes.mode)
            if kind == stat.S_IFDIR:
                self.found[where] = "directory"
                below.append((item.node, where))
            elif kind == stat.S_IFLNK:
                self.found[where] = ["link", self._text(self._ask(Op.READLINK, item.node))]
            elif kind == stat.S_IFREG:
                self.found[where] = self._file(item.node, item.attributes.size)
            else:
                self.found[where] = "special"
        return below

    def _file(self, node, size):
        opened = self._ask(Op.OPEN, node, bytes(wire.OPEN_IN.size))
        if isinstance(opened, str):
            return opened
        handle = struct.unpack_from("<Q", opened)[0]
        places = [0, *(at for at in FAR if at < size), max(0, size - READ_BYTES)]
        read = {self._text(self._ask(Op.READ, node, wire.READ_IN.pack(handle, at, READ_BYTES))) for at in places}
        self._ask(Op.LSEEK, node, wire.LSEEK_IN.pack(handle, 0, os.SEEK_HOLE))
        self._ask(Op.RELEASE, node, wire.RELEASE_IN.pack(handle))
        if size > READ_BYTES:
            return ["long", size, sorted(text for text in read if text in errno.errorcode.values())]
        return ["file", *sorted(read)]

    def _text(self, answer):
        return answer if isinstance(answer, str) else answer.decode("latin-1")


def shown(seen) -> object:
    """Returns how what is below the target of a restore is to look in a mount."""
    if isinstance(seen, bytes):
        if len(seen) > READ_BYTES:
            return ["long", len(seen), []]
        return ["file", seen.decode("latin-1")]
    return ["link", os.fsencode(seen[1]).decode("latin-1")] if isinstance(seen, tuple) else seen


def wrong(scenario, ended) -> dict[str, object]:
    """Returns what a mount showed that a restore does not bring back, and the other way round.

    What a restore leaves out is an error where it is read; a directory that it makes of one that cannot be read, too.
    """
    lines = ended.out.decode().splitlines()
    if ended.status:
        return {"printed": lines} if any(line.startswith("{") for line in lines) else {}
    found = json.loads(lines[-1])
    if found == {".": "EIO"}:
        return {} if scenario.statuses.get("ls") == 4 else found
    expected = {name: shown(seen) for name, seen in (scenario.there or KEPT).items()} | dict(scenario.mounted)
    failed = scenario.statuses.get("restore", 0)
    bad = {
        name: (seen, found.get(name))
        for name, seen in expected.items()
        if found.get(name) != seen and not (failed and (seen, found.get(name)) == ("directory", "directory EIO"))
    }
    if scenario.there:
        bad |= {name: (None, seen) for name, seen in found.items() if name not in expected and "EIO" not in str(seen)}
    return bad


def without_kernel() -> None:
    """Has the command ``mount`` be asked here, in this process and what comes of it by a fork."""
    mount.Session = Kernel
