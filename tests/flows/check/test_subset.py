"""Checks of a part: which packs they take, and that they go on where the last one stopped."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.core.errors import UsageError
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.check.options import Subset, VerifyOptions, parse_subset
from respaldo.flows.check.run import MEMORY, run_verify
from respaldo.flows.check.verified import Verified, choose
from tests.flows.check.scenes import flipped
from tests.store.repositories import opened

PACKS = {hashlib.sha256(bytes([number])).digest(): 1000 + number for number in range(100)}


@pytest.mark.parametrize(
    ("text", "subset"),
    [
        ("5%", Subset(share=0.05)),
        ("0.5%", Subset(share=0.005)),
        ("100%", Subset(share=1.0)),
        ("1/5", Subset(part=(1, 5))),
        ("7/7", Subset(part=(7, 7))),
        ("1GiB", Subset(length_bytes=1 << 30)),
        ("1.5MiB", Subset(length_bytes=3 << 19)),
        ("500MB", Subset(length_bytes=500_000_000)),
        ("2TB", Subset(length_bytes=2 * 10**12)),
        ("17B", Subset(length_bytes=17)),
        ("10m", Subset(duration_s=600)),
        ("90s", Subset(duration_s=90)),
        ("1.5h", Subset(duration_s=5400)),
    ],
)
def test_subset_is_understood(text, subset):
    """A share, a part, a size or a time."""
    assert parse_subset(text) == subset


@pytest.mark.parametrize(
    "text",
    ["", "5", "%", "0%", "101%", "0/5", "6/5", "1/0", "1/5/6", "-1/5", "0MiB", "1M", "1g", "10 m", "1e3MiB", "٣%"],
)
def test_subset_that_makes_no_sense_is_refused(text):
    """Anything else is refused, with what could be written; 1M could be minutes or bytes."""
    with pytest.raises(UsageError) as caught:
        parse_subset(text)
    assert caught.value.hint


def test_subset_is_one_thing():
    """Two limits at once, or none, are refused."""
    for fields in ({}, {"share": 0.5, "length_bytes": 7}, {"length_bytes": -1}, {"share": 1.5}):
        with pytest.raises(UsageError):
            Subset(**fields)
    assert VerifyOptions(subset=Subset(share=0.5)).reads_data


@given(st.text(max_size=12))
def test_subset_never_fails_otherwise(text):
    """Any text is a subset or a wrong use."""
    with contextlib.suppress(UsageError):
        parse_subset(text)


@pytest.mark.parametrize("parts", [1, 2, 7, 100])
def test_parts_are_all_of_it_once(parts):
    """The parts of a subset by number make up the whole, each pack in one of them."""
    taken = [name for number in range(parts) for name in choose(PACKS, {}, Subset(part=(number + 1, parts)))]
    assert sorted(taken) == sorted(PACKS)


@given(st.integers(1, 120_000), st.dictionaries(st.sampled_from(sorted(PACKS)), st.integers(0, 50), max_size=99))
def test_choice_begins_with_what_was_verified_longest_ago(limit, times):
    """Those never verified come first, then the oldest; so many as fit, and at least one."""
    chosen = choose(PACKS, times, Subset(length_bytes=limit))
    ages = [(name in times, times.get(name, 0), name) for name in chosen]
    rest = [(name in times, times.get(name, 0), name) for name in PACKS.keys() - set(chosen)]
    assert ages == sorted(ages)
    assert chosen
    assert not rest or max(ages) < min(rest)
    assert len(chosen) == 1 or sum(PACKS[name] for name in chosen) <= limit
    assert not rest or sum(PACKS[name] for name in chosen) + PACKS[min(rest)[2]] > limit


def run(backend, cache, subset, at=None):
    with opened(backend, cache) as repo:
        if at is not None:
            repo.clock.now = at
        return run_verify(repo, VerifyOptions(subset=subset), progress=Silent(), cancel=Cancel())


def remembered(backend, cache):
    with opened(backend, cache) as repo, Verified(repo.cache_dir / MEMORY) as memory:
        return memory.times()


def test_small_checks_go_on_until_all_was_read_and_begin_again(scene, tmp_path):
    """Four checks of one pack each read all four; the fifth takes the one that was read first."""
    backend = scene.backend()
    one = Subset(length_bytes=1)
    seen = []
    for at in range(1, 6):
        before = remembered(backend, tmp_path)
        assert run(backend, tmp_path, one, at).packs_read == 1
        [new] = [name for name, time in remembered(backend, tmp_path).items() if before.get(name) != time]
        seen.append(new)
    assert len(set(seen[:4])) == 4
    assert seen[4] == seen[0]


def test_share_takes_its_share(scene, tmp_path):
    """All is all; less is less."""
    assert run(scene.backend(), tmp_path / "1", Subset(share=1.0)).packs_read == 4
    assert run(scene.backend(), tmp_path / "2", Subset(share=0.01)).packs_read == 1


def test_time_that_is_up_ends_the_reading(scene, tmp_path):
    """A limit of time reads at least one pack, and none that begins too late."""
    with opened(scene.backend(), tmp_path) as repo:
        clock = repo.clock
        real = clock.monotonic_ns
        clock.monotonic_ns = lambda: setattr(clock, "now", clock.now + 10**9) or real()
        for seconds, packs in ((0.5, 1), (1.5, 2), (1000, 4)):
            result = run_verify(
                repo, VerifyOptions(subset=Subset(duration_s=seconds)), progress=Silent(), cancel=Cancel()
            )
            assert result.packs_read == packs


def test_damaged_pack_is_not_remembered_as_verified(scene, tmp_path):
    """A damaged pack comes first again next time, and packs that are gone are forgotten."""
    backend = scene.backend()
    run(backend, tmp_path, Subset(share=1.0))
    assert len(remembered(backend, tmp_path)) == 4
    bad, gone = scene.names("packs")[:2]
    backend.damage(bad, flipped(scene.objects[bad], 70))
    backend.delete(gone)
    run(backend, tmp_path, Subset(share=1.0))
    times = remembered(backend, tmp_path)
    assert {name.hex() for name in times} == {name[6:] for name in scene.names("packs")[2:]}
    again = run(backend, tmp_path, Subset(length_bytes=1))
    assert bad in {damage.name for damage in again.damages}
