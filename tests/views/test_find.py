"""Finding, held against a walk through every snapshot of the model."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from respaldo.catalog.register import Register
from respaldo.core.errors import UsageError
from respaldo.core.model import Entry, Mark
from respaldo.fs.match import glob_regex
from respaldo.views.criteria import Criteria
from respaldo.views.find import Find
from tests.views.model import Chunks, File, Folder, Node, histories, put_folder, runs_of, walk


@contextmanager
def opened():
    """Gives a register of its own to each example."""
    with tempfile.TemporaryDirectory() as folder:
        register = Register(Path(folder) / "register")
        try:
            yield register
        finally:
            register.close()


def meaning(node: Node | Entry) -> tuple:
    """Returns what makes a version another one; of a directory not its time."""
    if isinstance(node, Entry):
        more = () if node.is_dir else (node.size, node.mtime_ns, node.target)
        return (node.mode, node.uid, node.xattrs, bool(node.link_group), node.user, *more)
    user = {0: "root", 1000: "ana"}[node.uid]
    if isinstance(node, Folder):
        return (stat.S_IFDIR | node.mode, node.uid, (), False, user)
    target = node.content if node.kind == stat.S_IFLNK else b""
    more = (len(node.content), node.mtime, target)
    return (node.kind | node.mode, node.uid, node.xattrs, bool(node.link), user, *more)


def expected(trees: list[Folder], fits=lambda *_: True) -> dict[tuple, int]:
    """Returns which snapshots hold which version of which path."""
    found: dict[tuple, int] = {}
    for number, tree in enumerate(trees):
        for path, node in walk(tree):
            if fits(path, node):
                content = node.content if isinstance(node, File) else b""
                key = (path, content, meaning(node))
                found[key] = found.get(key, 0) | 1 << number
    return found


def seen(chunks: Chunks, register: Register, trees: list[Folder], criteria: Criteria) -> tuple[dict[tuple, int], Find]:
    finding = Find(chunks, chunks, register, [put_folder(chunks, tree) for tree in trees], criteria)
    found: dict[tuple, int] = {}
    paths = []
    for version in finding.run():
        entry = version.entry
        assert version.brief == (entry.mode, entry.size, entry.mtime_ns)
        content = entry.target or b"".join(chunks.kept[chunk] for chunk in entry.content)
        key = (version.path, content, meaning(entry))
        assert key not in found
        found[key] = version.held
        paths.append((version.path.split(b"/"), version.first))
    assert paths == sorted(paths)
    return found, finding


@given(histories(), histories(3))
def test_find_all_is_what_a_walk_sees(trees, later):
    """Every version of every path is found, with the snapshots that hold it; nothing entered is read again."""
    chunks = Chunks()
    with opened() as register:
        assert seen(chunks, register, trees, Criteria())[0] == expected(trees)
        chunks.read.clear()
        found, again = seen(chunks, register, trees, Criteria())
        assert found == expected(trees)
        assert again.trees == 0
        assert chunks.read == []
        assert seen(chunks, register, [*later, *trees], Criteria())[0] == expected([*later, *trees])


@given(histories(4), st.sampled_from(["*.txt", "a", "[ab]", "?", "b/*", "/a/**", "/a/b", "**/b/*.txt", "a/", "\udcff"]))
def test_find_by_glob(trees, pattern):
    """A glob without a slash is for names, one with a slash for paths."""
    chunks = Chunks()
    bare = re.escape(pattern.rstrip("/")).replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*")
    bare = bare.replace(r"\*", "[^/]*").replace(r"\?", "[^/]").replace(r"\[ab\]", "[ab]")
    whole = re.compile(bare if pattern.startswith("/") else f"(?:.*/){bare}", re.DOTALL)

    def fits(path: bytes, node: Node) -> bool:
        return bool(whole.fullmatch(os.fsdecode(path))) and (isinstance(node, Folder) or not pattern.endswith("/"))

    with opened() as register:
        assert seen(chunks, register, trees, Criteria(pattern=pattern))[0] == expected(trees, fits)


@given(
    histories(4), st.sampled_from([b"/a", b"/a/b", b"/a/", b"/nowhere"]), st.sampled_from([r"\.txt$", "^[ab]$", "a/b"])
)
def test_find_by_regular_expression_below_a_path(trees, under, pattern):
    """A regular expression is searched for in names, with a slash in paths; --under leaves the rest aside."""
    chunks = Chunks()

    def fits(path: bytes, node: Node) -> bool:
        text = os.fsdecode(path if "/" in pattern else path.rpartition(b"/")[2])
        return bool(re.search(pattern, text)) and (path + b"/").startswith(under.rstrip(b"/") + b"/")

    with opened() as register:
        criteria = Criteria(pattern=pattern, regex=True, under=under)
        assert seen(chunks, register, trees, criteria)[0] == expected(trees, fits)


@given(histories(4))
def test_find_by_size_time_and_type(trees):
    """Sizes are of files; a time fits a version, of a directory the one that it had."""
    chunks = Chunks()
    with opened() as register:
        found = seen(chunks, register, trees, Criteria(size_min=1, size_max=3))[0]
        regular = expected(trees, lambda _, node: isinstance(node, File) and node.kind == stat.S_IFREG)
        assert found == {key: held for key, held in regular.items() if 1 <= key[2][5] <= 3}
        found = seen(chunks, register, trees, Criteria(newer_ns=2, types=frozenset({stat.S_IFLNK})))[0]
        assert found == expected(trees, lambda _, n: isinstance(n, File) and n.kind == stat.S_IFLNK and n.mtime >= 2)
        found = seen(chunks, register, trees, Criteria(older_ns=1, types=frozenset({stat.S_IFDIR})))[0]
        assert found == expected(trees, lambda _, node: isinstance(node, Folder) and node.mtime <= 1)


@given(histories(5), st.data())
def test_find_goes_on_past_what_is_gone(trees, data):
    """A tree that is gone hides what is below it and nothing else, by path; once it is back, all is found."""
    chunks = Chunks()
    folders = sorted({path for tree in trees for path, node in walk(tree) if isinstance(node, Folder)})
    if not folders:
        return
    top = data.draw(st.sampled_from(folders))
    for tree in trees:
        put_folder(chunks, tree)
    nodes = [dict(walk(tree)).get(top) for tree in trees]
    gone = {put_folder(Chunks(), node) for node in nodes if isinstance(node, Folder)}
    assume(all(gone.isdisjoint(runs_of(tree)) for tree in trees))  # a part of a long directory may be one, too
    taken = {chunk: chunks.kept.pop(chunk) for chunk in gone}

    def hidden(path: bytes, tree: Folder) -> bool:
        below = dict(walk(tree))
        above = [path[:at] for at in range(1, len(path)) if path[at : at + 1] == b"/"]
        return any(put_folder(Chunks(), below[one]) in gone for one in above)

    with opened() as register:
        for tree in trees:  # of one snapshot, so that paths can be told
            if put_folder(Chunks(), tree) in gone:
                continue
            finding = Find(chunks, chunks, register, [put_folder(Chunks(), tree)], Criteria())
            found = {version.path for version in finding.run()}
            there = {path: node for path, node in walk(tree) if not hidden(path, tree)}
            assert found == set(there)
            folders = {path: put_folder(Chunks(), node) for path, node in there.items() if isinstance(node, Folder)}
            assert {item.path for item in finding.unread} == {path for path, tree in folders.items() if tree in gone}
        chunks.kept |= taken
        assert seen(chunks, register, trees, Criteria())[0] == expected(trees)


def test_find_tells_what_a_repair_gave_up():
    """A directory that is marked as lost, and is, is told as that; one that is damaged as damage."""
    chunks = Chunks()
    lost, damaged = Folder({b"x": File()}, mark=Mark.LOST), Folder({b"y": File()})
    root = put_folder(chunks, Folder({b"lost": lost, b"damaged": damaged}))
    for folder in (lost, damaged):
        del chunks.kept[put_folder(Chunks(), folder)]
    with opened() as register:
        finding = Find(chunks, chunks, register, [root], Criteria(pattern="nothing"))
        assert list(finding.run()) == []
        assert [(item.path, item.lost, item.held) for item in finding.unread] == [
            (b"/damaged", False, 1),
            (b"/lost", True, 1),
        ]


def test_find_refuses_what_is_no_regular_expression():
    """It says so before anything is opened."""
    with pytest.raises(UsageError, match="no regular expression"):
        Criteria(pattern="(", regex=True)


@pytest.mark.parametrize("pattern", ["[[a]", "x/[[a]", "[[:digit:]]", "[a--b]", "[a&&b]", "[a||b]", "[a~~b]"])
def test_find_refuses_what_may_mean_two_things(pattern, recwarn):
    """What Python only warns of, and takes for something else than was meant, is told; globs mean one thing."""
    for _ in range(2):
        with pytest.raises(UsageError, match="may mean two things"):
            Criteria(pattern=pattern, regex=True)
    Criteria(pattern=pattern)
    assert not recwarn


def test_register_notices_what_rotted(tmp_path):
    """A byte that is another one in the register is damage of the cache, whichever it is."""
    chunks = Chunks()
    trees = [Folder({b"a": Folder({b"b": File(content=b"%d" % number)})}) for number in range(3)]
    register = Register(tmp_path / "register")
    seen(chunks, register, trees, Criteria())
    environment = register._environment
    for database in ("names", "bases", "shapes", "trees"):
        with environment.env.begin(write=True) as txn:
            cursor = txn.cursor(db=environment.dbs[database])
            held = [(bytes(key), bytes(value)) for key, value in cursor]
            for key, value in held:
                txn.put(key, value[:-1] + bytes([value[-1] ^ 1]), db=environment.dbs[database])
        register._end_read()
        with pytest.raises(lmdb.CorruptedError):
            seen(chunks, register, trees, Criteria())
        with environment.env.begin(write=True) as txn:
            for key, value in held:
                txn.put(key, value, db=environment.dbs[database])
        register._end_read()
    assert seen(chunks, register, trees, Criteria())[0] == expected(trees)
    register.close()


def test_register_forgets_snapshots_that_are_gone(tmp_path):
    """Where most of what is entered was found in snapshots that are gone, it is made anew; else it stays."""
    chunks = Chunks()
    trees = [Folder({b"a": File(content=b"%d" % number)}) for number in range(70)]
    roots = [put_folder(chunks, tree) for tree in trees]
    register = Register(tmp_path / "register")
    list(Find(chunks, chunks, register, roots, Criteria(), living=roots).run())
    list(Find(chunks, chunks, register, roots[:1], Criteria(), living=roots[:40]).run())
    assert register.has(bytes(roots[69][:16]))
    list(Find(chunks, chunks, register, roots[:1], Criteria(), living=roots[:4]).run())
    assert not register.has(bytes(roots[69][:16]))
    assert register.has(bytes(roots[0][:16]))
    register.close()


@given(
    st.lists(st.binary(min_size=1, max_size=4).filter(lambda name: not {0, 47} & set(name)), max_size=6, unique=True),
    st.sampled_from(["*.c", "a", "*a", "é", "*é", "*\udca9", "\udca9", "*.c/", "x/*a", "a*", "*a*", "?"]),
)
def test_names_that_are_joined_match_as_each_does(names, pattern):
    """A glob is held against all names of a directory at once: it says of each what it says of that one alone."""
    names = sorted({*names, "é".encode(), b"\xa9", b"a", b"aa", b".c", b"b.c", b"b.cc"})
    last = pattern.rstrip("/").rpartition("/")[2]
    one = re.compile(glob_regex(last))
    rows = Criteria(pattern=pattern).among(b"".join(name + b"\0" for name in names))
    fits = [one.fullmatch(name.decode("utf-8", "surrogateescape")) is not None for name in names]
    assert rows == [row for row, fit in enumerate(fits) if fit]
