"""An open repository, as callers outside the library see it: all that can be done with one.

The flows are imported when they run: a listing needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, tzinfo
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from respaldo.api.blocks import restore_of, trees_below
from respaldo.api.history import History, Rollback
from respaldo.api.later import Later
from respaldo.api.parity import Parity
from respaldo.api.places import Uses
from respaldo.backend.wrap import RateLimit
from respaldo.catalog import snapshots
from respaldo.catalog.snapshots import Catalogue, Snapshot
from respaldo.catalog.trees import TreeReader
from respaldo.codec.slots import Opened
from respaldo.core.errors import NotEntitled, NotRecorded, RespaldoError
from respaldo.core.ids import SnapshotId
from respaldo.core.model import Entry
from respaldo.core.seams import Cancel, Progress, Silent
from respaldo.store import repo as store

if TYPE_CHECKING:
    from respaldo.api import clients, figures, keys, looking, naming, recording, retention
    from respaldo.api.bench.values import Bench, BenchOptions
    from respaldo.api.clients import Clients
    from respaldo.api.pruning import Pruning
    from respaldo.api.repairing import Repairing
    from respaldo.api.rewriting import RewriteResult
    from respaldo.api.safety import Restoring
    from respaldo.catalog import protection, verification
    from respaldo.catalog.retention import Policy
    from respaldo.catalog.selectors import Chosen, Context
    from respaldo.flows.backup.options import BackupOptions, BackupResult
    from respaldo.flows.backup.run import Stream
    from respaldo.flows.check.options import VerifyOptions
    from respaldo.flows.check.result import VerifyResult
    from respaldo.flows.gc.options import PruneOptions, PruneResult
    from respaldo.flows.repair.options import RepairOptions
    from respaldo.flows.restore.options import RestoreOptions, RestorePlan, RestoreResult
    from respaldo.flows.rewrite.options import RewriteOptions
    from respaldo.format.verification import WasWhole
    from respaldo.views.walk import Failed
else:  # start-up time
    clients, figures, keys, looking, naming, recording, retention = map(
        Later, ("clients", "figures", "keys", "looking", "naming", "recording", "retention")
    )
    protection, verification = (Later(name, "respaldo.catalog") for name in ("protection", "verification"))


class Repository:
    """Is an open repository. A context manager; one thread."""

    def __init__(
        self,
        repo: store.Repo,
        uses: Uses,
        *,
        pinned: bool,
        limit: RateLimit | None = None,
        rollback: Rollback = Rollback.REFUSE,
        allow_unrecorded: bool = False,
    ) -> None:
        self._repo = repo
        self.unrecorded: list[NotRecorded] = []
        self._allow_unrecorded = allow_unrecorded
        self.history = History(repo, rollback)
        self._uses = uses
        self._limit = limit
        self._trees = TreeReader(repo.source)
        self._synchronised = False
        self.zone: tzinfo = UTC
        """Whose days and hours the times are that name snapshots."""
        self.pinned = pinned
        """Whether the header's hash could be remembered."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if "looking" in vars(self):
            self.looking.close()
        self._repo.__exit__(kind, value, trace)

    @property
    def within(self) -> store.Repo:
        """The repository as the library knows it: for the other modules of this façade, and none else."""
        return self._repo

    # --- looking ---------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The repository's id in hex."""
        return self._repo.header.repository.hex()

    @property
    def header_hash(self) -> bytes:
        """The hash of its header, by which clients know it."""
        return self._repo.header.hash

    @property
    def opened(self) -> Opened:
        """What opens it again without a secret, as long as the slot is there."""
        return Opened(master=self._repo.ring.master, slot=self._repo.slot)

    @property
    def location(self) -> str:
        """Where it lies."""
        return self._repo.backend.location

    @property
    def damaged(self) -> Sequence[RespaldoError]:
        """What could not be read when the index was last brought up to date."""
        return tuple(self._repo.damaged)

    @property
    def made_anew(self) -> bool:
        """Whether the local index could not be used, after a crash or for damage, and is made anew."""
        return self._repo.index.thrown_away

    def snapshots(self) -> Catalogue:
        """Lists the snapshots, by time, with what is in the trash, what is undecided and what is damaged.

        Raises `HistoryChanged` where one is gone that nobody has forgotten, and `KeyRotated` where the key was rotated
        since this was opened, what is there was sealed anew, and what opened this does not open that.
        """
        self._need_reading()
        self._repo.keep_up()
        found = snapshots.load(self._repo)
        self.history.compare(found)
        return protection.set_apart(found, protection.load_trash(self._repo))

    def find(self, name: str, *, host: str = "") -> naming.Found:
        """Returns what ``SNAPSHOT`` or ``SNAPSHOT:/PATH`` means; raises `NoSuchSnapshot`, `NoSuchPath`."""
        self._synchronise(Silent())
        return naming.resolve(self.snapshots(), self._trees, name, self._context(), host=host)

    def meant(self, names: Iterable[str]) -> tuple[Chosen, ...]:
        """Returns what names of snapshots that are to be forgotten mean; raises `Refused` for one that is not exact."""
        return retention.find_all(self.snapshots(), names, self._context(), trash=True, strict=True)

    def _context(self) -> Context:
        from respaldo.catalog.selectors import Context  # noqa: PLC0415 - start-up time

        return Context(now_ns=self._repo.clock.now_ns(), zone=self.zone, verified=self.verified)

    def verified(self, items: Iterable[Snapshot] | None = None) -> Mapping[SnapshotId, WasWhole]:
        """Returns which snapshots, of all or of some, were read and found whole, and when and how."""
        return verification.load_verified(self._repo, self.snapshots().snapshots if items is None else items)

    def _need_reading(self) -> None:
        """Raises `NotEntitled` for a client that has this open to write."""
        if self._repo.runs is not None:
            from respaldo.format.enrolment import LIST  # noqa: PLC0415 - start-up time

            raise NotEntitled(self._repo.runs.name, LIST)

    def _synchronise(self, progress: Progress) -> None:
        self._need_reading()
        if not self._synchronised:
            self._repo.synchronise(progress, lenient=True)  # whoever writes looks again, and is not lenient
            self._synchronised = True

    def ls(
        self, found: naming.Found, *, recursive: bool = False, failed: Failed | None = None
    ) -> Iterator[tuple[bytes, Entry]]:
        """Yields (path, entry) of what is in a directory, or all below it; ``failed``: see `views.walk.walk`."""
        trees = trees_below(self._repo, found.entry) if recursive else self._trees
        return naming.walk(trees, found, recursive=recursive, failed=failed)

    @cached_property
    def looking(self) -> looking.Looking:
        """What looks into files and at many snapshots at once."""
        self._synchronise(Silent())
        return looking.Looking(self._repo, self._trees, self.snapshots, lambda: self.accesses)

    def stats(self, progress: Progress) -> figures.Stats:
        """Counts snapshots, packs, chunks and bytes."""
        return figures.measure(self._repo, self.snapshots(), progress)

    def bench(self, options: BenchOptions, *, progress: Progress, cancel: Cancel) -> Bench:
        """Measures disk, stages and runs on this machine, with this repository's content; changes nothing in it."""
        from respaldo.api.bench.measure import measure as measure_speed  # noqa: PLC0415 - start-up time

        self._synchronise(progress)
        with self.accesses.recorded("bench", note="into a directory for the time being"):
            return measure_speed(self, self._repo, options, progress=progress, cancel=cancel)

    # --- backing up ------------------------------------------------------------------------------------------------

    def backup(
        self, sources: Sequence[bytes], options: BackupOptions, *, progress: Progress, cancel: Cancel
    ) -> BackupResult:
        """Backs up paths; raises `SourceError` where a source as a whole cannot be read."""
        from respaldo.flows.backup.run import run_backup  # noqa: PLC0415 - start-up time

        self._lift_limit(cancel)
        return run_backup(self._repo, sources, options, progress=progress, cancel=cancel)

    def backup_stream(
        self,
        name: bytes,
        stream: Stream,
        options: BackupOptions,
        *,
        finish: Callable[[], None],
        progress: Progress,
        cancel: Cancel,
    ) -> BackupResult:
        """Backs up what a stream gives, as a file of that name; ``finish`` may raise at its end: no snapshot then."""
        from respaldo.flows.backup.run import run_stream  # noqa: PLC0415 - start-up time

        self._lift_limit(cancel)
        return run_stream(self._repo, name, stream, options, finish=finish, progress=progress, cancel=cancel)

    def _lift_limit(self, cancel: Cancel) -> None:
        """Lets what is under way, and the checkpoint, go out at full speed once a stop was asked for."""
        if self._limit is not None:
            self._limit.lift_when(lambda: cancel.requested)

    def rewrite(
        self, names: Iterable[str], options: RewriteOptions, *, forget: bool, progress: Progress, cancel: Cancel
    ) -> RewriteResult:
        """Makes new snapshots from old ones without their sources; with ``forget``, forgets those afterwards."""
        from respaldo.api.rewriting import rewrite  # noqa: PLC0415 - start-up time

        repo, there, when = self._repo, self.snapshots(), self._context()
        return rewrite(repo, there, names, when, options, forget=forget, progress=progress, cancel=cancel)

    # --- restoring -------------------------------------------------------------------------------------------------

    def restore(
        self, found: naming.Found, target: bytes, options: RestoreOptions, *, progress: Progress, cancel: Cancel
    ) -> RestoreResult:
        """Writes what was found to a target, what is in a directory directly into it; raises as `restoring.restore`."""
        from respaldo.api.restoring import restore  # noqa: PLC0415 - start-up time

        return restore(
            self, trees_below(self._repo, found.entry), found, target, options, progress=progress, cancel=cancel
        )

    def plan_restore(
        self, found: naming.Found, target: bytes, options: RestoreOptions, *, progress: Progress, cancel: Cancel
    ) -> RestorePlan:
        """Returns what `restore` would do; changes nothing."""
        from respaldo.flows.restore.run import plan_restore  # noqa: PLC0415 - start-up time

        wanted = restore_of(self._repo, trees_below(self._repo, found.entry), found, target, options)
        return plan_restore(wanted, progress=progress, cancel=cancel)

    def restoring(self, found: naming.Found, target: bytes, options: RestoreOptions) -> Restoring:
        """Returns what looks ahead of `restore`: at what it would change, and what it would take away."""
        from respaldo.api.safety import Restoring  # noqa: PLC0415 - start-up time

        wanted = restore_of(self._repo, trees_below(self._repo, found.entry), found, target, options)
        return Restoring(self._repo, wanted, found, self.snapshots)

    @cached_property
    def accesses(self) -> recording.Accesses:
        """What writes into this client's access log what is handed over, before it is."""
        return recording.Accesses(self._repo, self.unrecorded, required=not self._allow_unrecorded)

    # --- checking --------------------------------------------------------------------------------------------------

    def verify(self, options: VerifyOptions, *, progress: Progress, cancel: Cancel) -> VerifyResult:
        """Checks structure, and as much of the content as the options say."""
        from respaldo.api.verifying import verify  # noqa: PLC0415 - start-up time

        return verify(self._repo, options, progress=progress, cancel=cancel)

    def prepare_repair(self, options: RepairOptions, *, progress: Progress, cancel: Cancel) -> Repairing:
        """Looks at everything and plans how to mend what can be mended; changes nothing before it is carried out."""
        from respaldo.api.repairing import Repairing  # noqa: PLC0415 - start-up time

        return Repairing(self._repo, options, self.history, progress=progress, cancel=cancel)

    # --- freeing space ---------------------------------------------------------------------------------------------

    def prune(self, options: PruneOptions, *, progress: Progress, cancel: Cancel) -> PruneResult:
        """Frees what no snapshot needs; forgets none. Nothing is deleted where a snapshot needs what is not there."""
        from respaldo.flows.gc.run import run_prune  # noqa: PLC0415 - start-up time

        return run_prune(self._repo, options, progress=progress, cancel=cancel)

    @property
    def pruning(self) -> Pruning:
        """What looks ahead of `prune`: what it would do, what each snapshot holds; changes nothing."""
        from respaldo.api.pruning import Pruning  # noqa: PLC0415 - start-up time

        return Pruning(self._repo)

    # --- retention -------------------------------------------------------------------------------------------------

    def plan_retention(
        self,
        policy: Policy | None,
        *,
        zone: tzinfo,
        group_by: Collection[str] | None = None,
        accept_times: bool = False,
        only_like: SnapshotId | None = None,
    ) -> retention.RetentionPlan:
        """Returns what a policy would keep; raises `UsageError` and `Refused` for one that would keep nothing."""
        return retention.plan_retention(
            self._repo,
            self.snapshots(),
            policy,
            zone=zone,
            group_by=retention.GROUP_BY if group_by is None else group_by,
            accept_times=accept_times,
            only_like=only_like,
        )

    def apply_retention(self, plan: retention.RetentionPlan, *, cancel: Cancel) -> tuple[Snapshot, ...]:
        """Forgets what a plan says, or puts it into the trash for the policy's time of grace; returns what went."""
        return retention.apply_retention(self._repo, plan, cancel=cancel)

    def forget(
        self, names: Iterable[str], *, grace_ns: int = 0, dry_run: bool = False, cancel: Cancel
    ) -> tuple[Snapshot, ...]:
        """Forgets snapshots, none of them where one is pinned (`Refused`); returns them."""
        return retention.forget_named(
            self._repo, self.snapshots(), names, self._context(), grace_ns=grace_ns, dry_run=dry_run, cancel=cancel
        )

    def pins(self) -> frozenset[SnapshotId]:
        """Lists the snapshots that are pinned."""
        return protection.list_pins(self._repo)

    def pin(self, names: Iterable[str], reason: str = "") -> retention.Changed:
        """Protects snapshots from every policy; returns them, and those that were not protected before."""
        return retention.pin(self._repo, self.snapshots(), names, self._context(), reason)

    def unpin(self, names: Iterable[str]) -> retention.Changed:
        """Takes pins away; returns the snapshots, and those that had one."""
        return retention.unpin(self._repo, self.snapshots(), names, self._context())

    def trash(self) -> tuple[retention.InTrash, ...]:
        """Lists what is in the trash."""
        return retention.trash(self._repo, self.snapshots())

    def undo(self, names: Iterable[str]) -> tuple[Snapshot, ...]:
        """Brings snapshots back out of the trash; raises `Refused` where it is too late."""
        return retention.undo(self._repo, self.snapshots(), names, self._context())

    def empty_trash(self, *, dry_run: bool = False) -> Sequence[SnapshotId]:
        """Takes away for good what has been in the trash for its time of grace; returns what that is."""
        return protection.empty_trash(self._repo, dry_run=dry_run)

    @property
    def late_runs(self) -> int:
        """How many sessions of a client were met, in its area, that came too late to count: see `store.rings`."""
        area = getattr(self._repo, "area", None)  # its class is loaded where there are clients
        return area.late if area is not None else 0

    @property
    def earlier_runs(self) -> int:
        """How many sessions were met that a client with rights stored under a credential that its file lacks."""
        granted = getattr(self._repo, "granted", None)
        return len(granted.earlier) if granted is not None else 0

    @property
    def parity(self) -> Parity:
        """Parity of this repository: how much there is, what it has mended, on and off."""
        return Parity(self._repo)

    @property
    def clients(self) -> Clients:
        """Clients that write into areas of this repository: added, listed, removed."""
        return clients.Clients(self._repo, self.accesses)

    @property
    def slots(self) -> keys.Slots:
        """Key slots of this repository: passphrases and keys listed, added, exchanged, removed."""
        return keys.Slots(self._repo, self._uses, self.accesses)
