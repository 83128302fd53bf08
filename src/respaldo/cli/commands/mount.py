"""`respaldo mount`: shows all snapshots as directories."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.pages import page
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling
from respaldo.cli.values import ZONE

if TYPE_CHECKING:
    from respaldo.api import Secret
    from respaldo.core.errors import Corruption

_READY = b"\1"
_STANDARD_ERROR = 2


@page(
    "mount",
    examples=(
        ("All snapshots as directories, until somebody unmounts them:", "respaldo mount /mnt/back"),
        ("No longer:", "umount /mnt/back"),
        ("What changed in a file since yesterday:", "diff /mnt/back/latest/etc/fstab /etc/fstab"),
        (
            "From another disk, for all users of this machine:",
            "respaldo mount -r /media/disk/backup --allow-other /mnt/back",
        ),
        ("In the foreground, until Ctrl-C:", "respaldo mount --foreground /mnt/back"),
    ),
    notes="mounted (the directory), pid (of the process that serves it; with --foreground, this one), damaged (names "
    "of records that cannot be read).",
)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=bytes))
@click.option("--foreground", "-f", is_flag=True, help="Stay until it is unmounted or interrupted.")
@click.option("--allow-other", is_flag=True, help="Let other users in too, by the owners and modes of the files.")
def command(settings: Settings, *, directory: bytes, foreground: bool, allow_other: bool) -> int:
    """Mount the repository, read-only. DIR is empty. Returns when the snapshots are there.

    latest/ holds the newest snapshot of every source at its own path, snapshots/ each snapshot under its label or time,
    snapshot/ each as a tar archive, too; daily/ to yearly/, hosts/, tags/ and full/ are ways to them; incremental/
    shows what changed from one to the next, versions/ every version of a file. at/NAME is a link to the snapshot of any
    name: at/yesterday, at/latest:verified. New snapshots appear by themselves.
    Where the record of a snapshot is damaged, mount warns, latest/ and what else is to be the newest is an error, since
    that one may be it, and damaged, a file beside latest/, says which; all others are in snapshots/.
    Without --allow-other, only the user who mounts gets in, and reads everything. With it, everybody does, and is held
    to the owners, modes and ACLs of the files; for ordinary users that takes user_allow_other in /etc/fuse.conf.
    """
    os.environ["FUSE_LIBRARY_NAME"] = "fuse3"  # mfusepy asks nowhere else, and takes libfuse 2 where it finds it
    secret = settings.secret_unless_client()
    directory = os.path.abspath(directory)
    _make_absolute(settings)
    if foreground:
        _serve(settings, directory, secret, allow_other, lambda bad: _report(settings, directory, os.getpid(), bad))
        return 0
    reading, writing = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    process = os.fork()
    if process:
        os.close(writing)
        return _wait(settings, directory, process, reading)
    _keep_only(writing)
    os.setsid()

    def ready(bad: Sequence[str]) -> None:
        _let_go()
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(_READY + "\n".join(bad).encode())

    _serve(settings, directory, secret, allow_other, ready)
    return 0


def _serve(
    settings: Settings,
    directory: bytes,
    secret: Secret | None,
    allow_other: bool,
    ready: Callable[[Sequence[str]], None],
) -> None:
    """Serves a mount until it is no more; ``ready`` is told which records are damaged once it is there."""
    from respaldo.api.mount import DAMAGED, MountOptions, mount  # start-up time

    bad: list[str] = []

    def damaged(errors: Sequence[Corruption]) -> None:
        bad.extend(error.name for error in errors)
        for line in (*map(str, errors), DAMAGED):
            show.err(f"warning: {show.shown(line)}")

    zone = ZONE.convert("local", None, None)
    options = MountOptions(allow_other=allow_other)
    with settings.open(secret=secret) as repository, cancelling() as cancel:
        mount(repository, directory, options, zone=zone, ready=lambda: ready(bad), damaged=damaged, cancel=cancel)


def _wait(settings: Settings, directory: bytes, process: int, reading: int) -> int:
    """Waits until the mount is there, or its process has ended: then it has said why."""
    with os.fdopen(reading, "rb") as pipe:
        if pipe.read(1) == _READY:
            _report(settings, directory, process, pipe.read().decode().split())
            return 0
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _report(settings: Settings, directory: bytes, process: int, damaged: Sequence[str]) -> None:
    text = f"mounted at {show.shown(directory)}; unmount it with: umount {show.shown(directory)}"
    settings.report({**show.path_fields(directory, "mounted"), "pid": process, "damaged": list(damaged)}, text)
    show.flush()


def _make_absolute(settings: Settings) -> None:
    """Names places so that they are found from elsewhere too: what stays behind leaves the working directory."""
    from respaldo.api import repository_path  # start-up time

    settings.repo = repository_path(settings.location())
    cache = settings.cache_dir or os.environ.get("RESPALDO_CACHE_DIR", "")
    if cache:
        settings.cache_dir = os.path.abspath(cache)


def _keep_only(kept: int) -> None:
    """Closes what was inherited, but for the standard streams: somebody may wait for the other end of it."""
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > _STANDARD_ERROR and number != kept:
            with contextlib.suppress(OSError):
                os.close(number)


def _let_go() -> None:
    """Leaves the terminal and the working directory alone from here on."""
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    os.close(nowhere)
