"""Keys of an open repository: slots listed, added, exchanged, removed.

Invariant: a slot goes only after the one that takes its place is durable, so that an interruption locks nobody out.
"""

from __future__ import annotations

from respaldo.codec.slots import STANDARD, Kdf, Secret, unwrap
from respaldo.core.errors import Corruption, ObjectMissing, UsageError, WrongSecret
from respaldo.store import slots
from respaldo.store.repo import Repo
from respaldo.store.slots import SlotInfo

FOLDER = "keys/"


def list_keys(repo: Repo) -> tuple[list[SlotInfo], list[Corruption]]:
    """Returns the slots by age, and what is damaged."""
    found, damaged = slots.describe(repo.backend, repo.vault)
    return sorted(found, key=lambda slot: (slot.created_ns, slot.name)), damaged


def add_key(repo: Repo, secret: Secret, *, kdf: Kdf = STANDARD, label: str = "") -> str:
    """Makes a slot that opens with a secret; returns its name."""
    return slots.add(
        repo.backend,
        repo.ring,
        repo.vault,
        secret=secret,
        kdf=kdf,
        label=label,
        now_ns=repo.clock.now_ns(),
        random=repo.random,
    )


def remove_key(repo: Repo, name: str) -> str:
    """Removes the slot that a name or its beginning means; returns its whole name."""
    beginning = FOLDER + name.removeprefix(FOLDER)
    known, damaged = list_keys(repo)
    names = [slot.name for slot in known] + [error.name for error in damaged]
    found = [item for item in names if item.startswith(beginning)] if len(beginning) > len(FOLDER) else []
    if len(found) != 1:
        what = "several key slots begin so" if found else "there is no such key slot"
        raise UsageError(f"{what}: {name}", hint="list them with: respaldo key list")
    slots.remove(repo.backend, found[0])
    return found[0]


def change_secret(repo: Repo, old: Secret, new: Secret, *, kdf: Kdf | None = None) -> str:
    """Puts a slot for a new secret in the place of those that open with the old one; returns its name.

    The new slot is as costly as the old one unless ``kdf`` says otherwise, and keeps its label.
    """
    if (old.passphrase, old.key) == (new.passphrase, new.key):
        raise UsageError("the new passphrase or key is the old one")
    opened = _opened_by(repo, old)
    if not opened:
        raise WrongSecret
    name = add_key(repo, new, kdf=kdf or opened[0].kdf or STANDARD, label=opened[0].label)
    for slot in opened:
        slots.remove(repo.backend, slot.name)
    return name


def _opened_by(repo: Repo, secret: Secret) -> list[SlotInfo]:
    found = []
    for slot in list_keys(repo)[0]:
        try:
            stored = slots.read(repo.backend, slot.name)
            if stored.method == secret.method:
                unwrap(stored, secret, repo.header.hash)
                found.append(slot)
        except (WrongSecret, Corruption, ObjectMissing):
            continue
    return found
