"""Sources: from the paths that were named to one hierarchy that stands for ``/``.

Paths are made absolute without resolving links; a path inside another source adds nothing. Directories above a source
are recorded with their attributes and only what leads to the source.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from respaldo.core.errors import SourceError, UsageError
from respaldo.flows.backup.frame import Node


def normal_path(path: bytes, working_directory: bytes) -> bytes:
    """Returns a path as an absolute one without ``.``, ``..`` and double slashes."""
    if not path or b"\0" in path:
        raise UsageError("a source cannot be an empty path")
    joined = os.path.normpath(os.path.join(working_directory, path))
    return b"/" + joined.lstrip(b"/")


def hierarchy(sources: Sequence[bytes], recorded_as: bytes) -> tuple[Node, tuple[bytes, ...]]:
    """Returns the node of ``/`` and the sources as recorded, sorted.

    ``sources`` are absolute paths. Raises `SourceError` where one is not there, `UsageError` where ``recorded_as`` does
    not fit.
    """
    if not sources:
        raise UsageError("there is nothing to back up", hint="name at least one path")
    if recorded_as and (len(sources) != 1 or not recorded_as.startswith(b"/")):
        raise UsageError("--as records one source under one absolute path")
    named: dict[bytes, bytes] = {}
    for source in sources:
        if not source.startswith(b"/"):
            raise UsageError("a source is an absolute path here")
        actual = normal_path(source, b"/")
        try:
            os.lstat(actual)
        except OSError as error:
            raise SourceError(
                actual, error.strerror or str(error), hint="check the path; nothing was backed up"
            ) from None
        named[normal_path(recorded_as, b"/") if recorded_as else actual] = actual
    root = Node(recorded=b"/", actual=b"" if recorded_as else b"/")
    recorded = [path for path in sorted(named) if _add(root, path, named[path], virtual=bool(recorded_as))]
    root.nested = frozenset(named) - frozenset(recorded)
    return root, tuple(recorded)


def _add(root: Node, path: bytes, actual: bytes, *, virtual: bool) -> bool:
    """Hangs a source into the hierarchy; returns False where it lies inside another."""
    node = root
    if path == b"/":
        root.source = True
        root.actual = actual
        root.children.clear()
        return True
    parts = path[1:].split(b"/")
    for depth, part in enumerate(parts):
        if node.source:
            return False
        here = b"/" + b"/".join(parts[: depth + 1])
        child = node.children.get(part)
        if child is None:
            child = Node(recorded=here, actual=b"" if virtual else here)
            node.children[part] = child
        node = child
    if node.source:
        return False
    node.source = True
    node.actual = actual
    return True
