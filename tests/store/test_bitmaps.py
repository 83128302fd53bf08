from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from respaldo.store.bitmaps import Bitmaps, set_bits

positions = st.tuples(st.integers(1, 3), st.integers(0, 70))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), positions),
        st.tuples(st.just("remove"), positions),
        st.tuples(st.just("run"), st.tuples(st.integers(1, 3), st.integers(0, 70), st.integers(1, 40))),
        st.tuples(st.just("rows"), st.tuples(st.integers(1, 3), st.lists(st.integers(0, 70), min_size=1, max_size=9))),
        st.tuples(st.just("fill"), st.tuples(st.integers(1, 3), st.integers(1, 40))),
        st.tuples(st.just("drop"), st.integers(1, 3)),
    )
)


@given(steps)
def test_bitmaps_are_a_set_of_positions(steps):
    """Whatever is put in and taken out, it holds what a set would hold."""
    bitmaps, model = Bitmaps(), set()
    for verb, value in steps:
        if verb == "add":
            assert bitmaps.add(value) is (value not in model)
            model.add(value)
        elif verb == "remove":
            bitmaps.remove(value)
            model.discard(value)
        elif verb == "run":
            number, row, count = value
            bitmaps.add_run(number, row, count)
            model |= {(number, each) for each in range(row, row + count)}
        elif verb == "rows":
            bitmaps.add_rows(*value)
            model |= {(value[0], row) for row in value[1]}
        elif verb == "fill":
            number, rows = value
            bitmaps.fill(number, rows)
            model = {each for each in model if each[0] != number} | {(number, row) for row in range(rows)}
        else:
            bitmaps.drop([value])
            model = {each for each in model if each[0] != value}
    for number in range(1, 4):
        found = bitmaps.number(number)
        rows = {row for row in range(120) if found >> row & 1}
        assert rows == {row for each, row in model if each == number}
        assert all(((number, row) in bitmaps) is (row in rows) for row in range(120))


@given(st.integers(0, 1 << 40), st.integers(0, 50))
def test_set_bits_are_the_lowest_first(number, length):
    """The bits of a number come as bytes of 0 and 1."""
    number &= (1 << length) - 1
    assert set_bits(number, length) == bytes(number >> bit & 1 for bit in range(length))
