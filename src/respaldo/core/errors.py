"""The errors of Respaldo: one root, branches by what the caller can do.

::

    RespaldoError
    ├── UsageError             the caller asked for something that makes no sense        exit 2
    ├── Interrupted            the user or the system asked to stop                      exit 130
    ├── StorageError           the place the repository lies in answered with an error   exit 1
    │   ├── ObjectMissing      no object of that name
    │   ├── ObjectExists       create-only, and there is one already
    │   │   └── RepositoryExists   a repository, that is
    │   ├── StorageFull        no space or quota left
    │   ├── StorageDenied      permission, read-only
    │   └── StorageFailed      anything else; ``retryable`` says whether a retry can help
    │       └── CacheDamaged   the local cache was damaged, and is gone: a retry helps
    ├── NotARepository         no repository there                                       exit 10
    ├── UnsupportedFormat      a newer format than this program reads                    exit 1
    ├── WrongSecret            no slot opens with this passphrase or key                 exit 12
    │   ├── KeyRotated         it opens what is older than the last rotation only        exit 12
    │   ├── CredentialRenewed  the client has a newer credential                         exit 12
    │   └── ClientRemoved      the client was removed by its owner                       exit 12
    ├── Corruption             stored bytes are not what was stored                      exit 4
    ├── HistoryChanged         the repository is not what this client has seen before    exit 4
    ├── NotRecorded            the access log takes no line, so nothing was handed over  exit 1
    ├── ChunkMissing           no pack holds a chunk                                     exit 4
    ├── NoSuchSnapshot         a name that no snapshot answers to                        exit 1
    ├── NoSuchPath             a path that the snapshot does not hold                    exit 1
    ├── Refused                would take away what is protected                         exit 1
    ├── NotEntitled            takes a right that this client was not given              exit 1
    ├── SourceError            a source could not be read at all                         exit 1
    ├── TargetError            the place a restore writes to answered with an error      exit 1
    └── MountError             nothing can be mounted at a directory                     exit 1

Every error carries fields, not formatted text; ``str()`` says what happened and to what, ``hint`` what to do next.
"""

from __future__ import annotations

from typing import ClassVar


class RespaldoError(Exception):
    """Is the root of every error that Respaldo raises on purpose."""

    exit_status: ClassVar[int] = 1
    hint: str = ""


class UsageError(RespaldoError):
    """Says that a request makes no sense, whatever the state of the repository."""

    exit_status = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Interrupted(RespaldoError):
    """Says that a run was asked to stop and did; nothing that was committed is lost."""

    exit_status = 130

    def __init__(self, signal_name: str = "") -> None:
        super().__init__(f"interrupted by {signal_name}" if signal_name else "interrupted")
        self.signal_name = signal_name


class StorageError(RespaldoError):
    """Says that the repository's storage answered with an error about one object or a listing."""

    retryable: bool = False
    what: ClassVar[str] = "storage error"

    def __init__(self, name: str, reason: str = "", *, retryable: bool = False, hint: str = "") -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason
        self.retryable = retryable
        if hint:
            self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}: {self.name}" + (f" ({self.reason})" if self.reason else "")


class ObjectMissing(StorageError):
    """Says that the repository holds no object of that name."""

    what = "object not found"


class ObjectExists(StorageError):
    """Says that a create-only put met an object of that name."""

    what = "object exists already"


class RepositoryExists(ObjectExists):
    """Says that a repository was to be made where there is one."""

    what = "there is a repository already"
    hint = "use it, or choose another place"

    def __str__(self) -> str:
        return self.what


class StorageFull(StorageError):
    """Says that the repository's storage has no space left; nothing that was committed is lost."""

    what = "no space left in the repository"
    hint = "free space on the repository's disk, then run the command again"


class StorageDenied(StorageError):
    """Says that the repository's storage does not permit the operation (permissions, read-only)."""

    what = "permission denied by the repository's storage"
    hint = "check the owner and the mode of the repository, and whether its disk is mounted read-only"


class StorageFailed(StorageError):
    """Says that the repository's storage failed in a way that has no error of its own."""

    what = "the repository's storage failed"


class CacheDamaged(StorageFailed):
    """Says that the local cache was damaged and thrown away; whatever is run again makes it anew."""

    retryable = True


class NotARepository(RespaldoError):
    """Says that there is no repository at a location."""

    exit_status = 10
    hint = "check the path, and whether its disk is mounted; to make a repository there: respaldo init"

    def __init__(self, location: str, reason: str = "") -> None:
        super().__init__(location, reason)
        self.location = location
        self.reason = reason

    def __str__(self) -> str:
        return f"no repository at {self.location}" + (f" ({self.reason})" if self.reason else "")


class UnsupportedFormat(RespaldoError):
    """Says that a repository has a format or a suite that this program does not know."""

    hint = "use a newer version of respaldo"

    def __init__(self, what: str, found: object) -> None:
        super().__init__(what, found)
        self.what = what
        self.found = found

    def __str__(self) -> str:
        return f"unsupported {self.what}: {self.found!r}"


class WrongSecret(RespaldoError):
    """Says that no key slot opens with the passphrase or key given."""

    exit_status = 12
    hint = "check that it is the one of this repository; a key that was removed opens nothing any more"

    def __str__(self) -> str:
        return "wrong passphrase or key"


class KeyRotated(WrongSecret):
    """Says that the key was rotated, and that what was given, or is held, opens only what was written before."""

    hint = (
        "unlock anew, or run the command again (in a program, open the repository again); a passphrase or key that was "
        "left out when the key was rotated opens nothing any more"
    )

    def __init__(self, epoch: int) -> None:
        super().__init__(epoch)
        self.epoch = epoch

    def __str__(self) -> str:
        return f"the key was rotated (epoch {self.epoch}), and this one is an older one"


class CredentialRenewed(WrongSecret):
    """Says that a client's credential was renewed, and that what was given is the one from before."""

    hint = (
        "put the file that the owner made with respaldo key client renew in the place of this one; "
        "if that is lost, the owner makes another"
    )

    def __init__(self, client: str) -> None:
        super().__init__(client)
        self.client = client

    def __str__(self) -> str:
        return f"the credential of the client {self.client} was renewed, and this one is an older one"


class ClientRemoved(WrongSecret):
    """Says that the owner has removed this client: nothing that it begins to write counts any more."""

    hint = (
        "nothing was stored, since nothing that this client stores counts any more; what it stored before is still "
        "there. Ask the owner, who can add this machine anew: respaldo key client add NAME --out FILE"
    )

    def __init__(self, client: str) -> None:
        super().__init__(client)
        self.client = client

    def __str__(self) -> str:
        return f"the client {self.client} was removed by the owner of the repository"


class Corruption(RespaldoError):
    """Says that stored bytes are not what was stored: damaged, forged, or out of place."""

    exit_status = 4
    hint = "run: respaldo verify --read-data"

    def __init__(self, name: str, reason: str, *, hint: str = "") -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason
        if hint:
            self.hint = hint

    def __str__(self) -> str:
        return f"damaged object {self.name}: {self.reason}"


class HistoryChanged(RespaldoError):
    """Says that storage shows less, or something else, than it showed before; each finding is a sentence."""

    exit_status = 4

    def __init__(self, findings: tuple[str, ...], *, hint: str = "") -> None:
        super().__init__(findings)
        self.findings = findings
        self.hint = hint

    def __str__(self) -> str:
        return "the repository's history is not what this client has seen: " + "; ".join(self.findings)


class NotRecorded(RespaldoError):
    """Says that an access could not be written down, and that therefore nothing was handed over."""

    hint = "free space there, or make it writable; where that cannot be, in an emergency, go on with --allow-unrecorded"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"the access log cannot be written, and so nothing was handed over: {self.what}"

    @property
    def what(self) -> str:
        """Is what cannot be written, and why."""
        return f"{self.path} ({self.reason})"


class ChunkMissing(RespaldoError):
    """Says that no readable pack holds a chunk."""

    exit_status = 4
    hint = "run: respaldo verify --read-data"

    def __init__(self, kind: str, chunk_id: bytes) -> None:
        super().__init__(kind, chunk_id)
        self.kind = kind
        self.chunk_id = chunk_id

    def __str__(self) -> str:
        return f"{self.kind} chunk {self.chunk_id.hex()[:16]} is in no pack"


class NoSuchSnapshot(RespaldoError):
    """Says that no snapshot, or more than one, answers to a name."""

    hint = "list what there is with: respaldo snapshots"

    def __init__(self, name: str, reason: str = "no such snapshot", *, several: bool = False, hint: str = "") -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason
        self.several = several
        """Whether more than one does."""
        if hint:
            self.hint = hint

    def __str__(self) -> str:
        return f"{self.reason}: {self.name}"


class NoSuchPath(RespaldoError):
    """Says that a snapshot does not hold a path, and which one last did."""

    def __init__(self, path: bytes, snapshot: str, *, last_in: str = "") -> None:
        super().__init__(path, snapshot)
        self.path = path
        self.snapshot = snapshot
        self.last_in = last_in
        if last_in:
            self.hint = f"the last snapshot that holds it is {last_in}"

    def __str__(self) -> str:
        return f"{self.path.decode('utf-8', 'surrogateescape')} is not in snapshot {self.snapshot}"


class Refused(RespaldoError):
    """Says that something was not done because it would take away what is protected."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class NotEntitled(RespaldoError):
    """Says that a client that writes into an area was not given a right; ``right``: list, restore, or "" for the rest.

    The last are the owner's alone: no client can be given them.
    """

    def __init__(self, client: str, right: str) -> None:
        super().__init__(client, right)
        self.client = client
        self.right = right
        self.hint = (
            f"the owner can add a client that may: respaldo key client add NAME --{right} --out FILE"
            if right
            else "the owner of the repository does this, with a passphrase or a key, elsewhere"
        )

    def __str__(self) -> str:
        what = {"list": "see what is stored", "restore": "read what is stored"}.get(self.right)
        if what is None:
            return f"the client {self.client} can add snapshots; this is for the repository's owner alone"
        return f"the client {self.client} can add snapshots and may not {what}: it lacks the right to {self.right}"


class _PathError(RespaldoError):
    """Is about a path of this machine, outside the repository."""

    what: ClassVar[str]

    def __init__(self, path: bytes, reason: str, *, hint: str = "") -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} {self.path.decode('utf-8', 'surrogateescape')}: {self.reason}"


class SourceError(_PathError):
    """Says that a source as a whole could not be read."""

    what = "cannot read"


class TargetError(_PathError):
    """Says that the place a restore writes to answered with an error."""

    what = "cannot write"


class MountError(_PathError):
    """Says that nothing can be mounted at a directory."""

    what = "cannot mount at"
