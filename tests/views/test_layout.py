"""Names of snapshots in a mount: the same to all who see the same snapshots, and for as long as somebody uses them."""

from __future__ import annotations

import random
from datetime import UTC

import hypothesis.strategies as st
from hypothesis import given

from respaldo.catalog.labels import shown_labels
from respaldo.views.layout import Inside, Link, Names, layout
from tests.catalog.test_labels import snapshot

LABEL = "v0.0.1-20261125_101500"
ONE, OTHER = snapshot(0xAA, LABEL), snapshot(0xAB, LABEL)


def named(*snapshots, names=None, apart=()):
    names = names or Names(zone=UTC)
    names.apart = apart
    names.look_at(snapshots)
    return [names.of(item).decode() for item in snapshots]


def below(names, *snapshots):
    """Returns which snapshot stands under which name."""
    root = layout(snapshots, names, lambda _, __: [], lambda _: Link(target=b"")).children()
    found = root[b"snapshots"].children()
    assert all(isinstance(spec, Inside) for spec in found.values())
    return {name.decode(): spec.snapshot.id for name, spec in found.items()}


def test_names_are_those_that_are_listed():
    """Labels; where two have the same, with their ids, whatever came first, and also where one is in the trash."""
    assert named(ONE) == [LABEL]
    assert named(ONE, OTHER) == list(shown_labels([ONE, OTHER], [ONE, OTHER]).values())
    assert named(OTHER, ONE) == list(shown_labels([OTHER, ONE], [ONE, OTHER]).values())
    assert named(ONE, apart=(OTHER,)) == list(shown_labels([ONE], [ONE, OTHER]).values())


def test_names_without_labels_are_times():
    """Of several in a second, with ids."""
    early, late = (snapshot(number, "", time_ns=number) for number in (1, 2))
    assert named(early) == ["1970-01-01T00-00-00"]
    assert named(early, late) == ["1970-01-01T00-00-00+01010101", "1970-01-01T00-00-00+02020202"]


def test_name_that_was_given_stays_beside_the_new_one():
    """Somebody may stand in that directory; it goes with its snapshot, and means no other one while that is there."""
    names = Names(zone=UTC)
    assert below(names, ONE) == {LABEL: ONE.id}
    both = {f"{LABEL}+aaaaaaaa": ONE.id, f"{LABEL}+abababab": OTHER.id}
    assert below(names, ONE, OTHER) == {LABEL: ONE.id, **both}
    assert below(names, ONE, OTHER) == {LABEL: ONE.id, **both}
    assert below(names, OTHER) == {LABEL: OTHER.id, f"{LABEL}+abababab": OTHER.id}
    assert below(Names(zone=UTC), ONE, OTHER) == both


SNAPSHOTS = st.lists(
    st.tuples(
        st.binary(min_size=16, max_size=16) | st.integers(0, 255).map(lambda last: bytes(15) + bytes([last])),
        st.sampled_from([LABEL, "v0.0.2-20261125_101500", "words", "a/b", "a∕b", "", ".", "x" * 300, "y" * 255]),
        st.integers(0, 2),
    ),
    max_size=9,
    unique_by=lambda item: item[0],
)


@given(SNAPSHOTS, st.integers(0, 1 << 30))
def test_every_snapshot_has_a_name_of_its_own(made, seed):
    """Which every reader gives it, in whatever order they are seen; none is too long for a file."""
    there = [snapshot(identity, label, time_ns=second * 10**9) for identity, label, second in made]
    names = dict(zip(there, named(*there), strict=True)) if there else {}
    assert len(set(names.values())) == len(there)
    assert all(0 < len(name.encode()) <= 255 and "/" not in name for name in names.values())
    shuffled = random.Random(seed).sample(there, len(there))
    assert named(*shuffled) == [names[item] for item in shuffled]
