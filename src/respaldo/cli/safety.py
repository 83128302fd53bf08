"""What a restore would take away, put away first; and the command that brings it back."""

from __future__ import annotations

import os
import pwd
import shlex
from typing import TYPE_CHECKING

from respaldo import __version__
from respaldo.cli import show
from respaldo.cli.settings import Settings
from respaldo.cli.values import LOCAL_ZONE

if TYPE_CHECKING:
    from respaldo.api import Found, PutAway, RestoreOptions, Restoring
    from respaldo.core.seams import Cancel, Progress


def put_away(
    settings: Settings,
    restoring: Restoring,
    found: Found,
    target: bytes,
    options: RestoreOptions,
    *,
    everywhere: bool,
    progress: Progress,
    cancel: Cancel,
) -> list[dict[str, object]]:
    """Takes a snapshot of what a restore would take away, says how to get back; returns it for JSON."""
    from respaldo.api import BackupOptions  # start-up time

    places = restoring.endangered(everywhere=everywhere, cancel=cancel)
    if not places:
        return []
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = ""
    backup = BackupOptions(
        host=os.uname().nodename,
        user=user,
        uid=uid,
        gid=os.getgid(),
        kind="incremental",  # it is no day's and no week's first
        zone=LOCAL_ZONE,
        reason=f"before the restore of {found.snapshot.hex[:8]}:{show.shown(found.path)} to {show.shown(target)}",
        program=f"respaldo {__version__}",
    )
    done: list[dict[str, object]] = []
    for item in restoring.put_away(places, backup, progress=progress, cancel=cancel):
        command = way_back(settings, item, options)
        if settings.level >= 0:
            show.err(f"note: what is in {show.shown(item.path)} was put away: snapshot {item.snapshot.hex()[:8]}")
            show.err(f"note: to get it back: {command}")
        done.append({"snapshot": item.snapshot.hex(), **show.path_fields(item.path), "command": command})
    return done


def way_back(settings: Settings, item: PutAway, options: RestoreOptions) -> str:
    """Returns the command that undoes a restore, for a shell."""
    words = [b"respaldo", *item.way_back(options)]
    if settings.repo:
        words += [b"-r", os.path.abspath(os.fsencode(settings.repo))]
    return " ".join(map(_quoted, words))


def _quoted(word: bytes) -> str:
    """Quotes a word for a shell; what no terminal should see as it is as ``$'…'``, which bash, zsh and ksh know."""
    text = word.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return shlex.quote(text)
    plain = set(range(32, 127)) - {*b"'\\"}
    return "$'" + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in word) + "'"
