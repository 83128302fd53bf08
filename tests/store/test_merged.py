"""Objects that supersede others: which are read, and how many are held at once."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from respaldo.store.merged import Unread

MIB = 1 << 20


class Plain(NamedTuple):
    """Is an object that supersedes nothing."""

    supersedes: tuple[bytes, ...] = ()


@pytest.mark.parametrize(("length", "together"), [(9 * MIB, 1), (4 * MIB, 2), (MIB, 8), (1000, 16)])
def test_long_objects_are_read_a_few_at_a_time(length, together):
    """No more are read ahead than fit into some megabytes, and never more than there are threads for."""
    started: list[bytes] = []
    listed = {bytes((number,)) * 32: length for number in range(40)}
    unread = Unread(lambda: listed, lambda name: started.append(name) or Plain(), (), [])
    most = 0
    for taken, _ in enumerate(unread):
        most = max(most, len(started) - taken)
    assert sorted(started) == sorted(listed)
    assert 1 <= most <= together


def test_the_longest_are_read_first():
    """What supersedes others is mostly longer."""
    listed = {bytes((number,)) * 32: number * MIB for number in range(1, 20)}
    unread = Unread(lambda: listed, lambda _name: Plain(), (), [])
    assert [listed[name] for name, _ in unread] == sorted(listed.values(), reverse=True)
