"""Damage to packs: each part, by each kind of harm, with what is said about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from respaldo.backend.faults import Fault, Faults
from respaldo.backend.wrap import ReadOnly
from respaldo.catalog.sums import SumsKept
from respaldo.core.errors import StorageFailed
from respaldo.core.ids import Kind, PackName, pack_object, parse_hash_leaf
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.run import run_verify
from respaldo.format.pack import TRAILER_BYTES
from tests.flows.check.scenes import EVERYTHING, STRUCTURE, affected, flipped, footer_of, unreadable, verify
from tests.store.repositories import opened, sink

SUMS = VerifyOptions(read_data=True, checksums=True)
TAG = "its authentication tag does not fit its bytes"
SEAL = "its seal was not made for this key, place and length"


def data_packs(scene, cache):
    """The packs that snapshots need whose first block is data, the longest (which holds no trees) first."""
    names = [name for name in scene.names("packs") if name != pack_object(scene.idle)]
    names = [name for name in names if footer_of(scene.backend(), cache, name).blocks[0].kind == Kind.DATA]
    return sorted(names, key=lambda name: -len(scene.objects[name]))


def check(backend, tmp_path, options=EVERYTHING):
    """What a check says, after comparing it with what reading every file says."""
    result = verify(backend, tmp_path / "checked", options)
    if options is EVERYTHING:  # whoever computes checksums on the way looks at trees first, and must say the same
        with opened(ReadOnly(backend), tmp_path / "sums") as repo, SumsKept(repo) as known:
            other = run_verify(repo, SUMS, progress=Silent(), cancel=Cancel(), known=known)
        assert replace(other, checksums=0, checksums_left=0) == result
    with opened(backend, tmp_path / "read") as repo:
        truth = unreadable(repo)
    said = {(item.snapshot, item.path) for damage in result.damages for item in damage.affected}
    assert said == truth
    assert result.exit_status == (4 if result.damages else 0)
    return result


def test_sound_repository_has_no_damage(scene, tmp_path):
    """A sound repository passes, and what it holds is counted; nothing was written to it."""
    result = check(scene.backend(), tmp_path)
    assert (result.damages, result.notes, result.exit_status) == ((), (), 0)
    assert (result.snapshots, result.packs, result.packs_read, result.segments) == (2, 4, 4, 3)
    assert result.read_bytes == result.pack_bytes == sum(len(scene.objects[name]) for name in scene.names("packs"))
    assert result.trees == 8  # "/", "/source", "deep" changed between the snapshots; "deeper" and "small" did not
    structure = verify(scene.backend(), tmp_path / "structure", STRUCTURE)
    assert (structure.damages, structure.packs_read, structure.read_bytes) == ((), 0, 0)


@pytest.mark.parametrize("number", range(3))
def test_flipped_bit_in_each_block_names_its_files(scene, tmp_path, number):
    """A flipped bit in a block is found there, and the files that need one of its chunks are named, and no others."""
    name = [name for name in scene.names("packs") if name != pack_object(scene.idle)][number]
    footer = footer_of(scene.backend(), tmp_path / "cache", name)
    for block in {0, len(footer.blocks) // 2, len(footer.blocks) - 1}:
        backend = scene.backend()
        backend.damage(name, flipped(scene.objects[name], footer.offsets[block] + 60))
        [damage] = check(backend, tmp_path / str(block)).damages
        assert damage.name == name
        assert damage.reason.split("; ") == [
            "its bytes do not have its name",
            "its blocks do not have the hash in its footer",
            f"block {block + 1} of {len(footer.blocks)}: {TAG}",
        ]
        assert damage.needed
        assert damage.chunks_lost > 0
        assert damage.affected_count == len(damage.affected) > 0
        assert damage.consequence == f"{damage.affected_count} paths are affected"


def test_flipped_bit_in_a_commitment_is_found_before_decrypting(scene, tmp_path):
    """A block whose commitment differs from the footer's is not the block that the footer describes."""
    name = scene.names("packs")[0]
    backend = scene.backend()
    backend.damage(name, flipped(scene.objects[name], 30))
    [damage] = check(backend, tmp_path).damages
    assert "a block is not the one that the footer describes" in damage.reason


@pytest.mark.parametrize(("part", "reason"), [("footer", TAG), ("padding", TAG), ("trailer", TAG), ("salt", SEAL)])
def test_flipped_bit_at_a_packs_end_affects_no_file(scene, tmp_path, part, reason):
    """Footer, padding and trailer are damage, but with a segment that repeats the footer nothing is lost."""
    [name] = data_packs(scene, tmp_path / "cache")[:1]
    content = scene.objects[name]
    body = footer_of(scene.backend(), tmp_path / "cache", name).body_length
    at = {
        "footer": body + 100,
        "salt": body + 3,
        "padding": len(content) - TRAILER_BYTES - 50,
        "trailer": len(content) - 20,
    }[part]
    backend = scene.backend()
    backend.damage(name, flipped(content, at))
    [damage] = check(backend, tmp_path).damages
    what = "trailer" if part == "trailer" else "footer"
    assert (damage.name, damage.reason) == (name, f"its bytes do not have its name; its {what}: {reason}")
    assert (damage.needed, damage.affected, damage.chunks_lost) == (False, (), 0)
    assert damage.consequence == "nothing is lost: no snapshot needs what is damaged"
    assert verify(backend, tmp_path / "structure", STRUCTURE).damages == ()


@pytest.mark.parametrize("options", [STRUCTURE, EVERYTHING])
@pytest.mark.parametrize("length", [0, 1, 87, 88, 1000, -1])
def test_short_pack_is_found_by_its_size(scene, tmp_path, options, length):
    """A pack that is cut short, or emptied, is found without reading it, and its files are named."""
    [name] = data_packs(scene, tmp_path / "cache")[:1]
    backend = scene.backend()
    content = scene.objects[name][:length]
    backend.damage(name, content)
    [damage] = check(backend, tmp_path, options).damages
    assert damage.name == name
    assert damage.reason.startswith(
        f"it is {len(content)} bytes long, not {len(scene.objects[name])} as a segment says"
    )
    assert damage.chunks_lost > 0
    assert damage.affected


@pytest.mark.parametrize("options", [STRUCTURE, EVERYTHING])
def test_removed_pack_is_named_with_its_files(scene, tmp_path, options):
    """A pack that is gone is named by the segment that lists it, and its files by their trees."""
    for name in scene.names("packs"):
        backend = scene.backend()
        backend.delete(name)
        damages = check(backend, tmp_path / name[-8:], options).damages
        if name == pack_object(scene.idle):  # an old segment that speaks of a pack that was pruned says nothing
            assert damages == ()
            continue
        [damage] = damages
        assert damage.name == name
        assert damage.reason.startswith("it is gone, and segments/")
        assert damage.chunks_lost > 0


def test_swapped_packs_are_told_apart_by_their_names(scene, tmp_path):
    """Two packs that changed places are found out; all their chunks are still there, so nobody loses anything."""
    first, second = data_packs(scene, tmp_path / "cache")[:2]
    backend = scene.backend()
    backend.damage(first, scene.objects[second])
    backend.damage(second, scene.objects[first])
    result = check(backend, tmp_path)
    assert {damage.name for damage in result.damages} == {first, second}
    for damage in result.damages:
        assert f"it holds the bytes of {second if damage.name == first else first}" in damage.reason
        assert "bytes long, not" in damage.reason
        assert (damage.needed, damage.affected_count) == (False, 0)
    structure = verify(backend, tmp_path / "structure", STRUCTURE)
    assert {damage.name for damage in structure.damages} == {first, second}


def test_other_bytes_of_the_same_length_lose_every_chunk(scene, tmp_path):
    """A pack with bytes of nobody's under its name is found when it is read, block by block."""
    [name] = data_packs(scene, tmp_path / "cache")[:1]
    footer = footer_of(scene.backend(), tmp_path / "cache", name)
    backend = scene.backend()
    backend.damage(name, bytes(len(scene.objects[name])))
    [damage] = check(backend, tmp_path).damages
    assert damage.reason.startswith("its bytes do not have its name; its blocks do not have the hash in its footer; ")
    assert damage.reason.endswith(f"and {len(footer.blocks)} more")
    assert damage.chunks_lost == len(footer.lengths)


def test_pack_under_another_name_is_found(scene, tmp_path):
    """A pack served once more under a name of nobody's is damage, and nobody needs it."""
    name = scene.names("packs")[0]
    backend = scene.backend()
    backend.damage("packs/" + "ab" * 32, scene.objects[name])
    result = check(backend, tmp_path)
    [damage] = result.damages
    assert (damage.name, damage.reason) == ("packs/" + "ab" * 32, f"it holds the bytes of {name}")
    assert [str(note) for note in result.notes] == ["packs/" + "ab" * 32 + ": no segment lists it"]


def test_damage_in_a_pack_that_none_needs_says_so(scene, tmp_path):
    """A damaged block that no snapshot refers to is reported, as nobody's loss."""
    name = pack_object(scene.idle)
    backend = scene.backend()
    backend.damage(name, flipped(scene.objects[name], 200))
    [damage] = check(backend, tmp_path).damages
    assert (damage.name, damage.needed, damage.affected_count) == (name, False, 0)
    assert "no snapshot needs" in str(damage)


def test_damaged_chunks_with_a_sound_copy_are_not_lost(scene, tmp_path):
    """Chunks of a damaged block that another pack holds too are said to be spared, and no file is affected."""
    [name] = data_packs(scene, tmp_path / "cache")[:1]
    backend = scene.backend()
    with opened(backend, tmp_path / "writer") as repo:
        number = repo.index.number_of(PackName(parse_hash_leaf(name.partition("/")[2])))
        footer = footer_of(scene.backend(), tmp_path / "cache", name)
        raw = repo.source.block(number, 0)
        repo.index.usable.clear()  # so that nothing counts as known, and all is stored again
        writer = sink(repo)
        at = 0
        for length in footer.lengths[: footer.blocks[0].chunks]:
            writer.put(Kind.DATA, raw[at : at + length])
            at += length
        writer.flush()
        writer.close()
    backend.damage(name, flipped(scene.objects[name], 60))
    result = check(backend, tmp_path)
    [damage] = result.damages
    assert (damage.name, damage.affected, damage.chunks_lost) == (name, (), 0)
    assert damage.chunks_spared == footer.blocks[0].chunks
    assert damage.consequence.startswith("nothing is lost: every chunk")
    assert [note.text for note in result.notes] == ["no segment lists it"]


def test_unreadable_footer_in_no_segment_loses_its_chunks(scene, tmp_path):
    """With the segments gone as well, a pack whose footer does not open has lost what it held."""
    [name] = data_packs(scene, tmp_path / "cache")[:1]
    backend = scene.backend()
    for segment in scene.names("segments"):
        backend.delete(segment)
    backend.damage(name, flipped(scene.objects[name], -1))
    result = check(backend, tmp_path, STRUCTURE)
    assert [damage.name for damage in result.damages] == ["packs", name]
    assert result.damages[0].affected
    assert result.damages[0].chunks_lost > 0
    assert result.damages[1].reason == TAG
    assert len(result.notes) == 4


def test_tree_pack_damage_is_found_without_reading_data(scene, tmp_path):
    """A flipped bit in a block of trees is found by the walk alone, and affects everything below."""
    for name in scene.names("packs"):
        footer = footer_of(scene.backend(), tmp_path / "cache", name)
        trees = [number for number, block in enumerate(footer.blocks) if block.kind == Kind.TREE]
        if not trees:
            continue
        backend = scene.backend()
        backend.damage(name, flipped(scene.objects[name], footer.offsets[trees[0]] + 100))
        [damage] = check(backend, tmp_path / name[-8:], STRUCTURE).damages
        assert (damage.name, damage.reason) == (name, f"block {trees[0] + 1} of {len(footer.blocks)}: {TAG}")
        assert {item.path for item in damage.affected if item.below} == {item.path for item in damage.affected}


def test_bad_sector_costs_one_block(scene, tmp_path):
    """Storage that fails within a pack loses what cannot be read, and nothing else of the pack."""
    [name] = data_packs(scene, tmp_path / "cache")[:1]
    footer = footer_of(scene.backend(), tmp_path / "cache", name)
    bad = footer.offsets[1] + 10

    class Sector(Faults):
        def get(self, wanted, offset=0, length=None):
            end = offset + length if length is not None else len(scene.objects[wanted])
            if wanted == name and offset <= bad < end:
                raise StorageFailed(wanted, "Input/output error")
            return super().get(wanted, offset, length)

    with opened(Sector(scene.backend()), tmp_path / "cache2") as repo:
        result = run_verify(repo, EVERYTHING, progress=Silent(), cancel=Cancel())
    [damage] = result.damages
    assert damage.reason.split("; ") == [
        "it cannot be read (Input/output error)",
        f"block 2 of {len(footer.blocks)}: it cannot be read (Input/output error)",
    ]
    assert damage.chunks_lost == footer.blocks[1].chunks


def test_storage_that_fails_as_a_whole_ends_the_check(scene, tmp_path):
    """A disk that is pulled out is no damage: the check fails."""

    def gone(name):
        return StorageFailed(name, "no such device")

    backend = Faults(scene.backend())
    with opened(backend, tmp_path / "cache") as repo:
        backend.plan = (Fault(at=30, error=gone, times=10**9),)
        backend._seen = [0]
        with pytest.raises(StorageFailed):
            run_verify(repo, EVERYTHING, progress=Silent(), cancel=Cancel())


def test_pack_deleted_while_it_is_read_is_no_damage_where_none_needs_it(scene, tmp_path):
    """What a collector deletes under the check is gone, not damaged."""
    backend = scene.backend()
    name = pack_object(scene.idle)
    with opened(backend, tmp_path / "cache") as repo:
        synchronise = repo.synchronise

        def then_delete(*args, **kwargs):
            listing = synchronise(*args, **kwargs)
            if backend.exists(name) is not None:
                backend.delete(name)
            return listing

        repo.synchronise = then_delete
        assert run_verify(repo, EVERYTHING, progress=Silent(), cancel=Cancel()).damages == ()


def test_affected_is_bounded_and_counted(scene, tmp_path, monkeypatch):
    """Only the first paths are named; all are counted."""
    monkeypatch.setattr("respaldo.flows.check.findings.AFFECTED_KEPT", 2)
    counts = []
    for name in data_packs(scene, tmp_path / "cache"):
        backend = scene.backend()
        backend.delete(name)
        [damage] = verify(backend, tmp_path / name[-8:], STRUCTURE).damages
        assert len(damage.affected) == min(2, damage.affected_count)
        counts.append(damage.affected_count)
    assert max(counts) > 2


def test_snapshots_of_damage_are_told_apart(scene, tmp_path):
    """A file that only the first snapshot holds as it was concerns that one; what both share concerns both."""
    seen = set()
    for name in data_packs(scene, tmp_path / "cache"):
        backend = scene.backend()
        backend.delete(name)
        seen |= {frozenset(snapshot for snapshot, _ in affected(check(backend, tmp_path / name[-8:]), name))}
    assert seen == {frozenset({scene.first, scene.second}), frozenset({scene.second})}
