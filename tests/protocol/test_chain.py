"""Snapshots taken over from one another, each forgotten as soon as the next is there: what two listings cannot see."""

from __future__ import annotations

import pytest

from respaldo.catalog.session import Session
from respaldo.catalog.snapshots import pending_name
from respaldo.core.ids import SnapshotId
from tests.protocol.collector import forget
from tests.protocol.scheduler import Shared
from tests.protocol.scripted import CondemnsAll

pytestmark = pytest.mark.usefixtures("_inline")


class NoMoreThanAsked(CondemnsAll):
    """Copies nothing ahead and lists manifests twice, as the format asks and no more."""

    def run(self) -> None:
        self.choose(self.repo.synchronise(), {})
        self.condemn()
        self.save_what_roots_need()
        self.delete()
        self.clear_condemnations()

    def list_roots(self) -> dict[SnapshotId, bool]:
        return self.list_roots_once()


@pytest.mark.parametrize("looks", [True, False])
def test_chain_of_snapshots_is_looked_up_while_a_collector_is_at_work(play, monkeypatch, looks):
    """A collector lists manifests twice; in the first listing it misses P and S1, in the second S1 and S2.

    S1 took subtrees over from P, and S2 from S1; P went while the first listing ran, S1 while the second did. Whoever
    begins while packs are condemned looks up what it takes over; else S2 lacks what lay in them.
    """
    made: list[SnapshotId] = []
    late: list[SnapshotId] = []

    def twice() -> None:
        for cache in (None, play.theatre.folder / "play0"):
            play.writer(cache)
            made.append(play.made)

    def forget_first_made() -> None:
        play.told.forgotten.add(made[0])
        forget(Shared(play.storage, play.script), made[0])

    def second_half(name: str) -> int:
        old = [*play.theatre.first, *late]
        return int(name in map(pending_name, old))

    if not looks:
        nobody = property(lambda _self: False, lambda _self, _value: None)
        monkeypatch.setattr(Session, "_among_condemned", nobody, raising=False)
    monkeypatch.setattr("tests.protocol.scheduler._half_of", second_half)
    play.condemns_all = NoMoreThanAsked
    play.actions = {"writer": twice, "last forgetter": forget_first_made, "turn": lambda: late.extend(made)}
    scenes = (
        ("collector", "list on pending"),
        ("writer", "put sessions #2"),
        ("forgetter", None),
        ("collector", "list pending"),
        ("turn", None),
        ("collector", "list on pending"),
        ("writer", "list condemned #2"),
        ("last forgetter", None),
        ("collector", "delete packs"),
        ("writer", None),
        ("collector", None),
    )
    if looks:
        play.run(*scenes)
        assert play.attempts == 2
    else:
        with pytest.raises(AssertionError, match="not whole"):
            play.run(*scenes)
