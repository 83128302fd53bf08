"""`respaldo lock`: ends what unlock began."""

from __future__ import annotations

from respaldo.cli import show
from respaldo.cli.pages import page
from respaldo.cli.settings import Settings


@page(
    "lock",
    examples=(
        ("Everything that is unlocked:", "respaldo lock"),
        ("One repository:", "respaldo lock -r /mnt/disk/backup"),
        ("When the screen is locked, in a hook:", "respaldo lock --quiet"),
    ),
    notes="locked (how many keys were wiped).",
)
def command(settings: Settings) -> int:
    """Wipe the keys that unlock keeps in memory, at once: all of them, or that of the repository named by -r.

    What RESPALDO_REPOSITORY says makes no difference. Needs no passphrase, and no disk.
    """
    from respaldo.cli import agent  # start-up time
    from respaldo.ops.agent import client  # start-up time

    locked = client.lock(agent.directory(), location=settings.place() if settings.repo else "")
    told = f"locked {show.count(locked, 'repository', 'repositories')}" if locked else "nothing was unlocked"
    settings.report({"locked": locked}, told)
    return 0
