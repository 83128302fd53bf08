"""Key slots of an open repository: listed, added, exchanged, removed; its master key, rotated.

Invariant: a slot goes only after the one that takes its place is durable, so that an interruption locks nobody out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Protocol

from respaldo.api.places import Uses
from respaldo.codec.slots import STANDARD, Kdf, Opened, Secret, Slot, Stretching, unwrap
from respaldo.core.errors import Corruption, KeyRotated, ObjectMissing, Refused, UsageError, WrongSecret
from respaldo.core.seams import Cancel, Progress
from respaldo.store import rotating, slots
from respaldo.store.repo import Repo
from respaldo.store.rotating import Rotated, RotationPlan
from respaldo.store.slots import SlotInfo

if TYPE_CHECKING:
    from respaldo.api.recording import Accesses
    from respaldo.api.reencrypting import Reencrypted, Under

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
        """Returns the slots by age, and what is damaged.

        Raises `KeyRotated` where something seems so because the key was rotated since the repository was opened.
        """
        found, damaged = slots.describe(self._repo.backend, self._repo.vault)
        if damaged:
            self._repo.require_newest()
        return sorted(found, key=lambda slot: (slot.created_ns, slot.name)), damaged

    def add(self, secret: Secret, *, kdf: Kdf = STANDARD, label: str = "", use: str = "") -> str:
        """Makes a slot that opens with a secret; returns its name.

        Raises `NotRecorded`, and `KeyRotated` where the key is rotated at the same time: the slot would open what is
        older only.
        """
        self._need_settled()
        with self._accesses.recorded("key recovery" if use else "key add", note=label) as ending:
            name = self._add(secret, kdf, label, use)
            ending.note = f"key {_leaf(name)}"
        return name

    def _add(self, secret: Secret, kdf: Kdf, label: str, use: str) -> str:
        name = slots.add(
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
        try:
            self._repo.require_newest()
        except KeyRotated:
            self._repo.backend.discard([name])
            raise
        return name

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
        self._need_settled()
        slots.check_removable(self._repo.backend, name, self._opens)

    def remove(self, name: str) -> None:
        """Removes the slot of that whole name; raises `UsageError` where it is the last one, `NotRecorded`.

        Raises `KeyRotated` where the key was rotated at the same time: its secret may have got the new key.
        """
        self._need_settled()
        with self._accesses.recorded("key remove", note=f"key {_leaf(name)}"):
            self._remove(name)

    def _remove(self, name: str) -> None:
        slots.remove(self._repo.backend, name, self._repo.random, self._opens)
        self._repo.require_newest()

    @property
    def _opens(self) -> slots.Opens | None:
        epoch = self._repo.epoch.number
        return rotating.opener(self._repo.vault, epoch) if epoch else None

    def _need_settled(self) -> None:
        """Raises `Refused` while a rotation is not finished, and `KeyRotated` where there was one meanwhile."""
        self._repo.require_newest()
        if self.unfinished:
            raise Refused(
                "the key was being rotated, and that was cut off", hint="finish it with: respaldo key rotate --resume"
            )

    # --- rotation --------------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch whose master key everything new is sealed under."""
        return self._repo.epoch.number

    @property
    def unfinished(self) -> bool:
        """Whether a rotation was cut off after the new key was there: everybody can open, old slots may be there."""
        return self._repo.epoch.pending is not None

    def plan_rotation(self, secret: Secret | None, without: Collection[str] = ()) -> RotationPlan:
        """Returns what `rotate` would do: who gets the new key, who is left out, whose slot has to be made anew.

        ``secret``: of which the slots are known, also where they do not say their public key. ``without``: whole names.
        """
        known = {}
        if secret is not None:
            stretching = Stretching(secret)
            known = {slot.name: stretching.public(slot) for _, slot in self._opened_by(stretching)}
        return rotating.plan_rotation(self._repo, without, known)

    def rotate(self, plan: RotationPlan) -> Rotated:
        """Makes a new master key, gives it to the slots that a plan keeps, and removes the old slots.

        This object stays what it was opened as: open the repository anew. Raises `NotRecorded`, and `KeyRotated` where
        another was faster.
        """
        with self._accesses.recorded("key rotate"):
            return rotating.rotate(self._repo, plan)

    def finish_rotation(self) -> Rotated | None:
        """Does what is left of a rotation that was cut off; returns None where nothing was."""
        rotating.clear_torn(self._repo.backend, self._repo.epoch)
        return rotating.finish(self._repo, self._repo.epoch) if self.unfinished else None

    def survey(self, cancel: Cancel) -> tuple[Under, ...]:
        """Returns what is sealed under each epoch, the newest last."""
        from respaldo.api.reencrypting import survey  # noqa: PLC0415 - start-up time

        return survey(self._repo, cancel)

    def reencrypt(self, *, progress: Progress, cancel: Cancel) -> Reencrypted:
        """Seals all that is of earlier epochs under the newest, and destroys their keys where nothing is left."""
        from respaldo.api.reencrypting import reencrypt  # noqa: PLC0415 - start-up time

        self._need_settled()
        with self._accesses.recorded("key reencrypt"):
            return reencrypt(self._repo, progress=progress, cancel=cancel)

    def change(self, old: Secret, new: Secret, *, kdf: Kdf | None = None) -> str:
        """Puts a slot for a new secret in the place of those that open with the old one; returns its name.

        The new slot is as costly as the old one unless ``kdf`` says otherwise, and keeps its label.
        """
        if (old.passphrase, old.key) == (new.passphrase, new.key):
            raise UsageError("the new passphrase or key is the old one")
        self._need_settled()
        opened = [info for info, _ in self._opened_by(Stretching(old))]
        if not opened:
            raise WrongSecret
        old_names = ", ".join(_leaf(slot.name) for slot in opened)
        with self._accesses.recorded("key passwd", note=f"key {old_names}") as ending:
            name = self._add(new, kdf or opened[0].kdf or STANDARD, opened[0].label, "")
            ending.note = f"key {_leaf(name)} took its place"
            for slot in opened:
                self._remove(slot.name)
        return name

    def _opened_by(self, stretching: Stretching) -> list[tuple[SlotInfo, Slot]]:
        found = []
        for info in self.listed()[0]:
            try:
                stored = slots.read(self._repo.backend, info.name)
                if stored.method == stretching.secret.method:
                    unwrap(stored, stretching, self._repo.header.hash, self._repo.header.suite)
                    found.append((info, stored))
            except (WrongSecret, Corruption, ObjectMissing):
                continue
        return found


def _leaf(name: str) -> str:
    return name.removeprefix(FOLDER)
