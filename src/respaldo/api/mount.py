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
from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel
from respaldo.store.repo import Repo
from respaldo.views.directories import Directories
from respaldo.views.fuse import MountOptions, Session
from respaldo.views.fuse_answers import Answers
from respaldo.views.layout import Folder, Names, layout
from respaldo.views.mounted import Mounted
from respaldo.views.named import Named
from respaldo.views.newest import latest
from respaldo.views.versions import incremental, versions

__all__ = ["MountOptions", "mount"]


class _Look:
    """Lists the snapshots; brings the index up to date where there are others than last time.

    Raises `KeyRotated` after a rotation: what is mounted then stays as it is, and what has gone is an error, and not
    an empty directory.
    """

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._known: Mapping[SnapshotId, Snapshot] = {}
        self.trash: Sequence[Snapshot] = ()
        self.space = (0, 0)
        """Bytes that are stored, and files in all snapshots."""

    def __call__(self) -> Sequence[Snapshot]:
        self._repo.keep_up()
        listed = snapshots.load(self._repo)
        require_readable(self._repo, listed)
        catalogue = protection.set_apart(listed, protection.load_trash(self._repo))
        found, self.trash = catalogue.snapshots, catalogue.trash
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
    cancel: Cancel,
) -> None:
    """Mounts a repository at a directory; ``ready`` is called once it is there. Returns when it is no more.

    Raises `UsageError` where what it takes is not installed, `MountError` where it cannot be mounted, `NotRecorded`
    where the access log takes no line.
    """
    repo = repository._repo  # noqa: SLF001 - the façade's own
    look = _Look(repo)
    names = Names(zone=zone)
    seals: dict[SnapshotId, str] = {}

    def context(items: Sequence[Snapshot]) -> Context:
        return Context(now_ns=repo.clock.now_ns(), zone=zone, verified=lambda: load_verified(repo, items))

    def lay_out(items: Sequence[Snapshot], directories: Directories) -> Folder:
        names.apart = look.trash
        names.look_at(items)
        more = {
            b"incremental": incremental(directories, items, names),
            b"versions": versions(directories, items, zone),
            b"at": Folder(children=lambda: Named(items, names, lambda: context(items))),
        }
        return layout(
            items,
            names,
            lambda items, period: retention.view(items, period, zone),
            partial(latest, directories),
            more,
            seals,
        )

    tree = Mounted(blocks=Blocks(repo), reader=repo.source, look=look, lay_out=lay_out, clock=repo.clock, seals=seals)
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
