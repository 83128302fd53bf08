"""Clients of an open repository that write into areas of their own: listed, added, removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from respaldo.backend.base import Backend
from respaldo.backend.open import area_location, open_backend
from respaldo.core.errors import Corruption, UsageError
from respaldo.format.enrolment import RIGHTS
from respaldo.store import areas
from respaldo.store.repo import Repo

__all__ = ["RIGHTS", "Added", "ClientInfo", "Clients"]

if TYPE_CHECKING:
    from respaldo.api.recording import Accesses


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientInfo:
    """Describes a client to a person. Times in ns since the epoch; ``removed_ns`` None where it was not removed."""

    id: str
    name: str
    rights: tuple[str, ...]
    added_ns: int
    removed_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """Is a client that was added: its credential as the file's bytes, and where its area lies."""

    client: ClientInfo
    location: str
    credential: bytes


class Clients:
    """Is the clients of an open repository."""

    def __init__(self, repo: Repo, accesses: Accesses) -> None:
        self._repo = repo
        self._accesses = accesses

    def listed(self) -> tuple[list[ClientInfo], list[Corruption]]:
        """Returns the clients by the time they were added, and the records that are damaged."""
        found, damaged = areas.list_clients(self._repo)
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

    def remove(self, name: str) -> ClientInfo:
        """Lets no run of a client count that has not begun yet. What it wrote stays, and so does its area."""
        client = self.record(name)
        with (
            self._accesses.recorded("key client remove", note=client.enrolment.name),
            open_backend(area_location(self._repo.backend.location, client.enrolment.client)) as area,
        ):
            removal = areas.remove(self._repo, client.enrolment.client, area)
        return _info(areas.Client(enrolment=client.enrolment, removal=removal))

    def names(self) -> list[str]:
        """Returns what each client can be named by, its id where it shares its name; by the time it was added."""
        return [name for name, _ in named(self.listed()[0])]

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
    )
