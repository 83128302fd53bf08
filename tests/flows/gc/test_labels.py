from __future__ import annotations

import sys
from array import array
from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.flows.gc.labels import SHARED, Labels, weigh_labels
from respaldo.format.pack import BlockRow, Footer


@given(
    meets=st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 30), st.integers(1, 20), st.booleans()), min_size=1, max_size=20
    ),
    roots=st.sampled_from([4, 1 << 15]),
)
def test_labels_know_the_first_and_whether_there_was_another(meets, roots):
    """Runs and single positions alike, against a dictionary of sets; what is live up to a root is what it met first."""
    labels = Labels(roots)
    met: dict[int, list[int]] = {}
    for root, row, count, run in sorted(meets):
        labels.root = root
        if run:
            labels.add_run(7, row, count)
            for each in range(row, row + count):
                met.setdefault(each, []).append(root)
        else:
            news = root not in met.get(row, []) and len(set(met.get(row, []))) < 2
            assert labels.add((7, row)) == news
            met.setdefault(row, []).append(root)
    found = {row: (label >> 1, bool(label & SHARED)) for row, label in enumerate(labels.rows[7]) if label}
    assert found == {row: (min(found), len(set(found)) > 1) for row, found in met.items()}
    for last in range(6):
        assert labels.live(last).number(7) == sum(1 << row for row, found in met.items() if min(found) <= last)


@given(lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=12), data=st.data())
def test_shares_of_a_block_add_up_to_it(lengths, data):
    """However chunks are labelled, nothing of a block is lost and nothing counts twice."""
    raw = sum(lengths)
    sealed = data.draw(st.integers(73, raw + 72))
    given_labels = data.draw(st.lists(st.integers(2, 9), min_size=len(lengths), max_size=len(lengths)))
    footer = Footer(
        session=bytes(16),
        body_hash=bytes(32),
        blocks=(BlockRow(1, sealed, raw, len(lengths), bytes(32)),),
        ids=bytes(32 * len(lengths)),
        lengths=array("I", lengths),
    )
    weights: Counter[int] = Counter()
    weigh_labels(footer, array("H", given_labels), weights)
    assert weights.total() == sealed
    for label, weight in weights.items():
        mine = sum(length for length, each in zip(lengths, given_labels, strict=True) if each == label)
        assert abs(weight - sealed * mine / raw) <= len(lengths)


@pytest.mark.parametrize("order", list(permutations([3 << 1, 2 << 1 | SHARED, 2 << 1])))
def test_copies_are_joined_to_one_label(order):
    """In whatever order copies are met, the one that stays has the first root of all."""
    labels = Labels(4)
    labels.rows[1] = array("H", order)
    labels.rows[2] = array("H", [0])
    labels.join([(1, 0), (1, 1), (1, 2)], (2, 3))
    assert list(labels.rows[1]) == [0, 0, 0]
    assert list(labels.rows[2]) == [0, 0, 0, 2 << 1 | SHARED]


@pytest.mark.parametrize(("roots", "width"), [(1000, 2), (1 << 15, 4)])
def test_labels_take_so_many_bytes_a_chunk_however_many_roots_meet_them(roots, width):
    """Two up to some thirty thousand roots, four beyond: what 20 million chunks take is known before they are met."""
    labels = Labels(roots)
    packs, rows = range(1, 400_001, 4000), 4000
    for root in range(1, 30):
        labels.root = root
        for number in packs:
            for row in range(0, rows, 100 + root):
                labels.add_run(number, row, min(100 + root, rows - row))
                labels.add((number, row))
    taken = sum(sys.getsizeof(found) for found in labels.rows.values())
    assert taken <= width * len(packs) * rows * 1.2
