"""What a mount says of its entries: as `stat` has it, one by one, or a part of a directory in columns. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Attributes(NamedTuple):
    """Is what `stat` says of a node.

    ``size_on_disk`` None: it takes reading lists to know it; ``size`` -1: it takes reading trees.
    """

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    size_on_disk: int | None
    mtime_ns: int
    rdev: int


NAME_ALONE = Attributes(0, 0o40755, 1, 0, 0, -1, 0, 0, 0)
"""Of a directory of which nothing but its name can be told now."""


class Item(NamedTuple):
    """Is an entry of a directory. ``lasting``: it never changes."""

    name: bytes
    node: int
    attributes: Attributes
    lasting: bool


class Batch(NamedTuple):
    """Is a part of a directory of a snapshot in columns: names, `META` rows, the node of the first, the rest in order.

    ``odd``: attributes of those that `META` does not say enough of, by their place. ``last``: nothing follows.
    """

    names: list[bytes]
    meta: bytes | memoryview
    base: int
    odd: dict[int, Attributes]
    last: bool
