"""Writers, collectors and a forgetter at once, after seeds; and that each rule of the protocol is needed.

A schedule that fails names its seed; `Theatre.play` plays it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from respaldo.catalog import session, snapshots
from respaldo.catalog.rolls import superseded_rolls
from respaldo.catalog.session import Session
from respaldo.catalog.snapshots import load, outcome_name
from respaldo.core.errors import ObjectMissing
from respaldo.core.ids import PackName, catalogue_object, segment_object
from respaldo.store import tiers
from respaldo.store.repo import Listing, Repo
from respaldo.store.segments import Segments
from tests.protocol.collector import Collector, expire
from tests.protocol.scene import fresh_cache, open_repository
from tests.protocol.scheduler import Shared

pytestmark = pytest.mark.usefixtures("_inline")


def play_all(theatre, seeds) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in seeds:
        counts.update(theatre.play(seed).counts)
    return counts


def test_no_schedule_loses_a_snapshot(theatre):
    """Whatever order a seed leads to, and whoever dies in it: what is a snapshot in the end is whole."""
    counts = play_all(theatre, range(60))
    for what in ("snapshots", "forgotten", "packs deleted", "chunks copied", "writers crashed", "collectors crashed"):
        assert counts[what] > 5, counts
    assert counts["switches"] > 500


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_no_schedule_of_many_loses_a_snapshot(theatre, part):
    """The same, a thousand times and more."""
    play_all(theatre, range(1000 + part * 250, 1250 + part * 250))


def test_no_schedule_that_merges_loses_a_snapshot(theatre, monkeypatch):
    """The same where every second segment and manifest is merged, and collectors delete at once what is superseded."""
    monkeypatch.setattr(tiers, "FANOUT", 2)
    monkeypatch.setattr("respaldo.catalog.snapshots.FANOUT", 2)
    merged: Counter[str] = Counter()
    merge, roll, clear = Segments.merge, snapshots.roll, Collector.clear_condemnations

    def counted_merge(this, session):
        name = merge(this, session)
        merged["segments"] += name is not None
        return name

    def counted_roll(repo, listed):
        name = roll(repo, listed)
        merged["catalogues"] += name is not None
        return name

    def clear_all(this):
        clear(this)
        segments, rolls = this.repo.superseded_segments(), superseded_rolls(this.repo)
        this.repo.backend.discard([*map(segment_object, segments), *map(catalogue_object, rolls)])
        merged["deleted"] += len(segments) + len(rolls)

    monkeypatch.setattr(Segments, "merge", counted_merge)
    monkeypatch.setattr(snapshots, "roll", counted_roll)
    monkeypatch.setattr(Collector, "clear_condemnations", clear_all)
    counts = play_all(theatre, range(500, 530))
    assert min(counts["snapshots"], counts["packs deleted"]) > 5, counts
    assert min(merged["segments"], merged["catalogues"], merged["deleted"]) > 5, merged


# --- what happens without a rule -----------------------------------------------------------------------------------


def without_the_last_look(patch, _play) -> None:
    patch.setattr(Session, "_mend", lambda _self, _root, *, whole: False)  # noqa: ARG005


def with_packs_listed_first(patch, _play) -> None:
    def list_packs(repo: Repo, *, lenient: bool = False) -> Listing:
        packs = {PackName(bytes.fromhex(name[6:])): length for name, length in repo.backend.list("packs")}
        records = [repo.read_condemnation(name) for name, _ in repo.backend.list("condemned")]
        condemned = frozenset(name for record in records if record is not None for name in record.packs)
        return Listing(packs=packs, condemned=condemned)

    patch.setattr(Repo, "list_packs", list_packs)


def without_own_packs(patch, _play) -> None:
    real = Session._mend

    def mend(this, root, *, whole):
        this.sink.own_packs.clear()
        return real(this, root, whole=whole)

    patch.setattr(Session, "_mend", mend)


def with_trust_in_what_was_forgotten(patch, _play) -> None:
    class All:
        def __rsub__(self, other: object) -> set[object]:
            return set()

    patch.setattr(session, "list_pending", lambda _repo: All())


def without_condemnations_in_the_last_look(patch, _play) -> None:
    real = Session._follow
    patch.setattr(Session, "_follow", lambda this, seen: real(this, Listing(packs=seen.packs, condemned=frozenset())))


def without_packs_in_the_last_look(patch, _play) -> None:
    real = Session._follow

    def follow(this, seen):
        there = {pack.name: pack.length_bytes for pack in this._repo.index.packs()}
        real(this, Listing(packs=there, condemned=seen.condemned))

    patch.setattr(Session, "_follow", follow)


def without_g5(patch, _play) -> None:
    patch.setattr(Collector, "save_what_roots_need", lambda _self: None)


def without_undecided_roots(patch, _play) -> None:
    real = Collector.list_roots
    patch.setattr(Collector, "list_roots", lambda this: {root: done for root, done in real(this).items() if done})


def with_abort_taken_back(_patch, play) -> None:
    def expirer() -> None:
        backend = Shared(play.storage, play.script)
        with open_repository(backend, fresh_cache(play.theatre.folder / "expirer")) as repo:
            for snapshot in load(repo).undecided:
                expire(repo, snapshot)
                try:
                    backend.delete(outcome_name(snapshot))
                except ObjectMissing:
                    continue

    play.actions["expirer"] = expirer


DELETES_LATE = (("writer", "put pending"), ("collector", "delete packs"), ("writer", None), ("collector", None))
RULES: list[tuple[Callable[..., None], tuple[tuple[str, str | None], ...]]] = [
    (without_the_last_look, DELETES_LATE),
    (without_own_packs, DELETES_LATE),
    (without_condemnations_in_the_last_look, DELETES_LATE),
    (without_packs_in_the_last_look, (("writer", "put pending"), ("collector", None), ("writer", None))),
    (
        with_packs_listed_first,
        (
            ("writer", "put pending"),
            ("collector", "delete packs"),
            ("writer", "list condemned"),
            ("collector", None),
            ("writer", None),
        ),
    ),
    (
        with_trust_in_what_was_forgotten,
        (
            ("writer", "put pending"),
            ("forgetter", None),
            ("collector", "delete packs"),
            ("writer", None),
            ("collector", None),
        ),
    ),
    (
        without_g5,
        (("writer", "put pending"), ("collector", "put condemned"), ("writer", None), ("collector", None)),
    ),
    (
        without_undecided_roots,
        (
            ("writer", "put pending"),
            ("collector", "put condemned"),
            ("writer", "put outcome"),
            ("collector", None),
            ("writer", None),
        ),
    ),
    (
        with_abort_taken_back,
        (("writer", "put outcome"), ("expirer", None), ("collector", None), ("writer", None)),
    ),
]


@pytest.mark.parametrize(("mutation", "scenes"), RULES, ids=[mutation.__name__ for mutation, _ in RULES])
def test_every_rule_is_needed(play, monkeypatch, mutation, scenes):
    """The scene is harmless as the program is, and loses a snapshot without the rule."""
    before = dict(play.told.done), play.storage.snapshot()
    play.run(*scenes)
    play.told.done, objects = dict(before[0]), before[1]
    play.told.forgotten.clear()
    for name in play.storage.snapshot().keys() | objects.keys():
        play.storage._objects.pop(name, None)
    play.storage._objects.update(objects)
    mutation(monkeypatch, play)
    with pytest.raises(AssertionError, match=r"not whole|not there|LostError"):
        play.run(*scenes)


@pytest.mark.parametrize(
    "mutation",
    [without_the_last_look, without_g5, pytest.param(without_own_packs, marks=pytest.mark.slow)],
    ids=lambda mutation: mutation.__name__,
)
def test_schedules_find_what_is_missing(theatre, monkeypatch, mutation):
    """Seeds find it too, without being told where to look."""
    mutation(monkeypatch, None)
    with pytest.raises(AssertionError, match=r"seed \d+"):
        play_all(theatre, range(600))
