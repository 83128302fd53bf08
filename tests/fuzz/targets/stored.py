"""Targets: structures as a repository's storage holds them, and what lies around them."""

from __future__ import annotations

from collections.abc import Callable

from respaldo.core.errors import Corruption
from respaldo.format import content, header, tree
from respaldo.kernel.layout import META
from respaldo.views.columns import parse_columns
from tests.format import samples
from tests.fuzz.mutate import Form, Wrapping
from tests.fuzz.target import Target

MANY_FORMS = {"frame", "closing", "manifest"}
"""Frames and closed objects carry what is free to vary; a manifest may say more than this program knows."""
NO_VALUES = {"frame", "closing", "trailer", "node", "access", "line"}
CLOSED = Wrapping(off=lambda data: header.unclose_object(data, "x"), on=header.close_object)
_MAGIC = Wrapping(
    off=lambda data: data.removeprefix(header.MAGIC) if data.startswith(header.MAGIC) else None,
    on=lambda body: header.MAGIC + body,
)


def _behind(*wrappings: Wrapping) -> Wrapping:
    """Returns several wrappings as one, the outermost first."""

    def off(data: bytes) -> bytes | None:
        inner: bytes | None = data
        for wrapping in wrappings:
            inner = None if inner is None else wrapping.off(inner)
        return inner

    def on(data: bytes) -> bytes:
        for wrapping in reversed(wrappings):
            data = wrapping.on(data)
        return data

    return Wrapping(off=off, on=on)


AROUND = {"header": (_behind(CLOSED, _MAGIC), CLOSED), "closing": (CLOSED,)}


def _of_samples(name: str) -> Target:
    return Target(
        name=name.replace(" ", "-"),
        parse=samples.PARSERS[name],
        seeds=lambda: samples.CORPUS[name],
        refusals=samples.REFUSALS,
        again=None if name in MANY_FORMS else lambda value: samples.reencode(name, value),
        use=samples.drained,
        form=Form.BYTES if name in NO_VALUES else Form.VALUE,
        wrappings=AROUND.get(name, ()),
        modules=("respaldo.format", "respaldo.codec"),
    )


# --- trees, read in other ways ---------------------------------------------------------------------------------------


def _references(data: bytes) -> None:
    """Says what a tree refers to; of what is a tree, the same as its entries say."""
    found = tree.parse_references(data, "x")
    try:
        parsed = tree.parse_tree(data, "x")
    except Corruption:
        return
    if isinstance(parsed, tree.Branch):
        assert found.trees == b"".join(name for name, _ in parsed.runs)
        return
    parts = (found, found.lost) if found.lost else (found,)
    ids = sum(len(part.trees) + len(part.data) + sum(len(ids) for _, ids in part.lists) for part in parts if part)
    assert ids == len(parsed.content), "it refers to more or less than its content"


def _columns(data: bytes) -> None:
    """Lists a tree without an object for an entry; of what is a tree, the same as its entries say."""
    found = parse_columns(data, "x")
    if isinstance(found, tree.Branch):
        return
    rows = found.rows(0, len(found.names))
    for name, _, _, _ in rows:
        assert name not in {b"", b".", b".."}
        assert b"/" not in name
        assert b"\0" not in name
    _refusing(found.trees)
    _refusing(lambda: found.longest_owner)
    try:
        entries = found.entries
    except Corruption:
        return
    assert [entry.name for entry in entries] == found.names, "a listing shows other names"
    assert [entry.mode for entry in entries] == [
        META.unpack_from(found.meta, at * META.size)[0] for at in range(len(rows))
    ]


def _refusing(ask: Callable[[], object]) -> None:
    try:
        ask()
    except Corruption:
        return


def _node_ids(data: bytes) -> None:
    found = content.parse_node_ids(data, "x")
    try:
        rows = content.parse_node(data, "x")
    except Corruption:
        return
    assert found == b"".join(row.id for row in rows if row.id != content.HOLE)


TARGETS = [
    *map(_of_samples, sorted(samples.PARSERS)),
    Target(
        name="references",
        parse=_references,
        seeds=lambda: samples.CORPUS["tree"],
        form=Form.VALUE,
        modules=("respaldo.format.tree",),
    ),
    Target(
        name="columns",
        parse=_columns,
        seeds=lambda: samples.CORPUS["tree"],
        form=Form.VALUE,
        modules=("respaldo.format.leafcheck", "respaldo.views.columns"),
    ),
    Target(name="node-ids", parse=_node_ids, seeds=lambda: samples.CORPUS["node"]),
]
