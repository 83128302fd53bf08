"""Rows in bulk against lists of tuples."""

from __future__ import annotations

import os
import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.store.rows import (
    ORDINALS_IN_RUN,
    PARTITIONS,
    Rows,
    buckets_of,
    columns_of_ids,
    ordinals_of,
    rows_of_words,
    sort_by_ordinal,
    sort_words,
    words_of_buckets,
    words_of_ids,
    words_of_rows,
)

ids = st.one_of(st.binary(min_size=4, max_size=4), st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xf0\0\1"]))
packs = st.lists(
    st.tuples(st.lists(ids, max_size=20), st.one_of(st.integers(0, 300), st.integers(0, ORDINALS_IN_RUN // 40))),
    max_size=12,
)


def collect(rows, made, far=1):
    """Adds packs, the gaps between their ordinals multiplied; returns what they stand for: (4 bytes of id, ordinal)."""
    expected, ordinal = [], 1
    for pack, gap in made:
        ordinal += gap * far
        if ordinal // ORDINALS_IN_RUN != (ordinal + len(pack)) // ORDINALS_IN_RUN:
            ordinal = (ordinal // ORDINALS_IN_RUN + 1) * ORDINALS_IN_RUN
        rows.add(b"".join(item + bytes(28) for item in pack), ordinal)
        expected += [(item, ordinal + row) for row, item in enumerate(pack)]
        ordinal += len(pack)
    return expected


def decoded(number, words):
    """The rows that a partition's words stand for."""
    return [
        (bytes((number, words[at + 6], words[at + 5], words[at + 4])), int.from_bytes(words[at : at + 4], "little"))
        for at in range(0, len(words), 8)
    ]


@given(made=packs, batch=st.integers(1, 60), far=st.sampled_from([1, 1000]))
def test_rows_come_back_by_partition(tmp_path_factory, made, batch, far):
    """Whatever was added comes back, each row in its partition, from memory and from the file."""
    with Rows(tmp_path_factory.getbasetemp(), batch=batch) as rows:
        expected = collect(rows, made, far)
        found = [row for number in range(PARTITIONS) for row in decoded(number, rows.partition(number))]
    assert rows.count == len(expected)
    assert sorted(found) == sorted(expected)


@given(made=packs)
def test_words_turn_into_buckets_and_rows_and_back(tmp_path_factory, made):
    """Sorted words ascend by id; buckets and rows of the recent database hold the same as the words."""
    with Rows(tmp_path_factory.getbasetemp()) as rows:
        collect(rows, made, 1000)
        for number in {pack[0][0] for pack, _ in made if pack}:
            words = sort_words(rows.partition(number))
            expected = decoded(number, words)
            assert expected == sorted(expected)
            assert list(ordinals_of(words)) == [ordinal for _, ordinal in expected]
            buckets = buckets_of(words)
            assert [bucket.number for bucket in buckets] == sorted({item[1] for item, _ in expected})
            assert sort_words(words_of_buckets(buckets)) == words
            held = rows_of_words(number, words)
            assert [key + value for key, value in held] == [
                item + ordinal.to_bytes(4, "big") for item, ordinal in expected
            ]
            assert sort_words(words_of_rows(b"".join(key + value for key, value in held))) == words


def test_sorting_takes_words_for_what_they_are():
    """Many words with all bit patterns below the top byte come back complete and in order."""
    source = random.Random(1)
    words = [source.randbytes(7) + b"\x3f" for _ in range(5000)]
    words += [b"\0" * 7 + b"\x3f", b"\xff" * 7 + b"\x3f"] * 2
    held = sort_words(b"".join(words))
    assert [held[at : at + 8] for at in range(0, len(held), 8)] == sorted(words, key=lambda word: word[::-1])


def test_temporary_file_has_no_name(tmp_path):
    """Beyond a batch rows lie in a file that a killed process does not leave behind; closing gives it back."""
    with Rows(tmp_path, batch=10) as rows:
        for first in range(1, 101, 20):
            rows.add(os.urandom(32 * 20), first)
        assert sum(len(rows.partition(number)) for number in range(PARTITIONS)) == 100 * 8
        assert list(tmp_path.iterdir()) == []
        fd = rows._fd
        assert os.fstat(fd).st_size > 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@given(st.lists(ids, max_size=40))
def test_ids_are_sorted_with_their_numbers(some):
    """In the order of their first 4 bytes, each with the number it had."""
    numbers = array("I", range(len(some)))
    words = sort_words(words_of_ids(b"".join(item + b"x" * 28 for item in some), numbers))
    first, second, of = columns_of_ids(words)
    assert sorted(of) == list(numbers)
    assert [one << 16 | other for one, other in zip(first, second, strict=True)] == sorted(
        int.from_bytes(item, "big") for item in some
    )
    assert [some[number] for number in of] == sorted(some)


@given(st.lists(st.tuples(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 24) - 1)), max_size=40))
def test_columns_are_sorted_by_the_first(pairs):
    """The second goes along."""
    ordinals, numbers = sort_by_ordinal(*(array("I", column) for column in list(zip(*pairs, strict=True)) or [(), ()]))
    assert list(zip(ordinals, numbers, strict=True)) == sorted(pairs)
