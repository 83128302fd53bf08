"""An owner's repository, a client that cannot read, and its area, all in memory."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path

from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.snapshots import Catalogue, Snapshot, load
from respaldo.catalog.trees import TreeReader
from respaldo.codec.slots import STANDARD
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.backup.options import BackupOptions, BackupResult
from respaldo.flows.backup.run import run_backup
from respaldo.flows.gc.options import PruneOptions, PruneResult
from respaldo.flows.gc.run import run_prune
from respaldo.format.credential import Credential
from respaldo.format.epoch import parse_removed_name
from respaldo.format.header import Header
from respaldo.store.areas import Client, enrol, list_clients
from respaldo.store.clientrepo import ClientRepo
from respaldo.store.header import read_header
from respaldo.store.making import create
from respaldo.store.owned import OwnedArea
from respaldo.store.removing import remove
from respaldo.store.renewing import renew
from respaldo.store.repo import Repo
from tests.store.repositories import CONFIG, SECRET, Clock


class KeptBackend(MemoryBackend):
    """Stays open: storage survives whoever used it."""

    def close(self) -> None:
        pass


@dataclass
class Place:
    """Is an owner with one client, whose machine has a source to back up."""

    path: Path
    rights: tuple[str, ...] = ()
    clock: Clock = field(default_factory=Clock)
    owner_backend: KeptBackend = field(default_factory=KeptBackend)
    area: KeptBackend = field(default_factory=KeptBackend)
    """The storage of the client's area."""

    def __post_init__(self) -> None:
        self.source = self.path / "source"
        self.source.mkdir(parents=True)
        create(
            self.owner_backend,
            secret=SECRET,
            kdf=STANDARD,
            config=CONFIG,
            clock=self.clock,
            random=os.urandom,
            label="",
        )
        with self.owner() as repo:
            self.credential = enrol(repo, "web", self.rights, lambda _client: self.area)
        self.header: Header = read_header(self.area)
        self._caches = itertools.count()

    def owner(self, machine: str = "owner") -> Repo:
        """Opens the repository of the owner, on one machine or another."""
        cache = self.path / machine
        return Repo.open(
            self.owner_backend, SECRET, cache_dir=cache, clock=self.clock, random=os.urandom, state_dir=cache / "state"
        )

    def client(self, credential: Credential | None = None, *, machine: str = "machine") -> ClientRepo:
        """Opens the area as the client has it, on one machine or another."""
        place = self.path / machine
        return ClientRepo(
            self.area,
            self.header,
            credential or self.credential,
            cache_dir=place / "cache",
            clock=self.clock,
            random=os.urandom,
            state_dir=place / "state",
        )

    def known(self) -> Client:
        """What the owner knows of the client."""
        with self.owner() as repo:
            return list_clients(repo)[0][0]

    def remove(self, *, unseen: bool = False) -> None:
        """Removes the client; ``unseen``: and storage hides that from it, so that it goes on."""
        client = self.known().enrolment.client
        with self.owner() as repo:
            remove(repo, client, self.area)
        if unseen:
            self.area.delete(next(name for name in self.area.names("epochs") if parse_removed_name(name) is not None))

    def renew(self, *, machine: str = "owner") -> Credential:
        """Renews the client, whose machine gets the new credential where somebody gives it that."""
        with self.owner(machine) as repo:
            return renew(
                repo,
                list_clients(repo)[0][0],
                lambda client: self.opened(client=client, fresh=machine != "owner"),
            )

    def opened(self, *, fresh: bool = False, client: Client | None = None) -> OwnedArea:
        """Opens the area as its owner has it; ``fresh``: on a machine that has never seen it."""
        place = self.path / (f"fresh {next(self._caches)}" if fresh else "owner")
        return OwnedArea.open_area(
            self.area,
            client or self.known(),
            cache_dir=place / "areas",
            clock=self.clock,
            random=os.urandom,
            state_dir=place / "state",
        )

    def opened_as(self, client: Client) -> list[Snapshot]:
        """Returns the snapshots of the area for an owner who knows so much of its client, on a fresh machine."""
        with self.opened(client=client, fresh=True) as repo:
            repo.synchronise()
            return load(repo).snapshots

    def write(self, **files: bytes) -> None:
        """Writes files into the source."""
        for name, content in files.items():
            (self.source / name).write_bytes(content)
        self.clock.now += 3600 * 10**9

    def backup(self, *, machine: str = "machine", credential: Credential | None = None) -> BackupResult:
        """Backs the source up as the client."""
        with self.client(credential, machine=machine) as repo:
            return backup(repo, self.source)

    def listed(self, *, fresh: bool = False) -> Catalogue:
        """Lists the snapshots of the area, as its owner."""
        with self.opened(fresh=fresh) as repo:
            return load(repo)

    def prune(self, **options: object) -> PruneResult:
        """Frees what no snapshot needs in the area, as its owner."""
        with self.opened() as repo:
            return run_prune(repo, PruneOptions(**options), progress=Silent(), cancel=Cancel())


def backup(repo: Repo, source: Path) -> BackupResult:
    """Backs up a source."""
    return run_backup(repo, [os.fsencode(source)], BackupOptions(), progress=Silent(), cancel=Cancel())


def content(repo: Repo, root: ChunkId) -> dict[str, bytes]:
    """Returns the files of a snapshot of which all lies in one directory."""
    trees = TreeReader(repo.source)
    found: dict[str, bytes] = {}
    stack = [root]
    while stack:
        for entry in trees.entries(stack.pop()):
            if entry.is_dir:
                stack.extend(entry.content)
                continue
            ids = [chunk for level, chunk in trees.nodes(entry.content) if not level]
            found[os.fsdecode(entry.name)] = b"".join(repo.source.get(Kind.DATA, chunk) for chunk in ids)
    return found
