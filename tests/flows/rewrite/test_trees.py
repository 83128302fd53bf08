"""A snapshot that is rewritten without something is the snapshot that never had it, id for id."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from respaldo.flows.rewrite.leaves import altered, joined
from respaldo.flows.rewrite.options import RewriteOptions, joined_rules
from respaldo.format.snapshot import Manifest
from respaldo.format.tree import META, Leaf, parse_tree
from respaldo.fs.match import Rules
from tests.flows.rewrite.world import World
from tests.protocol.scene import tree_of

NAMES = ["a", "b", "ab", "a.o", "b.log", "keep.log", "cache", "x y", "é", "[", "a\nb"]
names = st.sampled_from(NAMES)
trees = st.recursive(
    st.one_of(st.binary(max_size=40), st.just(None), st.integers(0, 3)),
    lambda inner: st.dictionaries(names, inner, max_size=8),
    max_leaves=25,
)
PATTERNS = [
    "a",
    "*.o",
    "*.log",
    "!keep.log",
    "a/",
    "/a",
    "cache/**",
    "**/b",
    "a/b",
    "/ab/*",
    "[[]",
    "?",
    "!a",
    "*",
    "b*/",
]
patterns = st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=4).map(tuple)


def write(path: Path, tree) -> None:
    """Writes a file, a link (of None), a second name of one of four files (of a number), or a directory."""
    if isinstance(tree, dict):
        path.mkdir()
        for name, inner in tree.items():
            write(path / name, inner)
        if len(tree) % 3 == 1:
            os.chown(path, 12, 34)
    elif tree is None:
        path.symlink_to("to/" + path.name)
    elif isinstance(tree, int):
        shared = path.parents[len(path.parts) - 2 - path.parts.index("source")] / f"linked{tree}"
        if not shared.exists():
            shared.write_bytes(b"linked" * (tree + 1))
        path.hardlink_to(shared)
    else:
        path.write_bytes(tree * 7)
        if len(tree) % 4 == 1:
            os.chown(path, 1 + len(tree), 0)
        if len(tree) % 5 == 1:
            os.setxattr(path, "user.note", tree)


root_only = pytest.mark.root
few = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@root_only
@pytest.mark.usefixtures("_short_runs")
@few
@given(tree=st.dictionaries(names, trees, max_size=12), exclude=patterns, larger=st.sampled_from([0, 0, 30]))
def test_rewritten_is_as_if_never_backed_up(quick, tree, exclude, larger):
    """The root, and every count, is that of a snapshot which was taken with the same patterns."""
    with tempfile.TemporaryDirectory(dir=quick) as folder:
        world = World(Path(folder))
        for name, inner in tree.items():
            write(world.source / name, inner)
        before = world.item(world.snapshot())
        direct = world.item(world.snapshot(exclude=exclude, exclude_larger_bytes=larger)).manifest
        (done,) = world.rewrite(before.id, exclude=exclude, exclude_larger_bytes=larger).items
        assert done.manifest is not None
        wanted = tree_of(world.repo, direct, world.source)
        assert tree_of(world.repo, done.manifest, world.source) == wanted
        for figure in ("files", "directories", "others", "length_bytes", "errors"):
            assert getattr(done.manifest.figures, figure) == getattr(direct.figures, figure), figure
        assert done.changed == (wanted != tree_of(world.repo, before.manifest, world.source))
        if done.changed:
            assert done.manifest.rules == direct.rules
        world.repo.close()


@given(old=patterns | st.just(()), new=patterns, path=st.lists(names, min_size=1, max_size=3), is_dir=st.booleans())
def test_rules_of_both_are_recorded(old, new, path, is_dir):
    """What is recorded as left out is what either left out; where both take something back, at least that."""
    joint = joined_rules(tuple(f"exclude={rule}" for rule in old), RewriteOptions(exclude=new))
    text = "/".join(path).encode()
    either = Rules(old).excluded(text, is_dir) or Rules(new).excluded(text, is_dir)
    both = Rules(rule.removeprefix("exclude=") for rule in joint).excluded(text, is_dir)
    if any(rule.startswith("!") for rule in old) and any(rule.startswith("!") for rule in new):
        assert both >= either
    else:
        assert both == either


def test_other_rules_stay():
    """Limits of size and the like are kept, and a new limit is added."""
    options = RewriteOptions(exclude=("*.o",), exclude_larger_bytes=5)
    joint = joined_rules(("exclude=*.a", "exclude-caches", "exclude-larger-than=9"), options)
    assert joint == ("exclude=*.a", "exclude=*.o", "exclude-caches", "exclude-larger-than=9", "exclude-larger-than=5")


def test_what_is_shared_is_gone_through_once(world, monkeypatch):
    """Of snapshots that have directories in common each is read once, and kept where nothing is left out of it."""
    for number in range(40):
        folder = world.source / f"d{number % 5}" / f"e{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{number}").write_bytes(random.Random(number).randbytes(300))
    made = []
    for number in range(4):
        (world.source / "d0" / "e0" / "f0").write_bytes(random.Random(100 + number).randbytes(200))
        made.append(world.snapshot())
    reads: list[bytes] = []
    get = world.repo.source.get

    def counted(kind, chunk_id):
        reads.append(chunk_id)
        return get(kind, chunk_id)

    monkeypatch.setattr(world.repo.source, "get", counted)
    done = world.rewrite(*made, exclude=("f1",)).items
    assert all(item.snapshot for item in done)
    assert len(reads) == len(set(reads))
    new, old = dict(_top(world, done[0].manifest)), dict(_top(world, done[0].before))
    assert {name for name in old if new[name] != old[name]} == {b"d1"}


def _top(world, manifest: Manifest):
    from respaldo.catalog.trees import TreeReader

    trees = TreeReader(world.repo.source)
    tree = manifest.root
    for part in os.fsencode(world.source).strip(b"/").split(b"/"):
        entry = trees.find(tree, part)
        assert entry is not None
        (tree,) = entry.content
    return [(entry.name, entry.content) for entry in trees.entries(tree)]


def test_sources_are_matched_each_by_itself(world):
    """Patterns are relative to each source; what lies above sources is never left out."""
    for name in ("one", "two"):
        (world.source / name / "deep").mkdir(parents=True)
        (world.source / name / "deep" / "file").write_text(name)
        (world.source / name / "file").write_text(name)
    before = world.snapshot(world.source / "one", world.source / "two")
    direct = world.snapshot(world.source / "one", world.source / "two", exclude=("/file", "one", "source"))
    assert world.rewritten(before, exclude=("/file", "one", "source")).manifest.root == world.item(direct).manifest.root


def test_a_source_that_is_a_file_is_never_left_out(world):
    """As in a backup: what was named is not excluded."""
    (world.source / "file").write_text("content")
    before = world.snapshot(world.source / "file")
    (done,) = world.rewrite(before, exclude=("file", "*")).items
    assert not done.changed
    assert done.snapshot is None


def leaf(count: int, rng: random.Random) -> Leaf:
    """Makes a directory with something special in most of its rows."""
    rows, content, targets, levels, links, xattrs, marks = [], b"", b"", {}, {}, {}, {}
    for row in range(count):
        mode = rng.choice((0o100644, 0o100600, 0o040755, 0o120777, 0o010644))
        size = rng.randrange(1, 100) if mode & 0o100000 else 0
        if mode == 0o120777:
            target = b"t%d" % row
            targets += target + b"\0"
            size = len(target)
        elif mode == 0o040755:
            content += rng.randbytes(32)
        elif mode & 0o170000 == 0o100000:
            chunks = rng.choice((1, 1, 3))
            content += rng.randbytes(32 * chunks)
            if chunks > 1:
                levels[row] = (0, chunks)
            if rng.random() < 0.3:
                links[row] = rng.randbytes(16)
        if rng.random() < 0.3:
            xattrs[row] = ((b"user.a", b"%d" % row),)
        if mode == 0o100600:
            marks[row] = 5
        rows.append(META.pack(mode, rng.randrange(3), rng.randrange(3), 0, size, row, 0))
    meta = b"".join(rows)
    uids = {item[1] for item in META.iter_unpack(meta)}
    return Leaf(
        names=b"".join(b"n%06d\0" % row for row in range(count)),
        meta=meta,
        content=content,
        targets=targets,
        levels=levels,
        links=links,
        xattrs=xattrs,
        marks=marks,
        users={uid: f"u{uid}" for uid in uids},
    )


@given(count=st.integers(0, 30), seed=st.integers(0, 1000), data=st.data())
def test_altered_leaves_hold_what_is_kept(count, seed, data):
    """What is left of a leaf are the entries that are kept, as they were, and no owner that is in none of them."""
    made = leaf(count, random.Random(seed))
    kept = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    left = altered(made, kept, {}, {})
    assert parse_tree(left.encode(), "leaf") == left
    assert list(left.entries()) == [entry for entry, keep in zip(made.entries(), kept, strict=True) if keep]
    assert set(left.users) == {entry.uid for entry in left.entries()}
    assert altered(made, None, {}, {}) is made


@given(seed=st.integers(0, 1000), counts=st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_runs_join_to_the_leaf_they_were(seed, counts):
    """Joining what was split gives every entry back."""
    whole = leaf(sum(counts), random.Random(seed))
    runs, at = [], 0
    for count in counts:
        kept = [at <= row < at + count for row in range(len(whole))]
        runs.append(altered(whole, kept, {}, {}))
        at += count
    assert joined(runs) == whole


def test_a_tree_may_be_deep(world):
    """Nothing recurses."""
    path = os.fsencode(world.source)
    fd = os.open(path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir(b"d", dir_fd=fd)
        below = os.open(b"d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    for name in (b"secret", b"other"):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    for _ in range(20):
        above = [path.stat().st_mtime_ns for path in world.source.parents]  # other tests change what they share
        before = world.snapshot()
        direct = world.snapshot(exclude=("secret",))
        if above == [path.stat().st_mtime_ns for path in world.source.parents]:
            break
    assert world.rewritten(before, exclude=("secret",)).manifest.root == world.item(direct).manifest.root
    subprocess.run(["rm", "-rf", world.source / "d"], check=True)  # which does not recurse either
