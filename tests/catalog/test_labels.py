"""Labels: the next version, and what snapshots are called that bear the same one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.catalog import labels
from respaldo.catalog.labels import Bump, Version, following, is_reserved, next_label, shown_labels, version_of
from respaldo.catalog.snapshots import Catalogue, Snapshot
from respaldo.core.errors import NoSuchSnapshot, UsageError
from respaldo.core.ids import SnapshotId
from tests.format.samples import MANIFEST

NOON_NS = int(datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()) * 10**9
WHEN = "20261125_120000"
HERE = {"host": "granja", "sources": (b"/home",)}


def snapshot(number, label, *, time_ns=0, host="granja", sources=(b"/home",), **fields):
    manifest = replace(MANIFEST, label=label, host=host, sources=sources, time_ns=time_ns, **fields)
    identity = number if isinstance(number, bytes) else bytes([number]) * 16
    return Snapshot(id=SnapshotId(identity), encoded=manifest.encode(), time_ns=time_ns, started_ns=0)


def following_label(snapshots, bump=Bump.PATCH, *, zone=UTC, time_ns=NOON_NS, **of):
    return next_label(snapshots, **(HERE | of), bump=bump, time_ns=time_ns, zone=zone)


# --- the next one ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bump", "label"), [(Bump.PATCH, "v0.0.1"), (Bump.MINOR, "v0.1.0"), (Bump.MAJOR, "v1.0.0")])
def test_first_label(bump, label):
    """The first version of a source follows 0.0.0."""
    assert following_label([], bump) == f"{label}-{WHEN}"


@pytest.mark.parametrize(("bump", "label"), [(Bump.PATCH, "v2.10.4"), (Bump.MINOR, "v2.11.0"), (Bump.MAJOR, "v3.0.0")])
def test_next_label_follows_the_highest(bump, label):
    """By its numbers, not by time or by letters; other labels, sources and hosts do not count."""
    there = [
        snapshot(1, "v2.10.3-20260101_000000", time_ns=5),
        snapshot(2, "v2.9.7-20260102_000000", time_ns=6),
        snapshot(3, "v7.0.0-20260101_000000", host="other"),
        snapshot(4, "v8.0.0-20260101_000000", sources=(b"/home", b"/srv")),
        snapshot(5, "v9.0.0", tags=("v9.0.0-20260101_000000",), reason="v10.0.0-20260101_000000"),
        snapshot(6, "before v9.0.0-20260101_000000"),
        snapshot(7, "v09.0.0-20260101_000000"),
        snapshot(8, "v9.0.1234567890-20260101_000000"),
        snapshot(9, "v٩.0.0-20260101_000000"),
    ]
    assert following_label(there, bump) == f"{label}-{WHEN}"


def test_label_holds_the_time_where_it_is_made():
    """In the zone of the client; the hour that comes twice has two versions."""
    zone = ZoneInfo("Europe/Madrid")
    moment = int(datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp()) * 10**9
    first = following_label([], zone=zone, time_ns=moment)
    again = following_label([snapshot(1, first)], zone=zone, time_ns=moment + 3600 * 10**9)
    assert (first, again) == ("v0.0.1-20261025_023000", "v0.0.2-20261025_023000")
    assert following_label([], time_ns=-1) == "v0.0.1-19691231_235959"


def test_label_that_is_seen_is_not_given_again():
    """Two sources in the same second: the second one steps over the first one's."""
    there = [snapshot(1, f"v0.0.1-{WHEN}", sources=(b"/srv",)), snapshot(2, f"v0.0.2-{WHEN}", host="other")]
    assert following_label(there) == f"v0.0.3-{WHEN}"
    assert following_label([], sources=(b"/srv",)) == f"v0.0.1-{WHEN}"


@given(
    st.lists(st.tuples(*[st.sampled_from([0, 1, 9, 10, labels.NUMBER_MAX])] * 3), max_size=6),
    st.sampled_from(Bump),
)
def test_next_version_is_higher_than_all_and_readable(versions, bump):
    """Whatever is there, the label says a version above it; only after the last one is there none."""
    there = [
        snapshot(number, f"v{version[0]}.{version[1]}.{version[2]}-20260101_000000", time_ns=number)
        for number, version in enumerate(versions, 1)
    ]
    highest = Version(*max(versions, default=(0, 0, 0)))
    last = labels.NUMBER_MAX
    if (
        highest.major == last
        and (bump is Bump.MAJOR or highest.minor == last)
        and (bump is not Bump.PATCH or highest.patch == last)
    ):
        with pytest.raises(UsageError):
            following_label(there, bump)
        return
    found = version_of(following_label(there, bump))
    assert found is not None and found > highest
    assert found == following(highest, bump)


@given(st.text(max_size=40) | st.from_regex(labels._LABEL, fullmatch=True))
def test_versions_are_read_as_they_are_written(text):
    """A text is a label with a version exactly where writing it again gives the same text."""
    version = version_of(text)
    if version is not None:
        numbers, _, when = text.partition("-")
        assert numbers == f"v{version.major}.{version.minor}.{version.patch}"
        assert len(when) == 15 and when.isascii()
        assert is_reserved(text) and is_reserved(text + "+0a") and not is_reserved(text + "+") and version.minor >= 0


# --- several that bear the same --------------------------------------------------------------------------------------


@dataclass
class Pair:
    """Has two snapshots with one label, as two clients made them that saw nothing of one another, and another."""

    label: str = f"v0.0.1-{WHEN}"

    def __post_init__(self):
        self.one = snapshot(bytes.fromhex("aaaaaaaa" * 4), self.label, time_ns=1)
        self.other = snapshot(bytes.fromhex("aaaaaaab" * 4), self.label, time_ns=1)
        self.later = snapshot(3, f"v0.0.2-{WHEN}", time_ns=2)

    def catalogue(self, *snapshots, trash=()):
        return Catalogue(snapshots=snapshots, undecided=(), damaged=(), trash=trash)


def test_labels_that_several_bear_are_shown_with_ids():
    """All of them, in whatever order they are seen; others are shown as they are."""
    pair = Pair()
    there = (pair.one, pair.other, pair.later)
    expected = {
        pair.one.id: f"{pair.label}+aaaaaaaa",
        pair.other.id: f"{pair.label}+aaaaaaab",
        pair.later.id: pair.later.manifest.label,
    }
    assert shown_labels(there, there) == expected
    assert shown_labels(there[::-1], there[::-1]) == expected
    assert shown_labels([pair.one], [pair.one, pair.later]) == {pair.one.id: pair.label}


def test_ids_are_whole_where_their_beginnings_are_equal():
    """Eight digits are not always enough."""
    twins = [snapshot(bytes.fromhex("aaaaaaaa" + digit * 24), f"v0.0.1-{WHEN}") for digit in "bc"]
    assert set(shown_labels(twins, twins).values()) == {f"v0.0.1-{WHEN}+aaaaaaaa{digit * 24}" for digit in "bc"}
    catalogue = Pair().catalogue(*twins)
    with pytest.raises(NoSuchSnapshot):
        catalogue.find(f"v0.0.1-{WHEN}+aaaaaaaa")
    for item, label in shown_labels(twins, twins).items():
        assert catalogue.find(label).id == item


def test_label_that_several_bear_means_none():
    """And says what to write instead; a label with an id means one, also where it is the only one left."""
    pair = Pair()
    both = pair.catalogue(pair.one, pair.other, pair.later)
    with pytest.raises(NoSuchSnapshot) as caught:
        both.find(pair.label)
    assert caught.value.several
    assert caught.value.hint == f"name one of: {pair.label}+aaaaaaab, {pair.label}+aaaaaaaa"
    assert both.find(f"{pair.label}+aaaaaaaa") is pair.one
    assert both.find(f"{pair.label}+aaaaaaab") is pair.other
    assert both.find(pair.later.manifest.label) is pair.later
    alone = pair.catalogue(pair.one, pair.later)
    assert alone.find(pair.label) is alone.find(f"{pair.label}+aaaaaaaa") is alone.find(f"{pair.label}+a") is pair.one
    for name in (f"{pair.label}+aaaaaaab", f"{pair.label}+", f"{pair.label}+x", f"{pair.label}+{'a' * 33}"):
        with pytest.raises(NoSuchSnapshot):
            alone.find(name)


def test_label_of_one_in_the_trash_is_still_its_own():
    """What a label means does not depend on which of two was forgotten last week and may come back."""
    pair = Pair()
    catalogue = pair.catalogue(pair.one, pair.later, trash=(pair.other,))
    with pytest.raises(NoSuchSnapshot):
        catalogue.find(pair.label)
    assert catalogue.find(f"{pair.label}+aaaaaaaa") is pair.one
    with pytest.raises(NoSuchSnapshot):
        catalogue.find(f"{pair.label}+aaaaaaab")
    with pytest.raises(NoSuchSnapshot):
        pair.catalogue(pair.later, trash=(pair.other,)).find(pair.label)


def test_words_that_many_bear_mean_the_newest():
    """A label that a person gives again and again is a name for the newest."""
    there = [snapshot(number, "nightly", time_ns=number) for number in (1, 2, 3)]
    assert Pair().catalogue(*there).find("nightly") is there[2]
    assert set(shown_labels(there, there).values()) == {"nightly"}


MANY = st.lists(
    st.tuples(st.binary(min_size=16, max_size=16), st.sampled_from([f"v0.0.1-{WHEN}", f"v0.0.2-{WHEN}", "words", ""])),
    max_size=8,
    unique_by=lambda item: item[0],
)


@given(MANY, st.integers(0, 8), st.randoms(use_true_random=False))
def test_what_a_snapshot_is_called_means_it(made, apart, random):
    """Every shown label with a version means its snapshot and no other, to whoever sees the same ones."""
    there = [snapshot(identity, label, time_ns=place) for place, (identity, label) in enumerate(made)]
    trash, alive = there[:apart], there[apart:]
    shown = shown_labels(alive, there)
    shuffled = random.sample(there, len(there))
    assert shown_labels(random.sample(alive, len(alive)), shuffled) == shown
    catalogue = Catalogue(snapshots=tuple(alive), undecided=(), damaged=(), trash=tuple(trash))
    versioned = {item: label for item, label in shown.items() if label.startswith("v")}
    assert len(set(versioned.values())) == len(versioned)
    for item, label in versioned.items():
        assert catalogue.find(label).id == item
