"""Sources on the command line: the paths to back up, the path of a stream, and the repository that lies among them."""

from __future__ import annotations

import os
import re
from typing import Any

import click

from respaldo.cli import show
from respaldo.cli.settings import Settings
from respaldo.core.errors import UsageError


def rules_for_itself(settings: Settings, sources: list[bytes]) -> list[str]:
    """Returns patterns that leave the repository out where it lies inside a source.

    Backed up into itself it would grow with every run, and a restore with --delete would take it away. The patterns
    come first, so that an --include can take them back.
    """
    from respaldo.api import repository_path  # start-up time

    place = os.fsencode(repository_path(settings.location()))
    rules = []
    for source in sources:
        above = os.path.realpath(source).rstrip(b"/") + b"/"
        if place + b"/" == above:
            raise UsageError("the repository cannot be backed up into itself", hint="copy it to another disk instead")
        if place.startswith(above):
            relative = os.fsdecode(place[len(above) :])
            rules.append("/" + re.sub(r"([\\*?\[\] ])", r"\\\1", relative) + "/")
            if settings.level >= 0:
                show.err(f"note: the repository itself is left out: {show.shown(place)}")
    return list(dict.fromkeys(rules))


def find_sources(given: dict[str, Any]) -> list[bytes]:
    """Returns the paths to back up, absolute, links in them as they are; none where a stream is backed up."""
    paths: list[bytes] = list(given["paths"])
    for names, end in ((given["files_from"], b"\n"), (given["files_from0"], b"\0")):
        for name in names:
            paths += [path for path in _read(name).split(end) if path]
    if any(b"\0" in path for path in paths):
        raise UsageError("a path holds a NUL", hint="a list with NUL between its paths is read by --files-from0")
    if b"" in paths:
        raise UsageError("a path is empty", hint="a variable that is not set, perhaps")
    streamed = given["stdin_name"] or given["command_text"]
    if streamed and (paths or given["files_from"] or given["files_from0"]):
        raise UsageError("--stdin and --command back up a stream and take no paths")
    if streamed:
        stream_path(given)
    if streamed and given["dry_run"]:
        raise UsageError("a stream cannot be read without being stored", hint="leave out --dry-run")
    if not streamed and not paths:
        raise UsageError("there is nothing to back up", hint="name at least one path; see: respaldo snapshot --help")
    if given["recorded_as"] is not None and len(paths) != 1:
        raise UsageError("--as records one source under another path")
    here = b"/" if all(map(os.path.isabs, paths)) else _here()
    return [b"/" + os.path.normpath(os.path.join(here, path)).lstrip(b"/") for path in dict.fromkeys(paths)]


def _here() -> bytes:
    try:
        return os.getcwdb()
    except FileNotFoundError:
        raise UsageError(
            "the directory that this runs in is gone", hint="change to another one, or name paths from the root (/…)"
        ) from None


def _read(name: str) -> bytes:
    try:
        with click.open_file(name, "rb") as file:
            return bytes(file.read())
    except OSError as error:
        raise UsageError(f"cannot read the list of paths {show.shown(name)}: {show.reason(error)}") from None


def stream_path(given: dict[str, Any]) -> bytes:
    """Returns the path that a stream is recorded under."""
    from respaldo.cli.streams import split_command  # start-up time

    name = os.fsencode(given["stdin_name"])
    if given["command_text"]:
        words = split_command(given["command_text"])
        name = name or os.path.basename(os.fsencode(words[0]))
    path = os.path.normpath(b"/" + name)
    path = b"/" + path.lstrip(b"/")
    if path == b"/" or b"\0" in path or name.endswith(b"/"):
        raise UsageError("--stdin needs the name of a file")
    return path
