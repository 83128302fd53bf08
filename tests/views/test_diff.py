"""Differences, held against a naive comparison of two trees of the model."""

from __future__ import annotations

import stat

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from respaldo.catalog.parted import parted
from respaldo.catalog.trees import TreeReader
from respaldo.core.model import Content, Entry, Mark
from respaldo.views.diff import Change, Verb, compare
from respaldo.views.sides import Snapshots
from tests.views.model import FILES, Chunks, File, Folder, Node, histories, leaf_of, put_folder, runs_of, walk


def root(chunks: Chunks, tree: Folder) -> Entry:
    return Entry(name=b"", mode=stat.S_IFDIR | 0o755, content=Content(ids=put_folder(chunks, tree)))


def compared(before: Folder, after: Folder) -> list[Change]:
    chunks = Chunks()
    return list(compare(Snapshots(TreeReader(chunks)), root(chunks, before), root(chunks, after)))


def kind(node: Node) -> int:
    return stat.S_IFDIR if isinstance(node, Folder) else node.kind


def fields(before: Node, after: Node) -> set[str]:
    """Returns what differs between two entries of one type."""
    found = {"mode"} if before.mode != after.mode else set()
    if before.uid != after.uid:
        found.add("owner")
    if isinstance(before, File) and isinstance(after, File):
        if before.mtime != after.mtime:
            found.add("mtime")
        if before.content != after.content:
            found.add("target" if before.kind == stat.S_IFLNK else "content")
        if before.xattrs != after.xattrs:
            found.add("xattrs")
        if bool(before.link) != bool(after.link):
            found.add("links")
    return found


def alike(before: Node, after: Node) -> bool:
    """Whether two entries have equal content, and something that could be told by it."""
    if kind(before) != kind(after):
        return False
    if isinstance(before, Folder):
        return put_folder(Chunks(), before) == put_folder(Chunks(), after)
    return before.kind == stat.S_IFREG and bool(before.content) and before.content == after.content


@given(histories(3))
def test_diff_is_what_two_walks_see(trees):
    """Everything that came, went or changed is told once, in the order of paths; renames have equal content."""
    before, after = trees[0], trees[-1]
    olds, news = dict(walk(before)), dict(walk(after))
    changes = compared(before, after)
    assert [change.path.split(b"/") for change in changes] == sorted(change.path.split(b"/") for change in changes)
    by_verb: dict[Verb, dict[bytes, Change]] = {verb: {} for verb in Verb}
    for change in changes:
        assert change.path not in by_verb[change.verb]
        by_verb[change.verb][change.path] = change
    here = {path for path in olds.keys() & news.keys() if kind(olds[path]) == kind(news[path])}
    for path in olds.keys() & news.keys():
        verb = {change.verb for change in changes if change.path == path}
        if path not in here:
            assert verb == {Verb.TYPE}
            continue
        differs = fields(olds[path], news[path])
        content = differs & {"content", "target"}
        assert verb == ({Verb.MODIFIED if content else Verb.METADATA} if differs else set())
        if differs:
            told = by_verb[verb.pop()][path]
            assert set(told.fields) == differs
    renamed = by_verb[Verb.RENAMED]
    moved_from = {change.was for change in renamed.values()}
    for path, change in renamed.items():
        assert path not in olds or kind(olds[path]) != kind(news[path])
        assert alike(olds[change.was], news[path])
        assert set(change.fields) == fields(olds[change.was], news[path])
    assert len(moved_from) == len(renamed)
    came = {path for path in news if path not in olds}
    went = {path for path in olds if path not in news}
    assert set(by_verb[Verb.ADDED]) | inside(renamed, news) == came | (inside(renamed, news) - came)
    assert set(by_verb[Verb.REMOVED]) | below(moved_from, olds) == went | (below(moved_from, olds) - went)
    assert set(by_verb[Verb.ADDED]).isdisjoint(inside(renamed, news))
    assert set(by_verb[Verb.REMOVED]).isdisjoint(below(moved_from, olds))
    for path, change in by_verb[Verb.ADDED].items():  # what could be a rename of something that went, is
        rest = [old for old in by_verb[Verb.REMOVED] if alike(olds[old], news[path])]
        assert not rest, (path, rest, change)


def inside(tops, nodes: dict[bytes, Node]) -> set[bytes]:
    return {path for path in nodes if any(path == top or path.startswith(top + b"/") for top in tops)}


below = inside


@given(histories(1))
def test_diff_of_a_tree_with_itself_is_nothing(trees):
    """Nothing differs, and nothing is read."""
    chunks = Chunks()
    top = root(chunks, trees[0])
    assert list(compare(Snapshots(TreeReader(chunks)), top, top)) == []
    assert chunks.read == []


@given(histories(3), FILES)
def test_diff_finds_a_file_that_was_moved(trees, file):
    """A file of its own content is told as renamed wherever it went to."""
    content = b"found nowhere else"
    moved = File(content=content, mode=file.mode, mtime=file.mtime)
    before = Folder({**trees[0].children, b"old": moved})
    after = Folder({**trees[-1].children, b"new": Folder({b"place": moved})})
    (change,) = [change for change in compared(before, after) if change.verb is Verb.RENAMED and change.was == b"/old"]
    assert change.path == b"/new/place"


@settings(suppress_health_check=[HealthCheck.filter_too_much])  # most histories share all their directories
@given(histories(3), st.data())
def test_diff_goes_on_past_what_is_gone(trees, data):
    """Of a directory that cannot be read on one side, nothing is said but that; all else is told as ever."""
    before, after = trees[0], trees[-1]
    olds, news = dict(walk(before)), dict(walk(after))
    both = [path for path in olds.keys() & news.keys() if isinstance(olds[path], Folder)]
    differ = [path for path in both if isinstance(news[path], Folder) and not alike(olds[path], news[path])]
    assume(differ)
    path = data.draw(st.sampled_from(sorted(differ)))
    gone = put_folder(Chunks(), data.draw(st.sampled_from([olds[path], news[path]])))
    others = [
        put_folder(Chunks(), node)
        for at, node in [*olds.items(), *news.items()]
        if isinstance(node, Folder) and at != path
    ]
    assume(gone not in others and gone not in runs_of(before) | runs_of(after))
    chunks = Chunks()
    tops = root(chunks, before), root(chunks, after)
    del chunks.kept[gone]
    sides = Snapshots(TreeReader(chunks))
    changes = list(compare(sides, *tops))
    assert list(sides.gaps) == [path]
    assert not sides.gaps[path].lost
    assert not [change for change in changes if change.path.startswith(path + b"/")]
    whole = {
        change.path for change in compared(before, after) if change.verb in {Verb.MODIFIED, Verb.METADATA, Verb.TYPE}
    }
    seen = {change.path for change in changes if change.verb in {Verb.MODIFIED, Verb.METADATA, Verb.TYPE}}
    assert seen == {one for one in whole if not one.startswith(path + b"/")}


def test_diff_goes_on_past_a_run_that_is_gone():
    """What stands in a part of a long directory that is gone has neither come nor gone."""
    chunks = Chunks()
    long = Folder({b"%d" % number: File() for number in range(8)})
    longer = Folder({**long.children, b"3": File(content=b"other")})
    tops = root(chunks, Folder({b"a": long})), root(chunks, Folder({b"a": longer}))
    (gone,) = runs_of(longer) - runs_of(long)
    del chunks.kept[gone]
    sides = Snapshots(TreeReader(chunks))
    assert list(compare(sides, *tops)) == []
    assert list(sides.gaps) == [b"/a"]


def test_diff_tells_what_a_repair_gave_up():
    """A directory that is marked as lost, and is, is told as that."""
    chunks = Chunks()
    lost = Folder({b"x": File()}, mark=Mark.LOST)
    tops = root(chunks, Folder({b"a": lost})), root(chunks, Folder({b"a": Folder({b"y": File()})}))
    del chunks.kept[put_folder(Chunks(), lost)]
    sides = Snapshots(TreeReader(chunks))
    assert [change.fields for change in compare(sides, *tops)] == [("mark",)]
    assert sides.gaps[b"/a"].lost


@given(histories(3))
def test_parted_leaves_hold_the_entries_that_differ(trees):
    """Of two versions of a directory, entries that are in both may be left out, and no others, on both sides."""
    folders = [[node for _, node in walk(tree) if isinstance(node, Folder)] for tree in (trees[0], trees[-1])]
    for one, other in zip(*folders, strict=False):
        leaves = [leaf_of(folder) for folder in (one, other)]
        wholes = [set(leaf.entries()) for leaf in leaves]
        parts = [set(leaf.entries()) for leaf in parted(*leaves)]
        assert parts[0] - parts[1] == wholes[0] - wholes[1]
        assert parts[1] - parts[0] == wholes[1] - wholes[0]
        assert parts[0] <= wholes[0]
        assert parts[1] <= wholes[1]


def test_parted_leaves_do_without_what_is_equal():
    """Where a file and a directory of many entries changed, those two are left."""
    many = {b"%d" % number: File(content=b"%d" % number) for number in range(50)}
    changed = {**many, b"7": File(content=b"other", mtime=2), b"d": Folder({b"x": File()})}
    one, other = leaf_of(Folder({**many, b"d": Folder()})), leaf_of(Folder(changed))
    assert [[entry.name for entry in leaf.entries()] for leaf in parted(one, other)] == [[b"7", b"d"]] * 2
