"""The packs of an index in memory: it follows the index from version to version, and from no other."""

from __future__ import annotations

import pytest

from respaldo.store.packrow import Indexed
from respaldo.store.table import Table


def pack(number: int, length_bytes: int = 100) -> Indexed:
    return Indexed(number, bytes((number,)) * 32, length_bytes)


@pytest.fixture
def table():
    table = Table()
    table.read(b"1", iter(()), ())
    table.add(b"1", b"2", [pack(1), pack(4)])
    return table


def test_table_shows_what_was_added(table):
    """Packs that were added are there, in the order of their numbers, at the version after."""
    assert table.version == b"2"
    assert table.packs() == [pack(1), pack(4)]
    assert table.lengths == {pack(1).name: 100, pack(4).name: 100}


@pytest.mark.parametrize("before", [b"", b"1", b"3"])
def test_table_follows_from_no_other_version(table, before):
    """Where somebody else changed the index in between, nothing is added and the version does not move."""
    table.add(before, b"4", [pack(5)])
    assert (table.version, table.packs()) == (b"2", [pack(1), pack(4)])


def test_table_that_was_never_read_follows_nothing():
    """An index without a version is not mistaken for the beginning."""
    table = Table()
    table.add(b"", b"1", [pack(1)])
    assert (table.version, table.packs()) == (b"", [])


def test_table_out_of_order_is_read_again(table):
    """A number below the last one, of which another process was first to take one, makes the table no longer good."""
    table.add(b"2", b"3", [pack(3)])
    assert table.version == b""


def test_usable_is_what_is_listed_whole_and_not_condemned(table):
    """A pack that is missing, of another length or condemned is not; strangers' do not matter."""
    there = {pack(1).name: 100, pack(4).name: 100}
    assert table.usable(there, ()) == {1, 4}
    assert table.usable({**there, pack(9).name: 100}, ()) == {1, 4}
    assert table.usable(there, {pack(4).name}) == {1}
    assert table.usable({pack(4).name: 100}, ()) == {4}
    assert table.usable({**there, pack(1).name: 99}, ()) == {4}
    assert table.usable({}, ()) == set()
