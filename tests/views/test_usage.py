"""What takes the space below a directory adds up to what a snapshot costs."""

from __future__ import annotations

import os
import random

import pytest

from respaldo.api.costing import Costing, previous
from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.snapshots import load
from respaldo.catalog.trees import TreeReader
from respaldo.core.seams import Cancel, Silent
from tests.protocol.scene import OPTIONS, Kept, back_up, make_repository, open_repository, snapshot_of


@pytest.fixture
def world(tmp_path):
    """A source with shared content, a list, links and a long directory; and its repository."""
    source = tmp_path / "s"
    rng = random.Random(1)
    for name in ("a", "b", "b/c"):
        (source / name).mkdir(parents=True)
        for number in range(5):
            (source / name / f"f{number}").write_bytes(rng.randbytes(rng.randrange(1, 3000)))
    (source / "b" / "same").write_bytes((source / "a" / "f1").read_bytes())
    (source / "long").write_bytes(rng.randbytes(60_000))
    (source / "link").symlink_to("nowhere")
    (source / "hole").touch()
    os.truncate(source / "hole", 100_000)
    backend = MemoryBackend()
    make_repository(backend)
    with open_repository(Kept(backend), tmp_path / "cache") as repo:
        yield repo, source


def costing(repo) -> Costing:
    return Costing(repo, TreeReader(repo.source), progress=Silent(), cancel=Cancel())


def used(repo, snapshot, *names: bytes) -> dict:
    """Returns what is in a directory, by name."""
    item = next(item for item in load(repo).snapshots if item.id == snapshot)
    tree = item.manifest.root
    for name in names:
        (tree,) = TreeReader(repo.source).find(tree, name).content
    return {item.entry.name: item for item in costing(repo).usage(snapshot).entries(tree)}


def below(source) -> tuple[bytes, ...]:
    return tuple(os.fsencode(source).strip(b"/").split(b"/"))


def test_entries_add_up_to_the_snapshot(world):
    """At the root: all that is stored, but for the root's own tree; and all of it is unique while it is alone."""
    repo, source = world
    snapshot = snapshot_of(back_up(repo, source))
    cost = costing(repo).costs().snapshots[snapshot]
    (top,) = used(repo, snapshot).values()
    root = next(item.manifest.root for item in load(repo).snapshots if item.id == snapshot)
    number, row = repo.index.find(root, usable_only=True)
    usage = costing(repo).usage(snapshot)
    sums = usage._sums_of(number)
    assert top.stored_bytes + sums[row + 1] - sums[row] == cost.stored_bytes
    assert top.unique_bytes == top.stored_bytes
    assert top.size_bytes == sum(
        path.stat().st_size for path in source.rglob("*") if path.is_file() and not path.is_symlink()
    )
    assert top.files == sum(path.is_file() and not path.is_symlink() for path in source.rglob("*"))


def test_shared_content_counts_where_it_is_met_first(world):
    """A second name of the same content takes nothing; alone in view, it takes what it takes."""
    repo, source = world
    snapshot = snapshot_of(back_up(repo, source))
    whole = used(repo, snapshot, *below(source))
    assert set(whole) == {b"a", b"b", b"hole", b"link", b"long"}
    inside = used(repo, snapshot, *below(source), b"b")
    first = used(repo, snapshot, *below(source), b"a")[b"f1"]
    assert inside[b"same"].stored_bytes == first.stored_bytes > 0
    (source / "a" / "z").write_bytes((source / "a" / "f1").read_bytes())
    again = snapshot_of(back_up(repo, source))
    assert used(repo, again, *below(source), b"a")[b"z"].stored_bytes == 0
    assert whole[b"link"].size_bytes == whole[b"link"].stored_bytes == 0
    assert whole[b"hole"].size_bytes == 100_000 > whole[b"hole"].stored_bytes


def test_unique_is_what_no_other_snapshot_holds(world):
    """Of two snapshots, what is new in the second; forgetting it frees that much."""
    repo, source = world
    back_up(repo, source)
    (source / "b" / "c" / "new").write_bytes(random.Random(9).randbytes(5000))
    second = snapshot_of(back_up(repo, source))
    found = used(repo, second, *below(source))
    assert found[b"a"].unique_bytes == found[b"long"].unique_bytes == 0
    assert 5000 <= found[b"b"].unique_bytes < found[b"b"].stored_bytes
    top = used(repo, second)
    (entry,) = top.values()
    frees = costing(repo).costs().snapshots[second].frees_bytes
    assert 0 < frees - entry.unique_bytes < 500  # the root's own tree


def test_what_is_missing_is_marked(world):
    """What can be found is counted, and what cannot is said."""
    repo, source = world
    snapshot = snapshot_of(back_up(repo, source))
    item = next(item for item in load(repo).snapshots if item.id == snapshot)
    tree = item.manifest.root
    for name in (*below(source), b"b"):
        (tree,) = TreeReader(repo.source).find(tree, name).content
    usage = costing(repo).usage(snapshot)
    find_run = repo.index.find_run
    victims = next(entry for entry in TreeReader(repo.source).entries(tree) if entry.name == b"f1").content.ids
    usage._index = type("Index", (), {
        "find": repo.index.find,
        "entry": repo.index.entry,
        "find_run": staticmethod(
            lambda ids, at, **more: None if ids[at : at + 32] == victims[:32] else find_run(ids, at, **more)
        ),
    })()  # fmt: skip
    found = {item.entry.name: item for item in usage.entries(tree)}
    assert found[b"f1"].missing
    assert not found[b"f2"].missing


def test_the_one_before_is_of_the_same_machine_and_sources(world, tmp_path):
    """Others in between are passed over."""
    from dataclasses import replace

    repo, source = world
    first = snapshot_of(back_up(repo, source))
    back_up(repo, source, options=replace(OPTIONS, host="other"))
    back_up(repo, source / "a")
    last = snapshot_of(back_up(repo, source))
    items = load(repo).snapshots
    by_id = {item.id: item for item in items}
    assert previous(items, by_id[last]).id == first
    assert previous(items, by_id[first]) is None
