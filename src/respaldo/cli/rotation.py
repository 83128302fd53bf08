"""Rotation of the master key on the command line: who keeps access is shown and confirmed before anything changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.progress import watching
from respaldo.cli.signals import cancelling
from respaldo.cli.slots import is_seen, slot_id
from respaldo.core.errors import Refused, UsageError

if TYPE_CHECKING:
    from respaldo.api import Reencrypted, Rotated, RotationPlan, Under
    from respaldo.cli.settings import Settings

_SHOWN = 5


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
                _report(settings, done, repository.clients.present(), finished=True)
                return 0
            settings.report(_fields(slots.epoch, finished=False), "nothing to finish: no rotation was cut off")
            return 0
        plan = slots.plan_rotation(secret, {slots.find(name) for name in without})
        if plan.unable:
            names = ", ".join(map(slot_id, plan.unable))
            raise Refused(
                f"these keys cannot get a new master key without their secret: {names}",
                hint="an older program made them, or they are damaged: make them anew (key add, key remove), "
                f"or leave it out: --without {slot_id(plan.unable[0])}",
            )
        if slots.opened_with in plan.left_out:
            what = f"{slot_id(slots.opened_with)} is the key that the repository was opened with"
            if not (dry_run or yes or is_seen()):
                raise UsageError(
                    f"{what}, and there is nobody to ask",
                    hint="look with --dry-run, then say with --yes that it is to be shut out",
                )
            show.err(f"warning: {what}: it will open it no more")
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
        _report(settings, slots.rotate(plan), repository.clients.present(), left_out=plan.left_out)
    return 0


def _report(
    settings: Settings,
    done: Rotated,
    clients: Sequence[str],
    *,
    finished: bool = False,
    left_out: Sequence[str] = (),
) -> None:
    """Says what a rotation came to, and that the areas of clients are not part of it."""
    epoch = done.epoch.number
    value = _fields(epoch, finished=finished) | {
        "keys": {slot_id(old): slot_id(new) for old, new in done.slots.items()},
        "left_out": [slot_id(name) for name in left_out],
        "stay": [slot_id(name) for name in done.stay],
        "clients": list(clients),
    }
    verb = "finished rotating" if finished else "rotated"
    text = f"{verb} the master key: epoch {epoch}; every passphrase and key that was kept opens it as before"
    settings.report(value, text)
    for name in done.stay:
        show.err(f"warning: key {slot_id(name)} was added meanwhile by an older program, and opens only what is older")
    if clients and settings.level >= 0:
        names = ", ".join(clients[:_SHOWN]) + (" …" if len(clients) > _SHOWN else "")
        show.err(
            f"note: the areas of clients ({names}) keep their keys, which whoever could open this repository could "
            "read; to shut somebody out of one: respaldo key client renew NAME --out FILE"
        )


def _fields(epoch: int, *, finished: bool) -> dict[str, object]:
    empty: dict[str, object] = {"keys": {}, "left_out": [], "stay": [], "clients": []}
    return {"epoch": epoch, **empty, "finished": finished, "dry_run": False}


def _keeping(plan: RotationPlan) -> str:
    kept = [slot_id(slot.name) + (f" ({show.shown(slot.label)})" if slot.label else "") for slot in plan.kept]
    return f"these keys are kept: {', '.join(kept)}"


def show_epochs(settings: Settings) -> int:
    """Prints what is sealed under each epoch; returns the exit status."""
    with settings.open() as repository, cancelling() as cancel:
        found = repository.slots.survey(cancel)
        epoch = repository.slots.epoch
    rows = [
        (
            str(item.epoch) + ("*" if item.epoch == epoch else ""),
            show.count(item.objects.get("pending", 0)),
            show.count(item.objects.get("packs", 0)),
            show.size(sum(item.length_bytes.values())),
        )
        for item in found
    ]
    table = show.table(("EPOCH", "SNAPSHOTS", "PACKS", "SIZE"), rows, right=(1, 2, 3))
    settings.report({"epoch": epoch, "epochs": [_under(item) for item in found]}, table)
    return 0


def reencrypt_all(settings: Settings, *, dry_run: bool) -> int:
    """Seals everything under the newest key; returns the exit status."""
    with (
        settings.open(writes=not dry_run) as repository,
        cancelling() as cancel,
        watching(settings.level, display=settings.display) as progress,
    ):
        epoch = repository.slots.epoch
        if dry_run:
            found = repository.slots.survey(cancel)
            old = [item for item in found if item.epoch < epoch]
            snapshots = sum(item.objects.get("pending", 0) for item in old)
            packs = sum(item.objects.get("packs", 0) for item in old)
            length_bytes = sum(sum(item.length_bytes.values()) for item in old)
            what = f"{show.count(packs, 'pack')}, {show.size(length_bytes)} in all"
            what = what if settings.client else f"{show.count(snapshots, 'snapshot')}, {what}"
            text = f"would seal anew under epoch {epoch}: {what}"
            settings.report({"dry_run": True, "epochs": [_under(item) for item in found]}, text)
            return 0
        done = repository.slots.reencrypt(progress=progress, cancel=cancel)
    retired = done.retired
    full = done.prune is not None and done.prune.full
    value = {
        "snapshots": {old.hex(): new.hex() for old, new in done.snapshots.items()},
        "failed": {snapshot.hex(): reason for snapshot, reason in done.failed},
        "objects": done.objects,
        "new_packs": done.prune.new_packs if done.prune else 0,
        "new_bytes": done.prune.new_bytes if done.prune else 0,
        "deleted_packs": done.prune.deleted_packs if done.prune else 0,
        "deleted_bytes": done.prune.deleted_bytes if done.prune else 0,
        "retired": list(retired.epochs),
        "left": [item.name for item in retired.left],
        "busy": retired.busy,
        "full": full,
        "dry_run": False,
    }
    settings.report(value, (_area_sentence if settings.client else _sentence)(done, epoch))
    for snapshot, reason in done.failed:
        show.err(f"warning: snapshot {snapshot.hex()[:8]} stays under an old key: {reason}")
    damages = done.prune.damages if done.prune else ()
    for error in damages:
        show.err(f"warning: {show.shown(str(error))}")
    if full:
        show.err("error: the repository's disk is too full to hold what is sealed anew beside what it replaces")
        show.err("hint: free space there, and run the command again: it goes on where it was")
    elif retired.busy:
        show.err("note: a snapshot is being made under an old key, or was cut off within a day; run this again later")
    elif retired.left:
        names = ", ".join(item.name for item in retired.left[:_SHOWN])
        show.err(f"warning: {show.count(len(retired.left), 'object')} stay under old keys: {show.shown(names)}")
    if damages:
        return 4
    if full:
        return 1
    return 3 if retired.left else 0


def _sentence(done: Reencrypted, epoch: int) -> str:
    if not epoch:
        return "the master key was never rotated: there is nothing to seal anew"
    if done.prune is None:
        return f"no older master key is in use: everything is sealed under that of epoch {epoch}"
    text = (
        f"sealed anew under epoch {epoch}: {show.count(len(done.snapshots), 'snapshot')}, "
        f"{show.count(done.prune.new_packs, 'pack')} ({show.size(done.prune.new_bytes)}), "
        f"{show.count(done.objects, 'other object')}"
    )
    if done.retired.epochs:
        names = ", ".join(map(str, done.retired.epochs))
        which = f"s of epochs {names} are" if len(done.retired.epochs) > 1 else f" of epoch {names} is"
        return f"{text}\nthe master key{which} destroyed"
    return text


def _area_sentence(done: Reencrypted, epoch: int) -> str:
    """Says what was sealed anew in the area of a client."""
    if done.prune is None:
        return "the client was never renewed: there is nothing to seal anew"
    return (
        f"sealed anew under epoch {epoch} of the area: {show.count(done.prune.new_packs, 'pack')} "
        f"({show.size(done.prune.new_bytes)}), {show.count(done.objects, 'other object')}\n"
        "under the old keys stay manifests and logs (hosts, users, sources, times, labels), and these keys are kept"
    )


def _under(item: Under) -> dict[str, object]:
    return {
        "epoch": item.epoch,
        "in_use": item.in_use,
        "objects": dict(item.objects),
        "bytes": dict(item.length_bytes),
    }
