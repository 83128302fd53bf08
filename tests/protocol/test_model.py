"""The protocol in a small model, every state of it; and that it goes wrong without each of its rules."""

from __future__ import annotations

import dataclasses

import pytest

from tests.protocol.model import retiring, scopes, segments
from tests.protocol.model.explore import TooManyError, explore, trace
from tests.protocol.model.others import build
from tests.protocol.model.world import Rules, Scope


@pytest.mark.parametrize("name", scopes.QUICK)
def test_every_state_is_right(name):
    """Every committed snapshot has all its chunks, what was reported is there, a reader finds what it wants."""
    found = explore(build(scopes.QUICK[name]))
    assert not found.wrong, str(found)
    assert found.states > 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", scopes.LONG)
def test_every_state_of_many_is_right(name):
    """The same where there are millions."""
    found = explore(build(scopes.LONG[name]))
    assert not found.wrong, str(found)


@pytest.mark.parametrize("name", scopes.SEGMENTS)
def test_every_pack_stands_in_a_segment(name):
    """Whoever merges and sweeps: what had a segment has one that a new client reads; a reader knows all in the end."""
    found = explore(segments.build(scopes.SEGMENTS[name]))
    assert not found.wrong, str(found)
    assert found.states > 100


@pytest.mark.parametrize("name", scopes.RETIRING)
def test_every_snapshot_outlives_the_key_that_is_destroyed(name):
    """Whoever writes under the old key or beside: what was reported opens under a key that is there."""
    found = explore(retiring.build(scopes.RETIRING[name]))
    assert not found.wrong, str(found)
    assert found.states > 500


@pytest.mark.parametrize("rule", [*scopes.BROKEN, *scopes.BROKEN_SEGMENTS, *scopes.BROKEN_RETIRING])
def test_every_rule_is_needed(rule):
    """Without the rule something is lost, and here is how; with all rules nothing is, in the same scope."""
    found = trace(scopes.without(rule))
    print(f"without {rule}: {found}")
    assert found.wrong
    assert 2 <= len(found.trace) <= 40


def test_every_rule_is_left_out_once():
    """No rule of the model goes without a test that misses it."""
    assert scopes.BROKEN.keys() == {field.name for field in dataclasses.fields(Rules)}
    others = {field.name for field in dataclasses.fields(segments.Rules)} - {"actors"}
    assert scopes.BROKEN_SEGMENTS.keys() == others


def test_reader_needs_a_look_for_each_time_that_something_moves():
    """Two collections in its way take a reader two looks: with one it misses what is there all the time."""
    assert not explore(build(Scope(writers=0, collectors=2, forget=0, reader=True, looks=2))).wrong
    found = explore(build(Scope(writers=0, collectors=2, forget=0, reader=True, looks=1)))
    print(found)
    assert found.wrong == "the reader does not find what is there"


def test_collectors_that_change_places_make_no_difference():
    """Taking collectors for each other loses no state that matters: by name there are as many, or fewer than twice."""
    model = build(Scope(packs=scopes.SPLIT, writers=0, collectors=2))
    once = explore(model)
    by_name = explore(dataclasses.replace(model, same=None))
    assert not once.wrong
    assert not by_name.wrong
    assert once.states < by_name.states < 2 * once.states


def test_too_many_states_are_an_error():
    """An exploration that does not come to its end says so, and is no proof."""
    with pytest.raises(TooManyError):
        explore(build(Scope()), states_max=100)
