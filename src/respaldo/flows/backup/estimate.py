"""An estimate of how much there is, made beside the first backup of a source, so that progress can say what is left.

Counts by scans alone, on a thread of its own; opens nothing but directories, and gives up quietly. A figure for people:
no result depends on it.
"""

from __future__ import annotations

import os
import stat
import threading
from types import TracebackType
from typing import Self

from respaldo.flows.backup.frame import Node
from respaldo.flows.backup.options import BackupOptions
from respaldo.format.tree import META
from respaldo.fs.match import Rules
from respaldo.kernel import layout, scan
from respaldo.kernel.layout import IDENT

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Estimate:
    """Counts below a node while it is open; ``files`` and ``length_bytes`` may be read at any time."""

    def __init__(self, root: Node, options: BackupOptions) -> None:
        self._root = root
        self._options = options
        self._rules = Rules(options.exclude)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._count, name="estimate", daemon=True)
        self.files = 0
        self.length_bytes = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _count(self) -> None:
        nodes = [self._root]
        while nodes and not self._stop.is_set():
            node = nodes.pop()
            if not node.source:
                nodes += node.children.values()
                continue
            try:
                status = os.lstat(node.actual)
            except OSError:
                continue
            if stat.S_ISDIR(status.st_mode):
                self._below(node.actual)
            else:
                self.files += 1
                self.length_bytes += status.st_size if stat.S_ISREG(status.st_mode) else 0

    def _below(self, top: bytes) -> None:
        stack = [b""]
        while stack and not self._stop.is_set():
            relative = stack.pop()
            try:
                fd = os.open(os.path.join(top, relative) if relative else top, _FLAGS)
            except OSError:
                continue
            try:
                names, meta, ident = scan(fd, 0, 0)
            except OSError:
                continue
            finally:
                os.close(fd)
            stack += self._directories(relative, names.split(b"\0")[:-1], meta, ident)

    def _directories(self, relative: bytes, names: list[bytes], meta: bytes, ident: bytes) -> list[bytes]:
        rows = list(META.iter_unpack(meta))
        kept = self._rules.kept(relative, names, [stat.S_ISDIR(row[0]) for row in rows]) if self._rules else None
        largest = self._options.exclude_larger_bytes
        found: list[bytes] = []
        for number, (mode, _, _, _, size, _, _) in enumerate(rows):
            if kept is not None and not kept[number]:
                continue
            if stat.S_ISDIR(mode):
                flags = IDENT.unpack_from(ident, number * IDENT.size)[3]
                if not (self._options.one_file_system and flags & layout.ENTRY_MOUNT):
                    found.append(relative + b"/" + names[number] if relative else names[number])
            elif stat.S_ISREG(mode) and not (largest and size > largest):
                self.files += 1
                self.length_bytes += size
        return found
