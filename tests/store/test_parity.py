from __future__ import annotations

import hashlib
import random
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from respaldo.backend.memory import MemoryBackend
from respaldo.backend.wrap import Wrapper
from respaldo.core.errors import StorageFailed
from respaldo.format.parity import COPIED_BYTES_MAX, SECTOR_BYTES, shape_of
from respaldo.store.parity import (
    COVERED,
    Shards,
    is_sound,
    make_sidecar,
    mend,
    object_name,
    remake,
    sidecar_bytes,
    sidecar_name,
)

SHARE = 50
RECORD = "pending/" + "5" * 32
many = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def closed(length: int, seed: int = 0) -> bytes:
    """Returns an object that ends with its hash."""
    body = random.Random(seed).randbytes(length - 32)
    return body + hashlib.sha256(body).digest()


def named(data: bytes, folder: str = "packs") -> str:
    """Returns the name of an object that is named by its hash."""
    return f"{folder}/{hashlib.sha256(data).hexdigest()}"


def kept(name: str, data: bytes, share: int = SHARE) -> MemoryBackend:
    """Returns a storage with an object and its sidecar."""
    backend = MemoryBackend()
    backend.put(name, [data])
    backend.put(sidecar_name(name), [make_sidecar(name, data, share)])
    return backend


def strike(backend: MemoryBackend, name: str, ranges, seed: int = 1) -> None:
    """Overwrites ranges (from, length) of an object with other bytes."""
    data = bytearray(backend.get(name))
    source = random.Random(seed)
    for start, length in ranges:
        end = min(start + length, len(data))
        old = bytes(data[start:end])
        while end > start and data[start:end] == old:
            data[start:end] = source.randbytes(end - start)
    backend.damage(name, bytes(data))


@many
@given(st.integers(COPIED_BYTES_MAX + 1, 3 << 20), st.integers(1, 300), st.integers(0, 2**32), st.data())
def test_mend_any_pattern_up_to_the_share(length, share, seed, data):
    """Whichever sectors are damaged, up to the share of them, the object comes back bit by bit."""
    content = closed(length, seed)
    name = named(content)
    backend = kept(name, content, share)
    count = -(-length // SECTOR_BYTES)
    budget = max(1, count * share // 1000)
    struck = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=min(budget, 60)))
    struck |= set(random.Random(seed).sample(range(count), budget - len(struck))) if len(struck) < budget else set()
    strike(backend, name, [(number * SECTOR_BYTES, SECTOR_BYTES) for number in sorted(struck)[:budget]])
    assert mend(backend, name) == content


@many
@given(st.integers(COPIED_BYTES_MAX + 1, 1 << 20), st.integers(0, 2**32), st.data())
def test_mend_or_refuse_whatever_happens_to_both(length, seed, data):
    """Object and sidecar damaged anywhere, cut off or swapped: what comes back is the object, or nothing does."""
    content = closed(length, seed)
    name = data.draw(st.sampled_from([named(content), RECORD]))
    backend = kept(name, content)
    for target in (name, sidecar_name(name)):
        size = len(backend.get(target))
        spans = st.tuples(st.integers(0, size), st.integers(1, 3 * SECTOR_BYTES))
        strike(backend, target, data.draw(st.lists(spans, max_size=8)), seed)
        cut = data.draw(st.one_of(st.none(), st.integers(0, size)))
        if cut is not None:
            backend.damage(target, backend.get(target)[:cut])
        backend.damage(target, backend.get(target) + data.draw(st.sampled_from([b"", b"x", bytes(SECTOR_BYTES)])))
    assert mend(backend, name) in {content, None}


@many
@given(st.integers(0, 2**32), st.integers(17, 150), st.data())
def test_mend_any_pattern_in_both_together(seed, count, data):
    """Up to seven sectors of object and sidecar together, whichever they are, within the share: it comes back."""
    content = closed(count * SECTOR_BYTES, seed)
    name = named(content)
    backend = kept(name, content)
    shape = shape_of(len(content), bytes(32), SHARE)
    beside = -(-shape.sidecar_bytes // SECTOR_BYTES)
    budget = min(7, max(1, count * SHARE // 1000))
    struck = data.draw(st.sets(st.integers(0, count + beside - 1), min_size=1, max_size=budget))
    at = [number * SECTOR_BYTES for number in struck]
    strike(backend, name, [(start, SECTOR_BYTES) for start in at if start < len(content)])
    rest = [(start - len(content), SECTOR_BYTES) for start in at if start >= len(content)]
    strike(backend, sidecar_name(name), rest)
    assert mend(backend, name) == content


@pytest.mark.parametrize("ends", ["head", "tail"])
def test_mend_with_one_end_of_the_sidecar_gone(ends):
    """A run over either end of the sidecar leaves enough of the table at the other."""
    content = closed(4 << 20)
    name = named(content)
    backend = kept(name, content)
    shape = shape_of(len(content), bytes(32), SHARE)
    run = (shape.units_before + shape.recovery // 2) * SECTOR_BYTES
    strike(backend, sidecar_name(name), [(0 if ends == "head" else shape.sidecar_bytes - run, run)])
    strike(backend, name, [(number * 40 * SECTOR_BYTES, 1) for number in range(shape.recovery // 2 - 1)])
    assert mend(backend, name) == content


def test_mend_refuses_above_the_share():
    """One sector more than there are recovery shards cannot be mended, and nothing is."""
    content = closed(1 << 20)
    name = named(content)
    backend = kept(name, content)
    recovery = shape_of(len(content), bytes(32), SHARE).recovery
    strike(backend, name, [(number * SECTOR_BYTES, 1) for number in range(recovery)])
    assert mend(backend, name) == content
    strike(backend, name, [(recovery * SECTOR_BYTES, 1)])
    assert mend(backend, name) is None


@pytest.mark.parametrize("length", [32, 100, 4096, 4097, 12_000, COPIED_BYTES_MAX])
def test_mend_small_objects_by_their_copy(length):
    """A small object comes back whatever is left of it; or of its copy, as long as each sector is sound in one."""
    content = closed(length)
    backend = kept(RECORD, content)
    assert backend.get(sidecar_name(RECORD)) == content
    backend.damage(RECORD, b"")
    assert mend(backend, RECORD) == content
    backend.damage(RECORD, content)
    strike(backend, RECORD, [(0, SECTOR_BYTES)])
    if length > SECTOR_BYTES:
        strike(backend, sidecar_name(RECORD), [(SECTOR_BYTES, length)])
    assert mend(backend, RECORD) == content
    strike(backend, sidecar_name(RECORD), [(0, SECTOR_BYTES)], seed=2)
    assert mend(backend, RECORD) is None


class BadSectors(Wrapper):
    """Cannot read some sectors of one object."""

    def __init__(self, inner, name, bad) -> None:
        super().__init__(inner)
        self.name, self.bad = name, bad

    def get(self, name, offset=0, length=None):
        end = len(self.inner.get(name)) if length is None else offset + length
        if name == self.name and any(offset < (n + 1) * SECTOR_BYTES and n * SECTOR_BYTES < end for n in self.bad):
            raise StorageFailed(name, "Input/output error")
        return self.inner.get(name, offset, length)


@pytest.mark.parametrize("length", [5000, 2 << 20])
def test_mend_around_sectors_that_cannot_be_read(length):
    """A sector that the disk refuses is one that is damaged, and the others are read around it."""
    content = closed(length)
    backend = kept(RECORD, content)
    bad = {1} if length == 5000 else {0, 3, 4, 300, 511}
    assert mend(BadSectors(backend, RECORD, bad), RECORD) == content
    assert mend(BadSectors(backend, sidecar_name(RECORD), {0, 1}), RECORD) == content


def test_mend_does_not_bring_back_what_is_gone():
    """An object that is missing may have been deleted on purpose; the header never is."""
    content = closed(4096)
    for name in (RECORD, "keys/" + "1" * 16, "config/" + "1" * 16, named(content)):
        backend = kept(name, content)
        backend.delete(name)
        assert mend(backend, name) is None
    backend = kept("header", content)
    backend.delete("header")
    assert mend(backend, "header") == content


def test_mend_takes_no_sidecar_of_another_object():
    """A sidecar that belongs to another object gives nothing, even where it could give that object."""
    mine, other = closed(200_000, 1), closed(200_000, 2)
    backend = kept(named(mine), mine)
    backend.damage(sidecar_name(named(mine)), make_sidecar(named(other), other, SHARE))
    backend.damage(named(mine), other)
    assert mend(backend, named(mine)) is None
    strike(backend, named(mine), [(0, 1)])
    assert mend(backend, named(mine)) is None


def test_objects_of_several_sectors_a_shard():
    """An object above 128 MiB has longer shards, so that the code has room for it."""
    content = closed((128 << 20) + 5000)
    name = named(content)
    backend = kept(name, content, 1)
    shape = shape_of(len(content), bytes(32), 1)
    assert shape.shard_bytes == 2 * SECTOR_BYTES
    strike(backend, name, [(0, 2 * SECTOR_BYTES), (len(content) - 1, 1)])
    assert mend(backend, name) == content


@given(st.lists(st.binary(max_size=9000), max_size=6))
def test_shards_do_not_depend_on_how_bytes_come(pieces):
    """Pieces of any length make the sidecar that the whole makes."""
    shards = Shards()
    for piece in pieces:
        shards.add(piece)
    data = b"".join(pieces)
    digest = hashlib.sha256(data).digest()
    for name in (RECORD, named(data)) if data else ():
        whole = Shards()
        whole.add(data)
        parts = Shards()
        for piece in pieces:
            parts.add(piece)
        assert parts.sidecar(name, digest, SHARE) == whole.sidecar(name, digest, SHARE)


@pytest.mark.parametrize("length", [64, COPIED_BYTES_MAX, COPIED_BYTES_MAX + 1, 65536, 1 << 20])
def test_sidecar_has_the_length_that_is_foretold(length):
    """What is missing is found by comparing lengths alone."""
    content = closed(length)
    for name in (RECORD, named(content)):
        assert len(make_sidecar(name, content, SHARE)) == sidecar_bytes(name, length, SHARE)


def test_sidecar_ends_with_a_hash():
    """Whoever scrubs without a key can check a sidecar like any other object."""
    for length in (4096, 65536):
        content = closed(length)
        for name in (RECORD, named(content)):
            assert is_sound(sidecar_name(name), make_sidecar(name, content, SHARE))


def test_remake_gives_the_same_sidecar():
    """A damaged sidecar is made again from its object as it was; from another object, or without a trace, not."""
    content = closed(300_000)
    name = named(content)
    backend = kept(name, content, 120)
    sidecar = backend.get(sidecar_name(name))
    strike(backend, sidecar_name(name), [(0, 30_000)])
    damaged = backend.get(sidecar_name(name))
    assert remake(name, content, damaged) == sidecar
    assert remake(name, closed(300_000, 9), damaged) is None
    assert remake(name, content, bytes(len(damaged))) is None
    assert remake(RECORD, closed(5000), b"") == closed(5000)


def test_names_of_sidecars_lead_back():
    """Each object that has parity has one sidecar, whose name says whose it is; all others have none."""
    for folder in COVERED:
        assert object_name(sidecar_name(f"{folder}/0a.1")) == f"{folder}/0a.1"
    assert object_name(sidecar_name("header")) == "header"
    for name in ("pins/00", "trash/00", "sessions/00.1", "ballast/0", "parity/header", "lost+found/header", "log/1"):
        assert sidecar_name(name) is None
    for name in ("parity/packs", "parity/packs.", "parity/elsewhere.00", "parity/pins.00"):
        assert object_name(name) is None


@pytest.mark.parametrize("length", [1, 5000, 300_000, 320 << 20, (320 << 20) + 1, (1 << 64) - 1])
@pytest.mark.parametrize("recovery", [0, 1, 2, 32_767, 32_768, (1 << 32) - 1])
def test_forged_units_give_nothing(length, recovery):
    """Units that claim any length and number of shards, with hashes that fit, are refused or come to nothing."""
    content = closed(100_000)
    name = named(content)
    backend = kept(name, content)
    strike(backend, name, [(0, 1)])
    forged = b""
    for number in (0, 1, 2, 40, (1 << 32) - 1):
        body = struct.pack("<8sQ32sII8x", b"parity\n\x01", length, hashlib.sha256(content).digest(), recovery, number)
        body += bytes(3968)
        forged += body + hashlib.sha256(body).digest() + bytes(32)
    backend.damage(sidecar_name(name), forged)
    assert mend(backend, name) is None
