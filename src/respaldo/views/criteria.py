"""Criteria: what is looked for in snapshots, by name, path, type, size and time."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from respaldo.core.errors import UsageError
from respaldo.core.model import Entry
from respaldo.fs.match import glob_regex

_GLOB = frozenset("*?[\\")
_CLASS = frozenset("[\\")
"""What a glob has to be without for a match among names that are joined to be that of one name."""


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """Says what is looked for. ``pattern``: a glob of names, with a slash in it of paths; one at its end: directories.

    In a path ``**`` stands for any number of directories, and a slash at its beginning for the root. With ``regex`` it
    is a regular expression that is found anywhere in a name, with a slash in it anywhere in a path. ``under``: only at
    this path and below. Sizes are those of regular files. ``types``: the type bits of modes, none for all.
    """

    pattern: str = "*"
    regex: bool = False
    ignore_case: bool = False
    under: bytes = b""
    size_min: int | None = None
    size_max: int | None = None
    newer_ns: int | None = None
    older_ns: int | None = None
    types: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Raises `UsageError` for what is no regular expression, or may mean two things."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # `[[:digit:]]` would be taken for a set of these letters, silently
                _ = self._name, self._path
        except Warning as warning:
            raise UsageError(
                f"{self.pattern!r} may mean two things as a regular expression: {str(warning).lower()}",
                hint=r"in a set, write \[ for a bracket, \-\- for two dashes; digits are \d, not [:digit:]",
            ) from None
        except (re.error, RecursionError, OverflowError, ValueError) as error:
            raise UsageError(f"{self.pattern!r} is no regular expression: {error}") from None

    @cached_property
    def _flags(self) -> re.RegexFlag:
        return re.IGNORECASE if self.ignore_case else re.RegexFlag(0)

    @cached_property
    def _name(self) -> re.Pattern[str] | None:
        """What is found in names, or of a glob what they are as a whole; None where the path decides alone."""
        if self.regex:
            return None if "/" in self.pattern else re.compile(self.pattern, self._flags)
        last = self.pattern.rstrip("/").rpartition("/")[2]
        return None if last in {"", "*", "**"} else re.compile(glob_regex(last), self._flags)

    @cached_property
    def _among(self) -> re.Pattern[str] | None:
        """What names match that are joined: without it, only each by itself can tell."""
        if self._name is None or self.regex:
            return None
        within = self._name.pattern.replace("[^/]", "[^/\0]")  # else a star would run over all names that follow
        return re.compile(rf"\0(?:{within})(?=\0)", self._flags)

    @cached_property
    def _path(self) -> re.Pattern[str] | None:
        """What is found in paths, or of a glob what they are as a whole; None where the name decides."""
        if self.regex:
            return re.compile(self.pattern, self._flags) if "/" in self.pattern else None
        bare = self.pattern.rstrip("/")
        if "/" not in bare:
            return None
        above = "/" if bare.startswith("/") else "(?:/[^/]+)*/"
        return re.compile(above + f"(?:{glob_regex(bare.lstrip('/'))})", self._flags)

    @cached_property
    def _way(self) -> list[bytes]:
        """The names that every path begins with that can fit."""
        way = [name for name in self.under.split(b"/") if name]
        if self.pattern.startswith("/") and not self.regex and not self.ignore_case:
            plain: list[bytes] = []
            for name in self.pattern.strip("/").split("/")[:-1]:
                if not name or _GLOB.intersection(name):
                    break
                plain.append(name.encode("utf-8", "surrogateescape"))
            way = max(way, plain, key=len)
        return way

    @cached_property
    def _end(self) -> bytes:
        """How a name has to end, with the NUL behind it, or be, with two, where no more is asked of it; else empty."""
        last = self.pattern.rstrip("/").rpartition("/")[2]
        bare = last.removeprefix("*")
        if self._name is None or self.regex or self.ignore_case or not _GLOB.isdisjoint(bare):
            return b""
        try:
            return (b"" if bare != last else b"\0") + bare.encode() + b"\0"
        except UnicodeEncodeError:  # bytes that are no letters could be found within letters
            return b""

    def among(self, joined: bytes) -> list[int]:
        """Returns which of some names, joined with a NUL behind each, match."""
        if self._end:
            return list(_rows_with(b"\0" + joined, self._end))
        names = joined.split(b"\0")[:-1]
        if self._name is None:
            return list(range(len(names)))
        if self._among is not None:
            text = "\0" + _text(joined)
            if _CLASS.isdisjoint(self.pattern):
                return list(_rows_at(text, self._among))
            if self._among.search(text) is None:
                return []
        matches = self._name.search if self.regex else self._name.fullmatch
        return [row for row, name in enumerate(names) if matches(_text(name))]

    def leads_on(self, path: bytes, depth: int) -> bool:
        """Whether something that fits can be at or below a path so many names deep."""
        return self.leads_everywhere(depth) or path.rpartition(b"/")[2] == self._way[depth - 1]

    def leads_everywhere(self, depth: int) -> bool:
        """Whether `leads_on` is so of every path so many names deep."""
        return depth > len(self._way)

    @cached_property
    def any_path(self) -> bool:
        """Whether `fits_path` is so of every path."""
        return self._path is None and not self.under.strip(b"/")

    def fits_path(self, path: bytes) -> bool:
        """Whether a path fits whose name does."""
        if self.under.strip(b"/") and not (path + b"/").startswith(self.under.rstrip(b"/") + b"/"):
            return False
        if self._path is None:
            return True
        return (self._path.search if self.regex else self._path.fullmatch)(_text(path)) is not None

    @cached_property
    def any_entry(self) -> bool:
        """Whether whatever has a fitting name and path is looked for."""
        limits = (self.size_min, self.size_max, self.newer_ns, self.older_ns)
        return not self.types and limits == (None,) * 4 and (self.regex or not self.pattern.endswith("/"))

    def fits(self, entry: Entry) -> bool:
        """Whether all but name and path fits."""
        if self.pattern.endswith("/") and not self.regex and not entry.is_dir:
            return False
        if self.types and entry.mode & 0o170000 not in self.types:
            return False
        if (self.size_min is not None or self.size_max is not None) and not entry.is_regular:
            return False
        return (
            (self.size_min is None or entry.size >= self.size_min)
            and (self.size_max is None or entry.size <= self.size_max)
            and (self.newer_ns is None or entry.mtime_ns >= self.newer_ns)
            and (self.older_ns is None or entry.mtime_ns <= self.older_ns)
        )


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _rows_with(text: bytes, end: bytes) -> Iterator[int]:
    """Yields which of some names, joined with a NUL before each and behind the last, end so."""
    row = -1
    at, found = 0, text.find(end)
    while found >= 0:
        row += text.count(b"\0", at, found + 1)
        yield row
        at = found + 1
        found = text.find(end, at)


def _rows_at(text: str, wanted: re.Pattern[str]) -> Iterator[int]:
    """Yields which of some names, joined with a NUL before each, a pattern matches that begins with that NUL."""
    row = at = 0
    for match in wanted.finditer(text):
        row += text.count("\0", at, match.start())
        at = match.start()
        yield row
