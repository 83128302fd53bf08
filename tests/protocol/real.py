"""The real collector as an adversary: it heeds no marker, and condemns packs of which every chunk is needed.

What it leaves alone for the sake of speed must not be what keeps it from losing a snapshot.
"""

from __future__ import annotations

import random

from respaldo.core.seams import Cancel, Silent
from respaldo.flows.gc import run
from respaldo.flows.gc.choose import Choice, weigh
from respaldo.flows.gc.options import PackPlan, PruneOptions, PruneResult
from respaldo.format.pack import parse_footer
from respaldo.store.markers import Markers


class Real:
    """Collects once, as `tests.protocol.collector.Collector` does."""

    def __init__(self, repo, rng: random.Random) -> None:
        self.repo = repo
        self.rng = rng
        self.victims: tuple[PackPlan, ...] = ()
        self.copied = 0
        self.result: PruneResult | None = None

    def run(self) -> None:
        chances.append(self.rng)
        collector = run.Collector(self.repo, PruneOptions(), progress=Silent(), cancel=Cancel())
        plan = collector.plan()
        self.victims = (*plan.dead, *plan.repack)
        self.result = collector.execute(plan)
        assert not self.result.damages, self.result.damages
        self.copied = self.result.copied_blocks + self.result.copied_chunks


class RealCondemnsAll(Real):
    """Condemns every pack that it sees."""

    def __init__(self, repo, _rng: random.Random) -> None:
        super().__init__(repo, Always())


class Always(random.Random):
    """Says yes."""

    def random(self) -> float:
        return 0.0


chances: list[random.Random] = []
"""Of the collector whose turn it is to choose: it alone runs between `run` and its choice, as `Scheduler` has it."""


def choose(repo, live, listing, _alive, _options, _old) -> Choice:
    """Condemns what holds anything dead, as a rule, and what is all live, now and then."""
    rng = chances[-1]
    choice = Choice()
    for pack in repo.index.packs():
        footer = parse_footer(repo.index.footer(pack.number), "pack")
        bits = live.number(pack.number)
        dead = bits.bit_count() < len(footer.lengths)
        if pack.name in listing.packs and rng.random() < (0.8 if dead else 0.4):
            plan = PackPlan(
                name=pack.name, number=pack.number, length_bytes=pack.length_bytes, live_bytes=weigh(footer, bits)
            )
            (choice.repack if bits or rng.random() < 0.5 else choice.dead).append(plan)
    return choice


def make_ruthless(monkeypatch) -> None:
    """Makes every real collector heed no marker, and choose as above."""
    monkeypatch.setattr(run, "choose", choose)
    nobody = Markers(alive=frozenset(), stale=())
    monkeypatch.setattr(run, "read_markers", lambda _repo: nobody)
