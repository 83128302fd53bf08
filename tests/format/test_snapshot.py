"""Records: fields that cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from respaldo.core.errors import Corruption
from respaldo.format import canonical, config, figures, snapshot
from tests.format.samples import CONDEMNATION, CONFIG, COUNTED, MANIFEST, MARKER, OUTCOME, REPAIRED


@pytest.mark.parametrize(
    "change",
    [
        {"session": b"x" * 15},
        {"root": b"x" * 31},
        {"root": b""},
        {"parent": b"x"},
        {"parent": b"x" * 32},
        {"rewrites": b"x"},
        {"rewrites": b"x" * 32},
        {"sources": (b"",)},
        {"sources": (b"home",)},
        {"sources": (b"/home/../etc",)},
        {"sources": (b"/./home",)},
        {"sources": (b"//home",)},
        {"sources": (b"/home/",)},
        {"sources": (b"/ho\0me",)},
        {"time_ns": 1 << 63},
        {"started_ns": (1 << 64) - 1},
        {"ended_ns": 1 << 63},
        {"uid": -1},
        {"uid": 1 << 32},
        {"host": "x" * (snapshot.TEXT_BYTES_MAX + 1)},
        {"host": "\xe9" * (snapshot.TEXT_BYTES_MAX // 2 + 1)},
        {"tags": ("x" * (snapshot.TEXT_BYTES_MAX + 1),)},
        {"tags": ("",) * (snapshot.ITEMS_MAX + 1)},
        {"failed": ((b"/x", "y"),) * (snapshot.ITEMS_MAX + 1)},
        {"figures": figures.Figures(files=-1)},
        {"changes": figures.Changes(removed=-1)},
        {"repairs": b"x" * 15},
        {"lost": b"x" * 31},
    ],
)
def test_impossible_manifests_are_refused(change):
    """No field says what a reader would stumble over."""
    with pytest.raises(Corruption):
        snapshot.parse_manifest(replace(MANIFEST, **change).encode(), "x")


def test_what_it_was_rewritten_from_is_kept():
    """A manifest says so only where it was: those of before have the same bytes."""
    fresh = replace(MANIFEST, rewrites=b"r" * 16)
    assert snapshot.parse_manifest(fresh.encode(), "x") == fresh
    assert b"rewrites" not in MANIFEST.encode()


def test_every_key_of_a_manifest_is_needed():
    """What is missing is not guessed."""
    value = canonical.unpack(MANIFEST.encode(), "x")
    for key in value:
        with pytest.raises(Corruption):
            snapshot.parse_manifest(canonical.pack({name: item for name, item in value.items() if name != key}), "x")


def test_keys_and_figures_that_are_new_are_passed_over():
    """A later version may say more."""
    value = canonical.unpack(MANIFEST.encode(), "x")
    value["zebra"] = [1, {"a": b""}]
    value["figures"]["stripes"] = 7
    del value["figures"]["errors"]
    assert snapshot.parse_manifest(canonical.pack(value), "x") == MANIFEST


def test_keys_that_few_have_may_be_missing():
    """A manifest from before they were thought of is whole, and says nothing of them; with them, it says all."""
    value = canonical.unpack(REPAIRED.encode(), "x")
    assert snapshot.parse_manifest(REPAIRED.encode(), "x") == REPAIRED
    for key in ("repairs", "mark", "lost", "changes"):
        del value[key]
    bare = snapshot.parse_manifest(canonical.pack(value), "x")
    assert (bare.repairs, bare.root_lost, bare.lost, bare.changes) == (b"", False, b"", None)
    assert bare == replace(REPAIRED, repairs=b"", root_lost=False, lost=b"", changes=None)


def test_nothing_changed_is_not_nobody_knows():
    """Three zeros are an answer, and no key is none."""
    assert snapshot.parse_manifest(COUNTED.encode(), "x").changes == figures.Changes()
    assert snapshot.parse_manifest(MANIFEST.encode(), "x").changes is None


@pytest.mark.parametrize("changes", [[], [1, 2], [1, 2, 3, 4], [1, 2, -1], ["1", 2, 3], 7, {"added": 1}])
def test_impossible_changes_are_refused(changes):
    """Three counts, or no key."""
    value = canonical.unpack(MANIFEST.encode(), "x")
    with pytest.raises(Corruption):
        snapshot.parse_manifest(canonical.pack(value | {"changes": changes}), "x")


@pytest.mark.parametrize(
    "value", [[1, "maybe", b"o" * 32], [1, "commit", b"o" * 31], [2, "commit", b"o" * 32], [1, "commit"]]
)
def test_outcome_is_commit_or_abort(value):
    """A verdict that is neither decides nothing."""
    with pytest.raises(Corruption):
        snapshot.parse_outcome(canonical.pack(value), "x")
    assert snapshot.parse_outcome(OUTCOME.encode(), "x") == OUTCOME


@pytest.mark.parametrize(
    "change",
    [
        {"chunker": (63, 64, 64, 0, 0)},
        {"chunker": (128, 64, 128, 0, 0)},
        {"chunker": (64, 128, 127, 0, 0)},
        {"chunker": (64, 64, 2 << 20, 0, 0)},
        {"chunker": (64, 64, 64, -1, 0)},
        {"chunker": (64, 64, 64, 0, -1)},
        {"chunker": (64, 64, 64, 0)},
        {"block_bytes": 16 << 20},
        {"block_bytes": 0},
        {"pack_bytes": 0},
        {"pack_bytes": 256 << 20},
        {"level": 23},
        {"level": -8},
    ],
)
def test_impossible_configurations_are_refused(change):
    """A configuration that would make chunks, blocks or packs that nobody reads never takes effect."""
    with pytest.raises(Corruption):
        config.parse_config(replace(CONFIG, **change).encode(), "x")


@pytest.mark.parametrize("time_ns", [1 << 63, (1 << 64) - 1])
def test_times_that_nobody_holds_are_refused(time_ns):
    """A time is i64 in every record."""
    with pytest.raises(Corruption):
        snapshot.parse_marker(replace(MARKER, time_ns=time_ns).encode(), "x")
    with pytest.raises(Corruption):
        snapshot.parse_condemnation(replace(CONDEMNATION, time_ns=time_ns).encode(), "x")
