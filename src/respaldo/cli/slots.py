"""Key slots as they are shown, and whether a person is there to be asked about them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from respaldo.cli import show

if TYPE_CHECKING:
    from respaldo.api import SlotInfo


def is_seen() -> bool:
    """Whether somebody can be asked."""
    return bool(sys.stdin and sys.stdin.isatty() and sys.stderr.isatty())


def slot_id(name: str) -> str:
    """Returns the id of a slot by its object name."""
    return name.rpartition("/")[2]


def method_of(slot: SlotInfo) -> str:
    """Says what a slot opens with."""
    if slot.use:
        return f"recovery key in {slot.use}" if slot.use.startswith("shares") else f"{show.shown(slot.use)} key"
    if slot.kdf is None:
        return "key file"
    return f"passphrase ({slot.kdf.memory_kib >> 10} MiB, {slot.kdf.passes} passes)"


def fields_of(slot: SlotInfo, used_ns: int | None) -> dict[str, object]:
    """Returns a slot as JSON shows it."""
    return {
        "id": slot_id(slot.name),
        "method": slot.method,
        "passes": slot.kdf.passes if slot.kdf else None,
        "memory_kib": slot.kdf.memory_kib if slot.kdf else None,
        "use": slot.use,
        "label": slot.label,
        "created": show.iso_time(slot.created_ns),
        "epoch": slot.epoch,
        "last_used": None if used_ns is None else show.iso_time(used_ns),
    }
