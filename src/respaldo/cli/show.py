"""What people read: names without control characters, sizes, times, tables; and the JSON that programs read.

Invariant: nothing that came out of a repository or a file system reaches a terminal with a control character in it, so
that no name can move the cursor, change the title or fake a line of output.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from respaldo.core.seams import Buffer

if TYPE_CHECKING:
    from respaldo.api import Changes

_NAMES_MOST = 8
_LINES_TOGETHER = 64
"""A call of its own for each of a hundred thousand lines takes as long as making them."""
OUTPUT = "standard output"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def shown(name: bytes | str) -> str:
    r"""Returns a name with all that is not printable escaped: ``\x1b``, ``\u202e``, ``\xff`` for bytes not UTF-8."""
    text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(letter: str) -> str:
    if letter.isprintable():
        return letter
    number = ord(letter)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def some(names: Sequence[bytes]) -> str:
    """Returns names in a row: a few, and how many more there are (a list of paths may hold thousands)."""
    more = len(names) - _NAMES_MOST
    return ", ".join([*map(shown, names[:_NAMES_MOST]), *([f"and {more:,} more"] if more > 0 else [])])


def size(length_bytes: float) -> str:
    """Returns a length in binary units: ``512 B``, ``1.2 MiB``."""
    value = float(length_bytes)
    for unit in UNITS:
        if abs(value) < 1024 or unit == UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def rate(length_bytes: float, duration_ns: int) -> str:
    """Returns a speed in binary units a second."""
    return f"{size(length_bytes * 1e9 / max(duration_ns, 1))}/s"


def per_second(length_bytes: float, duration_ns: int) -> float:
    """Returns a speed in bytes a second, for JSON."""
    return round(length_bytes * 1e9 / max(duration_ns, 1), 1)


def duration(duration_ns: int) -> str:
    """Returns a duration: ``0.25 s``, ``42 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if duration_ns < 9_995_000_000:
        return f"{duration_ns / 1e9:.2f} s"
    seconds = round(duration_ns / 1e9)  # once, or there would be 60 seconds to a minute
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"


def count(number: int, one: str = "", many: str = "") -> str:
    """Returns a number with separators, and what is counted."""
    word = one if number == 1 else many or f"{one}s"
    return f"{number:,} {word}" if one else f"{number:,}"


def changes(counted: Changes | None) -> str:
    """Returns what changed since the snapshot before."""
    if counted is None:
        return "not known"
    return f"{count(counted.added)} added, {count(counted.changed)} changed, {count(counted.removed)} removed"


def ratio(whole: float, part: float) -> str:
    """Returns how many times smaller the part is."""
    return f"{whole / part:.2f} : 1" if part else "–"


def local_time(time_ns: int) -> str:
    """Returns a time in the local time zone."""
    return _local_time(time_ns // 10**9, time.tzname)


@lru_cache(maxsize=4096)
def _local_time(time_s: int, _zone: tuple[str, str]) -> str:
    """Returns the same of a second: files that lie together were often written together."""
    return _moment(time_s * 10**9).astimezone().strftime("%Y-%m-%d %H:%M:%S")


@lru_cache(maxsize=4096)
def iso_time(time_ns: int) -> str:
    """Returns a time in UTC as ISO 8601, for JSON: that of a snapshot stands beside each of thousands of versions."""
    return _moment(time_ns).isoformat(timespec="microseconds")


def _moment(time_ns: int) -> datetime:
    try:
        return datetime.fromtimestamp(time_ns // 10**9, UTC).replace(microsecond=time_ns % 10**9 // 1000)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, UTC)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """Returns rows under headings in columns; the columns ``right`` are aligned to the right."""
    lines = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    aligned = set(right)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in aligned else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def figures(rows: Iterable[tuple[str, str]]) -> str:
    """Returns names and values, one a line, the values in one column."""
    pairs = list(rows)
    width = max((len(name) for name, _ in pairs), default=0)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in pairs)


def path_fields(path: bytes, key: str = "path") -> dict[str, str]:
    """Returns a path for JSON; where it is not UTF-8, its bytes in base64 beside it."""
    try:
        return {key: path.decode("utf-8")}
    except UnicodeDecodeError:
        coded = base64.b64encode(path).decode("ascii")
        return {key: path.decode("utf-8", "surrogateescape"), f"{key}_b64": coded}


def document(value: Mapping[str, object] | Sequence[object]) -> str:
    """Returns one JSON document; ASCII only, so that no name does anything to a terminal."""
    return json.dumps(value, indent=2)


def long_document(key: str, items: Iterable[Mapping[str, object]], rest: Callable[[], Mapping[str, object]]) -> None:
    """Prints one JSON document with a list of any length in it, and what ``rest`` gives once the list is through.

    Whole or not at all, as every document, though never whole in memory.
    """
    with tempfile.TemporaryFile("w+", encoding="ascii") as file:
        separator = f'{{\n  "{key}": [\n'
        empty = separator.rstrip("\n")
        for item in items:
            file.write(separator + "    " + json.dumps(item))
            separator, empty = ",\n", "\n  "
        more = json.dumps(rest(), indent=2).removeprefix("{").removesuffix("}").rstrip()
        file.write(f"{empty}]" + (f",{more}" if more else "") + "\n}\n")
        file.seek(0)
        with _to_output():
            shutil.copyfileobj(file, sys.stdout)


def out(text: str) -> None:
    """Writes a line to standard output."""
    with _to_output():
        sys.stdout.write(text + "\n")


def out_each(lines: Iterable[str]) -> None:
    """Writes lines to standard output as they come, to a pipe or a file some dozens at once.

    The first is handed over at once: whoever reads a pipe sees that there is something. Where making one fails, those
    before it are written.
    """
    waiting: list[str] = []
    most = 1
    try:
        for line in lines:
            waiting.append(line)
            if len(waiting) >= most:
                together, waiting = waiting, []
                out("\n".join(together))
                if most == 1:
                    flush()
                    most = 1 if sys.stdout.isatty() else _LINES_TOGETHER
    finally:
        if waiting:
            out("\n".join(waiting))


def out_bytes(data: Buffer) -> None:
    """Writes bytes to standard output."""
    with _to_output():
        sys.stdout.buffer.write(data)


def is_heard() -> bool:
    """Whether standard output can be written: where it was closed, nobody wants to be told what was done."""
    try:
        return fcntl.fcntl(sys.stdout.fileno(), fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except (OSError, ValueError):
        return True  # none of the system's


def flush() -> None:
    """Hands over what was written to standard output."""
    with _to_output():
        sys.stdout.flush()


@contextlib.contextmanager
def _to_output() -> Iterator[None]:
    """Says of an error that it is standard output's: the same may come of a repository, or of a target."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, reason(error), OUTPUT) from None


def reason(error: OSError) -> str:
    """Returns why a standard stream, or a file, could not be read or written."""
    return "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)


def err(text: str) -> None:
    """Writes a line to standard error."""
    sys.stderr.write(text + "\n")
