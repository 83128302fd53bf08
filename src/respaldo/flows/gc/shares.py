"""Shares: how much of what is stored goes when a snapshot is forgotten, alone or after others.

What counts are the sealed bytes of chunks (of trees, lists and data) in the packs, of a block that several share each
one's part; of a chunk that lies in several packs one copy, because the others go anyway. Not counted are footers and
padding, and the manifest itself. Nothing is read but trees, lists and the local index, nothing is written, and memory
holds two bytes a chunk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from respaldo.core.ids import SnapshotId, pack_object
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.gc.choose import settled_duplicates
from respaldo.flows.gc.labels import SHARED, Labels, weigh_labels
from respaldo.flows.gc.mark import Mark
from respaldo.flows.gc.options import Shares
from respaldo.flows.gc.roots import Roots, expirable
from respaldo.format.pack import parse_footer
from respaldo.store.bitmaps import Bitmaps
from respaldo.store.markers import read_markers
from respaldo.store.repo import Repo

_OTHERS = 1
"""The number that all roots share which are no snapshots to be asked about: in the trash, undecided, just made."""


def measure_shares(
    repo: Repo,
    *,
    progress: Progress,
    cancel: Cancel,
    going: Sequence[SnapshotId] = (),
    without: Collection[SnapshotId] = frozenset(),
) -> Shares:
    """Measures every committed snapshot; those that are ``going`` step by step, in their order.

    ``without``: snapshots that do not count, because they go whatever is decided. Raises as `Mark.update` does.
    """
    account = Account(repo, going, progress=progress, cancel=cancel, without=without)
    account.look()
    return account.measure()


class Account(Mark):
    """Marks with labels: snapshots that stay before those that go, and those in the opposite order."""

    def __init__(
        self,
        repo: Repo,
        going: Sequence[SnapshotId],
        *,
        progress: Progress,
        cancel: Cancel,
        without: Collection[SnapshotId] = frozenset(),
    ) -> None:
        super().__init__(repo, progress=progress, cancel=cancel, without=without)
        self.going = tuple(going)
        self.numbers: dict[SnapshotId, int] = {}
        """The number of each snapshot, those of what goes last and descending."""
        self.labels = Labels(0)
        self.expiring: tuple[SnapshotId, ...] = ()
        """What is undecided and nobody's any more: it does not count."""
        self._clear()

    def _clear(self) -> None:
        super()._clear()
        self.numbers = {}
        self.labels = Labels(len(self.roots.committed) + _OTHERS + 1)
        self.marks = self.labels

    def look(self) -> frozenset[bytes]:
        """Labels everything, of a chunk one copy. Returns the sessions that are alive. Raises as `update` does."""
        alive = self.label()
        self.settle()
        return alive

    def label(self) -> frozenset[bytes]:
        """Labels everything; what may expire does not count. Returns the sessions that are alive.

        Raises as `update` does.
        """
        alive = read_markers(self._repo).alive

        def leaving_out(roots: Roots) -> Collection[SnapshotId]:
            nonlocal alive
            alive |= read_markers(self._repo).alive  # after the roots: who began meanwhile has a marker by now
            self.expiring = expirable(roots, alive)
            return self.expiring

        self.update(leaving_out)
        return alive

    def settle(self) -> None:
        """Leaves the label of a chunk on one of its copies."""
        for copies, keep in settled_duplicates(self._repo, self.everything):
            self.labels.join(copies, keep)

    def _all(self, leave_out: Collection[SnapshotId]) -> None:
        self._need_readable(leave_out)
        self._clear()  # numbers depend on all roots: nothing is kept from an earlier look
        there = [snapshot for snapshot in self.roots.committed if snapshot not in self.without]
        last = set(self.going)
        going = [snapshot for snapshot in self.going if snapshot in self.roots.committed]
        order = [snapshot for snapshot in there if snapshot not in last] + going[::-1]
        self.labels.root = _OTHERS
        for snapshot, item in self.roots.undecided.items():
            if snapshot not in leave_out:
                self._root(snapshot, item.root, lenient=True)
        self._what_was_lost()
        for number, snapshot in enumerate(order, _OTHERS + 1):
            self.numbers[snapshot] = self.labels.root = number
            self._committed(snapshot, self.roots.committed[snapshot])
            self._what_was_lost()  # at once: a label is the number of the root that met it first

    @property
    def everything(self) -> Bitmaps:
        """What anybody needs."""
        return self.labels.live(len(self.numbers) + _OTHERS)

    def live_after(self, count: int) -> Bitmaps:
        """Returns what is needed once the first ``count`` of what goes are forgotten."""
        return self.labels.live(len(self.numbers) + _OTHERS - self.there(count))

    def there(self, count: int) -> int:
        """Returns how many of the first ``count`` of what goes there are."""
        return sum(snapshot in self.numbers for snapshot in self.going[:count])

    def measure(self) -> Shares:
        """Adds up."""
        weights: Counter[int] = Counter()
        for number, labels in self.labels.rows.items():
            entry = self._repo.index.entry(number)
            if entry is not None:
                weigh_labels(parse_footer(entry[1], pack_object(entry[0].name)), labels, weights)
        del weights[0]
        numbers = self.numbers
        return Shares(
            alone={snapshot: weights[number << 1] for snapshot, number in numbers.items()},
            steps={
                snapshot: weights[numbers[snapshot] << 1] + weights[numbers[snapshot] << 1 | SHARED]
                for snapshot in self.going
                if snapshot in numbers
            },
            held=weights.total(),
        )
