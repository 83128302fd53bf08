"""The glue between a mounted tree and FUSE: mounts with libfuse 3, answers the kernel's requests, unmounts.

libfuse (found through mfusepy, imported when it is needed) mounts and unmounts; the requests themselves are read from
its descriptor and answered here, because a call from C into Python for every entry of a directory is what makes Python
file systems slow. Everything is read-only. Any number of threads answer; a request that fails is answered with an
errno, never left open, so that nobody hangs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from respaldo.core.errors import MountError, UsageError
from respaldo.core.seams import Cancel
from respaldo.views import fuse_wire as wire
from respaldo.views.fuse_answers import Answers, Request, errno_of
from respaldo.views.fuse_wire import Op

THREADS = 6
"""So many answer at once at most; mostly two are enough. The kernel wakes one after the other of those that wait, and
what was warm for one is not for the next: with six from the first, a `find` took up to a fifth more CPU time."""
_MNT_DETACH = 2
_POLL_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """Says how to mount. ``allow_other``: users other than the one who mounts see it, by the modes of the files."""

    allow_other: bool = False


class Session:
    """Is a mount: a context manager, mounted inside."""

    def __init__(self, answers: Answers, directory: bytes, source: str, options: MountOptions) -> None:
        self._answers = answers
        self._directory = os.path.realpath(directory)
        self._libfuse = _load_libfuse()
        self._arguments = _arguments(source, options)
        self._session: int | None = None
        self._fd = -1
        self._be_idle()
        self._guard: subprocess.Popen[bytes] | None = None

    def _be_idle(self) -> None:
        self._threads: list[threading.Thread] = []
        self._busy = 0
        self._counting = threading.Lock()
        """Held for `_busy` and `_threads`."""

    def __enter__(self) -> Self:
        _check_directory(self._directory)
        words = [b"respaldo", b"-o", self._arguments]
        arguments = _Arguments(len(words), (ctypes.c_char_p * len(words))(*words), 0)
        operations = ctypes.create_string_buffer(8)
        session = self._libfuse.fuse_session_new(ctypes.byref(arguments), operations, 0, None)
        if not session:
            raise MountError(self._directory, "libfuse refused to mount")
        failed, said = _with_stderr(lambda: self._libfuse.fuse_session_mount(session, self._directory))
        if failed:
            self._libfuse.fuse_session_destroy(session)
            raise MountError(self._directory, said or "libfuse does not say why", hint=_hint(said))
        self._session = session
        self._guard = _guard(self._directory)
        self._fd = self._libfuse.fuse_session_fd(session)
        fcntl.fcntl(self._fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        self._serve_one()  # INIT: from then on the mount answers
        self._start_one()
        return self

    def __exit__(self, *_: object) -> None:
        if self._session is not None:
            _unmount(self._directory)
            if self._guard is not None:
                self._guard.communicate(b"\n")
            for thread in tuple(self._threads):  # those that wait for requests end; some may not, while a file is open
                thread.join(_POLL_S / THREADS)
            self._session = None

    def wait(self, cancel: Cancel) -> None:
        """Returns when it was unmounted, or when a stop was asked for."""
        for thread in self._threads:  # those too that are started meanwhile
            while thread.is_alive() and not cancel.requested:
                thread.join(_POLL_S)

    def _start_one(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"fuse-{len(self._threads)}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _begin(self) -> None:
        """Notes that a request is to be answered; sees to it that somebody waits for the next one meanwhile."""
        with self._counting:
            self._busy += 1
            if 0 < len(self._threads) <= self._busy and len(self._threads) < THREADS:
                with contextlib.suppress(RuntimeError):  # there can be no more of them: those that are there go on
                    self._start_one()

    def _end(self) -> None:
        with self._counting:
            self._busy -= 1

    def _serve(self) -> None:
        while self._serve_one():
            pass

    def _serve_one(self) -> bool:
        """Answers one request; whether there will be more."""
        try:
            data = os.read(self._fd, wire.REQUEST_BYTES_MAX)
        except OSError as error:
            # ENOENT: it was interrupted before it was read. ENODEV: there is no mount any more.
            return error.errno in {errno.ENOENT, errno.EINTR, errno.EAGAIN}
        _, op, unique, node, _, _, _, _ = wire.IN_HEADER.unpack_from(data)
        if op in _UNANSWERED:
            return True  # nothing is kept for a node, and what was asked is answered soon
        self._begin()
        number = 0
        parts: Sequence[bytes | memoryview] = ()
        try:
            answer = self._answers.answer(Request(op, unique, node, data[wire.IN_HEADER.size :]))
            parts = (answer,) if isinstance(answer, bytes) else answer
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for an answer
            number = -errno_of(error)
        self._end()  # before the answer: who gets that may ask again at once, and another answers then
        length = wire.OUT_HEADER.size + sum(map(len, parts))
        with contextlib.suppress(OSError):  # nobody waits any more
            os.writev(self._fd, [wire.OUT_HEADER.pack(length, number, unique), *parts])
        return bool(op != _DESTROY)


_DESTROY = int(Op.DESTROY)
_UNANSWERED = frozenset(map(int, (Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT)))


class _Arguments(ctypes.Structure):
    _fields_ = (("argc", ctypes.c_int), ("argv", ctypes.POINTER(ctypes.c_char_p)), ("allocated", ctypes.c_int))


def _arguments(source: str, options: MountOptions) -> bytes:
    name = source.replace("\\", "\\\\").replace(",", "\\,").encode("utf-8", "surrogateescape")
    words = [b"ro", b"nosuid", b"nodev", b"subtype=respaldo", b"fsname=" + name]
    if options.allow_other:
        # Whoever mounts may read all that the key opens; others what the modes of the files say.
        words += [b"allow_other", b"default_permissions"]
    return b",".join(words)


def _load_libfuse() -> ctypes.CDLL:
    """Returns libfuse 3 as mfusepy found it; raises `UsageError` that says what is missing and how to get it.

    Where libfuse 2 is installed as well, mfusepy takes that one unless ``FUSE_LIBRARY_NAME`` is ``fuse3``.
    """
    try:
        import mfusepy  # noqa: PLC0415 - optional, and it loads a library
    except ImportError:
        raise UsageError("mounting needs mfusepy", hint="install it: pip install 'respaldo[mount]'") from None
    except (OSError, AttributeError) as error:
        raise UsageError(f"mounting needs libfuse 3: {error}", hint=_PACKAGES) from None
    if mfusepy.fuse_version_major != 3:
        raise UsageError("mounting needs libfuse 3, and mfusepy found another one", hint=f"{_PACKAGES}; {_NAME}")
    library: ctypes.CDLL = mfusepy._libfuse  # noqa: SLF001 - the library that it found and checked
    pointer = ctypes.c_void_p
    for name, result, *arguments in (
        ("fuse_session_new", pointer, pointer, pointer, ctypes.c_size_t, pointer),
        ("fuse_session_mount", ctypes.c_int, pointer, ctypes.c_char_p),
        ("fuse_session_fd", ctypes.c_int, pointer),
        ("fuse_session_destroy", None, pointer),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


_NAME = "with both versions there, set FUSE_LIBRARY_NAME=fuse3"
_PACKAGES = "on Debian: apt-get install fuse3"


def _with_stderr(action: Callable[[], int]) -> tuple[int, str]:
    """Does something whose errors libfuse and fusermount3 say on standard error; returns what they said.

    Nothing else runs yet in this process.
    """
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            result = action()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        said = file.read(_SAID_MAX).decode("utf-8", "replace")
    return result, "; ".join(line.strip() for line in said.splitlines() if line.strip())


_SAID_MAX = 4096


def _hint(said: str) -> str:
    if "user_allow_other" in said:
        return "root may let other users in; for ordinary users, a line user_allow_other in /etc/fuse.conf allows it"
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse: load the module (modprobe fuse), or give the container the device"
    return "see that /dev/fuse may be opened, and the directory is yours; fusermount3 comes with fuse3 (apt-get)"


def _check_directory(directory: bytes) -> None:
    try:
        entries = os.listdir(directory)
    except OSError as error:
        dead = error.errno == errno.ENOTCONN
        hint = (
            "a mount was left behind there; take it away with: umount -l" if dead else "name a directory that is there"
        )
        raise MountError(directory, error.strerror or str(error), hint=hint) from None
    if os.path.ismount(directory) and _is_fuse(directory):
        raise MountError(directory, "something is mounted there already", hint="end that first, with: umount")
    if entries:
        raise MountError(directory, "it is not empty", hint="name an empty directory: a mount hides what is in it")


def _is_fuse(directory: bytes) -> bool:
    """Whether the file system at a mount point is one of a process's own."""
    with open("/proc/self/mounts", "rb") as mounts:
        rows = [line.split() for line in mounts]
    shown = directory.replace(b"\\", b"\\134").replace(b" ", b"\\040").replace(b"\t", b"\\011").replace(b"\n", b"\\012")
    return any(row[1] == shown and row[2].startswith(b"fuse") for row in rows)


def _guard(directory: bytes) -> subprocess.Popen[bytes]:
    """Starts what takes the mount away when this process ends without doing so: a dead mount answers nobody.

    libfuse has such a thing (``auto_unmount``), but that gives up where somebody stands in the mount.
    """
    script = 'read -r done || umount -l -- "$1" 2>/dev/null || fusermount3 -u -z -q -- "$1"'
    return subprocess.Popen(
        ["sh", "-c", script, "sh", directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )


def _unmount(directory: bytes) -> None:
    """Takes the mount away, also where somebody still stands in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        libc.umount2(directory, _MNT_DETACH)
        return
    with contextlib.suppress(OSError):
        subprocess.run(["fusermount3", "-u", "-z", "-q", "--", directory], check=False, capture_output=True)
