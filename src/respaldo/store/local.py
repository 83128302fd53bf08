"""A local LMDB environment that is disposable: it need not survive a crash of the machine, it must notice one.

Writes are not synced, so that they cost nothing; a mark with the machine's boot id says that the environment was being
written. Who finds the mark of another boot throws the environment away. A mark is a file beside the environment, looked
at before anything is mapped: what LMDB shows after such a crash may be anything, and touching it a SIGBUS. Never lies
on the repository's disk: a mapped file on a disk that is pulled out is a SIGBUS too. The map grows when it is full.
Damage that is met later is an error of LMDB (`DAMAGED`) that is handed on: whoever holds all caches drops them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import lmdb

from respaldo.core.errors import StorageFailed
from respaldo.core.private import FILE_MODE, make_directory, open_file, read_file

T = TypeVar("T")
_MAP_BYTES = 64 << 20
_DATABASES_MAX = 16
_MARK = "dirty-"
DAMAGED = (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.BadTxnError)
"""What LMDB raises when it meets a page that is not what it was, or goes on after it has met one."""
_UNUSABLE = (*DAMAGED, lmdb.PanicError, lmdb.VersionMismatchError, lmdb.IncompatibleError)
_LOCK_BYTES = 8192
"""What LMDB's table of 126 readers takes."""
_HINT = "free space on the disk of the cache directory, or name another with --cache-dir, then run the command again"
_LAYOUT = b"layout"


def boot_id() -> bytes:
    """Returns what differs between two boots of the machine; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        return b""


def alive(process: int) -> bool:
    """Whether a process of this number runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _reserve(path: Path, length_bytes: int) -> None:
    """Makes a file at least so long, with space on the disk; changes no byte of it. Raises `OSError`: no space."""
    fd = open_file(path, os.O_RDWR | os.O_CREAT)
    try:
        os.posix_fallocate(fd, 0, length_bytes)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        # Else the file system cannot tell.
    finally:
        os.close(fd)


@contextlib.contextmanager
def claim(folder: Path, name: str) -> Iterator[Path]:
    """Yields a path below a folder that nobody else holds: the name, with a number where others were first.

    For what two processes cannot use at once. A process that ends, however it ends, holds nothing any more.
    """
    make_directory(folder)
    for number in itertools.count(1):
        path = folder / (name if number == 1 else f"{name}-{number}")
        try:
            fd = open_file(f"{path}.lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise StorageFailed(str(path), f"local cache: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        except OSError as error:
            os.close(fd)
            raise StorageFailed(str(path), f"local cache: {error.strerror}") from None
        try:
            yield path
        finally:
            os.close(fd)
        return


class Environment:
    """Opens, and if need be discards and makes again, an environment with named databases.

    ``databases`` maps names to whether they hold many fixed-size values a key (``dupsort, dupfixed``); ``layout`` is
    discarded with all content when it changes. For one thread, save that any may `read`.
    """

    def __init__(self, path: Path, *, layout: str, databases: dict[str, bool]) -> None:
        self._path = path
        self._layout = layout.encode()
        self._databases = databases
        self._boot = boot_id()
        self._mark = path / f"{_MARK}{os.getpid()}"
        self._marked = False
        self._lock = threading.RLock()
        """Held by writers, because a map must not grow under a reader of the same process."""
        self.thrown_away = not self._is_clean()
        """Whether there was one that could not be used, after a crash of the machine or for damage."""
        if self.thrown_away:
            self._remove()
        try:
            found = self._open()
        except _UNUSABLE:
            self.thrown_away = True
            self._remove()
            found = self._open()
        if found is None:
            self._put_layout()
        elif found != self._layout:
            self.discard()

    def _open(self) -> bytes | None:
        """Opens or makes the environment; returns its layout, None where it is new. Raises what is `_UNUSABLE`."""
        try:
            make_directory(self._path)
            self._check_files()
            self._reserve_lock()
            self.env = lmdb.open(
                str(self._path),
                map_size=max(_MAP_BYTES, self._file_length() * 2),
                max_dbs=_DATABASES_MAX,
                sync=False,
                metasync=False,
                writemap=False,
                readahead=False,
                max_readers=126,
                mode=FILE_MODE,
            )
            try:
                return self._prepare()
            except BaseException:
                self.env.close()
                raise
        except _UNUSABLE:
            raise
        except (lmdb.Error, OSError) as error:
            raise StorageFailed(str(self._path), f"local cache: {error}", hint=_HINT) from None

    def _check_files(self) -> None:
        """Raises `lmdb.InvalidError` where something else has the name of a file: LMDB would wait for a FIFO."""
        for name in ("data.mdb", "lock.mdb"):
            path = self._path / name
            if path.exists() and not path.is_file():
                raise lmdb.InvalidError(f"{path}: it is no regular file")

    def _prepare(self) -> bytes | None:
        self._check_length()
        self.env.reader_check()  # those of processes that were killed would keep old pages from being used again
        self._meta = self.env.open_db(b"meta")
        self.dbs = {
            name: self.env.open_db(name.encode(), dupsort=many, dupfixed=many) for name, many in self._databases.items()
        }
        with self.env.begin() as txn:
            found = txn.get(_LAYOUT, db=self._meta)
        return None if found is None else bytes(found)

    def _reserve_lock(self) -> None:
        """Takes the space of the table of readers: LMDB maps it sparse, and on a full disk touching it is a SIGBUS."""
        path = self._path / "lock.mdb"
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_blocks * 512 >= _LOCK_BYTES:
                return
        _reserve(path, _LOCK_BYTES)

    def _check_length(self) -> None:
        """Raises `lmdb.CorruptedError` where pages are cut off: touching them would be a SIGBUS.

        A process that was killed may have ended on a page that it took and freed again, which LMDB never writes; one
        that closed has seen to it.
        """
        if self._file_length() < self._used_length():
            if not any(self._path.glob(_MARK + "*")):
                raise lmdb.CorruptedError("it is cut off")
            _reserve(self._path / "data.mdb", self._used_length())

    def _used_length(self) -> int:
        return int((self.env.info()["last_pgno"] + 1) * self.env.stat()["psize"])

    def _file_length(self) -> int:
        try:
            return (self._path / "data.mdb").stat().st_size
        except OSError:
            return 0

    def _is_clean(self) -> bool:
        """Whether no process of another boot left its mark."""
        for mark in self._path.glob(_MARK + "*"):
            try:
                if not self._boot or read_file(mark) != self._boot:
                    return False
            except FileNotFoundError:
                continue  # somebody closes
            except OSError:
                return False
        return True

    def _put_mark(self) -> None:
        """Puts this process's mark, durable before anything is written.

        Under another name first: who opens the environment meanwhile would take an empty one for another boot's.
        """
        draft = self._path / f"mark-{os.getpid()}"
        try:
            for path, flags in ((draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), (self._path, os.O_RDONLY)):
                fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
                try:
                    if path is draft:
                        os.write(fd, self._boot)
                    os.fsync(fd)
                    if path is draft:
                        draft.replace(self._mark)
                finally:
                    os.close(fd)
        except OSError as error:
            raise StorageFailed(str(self._path), f"local cache: {error.strerror}", hint=_HINT) from None
        self._marked = True

    def _put_layout(self) -> None:
        self.write(lambda txn: txn.put(_LAYOUT, self._layout, db=self._meta))

    def discard(self) -> None:
        """Throws everything away and begins anew."""
        with self._lock:
            self.env.close()
            self._remove()
            self._marked = False
            self._open()
        self._put_layout()

    def _remove(self) -> None:
        shutil.rmtree(self._path, ignore_errors=True)

    def write(self, action: Callable[[lmdb.Transaction], T]) -> T:
        """Runs an action in a write transaction; grows the map and runs it again where it is full."""
        with self._lock:
            return self._write(action)

    def _write(self, action: Callable[[lmdb.Transaction], T]) -> T:
        if not self._marked:
            self._put_mark()
        while True:
            try:
                with self.env.begin(write=True) as txn:
                    return action(txn)
            except lmdb.MapFullError:
                self.env.set_mapsize(self.env.info()["map_size"] * 2)
                continue
            except lmdb.MapResizedError:
                self.env.set_mapsize(0)
                continue
            except DAMAGED:
                raise
            except lmdb.Error as error:
                raise StorageFailed(str(self._path), f"local cache: {error}", hint=_HINT) from None

    @contextlib.contextmanager
    def read(self) -> Iterator[lmdb.Transaction]:
        """Opens a read transaction whose values are buffers, valid only inside; writers wait. For any thread."""
        with self._lock, self.begin_read() as txn:
            yield txn

    def begin_read(self) -> lmdb.Transaction:
        """Begins a read transaction that the caller ends."""
        try:
            return self.env.begin(buffers=True)
        except lmdb.MapResizedError:
            self.env.set_mapsize(0)
            return self.env.begin(buffers=True)

    def close(self) -> None:
        """Makes everything durable and takes the mark away, with those of processes that were killed.

        Where the disk does not take it, the mark stays: after a crash of the machine nobody looks at what is there.
        """
        if self._marked:
            with contextlib.suppress(lmdb.Error, OSError):
                self._settle()
            self._marked = False
        self.env.close()

    def _settle(self) -> None:
        if self._file_length() < self._used_length():
            _reserve(self._path / "data.mdb", self._used_length())
        self.env.sync(force=True)
        for mark in self._path.glob(_MARK + "*"):
            process = mark.name.removeprefix(_MARK)
            if mark == self._mark or not process.isdecimal() or not alive(int(process)):
                mark.unlink(missing_ok=True)

    def length_bytes(self) -> int:
        """Returns what the environment takes on disk, in bytes."""
        with contextlib.suppress(OSError):
            return os.stat(self._path / "data.mdb").st_blocks * 512
        return 0
