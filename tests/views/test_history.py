"""Histories of paths, held against what stands there in every snapshot of the model."""

from __future__ import annotations

import stat

from hypothesis import assume, given
from hypothesis import strategies as st

from respaldo.catalog.trees import TreeReader
from respaldo.core.model import Mark
from respaldo.views.criteria import Criteria
from respaldo.views.find import Find
from respaldo.views.history import history
from tests.views.model import Chunks, File, Folder, Node, find, histories, put_folder, runs_of, walk
from tests.views.test_find import meaning, opened


def states(trees: list[Folder], path: bytes) -> list[tuple]:
    """Returns (first, last, whether it is there) of the states of a path."""
    found: list[list] = []
    for number, tree in enumerate(trees):
        node = find(tree, path)
        held = None if node is None else (meaning(node), inside(node))
        if found and found[-1][2] == held:
            found[-1][1] = number
        else:
            found.append([number, number, held])
    return [(first, last, held is not None) for first, last, held in found]


def inside(node: Node) -> bytes:
    return put_folder(Chunks(), node) if isinstance(node, Folder) else node.content


@given(histories(), st.booleans(), st.data())
def test_history_is_what_a_walk_sees(trees, looked_through, data):
    """Each state of a path stands with its first and last snapshot, whether trees are read for it or known already."""
    chunks = Chunks()
    roots = [put_folder(chunks, tree) for tree in trees]
    paths = sorted({path for tree in trees for path, _ in walk(tree)} | {b"/a/b/c", b"/nothing"})
    path = data.draw(st.sampled_from(paths))
    with opened() as register:
        if looked_through:
            list(Find(chunks, chunks, register, roots[data.draw(st.integers(0, len(roots))) :], Criteria()).run())
        seen = list(history(register, TreeReader(chunks), roots, path))
    assert [(state.first, state.last, state.entry is not None) for state in seen] == states(trees, path)
    before: Node | None = None
    for state in seen:
        node = find(trees[state.last], path)
        if node is None or state.entry is None:
            assert node is state.entry
            before = None
            continue
        assert meaning(state.entry) == meaning(node)
        assert ("content" in state.fields) is (same_kind(before, node) and content(before) != content(node))
        assert ("mode" in state.fields) is (same_kind(before, node) and before.mode != node.mode)
        assert ("type" in state.fields) is (before is not None and not same_kind(before, node))
        assert ("entries" in state.fields) is (same_kind(before, node) and is_changed(before, node))
        before = node


def same_kind(before: Node | None, after: Node) -> bool:
    kinds = [stat.S_IFDIR if isinstance(node, Folder) else getattr(node, "kind", 0) for node in (before, after)]
    return kinds[0] == kinds[1]


def content(node: Node | None) -> bytes:
    return node.content if isinstance(node, File) and node.kind == stat.S_IFREG else b""


def is_changed(before: Node | None, after: Node) -> bool:
    return isinstance(before, Folder) and isinstance(after, Folder) and inside(before) != inside(after)


@given(histories(4), st.data())
def test_history_goes_on_past_what_is_gone(trees, data):
    """Snapshots in which a directory on the way is gone are told; in the others the path has its states."""
    chunks = Chunks()
    roots = [put_folder(chunks, tree) for tree in trees]
    paths = sorted({path for tree in trees for path, _ in walk(tree) if path.count(b"/") > 1})
    assume(paths)
    path = data.draw(st.sampled_from(paths))
    above = path.rpartition(b"/")[0]
    folders = [node for tree in trees if isinstance(node := find(tree, above), Folder)]
    gone = put_folder(Chunks(), data.draw(st.sampled_from(folders)))
    assume(all(gone not in runs_of(tree) for tree in trees) and gone not in roots)
    assume(not any(gone == put_folder(Chunks(), node) for node in on_the_way(trees, above)))
    del chunks.kept[gone]
    with opened() as register:
        seen = list(history(register, TreeReader(chunks), roots, path))
    for number, tree in enumerate(trees):
        (state,) = [state for state in seen if state.first <= number <= state.last]
        folder = find(tree, above)
        unread = isinstance(folder, Folder) and put_folder(Chunks(), folder) == gone
        assert bool(state.unread) is unread
        assert (state.entry is not None) is (not unread and find(tree, path) is not None)


def on_the_way(trees: list[Folder], path: bytes) -> list[Folder]:
    ways = [path[:at] for at in range(1, len(path)) if path[at : at + 1] == b"/"]
    nodes = [find(tree, way) for tree in trees for way in ways]
    return [node for node in nodes if isinstance(node, Folder)]


def test_history_tells_what_a_repair_gave_up():
    """Below a directory that is marked as lost, and is, a state is told as lost."""
    chunks = Chunks()
    lost = Folder({b"x": File()}, mark=Mark.LOST)
    roots = [put_folder(chunks, Folder({b"a": lost}))]
    del chunks.kept[put_folder(Chunks(), lost)]
    with opened() as register:
        (state,) = history(register, TreeReader(chunks), roots, b"/a/x")
    assert state.lost
    assert state.unread == "its content was lost to damage"


def test_history_in_an_empty_snapshot():
    """A directory without entries is entered as any other."""
    chunks = Chunks()
    roots = [put_folder(chunks, Folder())]
    with opened() as register:
        list(Find(chunks, chunks, register, roots, Criteria()).run())
        (state,) = history(register, TreeReader(chunks), roots, b"/a")
    assert state.entry is None
    assert not state.unread
