from __future__ import annotations

import random
import stat

import pytest

from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.runs import put_tree
from respaldo.catalog.snapshots import decide, put_pending
from respaldo.catalog.trees import ListBuilder
from respaldo.core.errors import ChunkMissing
from respaldo.core.ids import ChunkId, Kind, SnapshotId
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.gc import mark as module
from respaldo.flows.gc.mark import Mark
from respaldo.format.snapshot import Manifest, Verdict
from respaldo.format.tree import META, Leaf
from tests.store.repositories import SESSION, initialise, opened, sink, store

CHUNKS = 3000


def take(repo, files) -> None:
    """Makes a snapshot of files that refer to chunks of one byte, each through a list."""
    into = sink(repo)
    levels, content, meta = {}, [], []
    for row, ids in enumerate(files):
        builder = ListBuilder(into)
        for chunk_id in ids:
            builder.add(chunk_id, 1)
        found = builder.finish()
        levels[row] = found.level, 1
        content.append(found.ids)
        meta.append(META.pack(stat.S_IFREG | 0o600, 0, 0, 0, builder.length, 0, 0))
    names = b"".join(b"%04d\0" % row for row in range(len(files)))
    root = put_tree(into, Leaf(names=names, meta=b"".join(meta), content=b"".join(content), levels=levels), bytes(32))
    into.flush()
    repo.put_segments(SESSION, into.unlisted)
    into.close()
    manifest = Manifest(
        session=SESSION,
        root=root,
        sources=(b"/",),
        time_ns=1,
        started_ns=1,
        ended_ns=1,
        host="host",
        user="user",
        uid=0,
    )
    snapshot = SnapshotId(b"%016d" % 1)
    decide(repo, snapshot, Verdict.COMMIT, put_pending(repo, snapshot, manifest))


def marked(repo) -> Mark:
    mark = Mark(repo, progress=Silent(), cancel=Cancel())
    mark.update()
    return mark


@pytest.fixture
def scattered(tmp_path):
    """A repository of small chunks in several packs, and their ids."""
    backend = MemoryBackend()
    initialise(backend)
    with opened(backend, tmp_path / "cache") as repo:
        ids: list[ChunkId] = []
        for part in range(3):
            chunks = [(Kind.DATA, b"%d" % number) for number in range(part * CHUNKS // 3, (part + 1) * CHUNKS // 3)]
            ids += store(repo, chunks)[0]
        yield repo, ids


@pytest.mark.parametrize("run", [1, 3, 20, CHUNKS])
@pytest.mark.parametrize("bulk", [70, 1 << 19])
def test_mark_notes_every_chunk_in_any_order(scattered, monkeypatch, run, bulk):
    """Whatever the order of references and the size of what is looked up at once: just what is needed is live."""
    repo, ids = scattered
    monkeypatch.setattr(module, "BULK_IDS_MAX", bulk)
    source = random.Random(run)
    firsts = list(range(0, CHUNKS, run))
    source.shuffle(firsts)
    order = [ids[number] for first in firsts for number in range(first, min(first + run, CHUNKS))]
    needed, others = order[: CHUNKS * 2 // 3], order[CHUNKS * 2 // 3 :]
    needed += source.choices(needed, k=200)
    take(repo, [needed[:900], needed[900:1000], needed[1000:]])
    repo.synchronise()
    mark = marked(repo)
    assert mark.references == len(needed)
    for chunk_id in set(needed):
        assert repo.index.find(chunk_id, usable_only=True) in mark.live
    for chunk_id in others:
        assert repo.index.find(chunk_id, usable_only=True) not in mark.live


def test_mark_takes_a_copy_that_is_condemned_only_where_there_is_no_other(scattered):
    """Of two copies the one in a usable pack is live, whichever was entered first; an only copy is live anyway."""
    repo, ids = scattered
    condemned = set(repo.index.usable)
    repo.index.usable = set()
    store(repo, [(Kind.DATA, b"%d" % number) for number in range(CHUNKS // 2)])
    order = random.Random(1).sample(ids, CHUNKS)
    take(repo, [order])
    repo.synchronise()
    mark = Mark(repo, progress=Silent(), cancel=Cancel())
    synchronise = repo.synchronise

    def with_condemned(*arguments, **options):
        listing = synchronise(*arguments, **options)
        repo.index.usable -= condemned
        return listing

    repo.synchronise = with_condemned  # type: ignore[method-assign]
    mark.update()
    for number, chunk_id in enumerate(ids):
        [live] = [copy for copy in repo.index.copies(chunk_id) if copy in mark.live]
        assert (live[0] in repo.index.usable) == (number < CHUNKS // 2)


def test_mark_of_what_is_not_there_is_an_error(scattered):
    """A chunk that a committed snapshot needs and no pack holds ends the run, however late it is looked up."""
    repo, ids = scattered
    order = random.Random(2).sample(ids, CHUNKS)
    take(repo, [[*order, ChunkId(b"?" * 32)]])
    with pytest.raises(ChunkMissing) as caught:
        marked(repo)
    assert caught.value.chunk_id == b"?" * 32
