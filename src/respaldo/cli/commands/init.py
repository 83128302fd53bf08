"""`respaldo init`: makes a repository."""

from __future__ import annotations

from contextlib import nullcontext

import click

from respaldo.cli import show
from respaldo.cli.other import open_other, other_options
from respaldo.cli.pages import kdf_option, page
from respaldo.cli.settings import Settings
from respaldo.core.errors import UsageError
from respaldo.core.ids import SUITES


@page(
    "init",
    examples=(
        ("On an external disk, asking for a passphrase:", "respaldo init -r /mnt/disk/backup"),
        (
            "With a key file beside the passphrase, to be kept elsewhere (on a stick):",
            "respaldo init -r /mnt/disk/backup --new-key-file ~/backup.key",
        ),
        (
            "On a disk that may lose a sector now and then:",
            "respaldo init -r /mnt/disk/backup --parity 5%",
        ),
        (
            "A second one, for copies of the first:",
            "respaldo init -r /mnt/second/backup --like /mnt/disk/backup",
        ),
        (
            "In a script:",
            "respaldo init -r /srv/backup --password-file /etc/respaldo/passphrase --json",
        ),
        (
            "Opened by a key file alone, without a passphrase:",
            "respaldo init -r /srv/backup --key-file /root/backup.key",
        ),
    ),
    notes="repository (id), location, header_hash, recovery_key_file (where one was made), parity (a share, or 0), "
    "suite.",
)
@kdf_option
@click.option("--label", default="", metavar="TEXT", help="A label for the first key slot, such as a person's name.")
@click.option(
    "--new-key-file",
    default="",
    metavar="FILE",
    help="Also make a key file: a new one with 32 random bytes in hex that opens the repository.",
)
@click.option(
    "--parity",
    default="",
    metavar="SHARE",
    help="Keep so much Reed-Solomon parity (5%, say) of all that is stored: it mends damaged sectors up to that share.",
)
@click.option(
    "--suite",
    type=click.Choice(SUITES),
    default=SUITES[0],
    show_default=True,
    help="The cipher. The second is the faster one where a processor has no AES instructions.",
)
@click.option(
    "--like",
    default="",
    metavar="DIRECTORY",
    type=click.Path(path_type=str),
    help="Cut and name content like the repository there, so that copies between the two go over as they are.",
)
@other_options
def command(
    settings: Settings,
    *,
    suite: str,
    kdf: str | None,
    label: str,
    new_key_file: str,
    parity: str,
    like: str,
    other_password_file: str,
    other_key_file: str,
) -> int:
    """Make a repository in a new or empty directory.

    All that goes into it is encrypted under a random master key, which the passphrase (or the key file) unwraps. Nobody
    can open a repository whose passphrase and keys are lost: write the passphrase down, or make a recovery key for
    paper afterwards, with: respaldo key recovery.

    With --like, the new repository gets the keys by which the other one cuts and names content, and no key that opens
    anything: each has a master key of its own.
    """
    from respaldo import api  # start-up time
    from respaldo.cli.passphrase import find_secret, new_key  # start-up time

    if settings.recovery:
        raise UsageError("--recovery opens a repository", hint="make the key afterwards, with: respaldo key recovery")
    location = settings.location()
    share = api.parse_share(parity) if parity else 0
    secret = find_secret(settings.password_file, settings.key_file, new=True)
    given = {"other_password_file": other_password_file, "other_key_file": other_key_file}
    with (
        settings.places() as places,
        open_other(settings, like, given, secret, writes=False) if like else nullcontext() as pattern,
        new_key(new_key_file) if new_key_file else nullcontext() as recovery,
    ):
        header = api.init(
            location,
            secret,
            places=places,
            kdf=api.KDFS[kdf or "standard"],
            label=label,
            recovery=recovery,
            parity=share,
            suite=suite,
            like=pattern,
        )
    value = {
        "repository": header.repository.hex(),
        "location": location,
        "header_hash": header.hash.hex(),
        "recovery_key_file": new_key_file or None,
        "parity": share / 1000,
        "suite": suite,
    }
    text = f"made repository {header.repository.hex()[:8]} at {show.shown(location)}"
    if new_key_file:
        text += f"\nthe key is in {show.shown(new_key_file)}: keep it somewhere else"
    elif secret.key is None:
        text += (
            "\nif its passphrase is forgotten, it is lost; a recovery key for paper is made by: respaldo key recovery"
        )
    settings.report(value, text)
    return 0
