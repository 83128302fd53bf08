"""Manifests, outcomes and the other small records of the protocol: markers, condemnations.

A manifest is a snapshot only together with an outcome that says commit and names the manifest's bytes. Implements
docs/format.md, "Records".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from operator import itemgetter
from typing import Final, TypeVar

from respaldo.core.errors import Corruption
from respaldo.core.ids import CHUNK_ID_BYTES, NAME_BYTES, RANDOM_ID_BYTES, ChunkId, PackName
from respaldo.format import canonical
from respaldo.format.figures import FIGURE_NAMES, Changes, Figures

T = TypeVar("T", bytes, str)

RECORD_RAW_BYTES_MAX = 64 << 20
RECORD_BYTES_MAX = 80 << 20
"""As stored: sealed and padded."""
TEXT_BYTES_MAX = 64 << 10
_UTF8_BYTES_MAX = 4
"""So many bytes at most a character takes."""
ROOT_LOST = 6
"""The mark of a root that was lost, as on entries of trees."""
LOST_KEPT = 1 << 16
"""So many lost chunks are named in a manifest: enough to say that they were stored again."""
ITEMS_MAX = 1 << 17
"""Sources, tags, rules, paths that failed: of each at most so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Is what a snapshot says of itself.

    ``root`` is the id of a tree that stands for ``/``. ``sources`` are absolute paths as recorded. Times are ns since
    the epoch. ``rules`` are the options that decided what was left out, in the words of the command line, so that a
    restore can spare it. Of a snapshot that a repair has put in the place of another: ``repairs`` is the id of that
    one, ``root_lost`` whether the tree ``root`` itself was lost, ``lost`` the ids of the first lost chunks, joined.
    ``changes``: None where nobody counted them.
    ``origin`` says which snapshot a copy is one of: ids of repository and snapshot.
    ``rewrites``: the snapshot that this one was made from without its sources, empty where it was not.
    """

    session: bytes
    root: ChunkId
    sources: tuple[bytes, ...]
    time_ns: int
    started_ns: int
    ended_ns: int
    host: str
    user: str
    uid: int
    kind: str = ""
    label: str = ""
    reason: str = ""
    tags: tuple[str, ...] = ()
    parent: bytes = b""
    program: str = ""
    rules: tuple[str, ...] = ()
    failed: tuple[tuple[bytes, str], ...] = ()
    figures: Figures = field(default_factory=Figures)
    repairs: bytes = b""
    root_lost: bool = False
    lost: bytes = b""
    changes: Changes | None = None
    origin: tuple[bytes, bytes] | None = None
    rewrites: bytes = b""

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        more: dict[str, canonical.Value] = {"repairs": self.repairs} if self.repairs else {}
        if self.root_lost:
            more["mark"] = ROOT_LOST
        if self.lost:
            more["lost"] = self.lost
        if self.changes is not None:
            more["changes"] = [self.changes.added, self.changes.changed, self.changes.removed]
        if self.origin is not None:
            more["origin"] = list(self.origin)
        if self.rewrites:
            more["rewrites"] = self.rewrites
        return canonical.pack(
            more
            | {
                "version": 1,
                "session": self.session,
                "root": self.root,
                "sources": list(self.sources),
                "time": self.time_ns,
                "started": self.started_ns,
                "ended": self.ended_ns,
                "host": self.host,
                "user": self.user,
                "uid": self.uid,
                "kind": self.kind,
                "label": self.label,
                "reason": self.reason,
                "tags": list(self.tags),
                "parent": self.parent,
                "program": self.program,
                "rules": list(self.rules),
                "failed": [list(item) for item in self.failed],
                "figures": {name: getattr(self.figures, name) for name in FIGURE_NAMES},
            }
        )


_FIGURES = frozenset(FIGURE_NAMES)


_FIELDS: Final[dict[str, type]] = {
    "session": bytes,
    "root": bytes,
    "time": int,
    "started": int,
    "ended": int,
    "host": str,
    "user": str,
    "uid": int,
    "kind": str,
    "label": str,
    "reason": str,
    "parent": bytes,
    "program": str,
    "sources": list,
    "tags": list,
    "rules": list,
    "failed": list,
    "figures": dict,
}
_TYPES = tuple(_FIELDS.values())
_take = itemgetter(*_FIELDS)


def parse_manifest(data: bytes, what: str) -> Manifest:
    """Parses and validates a manifest; figures that this program does not know are passed over. Raises `Corruption`."""
    value = canonical.unpack(data, what)
    if not isinstance(value, dict) or value.get("version") != 1:
        raise Corruption(what, "not a manifest of this format")
    try:
        # Taken and looked at together: a client that is new reads tens of thousands.
        found = _take(value)
        session, root, time_ns, started_ns, ended_ns, host, user, uid, kind, label, reason, parent, program = found[:13]
        if tuple(map(type, found)) != _TYPES or any(map(_is_long, (host, user, kind, label, reason, program))):
            raise TypeError
        sources = _list_of(value, "sources", bytes)
        manifest = Manifest(
            session=session,
            root=ChunkId(root),
            sources=tuple(sources),
            time_ns=time_ns,
            started_ns=started_ns,
            ended_ns=ended_ns,
            host=host,
            user=user,
            uid=uid,
            kind=kind,
            label=label,
            reason=reason,
            tags=tuple(_list_of(value, "tags", str)),
            parent=parent,
            program=program,
            rules=tuple(_list_of(value, "rules", str)),
            failed=tuple(_failed(value)),
            figures=Figures(**_figures(value)),
            repairs=_bytes_of(value, "repairs"),
            root_lost=value.get("mark") == ROOT_LOST,
            lost=_bytes_of(value, "lost"),
            changes=_changes(value),
            origin=_origin(value),
            rewrites=_bytes_of(value, "rewrites"),
        )
    except (KeyError, TypeError):
        raise Corruption(what, "a field of the manifest is missing or of the wrong type") from None
    if len(root) != CHUNK_ID_BYTES or len(session) != RANDOM_ID_BYTES:
        raise Corruption(what, "an id in the manifest has the wrong length")
    if len(parent) not in {0, RANDOM_ID_BYTES}:
        raise Corruption(what, "the parent in the manifest is no snapshot")
    if len(manifest.repairs) not in {0, RANDOM_ID_BYTES} or len(manifest.lost) % CHUNK_ID_BYTES:
        raise Corruption(what, "what the manifest says of a repair is impossible")
    if len(manifest.rewrites) not in {0, RANDOM_ID_BYTES}:
        raise Corruption(what, "what the manifest was rewritten from is no snapshot")
    if not all(map(_is_plain_path, sources)):
        raise Corruption(what, "a source in the manifest is not an absolute path")
    if not all(map(canonical.is_time, (time_ns, started_ns, ended_ns))) or not 0 <= uid < 1 << 32:
        raise Corruption(what, "a number in the manifest is impossible")
    return manifest


def _is_plain_path(path: bytes) -> bool:
    """Whether a path is absolute and has no part that leads elsewhere."""
    parts = path.split(b"/")
    return path == b"/" or (
        len(parts) > 1 and not parts[0] and b"\0" not in path and not {b"", b".", b".."} & set(parts[1:])
    )


def _is_long(text: bytes | str) -> bool:
    if not isinstance(text, str) or len(text) * _UTF8_BYTES_MAX <= TEXT_BYTES_MAX:
        return False
    return len(text.encode("utf-8", "surrogateescape")) > TEXT_BYTES_MAX


def _bytes_of(value: dict[str, canonical.Value], key: str) -> bytes:
    """Returns what stands under a key that most have not, empty there."""
    found = value.get(key, b"")
    if not isinstance(found, bytes):
        raise TypeError(key)
    return found


def _changes(value: dict[str, canonical.Value]) -> Changes | None:
    """Returns what is said to have changed, None where nothing is said."""
    if "changes" not in value:
        return None
    match value["changes"]:
        case [int(added), int(changed), int(removed)] if min(added, changed, removed) >= 0:
            return Changes(added=added, changed=changed, removed=removed)
    raise TypeError


def _origin(value: dict[str, canonical.Value]) -> tuple[bytes, bytes] | None:
    """Returns which snapshot of which repository a copy is one of."""
    match value.get("origin"):
        case None:
            return None
        case [bytes(repository), bytes(snapshot)] if len(repository) == len(snapshot) == RANDOM_ID_BYTES:
            return repository, snapshot
    raise TypeError("origin")


def _list_of(value: dict[str, canonical.Value], key: str, kind: type[T]) -> list[T]:
    items = value[key]
    if not isinstance(items, list) or len(items) > ITEMS_MAX:
        raise TypeError(key)
    found = [item for item in items if isinstance(item, kind) and not _is_long(item)]
    if len(found) != len(items):
        raise TypeError(key)
    return found


def _failed(value: dict[str, canonical.Value]) -> list[tuple[bytes, str]]:
    items = value["failed"]
    if not isinstance(items, list) or len(items) > ITEMS_MAX:
        raise TypeError
    found = []
    for item in items:
        match item:
            case [bytes(path), str(reason)] if not _is_long(reason):
                found.append((path, reason))
            case _:
                raise TypeError
    return found


def _figures(value: dict[str, canonical.Value]) -> dict[str, int]:
    """Returns the figures that this program knows."""
    figures = value["figures"]
    if not isinstance(figures, dict):
        raise TypeError
    numbers = {name: number for name, number in figures.items() if isinstance(number, int) and number >= 0}
    if len(numbers) != len(figures):
        raise TypeError
    if numbers.keys() <= _FIGURES:
        return numbers
    return {name: number for name, number in numbers.items() if name in _FIGURES}


class Verdict(StrEnum):
    """Says how a pending snapshot ended."""

    COMMIT = "commit"
    ABORT = "abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Decides a pending snapshot: the verdict, and the pending object's SHA-256 (zeros where it was never seen)."""

    verdict: Verdict
    pending_hash: bytes

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        return canonical.pack([1, self.verdict.value, self.pending_hash])


def parse_outcome(data: bytes, what: str) -> Outcome:
    """Parses an outcome; raises `Corruption`."""
    match canonical.unpack(data, what):
        case [1, ("commit" | "abort") as verdict, bytes(pending_hash)] if len(pending_hash) == NAME_BYTES:
            return Outcome(verdict=Verdict(verdict), pending_hash=pending_hash)
    raise Corruption(what, "not an outcome of this format")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condemnation:
    """Names the packs that a collector is about to delete."""

    collector: bytes
    time_ns: int
    packs: tuple[PackName, ...]

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        return canonical.pack([1, self.collector, self.time_ns, b"".join(self.packs)])


def parse_condemnation(data: bytes, what: str) -> Condemnation:
    """Parses a condemnation; raises `Corruption`."""
    match canonical.unpack(data, what):
        case [1, bytes(collector), int(time_ns), bytes(names)] if (
            len(collector) == RANDOM_ID_BYTES and len(names) % NAME_BYTES == 0 and canonical.is_time(time_ns)
        ):
            packs = tuple(PackName(names[at : at + NAME_BYTES]) for at in range(0, len(names), NAME_BYTES))
            return Condemnation(collector=collector, time_ns=time_ns, packs=packs)
    raise Corruption(what, "not a condemnation of this format")


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """Says that a session was alive at a time, by its own clock."""

    session: bytes
    time_ns: int

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        return canonical.pack([1, self.session, self.time_ns])


def parse_marker(data: bytes, what: str) -> Marker:
    """Parses a session marker; raises `Corruption`."""
    match canonical.unpack(data, what):
        case [1, bytes(session), int(time_ns)] if len(session) == RANDOM_ID_BYTES and canonical.is_time(time_ns):
            return Marker(session=session, time_ns=time_ns)
    raise Corruption(what, "not a session marker of this format")
