"""`respaldo key`: lists, adds, removes, changes and tests passphrases and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from respaldo.cli import pages, show
from respaldo.cli.clients import group as client_group
from respaldo.cli.known import SLOT
from respaldo.cli.pages import kdf_option, page
from respaldo.cli.settings import Settings
from respaldo.cli.slots import fields_of, is_seen, method_of, slot_id
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import Secret

_NEW_PASSWORD = click.option(
    "--new-password-file",
    default="",
    metavar="FILE",
    help="Read the new passphrase from a file instead of asking for it.",
)
_FIELDS = "id, method (argon2id or key), passes, memory_kib, use (recovery, or empty), label, created, epoch, last_used"


@pages.group("key")
def command() -> None:
    """List, add, remove, change or test passphrases and keys; rotate the master key.

    A repository has up to 16 key slots; each opens with a passphrase or a key of its own. The master key behind
    them stays until it is rotated: whoever kept a copy of a slot and knows its secret can open the repository even
    after the slot is removed.
    """


@page(
    "list",
    statuses=(4,),
    examples=(
        ("All slots:", "respaldo key list -r /mnt/disk/backup"),
        ("Opened by a key file:", "respaldo key list --key-file ~/recovery.key"),
        ("The number of slots:", "respaldo key list --json | jq '.keys | length'"),
    ),
    notes=f"keys: a list of {_FIELDS} (by this client; null where it never was), opened (whether the repository was "
    "opened with it now). damaged: names.",
)
def list_(settings: Settings) -> int:
    """List the key slots, oldest first.

    The one that the repository was opened with bears an asterisk. When a slot was last used, each client knows of
    itself alone. Once the key was rotated, the epoch says which master key a slot opens.
    """
    with settings.open() as repository:
        slots, damaged = repository.slots.listed()
        used, opened = repository.slots.used, repository.slots.opened_with
    value = {
        "keys": [fields_of(slot, used.get(slot.name)) | {"opened": slot.name == opened} for slot in slots],
        "damaged": [error.name for error in damaged],
    }
    rotated = any(slot.epoch for slot in slots)
    rows = [
        (
            slot_id(slot.name) + ("*" if slot.name == opened else ""),
            method_of(slot),
            show.local_time(slot.created_ns),
            show.local_time(used[slot.name]) if slot.name in used else "–",
            *([str(slot.epoch)] if rotated else []),
            show.shown(slot.label),
        )
        for slot in slots
    ]
    heads = ("ID", "OPENS WITH", "MADE", "LAST USED HERE", *(["EPOCH"] if rotated else []), "LABEL")
    settings.report(value, show.table(heads, rows))
    for error in damaged:
        show.err(f"warning: {show.shown(str(error))}")
    return 4 if damaged else 0


@page(
    "add",
    examples=(
        ("A second passphrase, asked for twice:", "respaldo key add --label ana"),
        ("A key file for a script on this machine:", "respaldo key add --new-key-file /root/backup.key --label cron"),
        ("A passphrase from a file:", "respaldo key add --new-password-file ./new-passphrase"),
        ("A passphrase that costs more to guess:", "respaldo key add --kdf sensitive"),
    ),
    notes="key (its id), key_file (where one was made).",
)
@click.option(
    "--new-key-file", default="", metavar="FILE", help="Make a new file with a key of 32 random bytes in hex."
)
@_NEW_PASSWORD
@kdf_option
@click.option("--label", default="", metavar="TEXT", help="Whose, or what for.")
def add(settings: Settings, *, new_key_file: str, new_password_file: str, kdf: str | None, label: str) -> int:
    """Add a passphrase or a key that opens the repository."""
    from respaldo import api  # start-up time
    from respaldo.cli.passphrase import new_key  # start-up time

    if new_key_file and (new_password_file or kdf):
        other = "--new-password-file" if new_password_file else "--kdf"
        raise UsageError(f"--new-key-file and {other} exclude each other")
    cost = api.KDFS[kdf or "standard"]
    with settings.open(writes=True, secret=settings.secret()) as repository:
        if new_key_file:
            with new_key(new_key_file) as secret:
                name = repository.slots.add(secret, label=label)
        else:
            name = repository.slots.add(_new_secret(new_password_file), kdf=cost, label=label)
    value = {"key": slot_id(name), "key_file": new_key_file or None}
    where = f"; the key is in {show.shown(new_key_file)}" if new_key_file else ""
    settings.report(value, f"added key {slot_id(name)}{where}")
    return 0


@page(
    "remove",
    examples=(
        ("By the beginning of its id:", "respaldo key remove 3f35"),
        ("After looking which one it is:", "respaldo key list && respaldo key remove d2997cec9e28f22c"),
        ("For a program, even if it is the one in use:", "respaldo key remove 3f358ae3 --json --yes"),
    ),
    notes="removed (the key's id), opened (whether the repository was opened with it), dry_run.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Say which one it would be; remove nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask where it is the key that the repository was opened with.")
@click.argument("key", metavar="ID", type=SLOT)
def remove(settings: Settings, *, key: str, dry_run: bool, yes: bool) -> int:
    """Remove a key slot, named by its id or the beginning of it. The last one stays.

    Where it is the one that the repository was opened with, a warning says so, and a person at a terminal is asked;
    without one it takes --yes.
    This revokes nothing for somebody who kept a copy of the slot and knows its secret; to shut somebody out of what
    is written from now on: key rotate --without.
    """
    with settings.open(writes=True, secret=settings.secret()) as repository:
        name = repository.slots.find(key)
        repository.slots.check_removable(name)
        opened = name == repository.slots.opened_with
        if opened:
            show.err(
                f"warning: {slot_id(name)} is the key that the repository was opened with: it will open it no more"
            )
        if not dry_run:
            if opened and not yes:
                if not is_seen():
                    raise UsageError(
                        "there is nobody to ask whether the key that opened the repository is to go",
                        hint="look with --dry-run, then say with --yes that it is",
                    )
                if not click.confirm("remove it?", err=True):
                    show.err("nothing was removed")
                    return 1
            repository.slots.remove(name)
    value = {"removed": slot_id(name), "opened": opened, "dry_run": dry_run}
    settings.report(value, f"{'would remove' if dry_run else 'removed'} key {slot_id(name)}")
    return 0


@page(
    "passwd",
    examples=(
        ("Asking for the old and the new one:", "respaldo key passwd -r /mnt/disk/backup"),
        (
            "In a script:",
            "respaldo key passwd --password-file ./old --new-password-file ./new",
        ),
        ("With a higher cost of guessing:", "respaldo key passwd --kdf sensitive"),
    ),
    notes="key (the new slot's id).",
)
@_NEW_PASSWORD
@kdf_option
def passwd(settings: Settings, *, new_password_file: str, kdf: str | None) -> int:
    """Change the passphrase the repository is opened with: a new slot takes the place of the old one.

    It keeps others from opening the repository who learn the old passphrase from now on. It revokes nothing for
    somebody who knew it and kept a copy of the old slot: the master key stays the same. Against that: key rotate.
    Forgotten it? "key add --recovery" makes a new one with the recovery key, and "key remove" takes the old one away.
    """
    from respaldo import api  # start-up time

    old = settings.secret()
    if old.key is not None:
        raise UsageError(
            "key passwd changes a passphrase, and what was given is a key: nothing was changed",
            hint="for a new passphrase beside it: respaldo key add; for a forgotten one: respaldo key remove",
        )
    with settings.open(writes=True, secret=old) as repository:
        new = _new_secret(new_password_file)
        name = repository.slots.change(old, new, kdf=api.KDFS[kdf] if kdf else None)
    settings.report({"key": slot_id(name)}, f"changed the passphrase; the new key is {slot_id(name)}")
    return 0


@page(
    "test",
    examples=(
        ("Whether one remembers the passphrase:", "respaldo key test -r /mnt/disk/backup"),
        ("Whether a key file opens it:", "respaldo key test --key-file /media/stick/recovery.key"),
    ),
    notes=f"{_FIELDS}.",
)
def test(settings: Settings) -> int:
    """Test whether a passphrase or a key opens the repository, and say which slot it is; change nothing.

    Try the passphrase, the key file and the recovery key once in a while, before they are needed.
    """
    with settings.open(secret=settings.secret()) as repository:
        opened = repository.slots.opened_with
        slot = next((slot for slot in repository.slots.listed()[0] if slot.name == opened), None)
    if slot is None:  # what it says of itself is damaged, or it was removed at this moment
        settings.report({"id": slot_id(opened)}, f"opened with key {slot_id(opened)}")
        return 0
    label = f" ({show.shown(slot.label)})" if slot.label else ""
    made = show.local_time(slot.created_ns)
    settings.report(fields_of(slot, None), f"opened with key {slot_id(opened)}{label}: {method_of(slot)}, made {made}")
    return 0


@page(
    "recovery",
    examples=(
        ("On this terminal, to be written down or photographed:", "respaldo key recovery"),
        ("A page to print:", "respaldo key recovery --svg recovery.svg"),
        ("Five people, any three of whom open the repository together:", "respaldo key recovery --shares 3 --of 5"),
        ("Whether what is on paper opens it:", "respaldo key test --recovery"),
    ),
    notes="key (its id), use, files (what was written). The key itself is never in it.",
)
@click.option(
    "--shares", type=click.IntRange(2, 16), metavar="N", help="Divide the key into shares, of which N are needed."
)
@click.option("--of", "count", type=click.IntRange(2, 16), metavar="M", help="How many shares to make.")
@click.option(
    "--svg", default="", metavar="FILE", help="Write a page with the key and its QR code; FILE-1, … for shares."
)
@click.option(
    "-o",
    "--output",
    default="",
    metavar="FILE",
    help="Write it as text, which --key-file reads; - for standard output.",
)
@click.option("--label", default="", metavar="TEXT", help="Where it is kept, say.")
def recovery(settings: Settings, *, shares: int | None, count: int | None, svg: str, output: str, label: str) -> int:
    """Make a recovery key: 256 random bits to be kept on paper, for when all else is lost.

    It is shown once, with a QR code, or written where you say. Typed in after --recovery, it opens the repository
    like a passphrase; case, spaces and dashes do not matter, nor whether 0 or O, 1 or I was typed. In shares, any N
    of them open it, and fewer tell nothing. What it opens is taken away again by: key remove.
    """
    from respaldo.cli.recovery import make  # start-up time

    return make(settings, threshold=shares, count=count, svg=svg, output=output, label=label)


@page(
    "rotate",
    examples=(
        ("A new master key for everybody:", "respaldo key rotate -r /mnt/disk/backup"),
        ("Without the key of a laptop that was stolen:", "respaldo key rotate --without 3f35"),
        ("What it would do:", "respaldo key rotate --without 3f35 --dry-run"),
        ("Finish one that was cut off:", "respaldo key rotate --resume"),
    ),
    notes="epoch, keys (new ids by old ones), left_out (ids), stay (ids of old keys that could not be carried over), "
    "clients (names of those whose areas keep their keys: renew them), "
    "finished (whether it finished an earlier rotation), dry_run.",
)
@click.option(
    "--without",
    multiple=True,
    metavar="ID",
    type=SLOT,
    help="Shut this key out: it opens nothing of what is written from now on.",
)
@click.option("--resume", is_flag=True, help="Only finish a rotation that was cut off.")
@click.option("-n", "--dry-run", is_flag=True, help="Say which keys would be kept; change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask, even where the key is left out that this is run with.")
def rotate(settings: Settings, *, without: tuple[str, ...], resume: bool, dry_run: bool, yes: bool) -> int:
    """Rotate the master key: whatever is written from now on is sealed under a new one.

    Every passphrase and key stays as it is and gets the new master key, but for those that you leave out; what they are
    is not needed for that. Look through the list: whose key is kept can read what comes. What was written before
    stays readable for all who could read it, also for those who are left out and have, or get, a copy of the
    repository. Prune carries old content over to the new key by and by. The key that this is run with is left out only
    if you say so: at a terminal you are asked, elsewhere it takes --yes. The areas of clients that cannot read keep
    their keys: renew those clients afterwards, see key client renew.
    """
    from respaldo.cli.rotation import rotate_key  # start-up time

    return rotate_key(settings, without=without, resume=resume, dry_run=dry_run, yes=yes)


@page(
    "epochs",
    examples=(
        ("Which master keys are in use, and for how much:", "respaldo key epochs -r /mnt/disk/backup"),
        ("For a program:", "respaldo key epochs --json | jq '.epochs[].bytes'"),
    ),
    notes="epoch (the newest), epochs: a list of epoch, in_use, objects and bytes (by folder of the repository).",
)
def epochs(settings: Settings) -> int:
    """Show the epochs of the master key: which are in use, and how much is sealed under each.

    An epoch begins when the key is rotated. Under an old one lies what was written before and has not been carried over
    since, by prune or key reencrypt.
    """
    from respaldo.cli.rotation import show_epochs  # start-up time

    return show_epochs(settings)


@page(
    "reencrypt",
    statuses=(3, 4),
    examples=(
        ("Seal everything under the newest master key:", "respaldo key reencrypt -r /mnt/disk/backup"),
        ("How much that would be:", "respaldo key reencrypt --dry-run"),
        ("After somebody was shut out:", "respaldo key rotate --without 3f35 && respaldo key reencrypt"),
        ("What a client stored before it was renewed:", "respaldo key reencrypt --client web-1"),
    ),
    notes="snapshots (new ids by old ones), failed (ids, with reasons), objects, new_packs, new_bytes, deleted_packs, "
    "deleted_bytes, retired (epochs), left (names of what is sealed under old keys still), busy, full, dry_run; of a "
    "dry run epochs, as key epochs has them.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Say how much is sealed under old keys; change nothing.")
def reencrypt(settings: Settings, *, dry_run: bool) -> int:
    """Seal all that is under older master keys under the newest one, then destroy those.

    Packs are read, and written again without being compressed anew; snapshots get new ids, and their old ones still
    mean them. Cut off, it goes on where it was. An old key goes once nothing is left that is sealed under it: while a
    snapshot is being made under it, or within a day of one that was cut off, it stays (status 3); run it again later.
    It needs room for a gigabyte, or for less on a disk that has less. Whoever copied the storage before, and has an old
    key, keeps what he has. Mounts that stand go on, but for those whose passphrase or key was left out, and those of
    clients' areas (--client): unmount them and mount them again.

    With --client, in the area of a client that was renewed: content, names of files included, is sealed anew. Snapshots
    keep their ids, and what is said of them (host, user, source, times, label) stays as it is, with the keys that open
    it.
    """
    from respaldo.cli.rotation import reencrypt_all  # start-up time

    return reencrypt_all(settings, dry_run=dry_run)


def _new_secret(path: str) -> Secret:
    from respaldo.cli.passphrase import ask_twice, read_passphrase  # start-up time

    return read_passphrase(path) if path else ask_twice()


for _command in (list_, add, remove, passwd, test, recovery, rotate, reencrypt, epochs, client_group):
    command.add_command(_command)
