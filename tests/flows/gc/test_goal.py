from __future__ import annotations

import random

import pytest

from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.snapshots import forget
from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.gc import choose as choose_module
from respaldo.flows.gc import options as options_module
from respaldo.flows.gc.goal import plan_space
from respaldo.flows.gc.options import Goal, PruneOptions
from respaldo.flows.gc.run import plan_prune, run_prune
from respaldo.store.repo import Repo
from tests.protocol.scene import (
    Kept,
    back_up,
    make_repository,
    open_repository,
    snapshot_of,
)


@pytest.fixture
def repo(tmp_path):
    backend = MemoryBackend()
    make_repository(backend)
    with open_repository(Kept(backend), tmp_path / "cache") as repo:
        yield repo


def lay_history(repo: Repo, source, seeds: int = 6) -> list[SnapshotId]:
    """Makes snapshots each of which holds half a megabyte that no other holds, and something that all hold."""
    rng = random.Random(1)
    source.mkdir()
    (source / "always").write_bytes(rng.randbytes(500_000))
    made = []
    for _ in range(seeds):
        (source / "now").write_bytes(rng.randbytes(500_000))
        made.append(snapshot_of(back_up(repo, source)))
    return made


def packed(repo: Repo) -> int:
    return sum(length for _, length in repo.backend.list("packs"))


@pytest.mark.parametrize("wanted", [1, 400_000, 900_000, 1_400_000, 2_300_000])
def test_goal_takes_the_fewest_that_give_the_space(repo, tmp_path, wanted):
    """One snapshot less is not enough; and forgetting them and collecting gives what was promised."""
    made = lay_history(repo, tmp_path / "source")
    options = PruneOptions(repack_below=0.8)
    plan = plan_space(repo, Goal(free_bytes=wanted), made[:-1], options, progress=Silent(), cancel=Cancel())
    assert plan.reached
    assert list(plan.going) == made[: len(plan.going)]
    assert plan.going
    assert sum(plan.shares.steps[each] for each in plan.going) > 490_000 * len(plan.going)
    before = packed(repo)
    fewer = plan_prune(repo, plan.options, progress=Silent(), cancel=Cancel(), without=set(plan.going[:-1]))
    assert fewer.sure_bytes < wanted
    for snapshot in plan.going:
        forget(repo, snapshot)
    result = run_prune(repo, plan.options, progress=Silent(), cancel=Cancel())
    assert before - packed(repo) >= wanted
    assert before - packed(repo) == result.freed_bytes >= plan.freed_bytes


def test_goal_says_how_far_it_gets(repo, tmp_path):
    """Where all that may go is not enough, the plan says what it gives; where nothing is wanted, nothing goes."""
    made = lay_history(repo, tmp_path / "source")
    options = PruneOptions(repack_below=0.8)

    def plan(goal: Goal):
        return plan_space(repo, goal, made[:3], options, progress=Silent(), cancel=Cancel())

    far = plan(Goal(free_bytes=10**9))
    assert not far.reached
    assert far.going == tuple(made[:3])
    assert far.freed_bytes > 3 * 500_000
    assert plan(Goal(size_bytes=10**9)).going == ()
    assert plan(Goal(size_bytes=10**9)).reached
    assert plan(Goal(size_bytes=far.stored_bytes - 900_000)).going == tuple(made[:2])
    assert plan(Goal(free_bytes=900_000)).going == tuple(made[:2])


def test_goal_copies_no_more_than_it_takes(repo, tmp_path, monkeypatch):
    """Packs more than half live are copied only until there is enough; those that are less, as by any collection."""
    monkeypatch.setattr(choose_module, "SMALL_BYTES", 0)
    source = tmp_path / "source"
    source.mkdir()
    rng = random.Random(2)
    for number in range(12):
        (source / f"file{number:02}").write_bytes(rng.randbytes(250_000))
    first = snapshot_of(back_up(repo, source))
    for number in range(2, 12, 4):
        (source / f"file{number:02}").unlink()
    snapshot_of(back_up(repo, source))

    def plan(wanted: int):
        return plan_space(
            repo,
            Goal(free_bytes=wanted),
            [first],
            PruneOptions(repack_below=0.8),
            progress=Silent(),
            cancel=Cancel(),
        )

    little, much = plan(150_000), plan(450_000)
    assert little.reached
    assert much.reached
    assert 0 < little.copied_bytes < much.copied_bytes
    for module in (choose_module, options_module):  # the last pack of the copies takes some room, whatever is wanted
        monkeypatch.setattr(module, "LAST_PACK_BYTES", 600_000)
    least = plan(1)
    assert least.reached
    assert little.copied_bytes < least.copied_bytes
