"""Runs the command line: the group with its commands loaded when asked for, and errors turned into exit statuses.

Every error that is meant for a person is two lines, what happened and what to do next; a trace only with
RESPALDO_DEBUG=1.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Sequence

import click

from respaldo import __version__
from respaldo.cli import show
from respaldo.cli.pages import NAMES, STATUSES, WIDTH_MAX, common_options
from respaldo.cli.settings import Settings
from respaldo.cli.signals import stopping
from respaldo.core.errors import CacheDamaged, Interrupted, RespaldoError
from respaldo.core.private import forbid_cores

COMMANDS = {
    "init": "Make a repository.",
    "snapshot": "Back up files and directories.",
    "snapshots": "List what was backed up.",
    "forget": "Take snapshots away, by name or by a policy.",
    "pin": "Protect snapshots from every policy.",
    "unpin": "Take that protection away.",
    "undo": "Bring back what was forgotten and is in the trash.",
    "restore": "Write a snapshot, or a part of it, back.",
    "prune": "Free the space that no snapshot needs.",
    "verify": "Check the repository.",
    "rewrite": "Make new snapshots from old ones, without some paths.",
    "repair": "Mend what can be mended, and mark what is lost.",
    "parity": "Keep Reed-Solomon parity, and mend damaged sectors with it.",
    "ls": "List what a snapshot holds.",
    "find": "Find files in all snapshots.",
    "history": "List every version of a file.",
    "diff": "Say what changed between two snapshots, or since one.",
    "dump": "Print a file of a snapshot, or a directory as a tar archive.",
    "export": "Write a snapshot as a tar or zip archive.",
    "checksums": "Print the SHA-256 of every file of a snapshot.",
    "copy": "Copy snapshots into another repository.",
    "sync": "Bring everything that another repository lacks.",
    "import": "Make snapshots of tar archives.",
    "mount": "Show all snapshots as directories.",
    "stats": "Count snapshots, chunks and bytes.",
    "log": "Show who did what, and tell whether anything was taken back.",
    "key": "List, add, remove, change or test passphrases and keys.",
    "unlock": "Keep the key in memory for a while, so that commands do not ask.",
    "lock": "Wipe it at once.",
    "bench": "Measure this repository on this machine.",
    "completion": "Print the completion script of a shell.",
}
"""Names and what they do: here, so that `--help` imports none of them."""

_MODULES = {"import": "import_"}
"""Names that no module can have."""

_ELSEWHERE = {
    "backup": "snapshot",
    "check": "verify",
    "create": "snapshot",
    "delete": "forget",
    "extract": "restore",
    "gc": "prune",
    "help": "--help",
    "list": "snapshots",
    "passwd": "key passwd",
    "remove": "forget",
    "rm": "forget",
    "status": "stats",
}
"""What other programs call it."""

_FULL = "free space there, and run the command again"
_RIGHTS = "run it as a user who may, or name another place"
_HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EINVAL: "see what lies there; where it is none of yours, move it away and run the command again",
    errno.EMFILE: "raise the limit of open files (ulimit -n), and run the command again",
}
"""What to do next where the system refused something."""

COMPLETE_VARIABLE = "_RESPALDO_COMPLETE"


class Commands(click.Group):
    """Loads a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Returns the names, in the order of use."""
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command; names what was probably meant where there is none of that name."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(f"there is no command {show.shown(name)!r}{_meant(name)}", ctx)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Loads one."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"respaldo.cli.commands.{_MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Writes the table of commands without loading them, and the exit statuses."""
        with formatter.section("Commands (each has a page: respaldo COMMAND --help)"):
            formatter.write_dl(list(COMMANDS.items()))
        with formatter.section("Exit status"):
            formatter.write_dl([(str(status), what) for status, what in STATUSES.items()])
        with formatter.section("Examples"):
            for line in (
                "respaldo init -r /mnt/disk/backup",
                "respaldo snapshot ~/Documents -r /mnt/disk/backup",
                "respaldo snapshots -r /mnt/disk/backup",
                "respaldo restore latest:/home/ana/Documents /tmp/back -r /mnt/disk/backup",
            ):
                formatter.write(f"    {line}\n")


def _meant(name: str) -> str:
    """Returns what somebody is told who has typed the name of no command."""
    from difflib import get_close_matches  # start-up time

    if name == "umount":
        return "; what is mounted is unmounted as everything is, with: umount DIR"
    names = [_ELSEWHERE[name]] if name in _ELSEWHERE else get_close_matches(name, COMMANDS, n=3, cutoff=0.7)
    return f"; did you mean: {', '.join(names)}" if names else ""


@click.group(
    cls=Commands,
    params=common_options(),
    context_settings={"help_option_names": NAMES, "max_content_width": WIDTH_MAX, "obj": None},
    no_args_is_help=True,
)
@click.version_option(__version__, "-V", "--version", message="respaldo %(version)s")
def group() -> None:
    """Back up files into an encrypted store that keeps every piece of content once.

    A repository is a directory, on an external disk say. A snapshot is what was backed up at one time: each is
    complete, and costs only what changed since the ones before.

    SNAPSHOT is always an id or its beginning, a label, "latest", the second before it as "latest~2", or a time:
    "2026-11-20" (the end of that day), "2026-11-20 14:30", "2026-11-20T14:30Z", "yesterday", "3 days ago". A time is in
    local time and means the newest snapshot not after it. Latest and times take conditions: "latest:verified",
    "latest:kind=full,host=web", also tag=, path=, user=, complete; of "yesterday:tag=x", too. ":/PATH" behind any of
    them means a part.
    """


def run(words: Sequence[str], *, for_good: bool = False) -> int:
    """Runs one command; returns the exit status. ``for_good``: the process ends with it."""
    as_json = "--json" in words
    if for_good and os.environ.get("RESPALDO_DEBUG") != "1":
        with contextlib.suppress(OSError):
            forbid_cores()  # passphrase and keys would be in it
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with stopping(for_good=for_good):
            status = _invoke(words, as_json=as_json)
            sys.stdout.flush()
            return status
    except BrokenPipeError:
        # Whoever read us has gone (`respaldo ls | head`): there is nobody to tell.
        _drop_output()
        return 1
    except OSError as error:
        _drop_output()
        return _say("OSError", f"cannot write the output: {show.reason(error)}", "", 1, as_json=as_json)
    except Interrupted as error:
        return _fail(error, as_json=as_json)


def _drop_output() -> None:
    """Lets what is still buffered go nowhere: at the end Python would try to write it once more, and complain."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(words: Sequence[str]) -> object:
    """Runs a command; once more where the local cache turned out damaged, which nobody should have to do by hand.

    What reads standard input cannot begin again.
    """

    def main() -> object:
        return group.main(
            args=list(words),
            prog_name="respaldo",
            standalone_mode=False,
            complete_var=COMPLETE_VARIABLE,
            obj=Settings(),
        )

    try:
        return main()
    except CacheDamaged as error:
        if any(word.startswith(("--stdin", "--files-from", "--command")) for word in words):
            raise
        show.err(f"note: {show.shown(error.reason)}: it was thrown away and is made anew")
    return main()


def _invoke(words: Sequence[str], *, as_json: bool) -> int:
    debug = os.environ.get("RESPALDO_DEBUG") == "1"
    try:
        result = _main(words)
    except click.exceptions.Abort:
        return _fail(Interrupted("SIGINT"), as_json=as_json)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        show.err(error.format_message())
        return 2
    except click.ClickException as error:
        where = getattr(error, "ctx", None)
        page = where.command_path if where else "respaldo"
        return _say("UsageError", error.format_message(), f"see: {page} --help", 2, as_json=as_json)
    except BrokenPipeError:
        raise
    except RespaldoError as error:
        if debug:
            raise
        return _fail(error, as_json=as_json)
    except OSError as error:
        if debug:
            raise
        where = f": {show.shown(os.fsdecode(error.filename))}" if error.filename else ""
        if error.filename == show.OUTPUT:
            _drop_output()  # or what is buffered would fail once more, and be said once more
        hint = _HINTS.get(error.errno or 0, "")
        return _say("OSError", f"{show.reason(error)}{where}", hint, 1, as_json=as_json)
    except Exception as error:
        if debug:
            raise
        what = f"this should not have happened: {type(error).__name__}: {error}"
        return _say(
            "InternalError", what, "run it again with RESPALDO_DEBUG=1 and report what it says", 1, as_json=as_json
        )
    return result if isinstance(result, int) else 0


def _fail(error: RespaldoError, *, as_json: bool) -> int:
    return _say(type(error).__name__, str(error), error.hint, error.exit_status, as_json=as_json)


def _say(kind: str, what: str, hint: str, status: int, *, as_json: bool) -> int:
    """Prints an error on standard error, so that standard output holds a whole document or none."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    if as_json:
        error = {"kind": kind, "message": what, "hint": hint, "exit_status": status}
        show.err(show.document({"error": error}))
        return status
    show.err(f"error: {_lines(what)}")
    if hint:
        show.err(f"hint: {_lines(hint)}")
    return status


def _lines(text: str) -> str:
    return "\n".join(show.shown(line) for line in text.split("\n"))
