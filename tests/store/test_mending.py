from __future__ import annotations

import hashlib
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.backend.faults import Fault, Faults, lasting_failure
from respaldo.backend.memory import MemoryBackend
from respaldo.core.errors import Corruption, StorageFailed
from respaldo.format.parity import SECTOR_BYTES
from respaldo.store import mending
from respaldo.store.mending import Mending
from respaldo.store.parity import make_sidecar, sidecar_name
from tests.backend.contract import BackendContract
from tests.store.test_parity import RECORD, BadSectors, closed, kept, named, strike

SLOT = "keys/" + "1" * 16


class TestMending(BackendContract):
    """Without a share it only reads, and is a backend like any other."""

    @pytest.fixture
    def backend(self):
        return Mending(MemoryBackend())


def damaged(length: int = 300_000, struck=(0, 7, 40)) -> tuple[Mending, str, bytes]:
    """Returns a backend around a pack some sectors of which are damaged."""
    content = closed(length)
    name = named(content)
    inner = kept(name, content)
    strike(inner, name, [(number * SECTOR_BYTES, SECTOR_BYTES) for number in struck])
    return Mending(inner), name, content


def test_put_gives_parity_once_the_object_is_there():
    """The sidecar comes after the object, for whatever is put at once or as a stream; what has none gets none."""
    inner = Faults(MemoryBackend())
    backend = Mending(inner, 50)
    big, small = closed(100_000), closed(4096)
    with backend.stage("packs") as stage:
        stage.write(big[:50_001])
        stage.write(big[50_001:])
        stage.commit(named(big))
    backend.put(RECORD, [small[:10], memoryview(small)[10:]])
    backend.put("trash/" + "5" * 32, [small])
    puts = [name for verb, name in inner.calls if verb == "put"]
    assert puts == [named(big), sidecar_name(named(big)), RECORD, sidecar_name(RECORD), "trash/" + "5" * 32]
    assert inner.inner.get(sidecar_name(named(big))) == make_sidecar(named(big), big, 50)
    assert inner.inner.get(sidecar_name(RECORD)) == small
    assert backend.without == 0


def test_delete_takes_the_sidecar_first():
    """No copy of a key slot outlives it, wherever the deletion is cut off."""
    inner = Faults(MemoryBackend())
    backend = Mending(inner, 50)
    backend.put(SLOT, [closed(700)])
    backend.put(RECORD, [closed(4096)])
    backend.delete(SLOT)
    backend.discard([RECORD, "trash/00"])
    deleted = [name for verb, name in inner.calls if verb == "delete"]
    assert deleted == [sidecar_name(SLOT), SLOT, sidecar_name(RECORD), RECORD, "trash/00"]
    assert inner.inner.snapshot() == {}


def test_sidecar_that_cannot_be_put_fails_nothing():
    """The object is there all the same, and is counted as one without parity."""
    inner = Faults(MemoryBackend(), [Fault(at=2, verbs=frozenset({"put"}), error=lasting_failure)])
    backend = Mending(inner, 50)
    backend.put(RECORD, [closed(4096)])
    assert backend.without == 1
    assert set(inner.inner.snapshot()) == {RECORD}


def test_stale_sidecar_gives_way():
    """What is left of an object that bore the name before is not taken for this one's."""
    inner = MemoryBackend()
    inner.put("parity/header", [closed(93, 1)])
    Mending(inner, 50).put("header", [closed(93, 2)])
    assert inner.get("parity/header") == closed(93, 2)


def test_without_the_library_only_copies_are_made(monkeypatch):
    """A client that lacks the library works on, and counts what it leaves without parity."""
    monkeypatch.setitem(sys.modules, "reed_solomon_leopard", None)
    inner = MemoryBackend()
    backend = Mending(inner, 50)
    big = closed(100_000)
    with backend.stage("packs") as stage:
        stage.write(big)
        stage.commit(named(big))
    backend.put("segments/" + "0" * 64, [big])
    backend.put(RECORD, [closed(4096)])
    assert inner.list("parity") == [(sidecar_name(RECORD), 4096)]
    assert backend.without == 2
    strike(inner, named(big), [(0, 1)])
    assert not backend.mend(named(big))


@given(st.sets(st.integers(0, 73), max_size=4), st.integers(0, 310_000), st.integers(0, 310_000))
def test_get_reads_through_patches(struck, offset, length):
    """Any range of a mended object is what it was, and storage stays as it is."""
    backend, name, content = damaged(struck=struck)
    before = backend.inner.snapshot()
    assert backend.mend(name) == bool(struck)
    assert backend.get(name, offset, length) == content[offset : offset + length]
    assert backend.get(name, offset) == content[offset:]
    assert backend.inner.snapshot() == before
    assert bool(backend.mended) == bool(struck)


@pytest.mark.parametrize("length", [250_001, 299_999, 300_001, 350_000])
def test_mend_gives_an_object_its_length_back(length):
    """What was cut off or had something appended reads as it was."""
    content = closed(300_000)
    name = named(content)
    inner = kept(name, content, 200)
    inner.damage(name, content[:length].ljust(length, b"x"))
    backend = Mending(inner)
    assert backend.exists(name) == length
    assert backend.mend(name)
    assert backend.exists(name) == 300_000
    assert backend.get(name) == content
    assert f"it is {length} bytes long, not 300000" in backend.mended[name]


def test_get_never_asks_for_bad_sectors_again():
    """Sectors that cannot be read are taken from the patch, and what lies between them from storage."""
    content = closed(300_000)
    name = named(content)
    backend = Mending(BadSectors(kept(name, content), name, {0, 2, 73}))
    with pytest.raises(StorageFailed):
        backend.get(name)
    assert backend.mend(name)
    assert backend.get(name) == content
    assert backend.get(name, 4000, 9000) == content[4000:13_000]


def test_get_whole_mends_by_itself():
    """Small objects and segments are compared with their hash whenever they are read."""
    content = closed(4096)
    inner = kept(RECORD, content)
    strike(inner, RECORD, [(1000, 1)])
    backend = Mending(inner)
    assert backend.get_whole(RECORD, 1 << 20) == content
    assert set(backend.mended) == {RECORD}
    inner.damage(RECORD, bytes(5000))
    with pytest.raises(Corruption):
        Mending(inner).get_whole(sidecar_name(RECORD), 10)
    assert Mending(inner).get_whole(RECORD, 4096) == content


def test_mend_tries_in_vain_once():
    """What cannot be mended is read once, and neither is what is sound changed."""
    backend, name, content = damaged(struck=range(20))
    assert not backend.mend(name)
    backend.inner.damage(name, content)
    assert not backend.mend(name)
    assert not backend.mended


def test_patches_are_bounded(monkeypatch):
    """Of many damaged objects only the last ones are held; the others are mended again when they are read again."""
    monkeypatch.setattr(mending, "PATCHES_BYTES_MAX", 4 * SECTOR_BYTES)
    inner = MemoryBackend()
    contents = [closed(300_000, number) for number in range(4)]
    for content in contents:
        inner.put(named(content), [content])
        inner.put(sidecar_name(named(content)), [make_sidecar(named(content), content, 50)])
        strike(inner, named(content), [(0, 2 * SECTOR_BYTES)])
    backend = Mending(inner)
    for content in (*contents, *contents):
        assert backend.mend(named(content))
        assert backend.get(named(content)) == content
        assert sum(patch.patch_bytes for patch in backend._patches.values()) <= 4 * SECTOR_BYTES


def test_replace_ends_the_patch():
    """What was put right is read from storage again."""
    backend, name, content = damaged()
    assert backend.mend(name)
    backend.replace(name, [content])
    assert backend.inner.get(name) == content
    assert not backend._patches
    assert not backend.mend(name)


def test_bytes_as_they_come_are_hashed_for_what_has_no_hash_in_its_name():
    """A stage of records gives the sidecar that a put gives."""
    content = random.Random(5).randbytes(70_000)
    content += hashlib.sha256(content).digest()
    one, two = MemoryBackend(), MemoryBackend()
    Mending(one, 50).put(RECORD, [content])
    with Mending(two, 50).stage("pending") as stage:
        stage.write(content)
        stage.commit(RECORD)
    assert one.snapshot() == two.snapshot()
