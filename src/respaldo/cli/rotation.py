"""Rotation of the master key on the command line: who keeps access is shown and confirmed before anything changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.slots import is_seen, slot_id
from respaldo.core.errors import Refused, UsageError

if TYPE_CHECKING:
    from respaldo.api import Rotated, RotationPlan
    from respaldo.cli.settings import Settings


def rotate_key(settings: Settings, *, without: Sequence[str], resume: bool, dry_run: bool, yes: bool) -> int:
    """Rotates, or finishes a rotation that was cut off; returns the exit status."""
    if resume and (without or dry_run):
        raise UsageError("--resume only finishes what was begun", hint="run it alone, then rotate again")
    secret = settings.secret()
    with settings.open(writes=True, secret=secret) as repository:
        slots = repository.slots
        if resume or (slots.unfinished and not dry_run):
            done = slots.finish_rotation()
            if done is not None:
                _report(settings, done, finished=True)
                return 0
            settings.report(_fields(slots.epoch, finished=False), "nothing to finish: no rotation was cut off")
            return 0
        plan = slots.plan_rotation(secret, {slots.find(name) for name in without})
        if plan.unable:
            names = ", ".join(map(slot_id, plan.unable))
            raise Refused(
                f"these keys cannot get a new master key without their secret: {names}",
                hint="an older program made them, or they are damaged: give each a new one with respaldo key passwd, "
                f"or leave it out: --without {slot_id(plan.unable[0])}",
            )
        if slots.opened_with in plan.left_out:
            show.err(f"warning: {slot_id(slots.opened_with)} is the key that the repository was opened with")
        if dry_run:
            text = f"would rotate the master key to epoch {slots.epoch + 1}; {_keeping(plan)}"
            left_out = [slot_id(name) for name in plan.left_out]
            keys = [slot_id(slot.name) for slot in plan.kept]
            value = _fields(slots.epoch + 1, finished=False) | {"left_out": left_out, "keys": dict.fromkeys(keys)}
            settings.report(value | {"dry_run": True}, text)
            return 0
        if not yes and is_seen():
            show.err(_keeping(plan))
            if not click.confirm("rotate the master key for these?", err=True):
                show.err("nothing was changed")
                return 1
        _report(settings, slots.rotate(plan), left_out=plan.left_out)
    return 0


def _report(settings: Settings, done: Rotated, *, finished: bool = False, left_out: Sequence[str] = ()) -> None:
    epoch = done.epoch.number
    value = _fields(epoch, finished=finished) | {
        "keys": {slot_id(old): slot_id(new) for old, new in done.slots.items()},
        "left_out": [slot_id(name) for name in left_out],
        "stay": [slot_id(name) for name in done.stay],
    }
    verb = "finished rotating" if finished else "rotated"
    text = f"{verb} the master key: epoch {epoch}; every passphrase and key that was kept opens it as before"
    settings.report(value, text)
    for name in done.stay:
        show.err(f"warning: key {slot_id(name)} was added meanwhile by an older program, and opens only what is older")


def _fields(epoch: int, *, finished: bool) -> dict[str, object]:
    return {"epoch": epoch, "keys": {}, "left_out": [], "stay": [], "finished": finished, "dry_run": False}


def _keeping(plan: RotationPlan) -> str:
    kept = [slot_id(slot.name) + (f" ({show.shown(slot.label)})" if slot.label else "") for slot in plan.kept]
    return f"these keys are kept: {', '.join(kept)}"
