"""Mounting: wires the tree of a mount to an open repository. See `respaldo.views.mounted` and `respaldo.views.fuse`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from functools import partial

from respaldo.api import retention
from respaldo.api.blocks import Blocks
from respaldo.api.history import require_readable
from respaldo.api.repository import Repository
from respaldo.catalog import protection, snapshots
from respaldo.catalog.selectors import Context
from respaldo.catalog.snapshots import Snapshot
from respaldo.catalog.verification import load_verified
from respaldo.core.errors import Corruption
from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel
from respaldo.store.repo import Repo
from respaldo.views.directories import Directories
from respaldo.views.fuse import MountOptions, Session
from respaldo.views.fuse_answers import Answers
from respaldo.views.layout import Folder, Names, Spec, Text, layout
from respaldo.views.mounted import Mounted
from respaldo.views.named import Named
from respaldo.views.newest import latest, unknown
from respaldo.views.versions import incremental, versions

__all__ = ["DAMAGED", "MountOptions", "mount"]

DAMAGED = (
    "latest/ is an error as long as it cannot be told which snapshot is the newest; snapshots/ holds all others. "
    "What to do, says: respaldo verify"
)
"""What a person is told of manifests that cannot be read."""


class _Look:
    """Lists the snapshots; brings the index up to date where there are others than last time.

    Raises `KeyRotated` after a rotation: what is mounted then stays as it is, and what has gone is an error, and not
    an empty directory.
    """

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._known: Mapping[SnapshotId, Snapshot] = {}
        self.trash: Sequence[Snapshot] = ()
        self.damaged: Sequence[Corruption] = ()
        """Of manifests."""
        self.space = (0, 0)
        """Bytes that are stored, and files in all snapshots."""

    def __call__(self) -> Sequence[Snapshot]:
        self._repo.keep_up()
        listed = snapshots.load(self._repo)
        require_readable(self._repo, listed)
        catalogue = protection.set_apart(listed, protection.load_trash(self._repo))
        found, self.trash, self.damaged = catalogue.snapshots, catalogue.trash, catalogue.damaged
        if not self._known or any(item.id not in self._known for item in found):
            self._repo.synchronise(lenient=True)
        # Those that are known keep their parsed manifests.
        self._known = {item.id: self._known.get(item.id, item) for item in found}
        files = sum(item.manifest.figures.files for item in self._known.values())
        self.space = sum(self._repo.index.lengths().values()), files
        return tuple(self._known.values())


def mount(
    repository: Repository,
    directory: bytes,
    options: MountOptions,
    *,
    zone: tzinfo,
    ready: Callable[[], None],
    damaged: Callable[[Sequence[Corruption]], None],
    cancel: Cancel,
) -> None:
    """Mounts a repository at a directory; ``ready`` is called once it is there. Returns when it is no more.

    ``damaged`` is told manifests that cannot be read, each once: before ``ready`` those that are known by then, and
    others when they become known, by any thread. What is newest is nowhere to be seen then, but a text that says why.

    Raises `UsageError` where what it takes is not installed, `MountError` where it cannot be mounted, `NotRecorded`
    where the access log takes no line.
    """
    repo = repository._repo  # noqa: SLF001 - the façade's own
    look = _Look(repo)
    names = Names(zone=zone)
    seals: dict[SnapshotId, str] = {}
    told: set[str] = set()

    def context(items: Sequence[Snapshot]) -> Context:
        return Context(now_ns=repo.clock.now_ns(), zone=zone, verified=lambda: load_verified(repo, items))

    def lay_out(items: Sequence[Snapshot], directories: Directories) -> Folder:
        fresh = [error for error in look.damaged if error.name not in told]
        if fresh:
            told.update(error.name for error in fresh)
            damaged(fresh)
        names.apart = look.trash
        names.look_at(items)
        more: dict[bytes, Spec] = {
            b"incremental": incremental(directories, items, names),
            b"versions": versions(directories, items, zone),
            b"at": Folder(children=lambda: Named(items, names, lambda: context(items), look.damaged)),
        }
        if look.damaged:
            more[b"damaged"] = Text(content=_about(look.damaged))
        return layout(
            items,
            names,
            lambda items, period: retention.view(items, period, zone),
            (lambda _: unknown(look.damaged[0])) if look.damaged else partial(latest, directories),
            more,
            seals,
        )

    tree = Mounted(
        blocks=Blocks(repo),
        reader=repo.source,
        look=look,
        lay_out=lay_out,
        clock=repo.clock,
        seals=seals,
        besides=lambda: tuple((error.name, error.reason) for error in look.damaged),
    )
    try:
        answers = Answers(tree, lambda: look.space, acls=options.allow_other)
        source = f"respaldo:{repository.location}"
        note = "for all users" if options.allow_other else ""
        with (
            repository.accesses.recorded("mount", target=directory, note=note),
            Session(answers, directory, source, options) as session,
        ):
            ready()
            session.wait(cancel)
    finally:
        tree.close()


def _about(damaged: Sequence[Corruption]) -> bytes:
    """Returns what stands in a mount about manifests that cannot be read: whoever mounted it may be gone."""
    return "".join(f"{line}\n" for line in (*map(str, damaged), DAMAGED)).encode("utf-8", "surrogateescape")
