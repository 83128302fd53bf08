"""Rules: which paths are left out of a backup or a restore, in the words of gitignore.

Owns the reading of patterns and nothing else: no file is touched. Rules are matched against paths relative to the
source root. As in git: the last pattern that matches decides, ``!`` takes back, a trailing slash matches directories
only, a slash anywhere else anchors a pattern at the root, and nothing below an excluded directory is ever looked at
again.

Translated here rather than by pathspec, whose patterns match descendants too (so that ``!dir`` takes back what ``*.o``
excluded below it), know no ``[[:alpha:]]`` and stop at a newline in a name. The tests hold both against git itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

CACHE_TAG_NAME = b"CACHEDIR.TAG"
CACHE_TAG = b"Signature: 8a477f597d28d172789f06886806bc55"
"""What a CACHEDIR.TAG starts with (bford.info/cachedir)."""

_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "cntrl": "\\x01-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "\\x21-\\x7e",
    "lower": "a-z",
    "print": "\\x20-\\x7e",
    "punct": "!-/:-@\\[-`{-~",
    "space": " \\t-\\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
_NOT_SLASH = "[^/\\0]"


def is_cache_tag(data: bytes) -> bool:
    """Whether the first bytes of a CACHEDIR.TAG say that its directory is a cache."""
    return data.startswith(CACHE_TAG)


def read_rules(data: bytes) -> list[str]:
    """Returns the patterns in a file of them, one a line, without comments and blank lines, in their order."""
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    texts = (line.removesuffix(b"\r").decode("utf-8", "surrogateescape") for line in lines)
    return [text for text in texts if text and not text.startswith("#") and _trim(text)]


def glob_regex(glob: str) -> str:
    """Returns a glob, as patterns have them, as a regular expression of whole names or paths; one may match nothing."""
    return _regex(glob)[0] or "(?!)"


class Rules:
    """Decides by an ordered list of patterns. A value: equal and hashed by its patterns; safe on any thread."""

    __slots__ = ("_runs", "patterns")

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self.patterns = tuple(patterns)
        parsed = [pattern for pattern in map(_Pattern, self.patterns) if pattern.regex]
        # Patterns of one sign in a row can be asked all at once: whichever of them matches, the answer is the same.
        self._runs = [_Run(sign, list(run)) for sign, run in groupby(parsed, key=lambda pattern: pattern.excludes)]
        self._runs.reverse()

    def __bool__(self) -> bool:
        return bool(self._runs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rules) and self.patterns == other.patterns

    def __hash__(self) -> int:
        return hash(self.patterns)

    def __repr__(self) -> str:
        return f"Rules({list(self.patterns)!r})"

    def excluded(self, path: bytes, is_dir: bool) -> bool:  # noqa: FBT001 - the path's other half
        """Whether a path, or a directory above it, is excluded."""
        if not self._runs:
            return False
        text = _text(path)
        at = text.find("/")
        while at >= 0:
            if self._matched(text[:at], is_dir=True):
                return True
            at = text.find("/", at + 1)
        return self._matched(text, is_dir=is_dir)

    def kept(self, directory: bytes, names: Sequence[bytes], is_dir: Sequence[bool]) -> list[bool] | None:
        """Returns which names of a directory are kept, None where all are.

        The directory itself ("" for the root) is taken to be kept. Costs next to nothing where nothing matches, and
        about a microsecond a name otherwise.
        """
        if not self._runs or not names:
            return None
        joined = _text(b"\0".join(names))
        prefix = _text(directory) + "/" if directory else ""
        depth = prefix.count("/")
        found = [run for run in self._runs if run.touches(joined, prefix, depth)]
        if not any(run.excludes for run in found):
            return None
        kept = [True] * len(names)
        for row, name in enumerate(joined.split("\0")):
            for run in found:
                if run.matches(name, prefix, depth, is_dir=is_dir[row]):
                    kept[row] = not run.excludes
                    break
        return None if all(kept) else kept

    def _matched(self, text: str, *, is_dir: bool) -> bool:
        slash = text.rfind("/") + 1
        prefix, name = text[:slash], text[slash:]
        depth = prefix.count("/")
        for run in self._runs:
            if run.matches(name, prefix, depth, is_dir=is_dir):
                return run.excludes
        return False


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _trim(pattern: str) -> str:
    """Takes off trailing blanks, but for one that a backslash escapes."""
    bare = pattern.rstrip(" ")
    escapes = len(bare) - len(bare.rstrip("\\"))
    return bare + " " if escapes % 2 and len(bare) < len(pattern) else bare


class _Pattern:
    """Is one pattern, taken apart.

    ``regex`` is empty where it can match nothing; ``depth`` is how many slashes a path has that it can match, -1 for
    any.
    """

    __slots__ = ("by_path", "depth", "dirs_only", "excludes", "regex")

    def __init__(self, pattern: str) -> None:
        text = _trim(pattern)
        self.excludes = not text.startswith("!")
        text = text[not self.excludes :]
        self.dirs_only = text.endswith("/")
        text = text[: len(text) - self.dirs_only]
        self.by_path = "/" in text
        self.regex, self.depth = _regex(text.removeprefix("/"))


class _Run:
    """Is a row of patterns of one sign, joined into a few regular expressions."""

    __slots__ = ("_depths", "_name", "_name_dir", "_path", "_path_dir", "_quick", "excludes")

    def __init__(self, excludes: bool, patterns: list[_Pattern]) -> None:  # noqa: FBT001 - private
        self.excludes = excludes
        names = [pattern for pattern in patterns if not pattern.by_path]
        paths = [pattern for pattern in patterns if pattern.by_path]
        self._name = _joined(pattern.regex for pattern in names if not pattern.dirs_only)
        self._name_dir = _joined(pattern.regex for pattern in names)
        self._path = _joined(pattern.regex for pattern in paths if not pattern.dirs_only)
        self._path_dir = _joined(pattern.regex for pattern in paths)
        self._quick = re.compile(f"\\0(?:{self._name_dir.pattern})(?=\\0)") if names else None
        self._depths = {pattern.depth for pattern in paths}

    def _by_path(self, depth: int) -> bool:
        return depth in self._depths or -1 in self._depths

    def touches(self, joined: str, prefix: str, depth: int) -> bool:
        """Whether any name (joined with NULs) of a directory may match: one search instead of one per name."""
        if self._quick and self._quick.search(f"\0{joined}\0"):
            return True
        if not self._by_path(depth):
            return False
        return any(self._path_dir.fullmatch(prefix + name) for name in joined.split("\0"))

    def matches(self, name: str, prefix: str, depth: int, *, is_dir: bool) -> bool:
        if (self._name_dir if is_dir else self._name).fullmatch(name):
            return True
        return self._by_path(depth) and bool((self._path_dir if is_dir else self._path).fullmatch(prefix + name))


def _joined(regexes: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{regex})" for regex in regexes) or "(?!)")


def _regex(glob: str) -> tuple[str, int]:
    """Translates a pattern without what is around it; returns it with the number of slashes it can match, -1 for any.

    The regex is "" where it can match nothing: a bracket or an escape that does not end, an empty name between slashes.
    Never takes long to fail, whatever the name: what stands between two stars counts where it comes first (`_first`).
    """
    parts: list[str] = []
    slashes = at = 0
    any_depth = False
    star = stars = -1  # where in the parts the last star of this name stands, and the last two between slashes
    while at < len(glob):
        letter = glob[at]
        start = at
        at += 1
        if letter == "*":
            while glob[at : at + 1] == "*":
                at += 1
            alone = glob[start - 1 : start] in ("", "/") and glob[at : at + 1] in ("", "/")
            if at - start == 1 or not alone:
                star = _first(parts, star)
                parts.append(f"{_NOT_SLASH}*")
                continue
            # Two stars between slashes: any directories or none; at the end: whatever is inside.
            any_depth = True
            part = "[^\\0]+" if at == len(glob) else f"(?:{_NOT_SLASH}+/)*"
            # Once for a row of them: two in a row mean the same and take exponential time to fail.
            if parts[-1:] != [part]:
                stars, star = _first(parts, stars), -1
                parts.append(part)
            at += 1
        elif letter == "/":
            if start == 0 or glob[start - 1] == "/":
                return "", 0
            slashes, star = slashes + 1, -1
            parts.append("/")
        elif letter == "?":
            parts.append(_NOT_SLASH)
        elif letter == "[":
            regex, at = _bracket_regex(glob, at)
            if not regex:
                return "", 0
            parts.append(regex)
        else:
            if letter == "\\":
                letter = glob[at : at + 1]
                at += 1
            if not letter:
                return "", 0
            parts.append(re.escape(letter))
    return "".join(parts), -1 if any_depth else slashes


def _first(parts: list[str], star: int) -> int:
    """Joins a star and what follows it, where another star comes; returns where that one will stand.

    What follows is of a fixed length, in letters or in names: where it fits first leaves most to the rest, so no other
    place need ever be tried. Tried, they would be as many as a polynomial says whose degree is the number of stars.
    """
    if star >= 0:
        parts[star:] = [f"(?>{parts[star]}?{''.join(parts[star + 1 :])})"]
    return len(parts)


def _bracket_regex(glob: str, at: int) -> tuple[str, int]:
    """Translates a bracket whose content starts at ``at``; returns ("", at) where it does not end or makes no sense."""
    negated = glob[at : at + 1] in ("!", "^")
    at += negated
    parts: list[str] = []
    first = True
    while first or glob[at : at + 1] != "]":
        first = False
        if glob.startswith("[:", at) and (end := glob.find(":]", at)) > 0:
            name = glob[at + 2 : end]
            if name not in _CLASSES:
                return "", at
            parts.append(_CLASSES[name])
            at = end + 2
            continue
        low, at = _letter(glob, at)
        high = low
        if glob[at : at + 1] == "-" and glob[at + 1 : at + 2] not in ("]", ""):
            high, at = _letter(glob, at + 1)
        if not low or not high:
            return "", at
        if low <= high:
            parts.append(f"{re.escape(low)}-{re.escape(high)}")
    content = "".join(parts)
    if negated:
        return f"[^/\\0{content}]", at + 1
    # A slash is matched by a slash only, not even by a bracket that lists it.
    return (f"(?![/\\0])[{content}]" if content else "(?!)"), at + 1


def _letter(glob: str, at: int) -> tuple[str, int]:
    """Returns the letter at a place in a bracket, escaped or not, and the place after it; "" at the end."""
    if glob[at : at + 1] == "\\":
        at += 1
    return glob[at : at + 1], at + 1
