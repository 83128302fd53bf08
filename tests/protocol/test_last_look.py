"""The writer's last look (W4), round by round: what one round found must hold in the next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from respaldo.catalog.runs import put_tree
from respaldo.catalog.session import ContentGoneError, Session
from respaldo.catalog.snapshots import load
from respaldo.core.ids import Kind, pack_object
from respaldo.core.seams import Silent
from respaldo.format.tree import META, Leaf
from respaldo.store.sweep import Sentence
from tests.protocol.scene import Kept, committed, copy_cache, memory_with, open_repository

pytestmark = pytest.mark.usefixtures("_inline")
CONTENT = b"what is relied on" * 9


def new_pack(writer, *chunks) -> int:
    """Puts chunks, whether they are known or not, into a pack of their own; returns its number."""
    index, usable = writer._repo.index, writer._repo.index.usable
    before = writer.sink.own_packs.copy()
    index.usable = set()
    for kind, raw in chunks:
        writer.sink.put(kind, raw)
    writer.sink.flush()
    (made,) = writer.sink.own_packs - before
    index.usable |= usable
    return made


@pytest.mark.parametrize("goes", [False, True])
def test_copy_that_one_round_found_is_looked_up_in_the_next(theatre, monkeypatch, goes):
    """A chunk may be known in a second pack when the first is condemned; the second may be gone a round later.

    Who took it did not see that the chunk is needed: it looked while the tree that says so was stored again.
    """
    storage = memory_with(theatre.objects)
    cache = copy_cache(theatre.folder / "cache0", theatre.folder / "last look")
    with open_repository(Kept(storage), cache) as repo, Session(repo, Silent()) as writer:
        writer.begin()
        manifest = load(repo).snapshots[-1].manifest
        first, second = (new_pack(writer, (Kind.DATA, CONTENT)) for _ in range(2))
        writer.sink.own_packs.clear()  # they are somebody else's
        chunk = writer.sink.name(Kind.DATA, CONTENT)
        writer.sink.relied.add(first, Kind.DATA, chunk)
        leaf = Leaf(names=b"file\0", meta=META.pack(0o100600, 0, 0, 0, len(CONTENT), 0, 0), content=chunk)
        tree = put_tree(writer.sink, leaf, b"")
        writer.sink.flush()
        (own,) = writer.sink.own_packs

        def condemn(*numbers: int) -> None:
            Sentence.pass_on(repo, bytes(16), [repo.index.pack(number).name for number in numbers])

        saves = []
        save = Session.save

        def save_and_take(this):
            save(this)
            saves.append(this)
            if len(saves) == 2 and goes:  # the first is before the manifest, the second between two rounds
                condemn(second)
                storage.delete(pack_object(repo.index.pack(second).name))
                condemn(first)
                storage.delete(pack_object(repo.index.pack(first).name))

        condemn(first, own)
        monkeypatch.setattr(Session, "save", save_and_take)
        before = committed(repo)
        if goes:
            with pytest.raises(ContentGoneError):
                writer.commit(replace(manifest, root=tree), set())
            assert committed(repo) == before
        else:
            made = writer.commit(replace(manifest, root=tree), set())
            assert committed(repo) == before | {made}
        assert len(saves) == 2
