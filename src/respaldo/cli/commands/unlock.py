"""`respaldo unlock`: keeps a repository's key in memory for a while."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.pages import page
from respaldo.cli.settings import Settings
from respaldo.cli.values import DURATION
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.ops.agent.wire import Held

_HELD = "repository, location, key (the slot's id), until, left_s, idle_left_s (null: no limit), pid"


@page(
    "unlock",
    examples=(
        ("For a quarter of an hour:", "respaldo unlock -r /mnt/disk/backup"),
        ("For the evening, but not for an open door:", "respaldo unlock --for 4h --idle 10m"),
        ("What is unlocked, and how long still:", "respaldo unlock --status"),
        (
            "A script that asks once:",
            "respaldo unlock --for 2h && respaldo snapshot /home; respaldo lock",
        ),
    ),
    notes=f"{_HELD}. With --status: unlocked, a list of these.",
)
@click.option("--for", "for_s", type=DURATION, default="15m", show_default=True, help="How long, at most.")
@click.option(
    "--idle", "idle_s", type=DURATION, default=None, help="End it earlier when no command has used it for so long."
)
@click.option("--status", is_flag=True, help="Say what is unlocked; unlock nothing.")
def command(settings: Settings, *, for_s: float, idle_s: float | None, status: bool) -> int:
    """Ask for the passphrase once, and keep the key in memory: other commands do not ask until the time is over.

    The key lies in locked memory of a process of its own, is written nowhere, and is given to this user's processes
    alone. It goes when its time is over (time asleep counts), with respaldo lock, at logout, and when the key slot that
    opened it is removed; without XDG_RUNTIME_DIR, the directory of the login, also with the terminal or script that
    unlocked. A command that is under way goes on. Commands that change keys ask all the same, so that nobody who finds
    the machine unlocked can make a key of his own; those that are told where a secret is take that one.
    """
    from respaldo.cli import agent  # start-up time
    from respaldo.ops.agent import client  # start-up time

    where = agent.directory()
    if status:
        found = client.status(where)
        text = show.table(("REPOSITORY", "KEY", "FOR ANOTHER", "UNUSED FOR ANOTHER", "LOCATION"), map(_row, found))
        settings.report({"unlocked": [_fields(held) for held in found]}, text if found else "nothing is unlocked")
        return 0
    if idle_s is not None and idle_s > for_s:
        raise UsageError("--idle is longer than --for")
    leader = agent.leader()
    with (
        settings.open(secret=settings.secret()) as repository,
        repository.accesses.recorded("unlock", note=f"for {for_s:g} s, idle {idle_s or 0:g} s"),
    ):
        client.start(
            where,
            repository.header_hash,
            repository.opened,
            repository=repository.id,
            location=settings.place(),
            for_s=for_s,
            idle_s=idle_s or 0,
            leader=leader,
            environment=agent.environment(),
        )
        mine = next((held for held in client.status(where) if held.repository == repository.id), None)
    if mine is None:
        raise UsageError(
            "it was locked again at once", hint="where there is no XDG_RUNTIME_DIR, run it in a session that lasts"
        )
    until = show.local_time(time.time_ns() + int(mine.left_s * 1e9))
    session = ", or until this terminal or script ends" if leader else ""
    settings.report(_fields(mine), f"unlocked {mine.repository[:8]} until {until}{session}; end it with: respaldo lock")
    return 0


def _row(held: Held) -> tuple[str, ...]:
    idle = show.duration(int(held.idle_left_s * 1e9)) if held.idle_left_s else "–"
    left = show.duration(int(held.left_s * 1e9))
    return held.repository[:8], held.slot.rpartition("/")[2], left, idle, show.shown(held.location)


def _fields(held: Held) -> dict[str, object]:
    return {
        "repository": held.repository,
        "location": held.location,
        "key": held.slot.rpartition("/")[2],
        "until": show.iso_time(time.time_ns() + int(held.left_s * 1e9)),
        "left_s": round(held.left_s, 1),
        "idle_left_s": round(held.idle_left_s, 1) if held.idle_left_s else None,
        "pid": held.pid,
    }
