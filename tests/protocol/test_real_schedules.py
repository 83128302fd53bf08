"""Writers, a forgetter and the real collectors at once, after seeds and after scripts."""

from __future__ import annotations

import pytest

from respaldo.core.errors import ChunkMissing
from respaldo.flows.gc import mark, run
from respaldo.flows.gc.roots import Roots
from tests.protocol.real import Real, RealCondemnsAll, make_ruthless
from tests.protocol.test_schedules import RULES, play_all

pytestmark = pytest.mark.usefixtures("_inline")


@pytest.fixture
def real(theatre, monkeypatch):
    """A theatre whose collectors are the real ones, ruthless."""
    make_ruthless(monkeypatch)
    monkeypatch.setattr(theatre, "collector", Real)
    return theatre


def test_no_schedule_loses_a_snapshot(real):
    """Whatever order a seed leads to, and whoever dies in it: what is a snapshot in the end is whole."""
    counts = play_all(real, range(60))
    for what in ("snapshots", "forgotten", "packs deleted", "chunks copied", "writers crashed", "collectors crashed"):
        assert counts[what] > 5, counts
    assert counts["switches"] > 500


def test_no_schedule_of_heedful_collectors_loses_a_snapshot(theatre, monkeypatch):
    """The same as they are: with markers, and with a choice that thinks of space."""
    monkeypatch.setattr(theatre, "collector", Real)
    monkeypatch.setattr("respaldo.flows.gc.choose.GROUP_MIN", 2)
    counts = play_all(theatre, range(40))
    assert min(counts["snapshots"], counts["packs deleted"]) > 5, counts


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_no_schedule_of_many_loses_a_snapshot(real, part):
    """The same, a thousand times and more."""
    play_all(real, range(3000 + part * 250, 3250 + part * 250))


# --- what happens without a rule -----------------------------------------------------------------------------------


def without_g5(patch, _play) -> None:
    patch.setattr(run.Collector, "_look_again", lambda _self, _own: set())


def without_undecided_roots(patch, _play) -> None:
    real_list = mark.list_roots

    def list_roots(repo):
        return Roots(committed=real_list(repo).committed, undecided={}, unreadable={})

    patch.setattr(mark, "list_roots", list_roots)


def without_copies_in_g5(patch, _play) -> None:
    patch.setattr(run.Collector, "_save", lambda _self, _own: set())


OWN = {
    "without_g5": without_g5,
    "without_undecided_roots": without_undecided_roots,
}
SCENES = [(OWN.get(rule.__name__, rule), scenes) for rule, scenes in RULES] + [
    (without_copies_in_g5, next(scenes for rule, scenes in RULES if rule.__name__ == "without_g5"))
]


@pytest.mark.parametrize(("mutation", "scenes"), SCENES, ids=[mutation.__name__ for mutation, _ in SCENES])
def test_every_rule_is_needed(play, monkeypatch, mutation, scenes):
    """The scene is harmless as the program is, and loses a snapshot without the rule."""
    make_ruthless(monkeypatch)
    play.condemns_all = RealCondemnsAll
    before = dict(play.told.done), play.storage.snapshot()
    play.run(*scenes)
    play.told.done, objects = dict(before[0]), before[1]
    play.told.forgotten.clear()
    for name in play.storage.snapshot().keys() | objects.keys():
        play.storage._objects.pop(name, None)
    play.storage._objects.update(objects)
    mutation(monkeypatch, play)
    with pytest.raises((AssertionError, ChunkMissing), match=r"not whole|not there|in no pack"):
        play.run(*scenes)


@pytest.mark.parametrize("mutation", [without_g5, without_copies_in_g5], ids=lambda mutation: mutation.__name__)
def test_schedules_find_what_is_missing(real, monkeypatch, mutation):
    """Seeds find it too, without being told where to look."""
    mutation(monkeypatch, None)
    with pytest.raises((AssertionError, ChunkMissing)):
        play_all(real, range(600))
