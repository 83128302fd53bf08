"""Key slots of an open repository: listed, added, exchanged, removed.

Invariant: a slot goes only after the one that takes its place is durable, so that an interruption locks nobody out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from respaldo.api.places import Uses
from respaldo.codec.slots import STANDARD, Kdf, Opened, Secret, unwrap
from respaldo.core.errors import Corruption, ObjectMissing, UsageError, WrongSecret
from respaldo.store import slots
from respaldo.store.repo import Repo
from respaldo.store.slots import SlotInfo

if TYPE_CHECKING:
    from respaldo.api.recording import Accesses

FOLDER = "keys/"


class KeySource(Protocol):
    """Gives what opens the repository of a header; can ask whether the slot that something was opened with is there."""

    def __call__(self, header_hash: bytes, is_there: Callable[[str], bool], /) -> Secret | Opened: ...


class Slots:
    """Is the key slots of an open repository."""

    def __init__(self, repo: Repo, uses: Uses, accesses: Accesses) -> None:
        self._repo = repo
        self._accesses = accesses
        self._uses = uses

    @property
    def opened_with(self) -> str:
        """The object name of the slot that this repository was opened with."""
        return self._repo.slot

    @property
    def used(self) -> Mapping[str, int]:
        """When this client last opened the repository with a slot (ns since the epoch), by its name."""
        return self._uses.known()

    def listed(self) -> tuple[list[SlotInfo], list[Corruption]]:
        """Returns the slots by age, and what is damaged."""
        found, damaged = slots.describe(self._repo.backend, self._repo.vault)
        return sorted(found, key=lambda slot: (slot.created_ns, slot.name)), damaged

    def add(self, secret: Secret, *, kdf: Kdf = STANDARD, label: str = "", use: str = "") -> str:
        """Makes a slot that opens with a secret; returns its name. Raises `NotRecorded`."""
        with self._accesses.recorded("key recovery" if use else "key add", note=label) as ending:
            name = self._add(secret, kdf, label, use)
            ending.note = f"key {_leaf(name)}"
        return name

    def _add(self, secret: Secret, kdf: Kdf, label: str, use: str) -> str:
        return slots.add(
            self._repo.backend,
            self._repo.ring,
            self._repo.vault,
            secret=secret,
            kdf=kdf,
            label=label,
            now_ns=self._repo.clock.now_ns(),
            random=self._repo.random,
            use=use,
        )

    def find(self, name: str) -> str:
        """Returns the whole name of the slot that a name or its beginning means; raises `UsageError`."""
        beginning = FOLDER + name.removeprefix(FOLDER)
        known, damaged = self.listed()
        names = [slot.name for slot in known] + [error.name for error in damaged]
        found = [item for item in names if item.startswith(beginning)] if len(beginning) > len(FOLDER) else []
        if len(found) != 1:
            what = "several key slots begin so" if found else "there is no such key slot"
            raise UsageError(f"{what}: {name}", hint="list them with: respaldo key list")
        return found[0]

    def check_removable(self, name: str) -> None:
        """Raises `UsageError` where the slot of that whole name is the last one."""
        slots.check_removable(self._repo.backend, name)

    def remove(self, name: str) -> None:
        """Removes the slot of that whole name; raises `UsageError` where it is the last one, `NotRecorded`."""
        with self._accesses.recorded("key remove", note=f"key {_leaf(name)}"):
            self._remove(name)

    def _remove(self, name: str) -> None:
        slots.remove(self._repo.backend, name, self._repo.random)

    def change(self, old: Secret, new: Secret, *, kdf: Kdf | None = None) -> str:
        """Puts a slot for a new secret in the place of those that open with the old one; returns its name.

        The new slot is as costly as the old one unless ``kdf`` says otherwise, and keeps its label.
        """
        if (old.passphrase, old.key) == (new.passphrase, new.key):
            raise UsageError("the new passphrase or key is the old one")
        opened = self._opened_by(old)
        if not opened:
            raise WrongSecret
        old_names = ", ".join(_leaf(slot.name) for slot in opened)
        with self._accesses.recorded("key passwd", note=f"key {old_names}") as ending:
            name = self._add(new, kdf or opened[0].kdf or STANDARD, opened[0].label, "")
            ending.note = f"key {_leaf(name)} took its place"
            for slot in opened:
                self._remove(slot.name)
        return name

    def _opened_by(self, secret: Secret) -> list[SlotInfo]:
        found = []
        for slot in self.listed()[0]:
            try:
                stored = slots.read(self._repo.backend, slot.name)
                if stored.method == secret.method:
                    unwrap(stored, secret, self._repo.header.hash, self._repo.header.suite)
                    found.append(slot)
            except (WrongSecret, Corruption, ObjectMissing):
                continue
        return found


def _leaf(name: str) -> str:
    return name.removeprefix(FOLDER)
