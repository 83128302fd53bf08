"""`respaldo log`: the signed history of a repository, and heads of it to keep elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.pages import NAMES, WIDTH_MAX, common_options, page
from respaldo.cli.settings import Settings
from respaldo.cli.values import MOMENT

if TYPE_CHECKING:
    from respaldo.api import Logged

_CHANGED = 4
_SNAPSHOTS_SHOWN = 4


@click.group(
    "log",
    params=list(common_options()),
    context_settings={"help_option_names": NAMES, "max_content_width": WIDTH_MAX},
    no_args_is_help=True,
)
def command() -> None:
    """Show who did what to the repository, and tell whether anything of it was taken back.

    Each client signs what it does: which snapshots it made and forgot, what it pruned. Every command compares that with
    what this client has seen before: where storage shows less, or something else, it says what is missing, and ends
    with status 4. A client that is new has seen nothing; for it, and for the day when all clients are lost, keep the
    word that "log head" prints somewhere else.
    """


@page(
    "show",
    statuses=(4,),
    examples=(
        ("All there is:", "respaldo log show -r /mnt/disk/backup"),
        ("Since a day:", "respaldo log show --since 2026-11-01"),
        (
            "What was forgotten, and by whom:",
            "respaldo log show --json | jq '.entries[] | select(.verb == \"forget\")'",
        ),
    ),
    notes=(
        "entries, by time: a list of time, client (its id), own (whether it is this one), number, verb (commit, "
        "forget, prune), snapshots (ids), note. findings: what is not as this client has seen it."
    ),
)
@click.option("--since", type=MOMENT, metavar="DATE", help="Only what was done since then: 2026-11-20, or with a time.")
def show_(settings: Settings, *, since: int | None) -> int:
    """Show the entries of all clients, by time, each by its own client's clock."""
    with settings.open(reports=True) as repository:
        repository.snapshots()
        entries = [entry for entry in repository.history.entries() if since is None or entry.time_ns >= since]
        findings = repository.history.findings
    rows = [
        (
            show.local_time(entry.time_ns),
            entry.client[:8] + (" (this one)" if entry.own else ""),
            f"{entry.number:,}",
            show.shown(entry.verb),
            _what(entry),
        )
        for entry in entries
    ]
    settings.report(
        {"entries": [_fields(entry) for entry in entries], "findings": list(findings)},
        show.table(("TIME", "CLIENT", "ENTRY", "DID", "WHAT"), rows, right=(2,)),
    )
    return _told(settings, findings)


@page(
    "head",
    statuses=(4,),
    examples=(
        ("Keep it on paper, or send it to somebody:", "respaldo log head | mail -s 'head of the backup' ana"),
        ("After every snapshot:", "respaldo snapshot ~ && respaldo log head >> /somewhere/else/heads"),
        ("For a program:", "respaldo log head --json | jq -r .head"),
    ),
    notes="head.",
)
def head(settings: Settings) -> int:
    """Print how far the log goes, as a word: whoever has it can tell later whether something was taken back."""
    with settings.open() as repository:
        word = repository.history.head()
    settings.report({"head": word}, word)
    return 0


@page(
    "check",
    statuses=(4,),
    examples=(
        ("Type in what was kept:", "respaldo log check respaldo-head-…"),
        ("The last one of a file:", "respaldo log check $(tail -1 /somewhere/else/heads)"),
        ("From a machine that is new:", "respaldo log check $(cat head) -r /mnt/disk/backup && echo as it was"),
    ),
    notes="ok; clients: how many the head speaks of; findings: what is not as it was.",
)
@click.argument("word", metavar="HEAD", nargs=-1, required=True)
def check(settings: Settings, *, word: tuple[str, ...]) -> int:
    """Compare a head that was kept with the repository: all that it speaks of must still be there."""
    with settings.open(reports=True) as repository:
        checked = repository.history.check("".join(word))
        findings = tuple(dict.fromkeys((*checked.findings, *repository.history.findings)))
    settings.report(
        {"ok": not findings, "clients": checked.clients, "findings": list(findings)},
        "" if findings else f"everything is there that the head speaks of ({show.count(checked.clients, 'client')})",
    )
    return _told(settings, findings)


def _told(settings: Settings, findings: tuple[str, ...]) -> int:
    if not settings.json:
        for finding in findings:
            show.err(f"the history is not what it was: {show.shown(finding)}")
    return _CHANGED if findings and not settings.accept_rollback else 0


def _what(entry: Logged) -> str:
    names = ", ".join(name[:8] for name in entry.snapshots[:_SNAPSHOTS_SHOWN])
    more = len(entry.snapshots) - _SNAPSHOTS_SHOWN
    return names + (f" and {more:,} more" if more > 0 else "") + show.shown(entry.note)


def _fields(entry: Logged) -> dict[str, object]:
    return {
        "time": show.iso_time(entry.time_ns),
        "client": entry.client,
        "own": entry.own,
        "number": entry.number,
        "verb": entry.verb,
        "snapshots": list(entry.snapshots),
        "note": entry.note,
    }


for _command in (show_, head, check):
    command.add_command(_command)
