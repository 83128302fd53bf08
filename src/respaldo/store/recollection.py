"""What a client remembers of a repository's log, and who it is: kept in its state directory, never in the repository.

Whoever controls storage could change it there, and it is all that a rollback is seen by. Written whole, beside, and
moved into place. Losing it loses no data: the client then trusts what it sees next, as at the first time.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from respaldo.codec.signing import CLIENT_BYTES, PUBLIC_BYTES, SEED_BYTES, Signer, client_of
from respaldo.core.errors import Corruption
from respaldo.core.ids import RANDOM_ID_BYTES
from respaldo.core.private import make_directory, open_file, read_file, write_file
from respaldo.core.seams import Random
from respaldo.format import canonical
from respaldo.format.enrolment import Removal, parse_removal
from respaldo.format.logbook import HASH_BYTES

if TYPE_CHECKING:
    from respaldo.store.accesses import AccessLog

_BYTES_MAX: Final = 256 << 20
_ACCESS: Final = "access"
_SEEN_BYTES_MAX: Final = 8 << 20
_EPOCH_BYTES: Final = 8 + 32
_TAG_BYTES: Final = 16
_APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def _tag(seed: bytes, public: bytes) -> bytes:
    return blake3(public, key=seed).digest(_TAG_BYTES)


@dataclass(frozen=True, slots=True)
class Known:
    """Is how far a client's log was followed: the last entry's number and hash, and the client's public key."""

    number: int
    hash: bytes
    key: bytes


@dataclass(slots=True, kw_only=True)
class Memory:
    """Is what was seen. Ids of snapshots have 16 bytes.

    ``known``: by client. ``live``: snapshots that were committed and not forgotten. ``gone``: forgotten before their
    commit was seen. ``told``: what this client's own entries have said of others. ``tail``: its entries, encoded, that
    a coming object repeats. ``owed``: commits that are in no entry yet, with the hash of their manifests. ``intent``:
    an entry that was about to be put. ``removed``: clients with areas that an owner has removed, by the log, with the
    runs that count. ``all_removed``: whether these are all that the log spoke of as far as it was followed.
    """

    known: dict[bytes, Known] = field(default_factory=dict)
    live: set[bytes] = field(default_factory=set)
    gone: set[bytes] = field(default_factory=set)
    told: dict[bytes, int] = field(default_factory=dict)
    tail: list[bytes] = field(default_factory=list)
    owed: dict[bytes, bytes] = field(default_factory=dict)
    intent: bytes = b""
    removed: dict[bytes, Removal] = field(default_factory=dict)
    all_removed: bool = True

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        return canonical.pack(
            [
                2,
                [[client, item.number, item.hash, item.key] for client, item in sorted(self.known.items())],
                b"".join(sorted(self.live)),
                b"".join(sorted(self.gone)),
                [[client, number] for client, number in sorted(self.told.items())],
                list(self.tail),
                [[snapshot, pending] for snapshot, pending in sorted(self.owed.items())],
                self.intent,
                [removal.encode() for _, removal in sorted(self.removed.items())] if self.all_removed else 0,
            ]
        )


def parse_memory(data: bytes, what: str) -> Memory:
    """Parses a memory; raises `Corruption`."""
    match canonical.unpack(data, what):
        case [1, *parts]:  # of a program that did not remember removals
            rows: Sequence[object] = [*parts, 0]
        case [2, *parts]:
            rows = parts
        case _:
            rows = []
    match rows:
        case [
            list(known),
            bytes(live),
            bytes(gone),
            list(told),
            list(tail),
            list(owed),
            bytes(intent),
            (list() | 0) as removed,
        ] if all(isinstance(item, bytes) for item in tail):
            removals = [_removal(item, what) for item in removed or ()]
            return Memory(
                known=dict(_known(item, what) for item in known),
                live=_ids(live, what),
                gone=_ids(gone, what),
                told=dict(_told(item, what) for item in told),
                tail=[item for item in tail if isinstance(item, bytes)],
                owed=dict(_owed(item, what) for item in owed),
                intent=intent,
                removed={removal.client: removal for removal in removals},
                all_removed=removed != 0,
            )
    raise Corruption(what, "not what this program writes")


def _known(value: object, what: str) -> tuple[bytes, Known]:
    match value:
        case [bytes(client), int(number), bytes(seen), bytes(key)] if (
            len(client) == CLIENT_BYTES and len(seen) == HASH_BYTES and len(key) == PUBLIC_BYTES
        ):
            return client, Known(number, seen, key)
    raise Corruption(what, "not what this program writes")


def _told(value: object, what: str) -> tuple[bytes, int]:
    match value:
        case [bytes(client), int(number)]:
            return client, number
    raise Corruption(what, "not what this program writes")


def _owed(value: object, what: str) -> tuple[bytes, bytes]:
    match value:
        case [bytes(snapshot), bytes(pending)] if len(snapshot) == RANDOM_ID_BYTES and len(pending) == HASH_BYTES:
            return snapshot, pending
    raise Corruption(what, "not what this program writes")


def _removal(value: object, what: str) -> Removal:
    if isinstance(value, bytes):
        return parse_removal(value, what)
    raise Corruption(what, "not what this program writes")


def _ids(joined: bytes, what: str) -> set[bytes]:
    if len(joined) % RANDOM_ID_BYTES:
        raise Corruption(what, "not what this program writes")
    return {joined[at : at + RANDOM_ID_BYTES] for at in range(0, len(joined), RANDOM_ID_BYTES)}


def recollection_path(state_dir: Path, repository: bytes) -> Path:
    """Returns where a client remembers what concerns the log of a repository."""
    return state_dir / "logs" / repository.hex()


def client_path(state_dir: Path, area: bytes) -> Path:
    """Returns the same of an area, for the client that it belongs to."""
    return state_dir / "clients" / area.hex()


class Recollection:
    """Is a client's directory of one repository's log. Processes take turns by `turn`."""

    def __init__(self, path: Path, random: Random) -> None:
        self.path = path
        self._random = random
        self._stamp: tuple[int, int] | None = None

    @cached_property
    def access(self) -> AccessLog:
        """The access log of this client."""
        from respaldo.store.accesses import AccessLog  # noqa: PLC0415 - start-up time

        return AccessLog(self.path / _ACCESS)

    @property
    def access_key(self) -> bytes:
        """The public key that the access log is sealed to, as last remembered; empty where it never was."""
        try:
            key = read_file(self.path / _ACCESS / "key")
        except OSError:
            return b""
        return key[:PUBLIC_BYTES] if len(key) == PUBLIC_BYTES + _TAG_BYTES else b""

    def remember_access_key(self, seed: bytes, public_of: Callable[[bytes], bytes]) -> None:
        """Remembers the public key of a private one for those who cannot open the repository, as far as that can be.

        A tag says that what is remembered is of that key, which costs less than to compute it at every opening.
        """
        path = self.path / _ACCESS / "key"
        with contextlib.suppress(OSError):
            known = read_file(path)
            if known[PUBLIC_BYTES:] == _tag(seed, known[:PUBLIC_BYTES]):
                return
        public = public_of(seed)
        with contextlib.suppress(OSError):
            write_file(path, public + _tag(seed, public))

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for other processes of this client, and makes the directory. Raises OSError where it cannot be."""
        make_directory(self.path)
        with os.fdopen(open_file(self.path / "lock", _APPEND), "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def load(self) -> Memory:
        """Reads what was remembered; empty where nothing was. Raises `Corruption`, OSError."""
        path = self.path / "memory"
        try:
            with os.fdopen(open_file(path), "rb") as file:
                found = os.fstat(file.fileno())
                self._stamp = (found.st_ino, found.st_mtime_ns)
                return parse_memory(file.read(_BYTES_MAX), str(path))
        except (FileNotFoundError, NotADirectoryError):
            self._stamp = None
            return Memory()

    @property
    def is_current(self) -> bool:
        """Whether no other process has written since `load`."""
        try:
            found = os.stat(self.path / "memory")
        except OSError:
            return self._stamp is None
        return self._stamp == (found.st_ino, found.st_mtime_ns)

    def save(self, memory: Memory) -> None:
        """Writes a memory. Raises OSError."""
        path = self.path / "memory"
        write_file(path, memory.encode())
        found = os.stat(path)  # in this process's turn: nobody else has written since
        self._stamp = (found.st_ino, found.st_mtime_ns)

    def keep(self, entries: Sequence[bytes]) -> None:
        """Keeps encoded entries, of all clients, for a repair; the latest megabytes of them. Raises OSError."""
        if not entries:
            return
        path = self.path / "seen"
        fresh = b"".join(b"\n" + base64.b64encode(entry) for entry in entries)  # an end that was cut off hides none
        length = _length(path)
        if length + len(fresh) <= _SEEN_BYTES_MAX:
            with os.fdopen(open_file(path, _APPEND), "ab") as file:
                file.write(fresh)
            return
        with contextlib.suppress(FileNotFoundError), os.fdopen(open_file(path), "rb") as file:
            file.seek(max(0, length - _SEEN_BYTES_MAX // 2))
            fresh = file.read() + fresh
        write_file(path, fresh[max(0, fresh.find(b"\n", max(0, len(fresh) - _SEEN_BYTES_MAX))) :])

    def seen(self) -> list[bytes]:
        """Returns what was kept, as far as it can be read. Raises OSError."""
        try:
            lines = read_file(self.path / "seen").split(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = []
        for line in filter(None, lines):
            with contextlib.suppress(binascii.Error):
                found.append(base64.b64decode(line, validate=True))
        return found

    def epoch(self) -> tuple[int, bytes] | None:
        """Returns the highest epoch that was seen, and what tells its key; None where none was yet."""
        try:
            data = read_file(self.path / "epoch")
        except OSError:
            return None
        return (int.from_bytes(data[:8], "little"), data[8:]) if len(data) == _EPOCH_BYTES else None

    def note_epoch(self, number: int, check: bytes, *, instead_of: tuple[int, bytes] | None) -> bool:
        """Remembers an epoch, unless another process has remembered another one since; returns whether it could be."""
        try:
            with self.turn():
                if self.epoch() == instead_of:
                    write_file(self.path / "epoch", number.to_bytes(8, "little") + check)
        except OSError:
            return False
        return True

    def signer(self) -> Signer | None:
        """Returns this client's signing key, None where it has none yet."""
        try:
            seed = read_file(self.path / "identity")
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Signer(seed) if len(seed) == SEED_BYTES else None

    def new_signer(self) -> Signer:
        """Makes a new identity in the place of any other. Raises OSError."""
        seed = self._random(SEED_BYTES)
        write_file(self.path / "identity", seed, durable=True)
        return Signer(seed)

    @property
    def client(self) -> bytes:
        """The id of this client, empty where it has none yet."""
        signer = self.signer()
        return client_of(signer.public) if signer else b""


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
