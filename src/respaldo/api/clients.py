"""Clients of an open repository that write into areas of their own: listed, added, removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from respaldo.backend.base import Backend
from respaldo.backend.open import area_location, open_backend
from respaldo.core.errors import Corruption, NotARepository, UsageError
from respaldo.format.enrolment import RIGHTS
from respaldo.store import areas
from respaldo.store.repo import Repo

__all__ = ["RIGHTS", "Added", "ClientInfo", "Clients"]

if TYPE_CHECKING:
    from respaldo.api.recording import Accesses
    from respaldo.store.owned import OwnedArea


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientInfo:
    """Describes a client to a person. Times in ns since the epoch; ``removed_ns`` None where it was not removed."""

    id: str
    name: str
    rights: tuple[str, ...]
    added_ns: int
    removed_ns: int | None = None
    keys_ns: int = 0
    """Since when it has the keys that it has."""
    epoch: int = 0
    """Of its area: so often its keys were renewed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """Is a client that was added, or renewed: its credential as the file's bytes, and where its area lies."""

    client: ClientInfo
    location: str
    credential: bytes


class Clients:
    """Is the clients of an open repository."""

    def __init__(self, repo: Repo, accesses: Accesses) -> None:
        self._repo = repo
        self._accesses = accesses

    def listed(self) -> tuple[list[ClientInfo], list[Corruption]]:
        """Returns the clients by the time they were added, and the records that are damaged.

        Raises `KeyRotated` where one seems so because the key was rotated since the repository was opened.
        """
        found, damaged = areas.list_clients(self._repo)
        if damaged:
            self._repo.require_newest()
        return [_info(item) for item in found], damaged

    def add(self, name: str, rights: tuple[str, ...] = ()) -> Added:
        """Makes a client with an area of its own. Its credential is kept nowhere.

        Raises `UsageError` for the name, `NotRecorded`.
        """
        with self._accesses.recorded("key client add", note=" ".join((name, *rights))):
            credential = areas.enrol(self._repo, name, rights, self._make_area)
        found, _ = areas.list_clients(self._repo)
        client = next(item for item in found if item.enrolment.header_hash == credential.header_hash)
        location = area_location(self._repo.backend.location, client.enrolment.client)
        return Added(client=_info(client), location=location, credential=credential.encode())

    def find(self, name: str) -> ClientInfo:
        """Returns the client of a name, or of the beginning of an id; raises `UsageError`."""
        return _info(self.record(name))

    def find_renewable(self, name: str) -> ClientInfo:
        """Returns the client of a name, if its keys can be renewed; raises `UsageError`, `Corruption`."""
        from respaldo.store.renewing import check_renewable  # noqa: PLC0415 - start-up time

        client = self.record(name)
        check_renewable(client)
        return _info(client)

    def renew(self, name: str) -> Added:
        """Gives a client and its area other keys; the credential that it had ends at once. The new one is kept nowhere.

        What it stored stays, and is read as before by the owner. Raises `UsageError`, `Refused`, `NotRecorded`.
        """
        from respaldo.store import renewing  # noqa: PLC0415 - start-up time

        client = self.record(name)
        with self._accesses.recorded("key client renew", note=client.enrolment.name):
            credential = renewing.renew(self._repo, client, self._open_to_renew)
        location = area_location(self._repo.backend.location, client.enrolment.client)
        return Added(client=self.find(client.enrolment.client.hex()), location=location, credential=credential.encode())

    def remove(self, name: str) -> ClientInfo:
        """Lets no run of a client count that has not begun yet. What it wrote stays, and so does its area.

        Done again, it puts what is gone of a removal; raises `UsageError` where nothing is.
        """
        from respaldo.store import removing  # noqa: PLC0415 - start-up time

        client = self.record(name)
        with (
            self._accesses.recorded("key client remove", note=client.enrolment.name),
            self.area_backend(client) as area,
        ):
            removal = removing.remove(self._repo, client.enrolment.client, area)
        return _info(areas.Client(enrolment=client.enrolment, removal=removal))

    def names(self) -> list[str]:
        """Returns what each client can be named by, its id where it shares its name; by the time it was added."""
        return [name for name, _ in named(self.listed()[0])]

    def present(self) -> list[str]:
        """Returns the names of those that were not removed."""
        return [item.name for item in self.listed()[0] if item.removed_ns is None]

    def record(self, name: str) -> areas.Client:
        """Returns what the owner knows of the client of a name, or of the beginning of an id; raises `UsageError`."""
        known, _ = areas.list_clients(self._repo)
        found = [item for item in known if item.enrolment.name == name]
        found = [item for item in found if item.removal is None] or found
        if not found and name:
            found = [item for item in known if item.enrolment.client.hex().startswith(name)]
        if len(found) != 1:
            what = "several clients are called so" if found else "there is no such client"
            how = "name one by its id, as listed by" if found else "list them with"
            raise UsageError(f"{what}: {name}", hint=f"{how}: respaldo key client list")
        return found[0]

    def area_backend(self, client: areas.Client) -> Backend:
        """Opens the backend of a client's area; raises `NotARepository` where it is not below this repository."""
        try:
            return open_backend(area_location(self._repo.backend.location, client.enrolment.client))
        except NotARepository as error:
            error.hint = f"the area of the client {client.enrolment.name} is not below its repository"
            raise

    def open_area(self, client: areas.Client, backend: Backend, *, state_dir: Path | None = None) -> OwnedArea:
        """Opens a client's area as its owner, which owns its backend from here on; raises `Corruption`.

        ``state_dir``: where it is remembered how far the area's log went; without it nobody looks.
        """
        from respaldo.store.owned import OwnedArea  # noqa: PLC0415 - start-up time

        try:
            return OwnedArea.open_area(
                backend,
                client,
                cache_dir=self._repo.cache_dir.parent,
                clock=self._repo.clock,
                random=self._repo.random,
                state_dir=state_dir,
            )
        except BaseException:
            backend.close()
            raise

    def _open_to_renew(self, client: areas.Client) -> OwnedArea:
        return self.open_area(client, self.area_backend(client))

    def _make_area(self, client: bytes) -> Backend:
        return open_backend(area_location(self._repo.backend.location, client), create=True)


def named(found: Sequence[ClientInfo]) -> list[tuple[str, ClientInfo]]:
    """Returns what each of some clients can be named by, its id where it shares its name."""
    names = [item.name for item in found]
    return [(item.name if names.count(item.name) == 1 else item.id, item) for item in found]


def described(records: areas.Records) -> list[ClientInfo]:
    """Returns the clients whose records can be read, by the time they were added."""
    return [_info(item) for item in areas.list_clients(records)[0]]


def _info(client: areas.Client) -> ClientInfo:
    enrolment, removal = client.enrolment, client.removal
    return ClientInfo(
        id=enrolment.client.hex(),
        name=enrolment.name,
        rights=enrolment.rights,
        added_ns=enrolment.time_ns,
        removed_ns=None if removal is None else removal.time_ns,
        keys_ns=client.renewals[-1].time_ns if client.renewals else enrolment.time_ns,
        epoch=len(client.renewals),
    )
