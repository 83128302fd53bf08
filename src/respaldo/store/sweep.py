"""The sweep: the only code that deletes packs, and the segments and condemnations that speak of packs that are gone.

Invariant: only a `Sentence` deletes packs, its own alone, and there is one only once its condemnation is durable; the
index forgets a pack before it is deleted. What has to lie between the two is `flows.gc`'s. Implements docs/format.md,
"Prune" (G3, G6).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

from respaldo.core.ids import RANDOM_ID_BYTES, PackName, pack_object, parse_random_leaf, segment_object
from respaldo.format.snapshot import Condemnation
from respaldo.store.authority import PRUNE
from respaldo.store.ballast import with_ballast
from respaldo.store.packs import Finished
from respaldo.store.repo import Repo


@dataclass(frozen=True, slots=True)
class Sentence:
    """Is a condemnation that is durable."""

    name: str
    packs: tuple[PackName, ...]

    @classmethod
    def pass_on(cls, repo: Repo, collector: bytes, packs: Sequence[PackName], moved: Sequence[Finished] = ()) -> Self:
        """Puts a condemnation (G3), with the ballast's space where there is no other. It is never undone.

        Whoever cannot read it is told before: what it names, and of ``moved``, which packs hold what was in others.
        """

        def put() -> str:
            leaf = repo.random(RANDOM_ID_BYTES)
            repo.telling.of_condemnation(leaf, packs, moved)
            name = "condemned/" + leaf.hex()
            record = Condemnation(collector=collector, time_ns=repo.clock.now_ns(), packs=tuple(packs))
            repo.backend.put(name, [repo.vault.seal_record("condemnation", name, record.encode())])
            return name

        repo.announce(PRUNE, note=f"{len(packs)} packs")
        return cls(with_ballast(repo.backend, put), tuple(packs))

    def carry_out(self, repo: Repo, spared: Collection[PackName] = ()) -> int:
        """Deletes the packs (G6), all but some; returns how many were still there."""
        condemned = set(self.packs).difference(spared)
        repo.index.forget_packs([pack for pack in repo.index.packs() if pack.name in condemned])
        repo.source.forget_positions()
        return repo.backend.discard(pack_object(name) for name in self.packs if name in condemned)


def sweep_condemnations(repo: Repo) -> int:
    """Deletes condemnations, anybody's, none of whose packs is there any more; returns how many."""
    names = [name for name, _ in repo.backend.list("condemned") if parse_random_leaf(name.partition("/")[2])]
    there = repo.list_packs().packs.keys()  # listed after the condemnations
    done = []
    for name in names:
        record = repo.read_condemnation(name)
        if record is not None and there.isdisjoint(record.packs):
            done.append(name)
    swept = repo.backend.discard(done)
    left = set(names) - set(done)
    cached = [name for name in repo.index.record_names() if name.startswith("condemned/")]
    repo.index.put_records({}, [name for name in cached if name not in left])
    return swept


def sweep_segments(repo: Repo) -> int:
    """Deletes segments that another supersedes, or none of whose packs is there; returns how many."""
    useless = repo.superseded_segments()
    swept = repo.backend.discard(map(segment_object, useless))
    repo.index.note_segments((), useless)
    return swept
