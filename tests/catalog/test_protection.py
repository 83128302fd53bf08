"""Pins and trash: what they hide, what they keep, and what is left when a run is cut off."""

from __future__ import annotations

import contextlib
from copy import copy
from dataclasses import replace
from datetime import UTC

import pytest

from respaldo.api.retention import apply_retention, plan_retention
from respaldo.backend.faults import Crash, Fault, Faults
from respaldo.backend.wrap import Wrapper
from respaldo.catalog import protection
from respaldo.catalog.protection import take_away
from respaldo.catalog.snapshots import forget, load, outcome_name, pending_name
from respaldo.core.errors import Refused
from respaldo.core.seams import Cancel
from respaldo.format.protection import Pin
from tests.catalog.test_snapshots import commit, damage, snapshot
from tests.store.repositories import opened, replica

GRACE_NS = 7 * 24 * 3600 * 10**9
ONE = snapshot(1)


@pytest.fixture
def repo(backend, tmp_path):
    with opened(backend, tmp_path / "cache") as made:
        commit(made, 1)
        commit(made, 2)
        yield made


def shown(repo):
    """Returns the numbers of the snapshots that are shown, and of those in the trash."""
    catalogue = protection.set_apart(load(repo), protection.load_trash(repo))
    return [item.id[0] for item in catalogue.snapshots], [item.id[0] for item in catalogue.trash]


def test_forgetting_takes_manifest_and_outcome(repo, backend):
    """The manifest first: what is between the two is a snapshot no more."""
    calls = Faults(backend)
    repo.backend = calls
    assert forget(repo, ONE)
    assert [name for verb, name in calls.calls if verb == "delete"] == [pending_name(ONE), outcome_name(ONE)]
    assert shown(repo) == ([2], [])
    assert not forget(repo, ONE)
    assert not {pending_name(ONE), outcome_name(ONE)} & backend.snapshot().keys()


def test_trash_hides_and_gives_back(repo):
    """What is in the trash is a root with its manifest, as before, and is not shown."""
    protection.put_in_trash(repo, ONE, GRACE_NS)
    assert shown(repo) == ([2], [1])
    assert {item.id for item in load(repo).snapshots} == {ONE, snapshot(2)}
    protection.take_back(repo, ONE)
    assert shown(repo) == ([1, 2], [])


def test_trash_is_emptied_when_the_time_is_over(repo, backend):
    """Not before; afterwards nothing is left of the snapshot."""
    protection.put_in_trash(repo, ONE, GRACE_NS)
    repo.clock.now += GRACE_NS - 1
    assert protection.empty_trash(repo) == []
    assert shown(repo) == ([2], [1])
    repo.clock.now += 1
    assert protection.empty_trash(repo, dry_run=True) == [ONE]
    assert shown(repo) == ([2], [1])
    assert protection.empty_trash(repo) == [ONE]
    assert shown(repo) == ([2], [])
    assert not [name for name in backend.snapshot() if ONE.hex() in name]


def test_undo_is_refused_when_it_may_be_too_late(repo):
    """Another run may be emptying the trash at this moment."""
    protection.put_in_trash(repo, ONE, GRACE_NS)
    repo.clock.now += GRACE_NS
    with pytest.raises(Refused, match="time of grace"):
        protection.take_back(repo, ONE)
    assert shown(repo) == ([2], [1])
    with pytest.raises(Refused, match="not in the trash"):
        protection.take_back(repo, snapshot(2))


def test_undo_says_so_where_another_clock_was_faster(repo):
    """The manifest is gone: no word of success."""
    protection.put_in_trash(repo, ONE, GRACE_NS)
    forget(repo, ONE)
    with pytest.raises(Refused, match="is gone"):
        protection.take_back(repo, ONE)


def test_second_time_in_the_trash_counts_anew(repo):
    """A record that was read before is not taken for the new one of the same name."""
    protection.put_in_trash(repo, ONE, GRACE_NS)
    protection.load_trash(repo)
    protection.take_back(repo, ONE)
    repo.clock.now += GRACE_NS
    protection.put_in_trash(repo, ONE, GRACE_NS)
    assert protection.empty_trash(repo) == []
    assert protection.load_trash(repo).records[ONE].until_ns == repo.clock.now + GRACE_NS


def test_forgetting_twice_does_not_prolong(repo):
    """What is in the trash stays there as it is."""
    protection.put_in_trash(repo, ONE, GRACE_NS)
    until_ns = protection.load_trash(repo).records[ONE].until_ns
    repo.clock.now += 1
    protection.put_in_trash(repo, ONE, GRACE_NS)
    assert protection.load_trash(repo).records[ONE].until_ns == until_ns


@pytest.mark.parametrize("at", range(1, 4))
def test_emptying_that_is_cut_off_is_finished_by_the_next(repo, backend, tmp_path, at):
    """After each of its deletes the snapshot is gone as a whole, and so is its record in the end."""
    protection.put_in_trash(repo, ONE, GRACE_NS)
    protection.pin(repo, snapshot(2))
    repo.clock.now += GRACE_NS
    repo.backend = Faults(backend, [Fault(verbs=frozenset({"delete"}), at=at, after=True)])
    with pytest.raises(Crash):
        protection.empty_trash(repo)
    left = replica(backend.snapshot())
    with opened(left, tmp_path / "other") as other:
        other.clock.now += GRACE_NS
        assert shown(other)[0] == [2]
        protection.empty_trash(other)
        assert not [name for name in left.snapshot() if ONE.hex() in name]
        assert shown(other) == ([2], [])
        assert protection.list_pins(other) == {snapshot(2)}


def test_emptying_looks_again_before_it_deletes(repo, backend):
    """What was brought back while it was at work stays, and so does what was forgotten anew."""
    protection.put_in_trash(repo, ONE, GRACE_NS)
    protection.put_in_trash(repo, snapshot(2), GRACE_NS)
    repo.clock.now += GRACE_NS
    read = protection._read
    seen = []

    def meanwhile(repo, item):
        seen.append(item)
        if len(seen) == 3:  # the first of the second round
            backend.delete(protection.trash_name(ONE))
            backend.delete(protection.trash_name(snapshot(2)))
            protection.put_in_trash(repo, snapshot(2), GRACE_NS)
        return read(repo, item)

    protection._read = meanwhile
    try:
        protection.empty_trash(repo)
    finally:
        protection._read = read
    assert len(seen) == 4
    assert shown(repo) == ([1], [2])


def test_record_that_cannot_be_read_hides_and_takes_nothing(repo, backend):
    """Doubt is decided for the snapshot."""
    protection.put_in_trash(repo, ONE, GRACE_NS)
    damage(backend, protection.trash_name(ONE))
    repo.clock.now += 2 * GRACE_NS
    assert shown(repo) == ([1, 2], [])
    assert protection.empty_trash(repo) == []
    catalogue = protection.set_apart(load(repo), protection.load_trash(repo))
    assert [error.name for error in catalogue.damaged] == [protection.trash_name(ONE)]


def test_pin_is_there_once(repo):
    """Pinning twice is no error, and unpinning what is not pinned neither."""
    assert protection.pin(repo, ONE, "why")
    assert not protection.pin(repo, ONE)
    assert protection.list_pins(repo) == {ONE}
    assert protection.unpin(repo, ONE)
    assert not protection.unpin(repo, ONE)


def test_pin_of_what_is_gone_is_refused(repo):
    """It leaves nothing behind, and nobody believes that the snapshot is safe."""
    forget(repo, ONE)
    with pytest.raises(Refused):
        protection.pin(repo, ONE)
    assert protection.list_pins(repo) == frozenset()


def test_damaged_pin_protects(repo, backend):
    """Its name suffices."""
    protection.pin(repo, ONE)
    damage(backend, protection.pin_name(ONE))
    assert protection.list_pins(repo) == {ONE}


def test_pinned_snapshot_stays_in_the_trash(repo):
    """Whoever pinned it since does not lose it when its time is over, and can bring it back for as long as it lies."""
    protection.put_in_trash(repo, ONE, GRACE_NS)
    put_pin(repo, ONE)
    repo.clock.now += GRACE_NS
    assert protection.empty_trash(repo) == []
    assert shown(repo) == ([2], [1])
    protection.take_back(repo, ONE)
    assert shown(repo) == ([1, 2], [])


def put_pin(repo, number):
    """Puts a pin, and looks for nothing: as programs did that are older, or who was cut off."""
    repo.put_small("pin", protection.pin_name(number), Pin(time_ns=repo.clock.now_ns(), reason="").encode())


def test_pin_of_what_is_in_the_trash_is_refused(repo):
    """It would be said to be protected, and be shown to nobody."""
    protection.put_in_trash(repo, ONE, GRACE_NS)
    with pytest.raises(Refused):
        protection.pin(repo, ONE)
    assert protection.list_pins(repo) == frozenset()


@pytest.mark.parametrize("grace_ns", [0, GRACE_NS])
@pytest.mark.parametrize("at", range(1, 4))
def test_of_a_pin_and_a_forgetting_one_wins_at_most(repo, backend, at, grace_ns):
    """Between any two calls of a pin somebody forgets: what is reported as pinned stays, and is shown."""

    class Between(Wrapper):
        """Forgets at a call of whoever pins."""

        calls = 0

        def _step(self):
            self.calls += 1
            if self.calls == at:
                went.append(protection.put_in_trash(other, ONE, grace_ns) if grace_ns else take_away(other, ONE))

        def put(self, name, pieces):
            self._step()
            super().put(name, pieces)

        def get(self, name, offset=0, length=None):
            self._step()
            return super().get(name, offset, length)

        def list(self, folder):
            self._step()
            return super().list(folder)

    other, went, pinned = copy(repo), [], False
    repo.backend = Between(backend)
    with contextlib.suppress(Refused):
        pinned = protection.pin(repo, ONE)
    repo.backend = backend
    assert went
    assert shown(repo) == (([1, 2], []) if not any(went) else ([2], [1] if grace_ns else []))
    assert not (pinned and any(went))
    assert protection.list_pins(repo) == ({ONE} if pinned else frozenset())


def test_pin_of_a_forgotten_snapshot_goes_with_the_trash(repo):
    """It would lie there for ever."""
    protection.pin(repo, ONE)
    forget(repo, ONE)
    protection.empty_trash(repo)
    assert protection.list_pins(repo) == frozenset()


class Slow(Cancel):
    """Lets somebody else act before the second of some steps."""

    def __init__(self, act):
        super().__init__()
        self.act, self.steps = act, 0

    def check(self):
        self.steps += 1
        if self.steps == 3:  # once before all, then before each
            self.act()


def test_what_is_pinned_while_others_go_stays(repo):
    """Forgetting thousands takes a while: a pin counts until its snapshot goes, and not until the first one does."""
    plan = plan_retention(repo, load(repo), None, zone=UTC)
    going = [replace(item, decision=replace(item.decision, reasons=())) for item in plan.items]
    pin = Slow(lambda: protection.pin(repo, snapshot(2)))
    assert [item.id for item in apply_retention(repo, replace(plan, items=tuple(going)), cancel=pin)] == [ONE]
    assert shown(repo) == ([2], [])
