"""What an archive that Respaldo exported says of itself, in a comment that other programs pass over.

The words are the exporter's; whoever imports may put others in their place. Nothing in it is trusted further than that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from respaldo.format.canonical import is_time
from respaldo.format.snapshot import ITEMS_MAX, TEXT_BYTES_MAX

_MARK = "respaldo"


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Is what the comment says. ``path``: of what was exported; ``sources``: those of its snapshot."""

    path: bytes = b""
    sources: tuple[bytes, ...] = ()
    time_ns: int = 0
    host: str = ""
    user: str = ""
    kind: str = ""
    label: str = ""
    reason: str = ""
    tags: tuple[str, ...] = ()


def parse_about(comment: bytes) -> About:
    """Returns what a comment says, nothing where it is not one of ours."""
    try:
        value = json.loads(comment)
    except (ValueError, RecursionError):
        return About()
    if not isinstance(value, dict) or value.get(_MARK) != 1:
        return About()
    sources = _texts(value.get("sources"))
    time_ns = value.get("time_ns")
    return About(
        path=_path(value.get("path")),
        sources=tuple(path for path in map(_path, sources) if path),
        time_ns=time_ns if isinstance(time_ns, int) and not isinstance(time_ns, bool) and is_time(time_ns) else 0,
        host=_text(value.get("host")),
        user=_text(value.get("user")),
        kind=_text(value.get("kind")),
        label=_text(value.get("label")),
        reason=_text(value.get("reason")),
        tags=tuple(_texts(value.get("tags"))),
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or 4 * len(value) > TEXT_BYTES_MAX:
        return ""
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return ""
    return value


def _texts(value: object) -> list[str]:
    return [_text(item) for item in value if _text(item)] if isinstance(value, list) and len(value) < ITEMS_MAX else []


def _path(value: object) -> bytes:
    """Returns an absolute plain path, empty where it is none."""
    path = _text(value).encode("utf-8", "surrogateescape")
    parts = path.split(b"/")
    plain = path == b"/" or (
        len(parts) > 1 and not parts[0] and b"\0" not in path and not {b"", b".", b".."} & set(parts[1:])
    )
    return path if plain else b""
