"""The access log's files: lines appended one after the other, by whatever process of this client, and read again.

Invariant: a line is on the disk, whole, before `append` returns; nothing that was written is written over. A line that
a crash cut off stays where it is, is said to be there, and hides no other. Files of a megabyte are set aside under the
number of their last line, and the chain goes on in the next one; of those, the oldest go. Implements docs/format.md,
"Access log". Never reads what is in a line.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from respaldo.core.private import make_directory, open_file
from respaldo.format.accesses import FIRST, LINE_BYTES_MAX, Access, Line, parse_line

FILE_BYTES: Final = 1 << 20
FILES_KEPT: Final = 32
DROP_BYTES_MIN: Final = 16 << 20
"""Where less than this lies between a line that says that old ones were dropped and those, it is not believed."""
DROP: Final = "drop"
"""The verb of a line that says that all lines up to number ``of`` are kept no longer."""
Seal = Callable[[bytes], bytes]
Make = Callable[[int, bytes], Access]
"""Makes a line of a number and of the hash of the line before."""
_ASIDE: Final = re.compile(r"log\.([0-9]{18})", re.ASCII)
_BYTES_MAX: Final = 64 << 20


@dataclass(slots=True, kw_only=True)
class Reading:
    """Is what is there. ``findings``: what is wrong with the chain, each with the number of the line behind it.

    ``torn``: after which lines something lies that is none, as a crash leaves it.
    """

    lines: list[Line] = field(default_factory=list)
    findings: list[tuple[int, str]] = field(default_factory=list)
    torn: list[int] = field(default_factory=list)


class AccessLog:
    """Is one client's access log of one repository. Processes take turns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "log"

    # --- writing ---------------------------------------------------------------------------------------------------

    def append(self, seal: Seal, access: Make) -> int:
        """Adds what ``access`` makes of a number and of the hash of the line before; returns the number.

        It is durable then. Raises OSError where it cannot be, and leaves nothing of it behind if that can be helped.
        """
        make_directory(self.folder)
        with self._turn(fcntl.LOCK_EX):
            last = self._last()
            if last is not None:
                last = self._rotate(last, seal, access)
            return self._add(last, seal, access).number

    def head(self) -> tuple[int, bytes]:
        """Returns number and hash of the last line; (0, empty) where there is none."""
        with self._turn(fcntl.LOCK_SH):
            last = self._last()
        return (last.number, last.hash) if last else (0, b"")

    def _add(self, last: Line | None, seal: Seal, access: Make) -> Line:
        number, previous = (last.number + 1, last.hash) if last else (1, FIRST)
        line = Line(number=number, previous=previous, box=seal(access(number, previous).encode()))
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        is_new = not self.path.exists()
        fd = open_file(self.path, flags)
        try:
            length = os.fstat(fd).st_size
            is_torn = length > 0 and os.pread(fd, 1, length - 1) != b"\n"
            data = (b"\n" if is_torn else b"") + line.encode() + b"\n"
            try:
                _write(fd, data)
                os.fsync(fd)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, length)
                raise
        finally:
            os.close(fd)
        if is_new:
            self._settle()
        return line

    def _rotate(self, last: Line, seal: Seal, access: Make) -> Line:
        """Sets a file that is full aside, and drops the oldest where there are too many; returns the last line."""
        aside = self.folder / f"log.{last.number:018d}"
        if not _is_full(self.path) or aside.exists():
            return last
        self.path.rename(aside)
        self._settle()
        old = self._aside()
        for path in old[: max(0, len(old) - FILES_KEPT)]:
            until = int(path.suffix[1:])

            def dropped(number: int, previous: bytes, until: int = until) -> Access:
                return replace(
                    access(number, previous), verb=DROP, of=until, snapshots=(), count=0, paths=(), target=b"", note=""
                )

            last = self._add(last, seal, dropped)
            path.unlink()
        return last

    def _settle(self) -> None:
        """Makes names durable."""
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _turn(self, how: int) -> Iterator[None]:
        """Waits for other processes; who only reads does without where there is nothing to wait at."""
        writes = how == fcntl.LOCK_EX
        try:
            fd = open_file(self.folder / "lock", os.O_RDWR | os.O_CREAT if writes else os.O_RDONLY)
        except OSError:
            if writes:
                raise
            yield
            return
        try:
            fcntl.flock(fd, how)
            yield
        finally:
            os.close(fd)

    # --- reading ---------------------------------------------------------------------------------------------------

    def read(self) -> Reading:
        """Reads all lines, the oldest first, and compares each with what the next one says of it. Raises OSError."""
        found = Reading()
        last: Line | None = None
        with self._turn(fcntl.LOCK_SH):
            pieces = [piece for path in (*self._aside(), self.path) for piece in _pieces(path)]
        for piece in pieces:
            line = parse_line(piece)
            if line is None:
                found.torn.append(last.number if last else 0)
                continue
            problem = _problem(last, line) if last else ""
            if problem:
                found.findings.append((line.number, problem))
            found.lines.append(line)
            last = line
        return found

    def _aside(self) -> list[Path]:
        try:
            names = sorted(name for name in os.listdir(self.folder) if _ASIDE.fullmatch(name))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [self.folder / name for name in names]

    def _last(self) -> Line | None:
        """Returns the last line that is one."""
        for path in (self.path, *reversed(self._aside())):
            for piece in reversed(_pieces(path, tail_bytes=2 * LINE_BYTES_MAX)):
                line = parse_line(piece)
                if line is not None:
                    return line
        return None


def _pieces(path: Path, *, tail_bytes: int = 0) -> list[bytes]:
    """Returns what lies between the ends of lines; with ``tail_bytes`` only of a file's end, if that has a line."""
    try:
        with os.fdopen(open_file(path), "rb") as file:
            length = os.fstat(file.fileno()).st_size
            if tail_bytes and length > tail_bytes:
                file.seek(length - tail_bytes)
                found = file.read().split(b"\n")[1:]
                if any(map(parse_line, found)):
                    return found
                file.seek(0)
            return [piece for piece in file.read(_BYTES_MAX).split(b"\n") if piece]
    except (FileNotFoundError, NotADirectoryError):
        return []


def gone(first: int, last: int) -> str:
    """Says that lines are gone."""
    what = f"line {first} of the access log is" if first == last else f"lines {first} to {last} of the access log are"
    return f"{what} gone"


def _problem(last: Line, line: Line) -> str:
    if line.number > last.number + 1:
        return gone(last.number + 1, line.number - 1)
    if line.number <= last.number:
        return f"line {line.number} of the access log follows line {last.number}"
    if line.previous != last.hash:
        return f"line {last.number} of the access log is not the one that line {line.number} was written behind"
    return ""


def _is_full(path: Path) -> bool:
    try:
        return path.stat().st_size >= FILE_BYTES
    except FileNotFoundError:
        return False


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
