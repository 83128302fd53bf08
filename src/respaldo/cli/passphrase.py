"""Secrets: where a passphrase or a key comes from, in which order, and what is wrong when there is none.

Options go before the environment; in the environment a key file goes before a passphrase. Never echoes a passphrase,
and never asks where nobody can answer.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from respaldo.api import KEY_BYTES, Secret
from respaldo.core.errors import Corruption, UsageError

if TYPE_CHECKING:
    from respaldo.api import Credential

SECRET_BYTES_MAX = 64 << 10
_WAYS = "--password-file, RESPALDO_PASSWORD_FILE, RESPALDO_PASSWORD_COMMAND or RESPALDO_PASSWORD"


def find_secret(password_file: str, key_file: str, *, recovery: bool = False, new: bool = False) -> Secret:
    """Returns the secret to open a repository with, or (``new``) the one it shall open with: asked for twice then."""
    given = [
        name
        for name, value in (("--password-file", password_file), ("--key-file", key_file), ("--recovery", recovery))
        if value
    ]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other")
    if recovery:
        from respaldo.cli.recovery import ask  # start-up time

        return ask()
    if key_file:
        return read_key(key_file)
    if password_file:
        return read_passphrase(password_file)
    if from_environment := os.environ.get("RESPALDO_KEY_FILE"):
        return read_key(from_environment)
    if from_environment := os.environ.get("RESPALDO_PASSWORD_FILE"):
        return read_passphrase(from_environment)
    if command := os.environ.get("RESPALDO_PASSWORD_COMMAND"):
        return _secret(_run(command), "RESPALDO_PASSWORD_COMMAND")
    passphrase = os.environb.get(b"RESPALDO_PASSWORD")
    if passphrase is not None:
        return _secret(passphrase, "RESPALDO_PASSWORD")
    return ask_twice() if new else _ask("passphrase: ")


def find_other_secret(password_file: str, key_file: str) -> Secret | None:
    """Returns the secret of the second repository of a command, None where nothing says what it is."""
    if password_file and key_file:
        raise UsageError("--other-password-file and --other-key-file exclude each other")
    if key_file or (key_file := os.environ.get("RESPALDO_OTHER_KEY_FILE", "") if not password_file else ""):
        return read_key(key_file)
    if password_file or (password_file := os.environ.get("RESPALDO_OTHER_PASSWORD_FILE", "")):
        return read_passphrase(password_file)
    if command := os.environ.get("RESPALDO_OTHER_PASSWORD_COMMAND"):
        return _secret(_run(command, "RESPALDO_OTHER_PASSWORD_COMMAND"), "RESPALDO_OTHER_PASSWORD_COMMAND")
    passphrase = os.environb.get(b"RESPALDO_OTHER_PASSWORD")
    return None if passphrase is None else _secret(passphrase, "RESPALDO_OTHER_PASSWORD")


def ask_for(what: str) -> Secret | None:
    """Asks for the passphrase of something; None where there is no terminal."""
    return _ask(f"passphrase of {what}: ") if sys.stdin and sys.stdin.isatty() else None


def ask_twice(what: str = "passphrase") -> Secret:
    """Asks for a new passphrase, twice."""
    first = _ask(f"new {what}: ")
    if _ask(f"new {what} again: ") != first:
        raise UsageError("the two passphrases differ", hint="run the command again")
    return first


def _ask(prompt: str) -> Secret:
    if not (sys.stdin and sys.stdin.isatty()):
        raise UsageError("no passphrase, and no terminal to ask for one", hint=f"use {_WAYS}")
    from getpass import getpass  # start-up time

    try:
        return _secret(getpass(prompt, sys.stderr).encode("utf-8", "surrogateescape"), "the passphrase")
    except EOFError:
        raise UsageError("no passphrase was given") from None


def _secret(passphrase: bytes, source: str) -> Secret:
    if not passphrase:
        raise UsageError(f"empty passphrase from {source}")
    return Secret(passphrase=passphrase)


def read_passphrase(path: str) -> Secret:
    """Returns the passphrase in a file: all of it but one line end."""
    return _secret(_without_line_end(_read(path, "password file")), path)


def _without_line_end(data: bytes) -> bytes:
    return data.removesuffix(b"\n").removesuffix(b"\r")


def _run(command: str, name: str = "RESPALDO_PASSWORD_COMMAND") -> bytes:
    import shlex  # start-up time
    import subprocess  # start-up time

    try:
        words = shlex.split(command)
        result = subprocess.run(words, stdout=subprocess.PIPE, check=False)
    except (OSError, ValueError, IndexError) as error:
        raise UsageError(f"{name} cannot be run: {error}") from None
    if result.returncode:
        raise UsageError(f"{name} failed with status {result.returncode}")
    return _without_line_end(result.stdout)


def read_key(path: str) -> Secret:
    """Returns the key in a file: 32 bytes, 64 hexadecimal digits, a recovery key or shares of one, as printed."""
    data = _read(path, "key file")
    if len(data) == KEY_BYTES:
        return Secret(key=data)
    with contextlib.suppress(ValueError):
        key = bytes.fromhex(data.decode("ascii"))
        if len(key) == KEY_BYTES:
            return Secret(key=key)
    from respaldo.api import parse_recovery  # start-up time

    try:
        return parse_recovery(data.decode("utf-8"))
    except (UnicodeDecodeError, UsageError) as error:
        why = f"; as a recovery key: {error}" if isinstance(error, UsageError) else ""
        raise UsageError(
            f"{path} is no key file: it holds neither 32 bytes nor 64 hexadecimal digits{why}",
            hint=(isinstance(error, UsageError) and error.hint)
            or "make one with: respaldo key add --new-key-file PATH",
        ) from None


@contextlib.contextmanager
def new_key(path: str) -> Iterator[Secret]:
    """Makes a key file, and takes it away again where what it is for fails: a key that opens nothing misleads."""
    secret = make_key(path)
    try:
        yield secret
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def make_private(path: str, what: str) -> int:
    """Makes a file that is not there yet, for its owner alone; returns its descriptor."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} exists already", hint="name a file that is not there yet") from None
    except OSError as error:
        raise UsageError(f"cannot make the {what} {path}: {error.strerror}") from None


def read_credential(path: str) -> Credential:
    """Returns the credential in a file."""
    from respaldo.api import parse_credential  # start-up time
    from respaldo.cli import show  # start-up time

    with contextlib.suppress(OSError):
        if os.stat(path).st_mode & 0o077:
            show.err(
                f"warning: others than its owner can reach {show.shown(path)}: whoever reads it is this client, too"
            )
    try:
        return parse_credential(_read(path, "client's credential"), path)
    except Corruption as error:
        raise UsageError(
            f"{path} is no client's credential: {error.reason}", hint="the owner makes one: respaldo key client add"
        ) from None


def make_key(path: str) -> Secret:
    """Draws a key and puts it into a new file that only its owner can read."""
    key = os.urandom(KEY_BYTES)
    fd = make_private(path, "key file")
    with os.fdopen(fd, "wb") as file:
        file.write(key.hex().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return Secret(key=key)


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"cannot read the {what} {path}: {error.strerror}") from None
    if len(data) > SECRET_BYTES_MAX:
        raise UsageError(f"the {what} {path} is too long to be one")
    return data
