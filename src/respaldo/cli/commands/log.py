"""`respaldo log`: the signed history of a repository, the access log of this client, and heads to keep elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from respaldo.cli import pages, show
from respaldo.cli.pages import page
from respaldo.cli.settings import Settings
from respaldo.cli.values import PAST
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import Accessed, Logged

_CHANGED = 4
_SNAPSHOTS_SHOWN = 4


@pages.group("log")
def command() -> None:
    """Show who did what to the repository, and tell whether anything of it was taken back.

    Each client signs what it does: which snapshots it made and forgot, what it pruned. Every command compares that with
    what this client has seen before: where storage shows less, or something else, it says what is missing, and ends
    with status 4. A client that is new has seen nothing; for it, and for the day when all clients are lost, keep the
    word that "log head" prints somewhere else.

    Whatever is handed out on this machine (restore, dump, export, checksums, mount, copy, bench), every change of keys,
    unlock and every wrong passphrase is written into an access log before it happens: encrypted, each line naming the
    one before, in the state directory of the user. What is signed next says how far it went, so that it cannot be cut
    short unnoticed. Where it cannot be written, nothing is handed out, but for --allow-unrecorded.
    """


@page(
    "show",
    statuses=(4,),
    examples=(
        ("All there is:", "respaldo log show -r /mnt/disk/backup"),
        ("Of the last week:", "respaldo log show --since 7d"),
        ("What was handed out on this machine in November:", "respaldo log show --access --since 2026-11-01"),
        (
            "What was forgotten, and by whom:",
            "respaldo log show --json | jq '.entries[] | select(.verb == \"forget\")'",
        ),
        (
            "Wrong passphrases:",
            "respaldo log show --json | jq '.accesses[] | select(.verb == \"failed unlock\") | .time'",
        ),
    ),
    notes=(
        "entries, by time: a list of time, client (its id), own (whether it is this one), number, verb (commit, "
        "forget, prune, …), snapshots (ids), note. accesses, by time: a list of time, number, verb, host, uid, user, "
        "login (who logged in, where the system knows), pid, key (the slot), snapshots (ids, at most 64), count (of "
        "snapshots), paths, target, note, outcome (done, incomplete, damaged, failed, interrupted, refused; unfinished "
        "where it is under way, or was killed), ended, bytes. findings: what is not as this client has seen it."
    ),
)
@click.option("--since", type=PAST, metavar="TIME", help="Only from then on: 7d (ago), 2026-11-20, or with a time.")
@click.option("--until", type=PAST, metavar="TIME", help="Only before that time.")
@click.option("--access/--no-access", default=None, help="Only what this client was handed; or only what was signed.")
def show_(settings: Settings, *, since: int | None, until: int | None, access: bool | None) -> int:
    """Show what all clients did, and what this one was handed, by time, each by its own clock.

    A client that cannot read the repository sees the second alone.
    """
    if since is not None and until is not None and since >= until:
        raise UsageError("--since is not before --until")
    with settings.open(reports=True) as repository:
        repository.snapshots()
        entries = [] if access else repository.history.entries()
        accesses = [] if access is False else repository.history.accesses.entries()
        findings = repository.history.findings
    if settings.is_client() and not access and settings.level >= 0:
        show.err("note: what was signed is for the owner to read; this is what was handed out here")

    def wanted(item: Logged | Accessed) -> bool:
        return (since is None or item.time_ns >= since) and (until is None or item.time_ns < until)

    entries, accesses = list(filter(wanted, entries)), list(filter(wanted, accesses))
    rows = [(entry.time_ns, _row(entry)) for entry in entries]
    rows += [(item.time_ns, _access_row(item)) for item in accesses]
    rows.sort(key=lambda row: row[0])
    settings.report(
        {
            "entries": [_fields(entry) for entry in entries],
            "accesses": [_access_fields(item) for item in accesses],
            "findings": list(findings),
        },
        show.table(("TIME", "BY", "NUMBER", "DID", "WHAT"), [row for _, row in rows], right=(2,)),
    )
    return _told(settings, findings)


@page(
    "head",
    statuses=(4,),
    examples=(
        ("Keep it on paper, or send it to somebody:", "respaldo log head | mail -s 'head of the backup' ana"),
        ("After every snapshot:", "respaldo snapshot ~ && respaldo log head >> /somewhere/else/heads"),
        ("A page to print:", "respaldo log head --svg head.svg"),
        ("For a program:", "respaldo log head --json | jq -r .head"),
    ),
    notes="head; svg (the file that was written, or null).",
)
@click.option("--qr/--no-qr", default=None, help="Print it as a QR code, too: by default on a terminal alone.")
@click.option(
    "--svg",
    default="",
    metavar="FILE",
    type=click.Path(path_type=str),
    help="Write a page with it and its QR code; FILE is new.",
)
def head(settings: Settings, *, qr: bool | None, svg: str) -> int:
    """Print how far the log goes, as a word: whoever has it can tell later whether something was taken back.

    What "log check" is given may be in capitals, as the QR code has it, and in pieces.
    """
    from respaldo.cli.sheets import Sheet, picture, qr_on_terminal, written  # start-up time

    with settings.open() as repository:
        word, identity = repository.history.head(), repository.id
    if svg:
        now = show.local_time(time.time_ns())
        what = f"Of repository {identity[:16]}; {now}"
        how = "Compare it with: respaldo log check …"
        sheet = Sheet(heading=("Head of the log of a Respaldo repository", what, how), text=word)
        page_ = picture(sheet).encode()
        with written([svg]) as files:
            files[0].write(page_)
    is_wanted = bool(sys.stdout and sys.stdout.isatty()) and not svg if qr is None else qr
    code = ""
    if is_wanted and not settings.json:
        try:
            code = qr_on_terminal(word)
        except UsageError:
            if qr:
                raise
    if qr and not code and not settings.json:
        show.err("warning: this terminal cannot show the QR code: it is too narrow, or knows no such letters")
    settings.report({"head": word, "svg": svg or None}, code + word)
    return 0


@page(
    "check",
    statuses=(4,),
    examples=(
        ("Whether the log, and the access log of this machine, are what they were:", "respaldo log check"),
        ("Type in what was kept:", "respaldo log check respaldo-head-…"),
        ("The last one of a file:", "respaldo log check $(tail -1 /somewhere/else/heads)"),
        ("From a machine that is new:", "respaldo log check $(cat head) -r /mnt/disk/backup && echo as it was"),
        ("The disk with the access log was lost, and everybody knows:", "respaldo log check --accept-rollback"),
    ),
    notes="ok; clients: how many the head speaks of; findings: what is not as it was; notes: what is worth knowing.",
)
@click.argument("word", metavar="[HEAD]", nargs=-1)
def check(settings: Settings, *, word: tuple[str, ...]) -> int:
    """Compare what was seen, signed and kept with what is there: the log, the access log, and a HEAD if one is given.

    The log is read from its beginning: every entry of every client must be there, and follow the one before it. Of the
    access log of this machine every line must, as far as this client's entries in the log have signed. Of other
    machines, no entry may say less than one before. With --accept-rollback, what lacks of access logs is said in the
    log, and found no more; what lacks of the log itself is mended, or said to be lost, by "repair".
    """
    with settings.open(reports=True, writes=settings.accept_rollback) as repository:
        history = repository.history
        checked = history.check("".join(word)) if word else None
        shortened, notes = history.accesses.check(history.signed())
        if shortened and settings.accept_rollback:
            history.accesses.accept(shortened)
        lacking = history.survey()
        if lacking:
            notes.append("what this machine has kept of the log is put again by: respaldo repair")
        seen = (*(checked.findings if checked else ()), *history.findings)
        findings = tuple(dict.fromkeys((*seen, *lacking, *shortened)))
    clients = checked.clients if checked else 0
    if not word:
        text = "the log and the access log are as they were seen and signed"
    else:
        text = f"everything is there that the head speaks of ({show.count(clients, 'client')})"
    value = {"ok": not findings, "clients": clients, "findings": list(findings), "notes": notes}
    settings.report(value, "" if findings else text)
    if not settings.json:
        for note in notes:
            show.err(f"note: {show.shown(note)}")
    return _told(settings, findings)


def _told(settings: Settings, findings: tuple[str, ...]) -> int:
    if not settings.json:
        for finding in findings:
            show.err(f"the history is not what it was: {show.shown(finding)}")
    return _CHANGED if findings and not settings.accept_rollback else 0


def _row(entry: Logged) -> tuple[str, ...]:
    who = f"client {entry.client[:8]}" + (" (this one)" if entry.own else "")
    what = " ".join(filter(None, (_named(entry.snapshots, len(entry.snapshots)), show.shown(entry.note))))
    return show.local_time(entry.time_ns), who, f"{entry.number:,}", show.shown(entry.verb), what


def _access_row(item: Accessed) -> tuple[str, ...]:
    login = f" ({show.shown(item.login)})" if item.login not in {"", item.user} else ""
    parts = [_named(item.snapshots, item.count)]
    parts += [show.shown(path) for path in item.paths]
    parts += [f"-> {show.shown(item.target)}" if item.target and item.verb != "failed unlock" else ""]
    parts += [f"[{show.shown(item.note)}]" if item.note else "", _outcome(item)]
    who = f"{show.shown(item.user)}@{show.shown(item.host)}{login}"
    return show.local_time(item.time_ns), who, f"{item.number:,}", show.shown(item.verb), " ".join(filter(None, parts))


def _outcome(item: Accessed) -> str:
    return item.outcome + (f", {show.size(item.length_bytes)}" if item.length_bytes else "")


def _named(snapshots: tuple[str, ...], count: int) -> str:
    names = ", ".join(name[:8] for name in snapshots[:_SNAPSHOTS_SHOWN])
    more = count - _SNAPSHOTS_SHOWN
    return names + (f" and {more:,} more" if more > 0 else "")


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


def _access_fields(item: Accessed) -> dict[str, object]:
    return {
        "time": show.iso_time(item.time_ns),
        "number": item.number,
        "verb": item.verb,
        "host": item.host,
        "uid": item.uid,
        "user": item.user,
        "login": item.login,
        "pid": item.pid,
        "key": item.key,
        "snapshots": list(item.snapshots),
        "count": item.count,
        "paths": [show.path_fields(path) for path in item.paths],
        **show.path_fields(item.target, "target"),
        "note": item.note,
        "outcome": item.outcome,
        "ended": None if item.ended_ns is None else show.iso_time(item.ended_ns),
        "bytes": item.length_bytes,
    }


for _command in (show_, head, check):
    command.add_command(_command)
