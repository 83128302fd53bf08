"""`respaldo key`: lists, adds, removes and changes passphrases and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.pages import NAMES, WIDTH_MAX, common_options, page
from respaldo.cli.settings import Settings
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import Secret, SlotInfo

_NEW_PASSWORD = click.option(
    "--new-password-file",
    default="",
    metavar="FILE",
    help="Read the new passphrase from a file instead of asking for it.",
)
_SENSITIVE = click.option(
    "--sensitive", is_flag=True, help="Make guessing the new passphrase four times as costly (256 MiB of memory)."
)


@click.group(
    "key",
    params=list(common_options()),
    context_settings={"help_option_names": NAMES, "max_content_width": WIDTH_MAX},
    no_args_is_help=True,
)
def command() -> None:
    """List, add, remove or change passphrases and keys.

    A repository has up to 16 key slots; each opens with a passphrase or a key file of its own. The master key behind
    them stays: whoever kept a copy of a slot and knows its secret can open the repository even after the slot is
    removed.
    """


@page(
    "list",
    statuses=(4,),
    examples=(
        ("All slots:", "respaldo key list -r /mnt/disk/backup"),
        ("Opened by a key file:", "respaldo key list --key-file ~/recovery.key"),
        ("The number of slots:", "respaldo key list --json | jq '.keys | length'"),
    ),
    notes="keys: a list of id, method (argon2id or key), passes, memory_kib, label, created. damaged: names.",
)
def list_(settings: Settings) -> int:
    """List the key slots, oldest first."""
    with settings.open() as repository:
        slots, damaged = repository.keys()
    value = {"keys": [_fields(slot) for slot in slots], "damaged": [error.name for error in damaged]}
    rows = [(_short(slot), _method(slot), show.local_time(slot.created_ns), show.shown(slot.label)) for slot in slots]
    settings.report(value, show.table(("ID", "OPENS WITH", "MADE", "LABEL"), rows))
    for error in damaged:
        show.err(f"warning: {show.shown(str(error))}")
    return 4 if damaged else 0


@page(
    "add",
    examples=(
        ("A second passphrase, asked for twice:", "respaldo key add --label ana"),
        ("A key file for a script on this machine:", "respaldo key add --new-key-file /root/backup.key --label cron"),
        ("A passphrase from a file:", "respaldo key add --new-password-file ./new-passphrase"),
    ),
    notes="key (its id), key_file (where one was made).",
)
@click.option(
    "--new-key-file", default="", metavar="FILE", help="Make a new file with a key of 32 random bytes in hex."
)
@_NEW_PASSWORD
@_SENSITIVE
@click.option("--label", default="", metavar="TEXT", help="Whose, or what for.")
def add(settings: Settings, *, new_key_file: str, new_password_file: str, sensitive: bool, label: str) -> int:
    """Add a passphrase or a key that opens the repository."""
    from respaldo import api  # start-up time
    from respaldo.cli.passphrase import new_key  # start-up time

    if new_key_file and new_password_file:
        raise UsageError("--new-key-file and --new-password-file exclude each other")
    kdf = api.SENSITIVE if sensitive else api.STANDARD
    with settings.open(writes=True) as repository:
        if new_key_file:
            with new_key(new_key_file) as secret:
                name = repository.add_key(secret, kdf=kdf, label=label)
        else:
            name = repository.add_key(_new_secret(new_password_file), kdf=kdf, label=label)
    value = {"key": _id(name), "key_file": new_key_file or None}
    where = f"; the key is in {show.shown(new_key_file)}" if new_key_file else ""
    settings.report(value, f"added key {_id(name)}{where}")
    return 0


@page(
    "remove",
    examples=(
        ("By the beginning of its id:", "respaldo key remove 3f35"),
        ("After looking which one it is:", "respaldo key list && respaldo key remove d2997cec9e28f22c"),
        ("For a program:", "respaldo key remove 3f358ae3 --json"),
    ),
    notes="removed (the key's id).",
)
@click.argument("key", metavar="ID")
def remove(settings: Settings, *, key: str) -> int:
    """Remove a key slot, named by its id or the beginning of it. The last one stays.

    This revokes nothing for somebody who kept a copy of the slot and knows its secret.
    """
    with settings.open(writes=True) as repository:
        name = repository.remove_key(key)
    settings.report({"removed": _id(name)}, f"removed key {_id(name)}")
    return 0


@page(
    "passwd",
    examples=(
        ("Asking for the old and the new one:", "respaldo key passwd -r /mnt/disk/backup"),
        (
            "In a script:",
            "respaldo key passwd --password-file ./old --new-password-file ./new",
        ),
        ("With a higher cost of guessing:", "respaldo key passwd --sensitive"),
    ),
    notes="key (the new slot's id).",
)
@_NEW_PASSWORD
@_SENSITIVE
def passwd(settings: Settings, *, new_password_file: str, sensitive: bool) -> int:
    """Change the passphrase the repository is opened with: a new slot takes the place of the old one."""
    from respaldo import api  # start-up time

    with settings.open(writes=True) as repository:
        secret = _new_secret(new_password_file)
        name = repository.change_secret(secret, kdf=api.SENSITIVE if sensitive else None)
    settings.report({"key": _id(name)}, f"changed the passphrase; the new key is {_id(name)}")
    return 0


def _new_secret(path: str) -> Secret:
    from respaldo.cli.passphrase import ask_twice, read_passphrase  # start-up time

    return read_passphrase(path) if path else ask_twice()


def _id(name: str) -> str:
    return name.rpartition("/")[2]


def _short(slot: SlotInfo) -> str:
    return _id(slot.name)


def _method(slot: SlotInfo) -> str:
    if slot.kdf is None:
        return "key file"
    return f"passphrase ({slot.kdf.memory_kib >> 10} MiB, {slot.kdf.passes} passes)"


def _fields(slot: SlotInfo) -> dict[str, object]:
    return {
        "id": _id(slot.name),
        "method": slot.method,
        "passes": slot.kdf.passes if slot.kdf else None,
        "memory_kib": slot.kdf.memory_kib if slot.kdf else None,
        "label": slot.label,
        "created": show.iso_time(slot.created_ns),
    }


for _command in (list_, add, remove, passwd):
    command.add_command(_command)
