"""Labels of snapshots: the version and time that each is given, and what it is called where several bear the same one.

``v1.4.12-20261125_101500``: the next version of its source, and its time in the zone of whoever made it. Two clients
that see nothing of one another may give the same label. Then all who read agree without asking: none of them answers
to it, and each is shown, and answers, to the label with ``+`` and the beginning of its id behind it; which it also does
where it is the only one, so that such a name never comes to mean another snapshot. Words that a person gave are as they
were given; of several that bear the same, the newest is meant. Implements docs/format.md, "Labels".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum
from typing import NamedTuple, Protocol, TypeVar

from respaldo.core.errors import UsageError
from respaldo.core.ids import SnapshotId
from respaldo.format.snapshot import Manifest

NUMBER_MAX = 10**9 - 1
SUFFIX_DIGITS = 8
_NUMBER = r"(0|[1-9][0-9]{0,8})"
_LABEL = rf"v{_NUMBER}\.{_NUMBER}\.{_NUMBER}-[0-9]{{8}}_[0-9]{{6}}"
_VERSIONED = re.compile(_LABEL)
_WITH_ID = re.compile(rf"({_LABEL})\+([0-9a-f]{{1,32}})")
_INSIDE = re.compile(_LABEL.encode())
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Labelled(Protocol):
    """Is a snapshot. Its manifest is parsed when it is asked for, and that takes long of very many."""

    @property
    def id(self) -> SnapshotId: ...

    @property
    def encoded(self) -> bytes: ...

    @property
    def manifest(self) -> Manifest: ...


T = TypeVar("T", bound=Labelled)


class Bump(Enum):
    """Says which number of a version goes up."""

    MAJOR = 0
    MINOR = 1
    PATCH = 2


class Version(NamedTuple):
    """Is the version in a label. Each number has at most nine digits."""

    major: int
    minor: int
    patch: int


def version_of(label: str) -> Version | None:
    """Returns the version that a label says, None where it has another form."""
    found = _VERSIONED.fullmatch(label)
    return Version(*map(int, found.groups())) if found else None


def is_reserved(label: str) -> bool:
    """Whether a label has a form that the program gives and understands, and that no person should give."""
    return bool(_VERSIONED.fullmatch(label) or _WITH_ID.fullmatch(label))


def following(version: Version, bump: Bump) -> Version:
    """Returns the next version; where a number cannot go up any more, the one before it does."""
    major, minor, patch = version
    if bump is Bump.PATCH and patch < NUMBER_MAX:
        return Version(major, minor, patch + 1)
    if bump is not Bump.MAJOR and minor < NUMBER_MAX:
        return Version(major, minor + 1, 0)
    if major < NUMBER_MAX:
        return Version(major + 1, 0, 0)
    raise UsageError("the versions of this source have come to their end", hint="name the snapshot: --label TEXT")


def next_label(
    snapshots: Sequence[Labelled], *, host: str, sources: tuple[bytes, ...], bump: Bump, time_ns: int, zone: tzinfo
) -> str:
    """Returns a label that no snapshot bears, with a version after all of those of these sources on this host."""
    local = (_EPOCH + timedelta(microseconds=time_ns // 1000)).astimezone(zone)
    when = f"{local:%Y%m%d_%H%M%S}"
    at_once = when.encode()
    taken = {item.manifest.label for item in snapshots if at_once in item.encoded}
    version = following(_highest(snapshots, host, sources), bump)
    while (label := f"v{version.major}.{version.minor}.{version.patch}-{when}") in taken:
        version = following(version, Bump.PATCH)
    return label


def _highest(snapshots: Iterable[Labelled], host: str, sources: tuple[bytes, ...]) -> Version:
    """Returns the highest version of a source; parses few manifests, however many there are."""
    known = host.encode("utf-8", "surrogateescape")
    found = [
        (Version(*map(int, match.groups())), item.id, item)
        for item in snapshots
        if known in item.encoded and all(source in item.encoded for source in sources)
        for match in _INSIDE.finditer(item.encoded)
    ]
    for version, _, item in sorted(found, key=lambda each: each[:2], reverse=True):
        manifest = item.manifest
        if (manifest.host, manifest.sources) == (host, sources) and version_of(manifest.label) == version:
            return version
    return Version(0, 0, 0)


def shown_labels(chosen: Iterable[Labelled], among: Iterable[Labelled]) -> dict[SnapshotId, str]:
    """Returns what snapshots are called among all there are, those in the trash included."""
    shared = shared_labels(among)
    return {item.id: shown_label(item, shared) for item in chosen}


def shared_labels(snapshots: Iterable[T]) -> dict[str, list[T]]:
    """Returns the versioned labels that several snapshots bear, and which; parses hardly a manifest else."""
    candidates = [(item, {match.group() for match in _INSIDE.finditer(item.encoded)}) for item in snapshots]
    counts = Counter(text for _, texts in candidates for text in texts)
    shared: dict[str, list[T]] = {}
    for item, texts in candidates:
        if any(counts[text] > 1 for text in texts) and version_of(item.manifest.label):
            shared.setdefault(item.manifest.label, []).append(item)
    return {label: items for label, items in shared.items() if len(items) > 1}


def shown_label(item: Labelled, shared: Mapping[str, Sequence[Labelled]]) -> str:
    """Returns what a snapshot is called, given the labels that several bear."""
    label = item.manifest.label
    same = shared.get(label, ())
    return f"{label}+{_suffix(item, same)}" if same else label


def _suffix(item: Labelled, same: Iterable[Labelled]) -> str:
    digits = item.id.hex()
    alike = sum(other.id.hex()[:SUFFIX_DIGITS] == digits[:SUFFIX_DIGITS] for other in same)
    return digits if alike > 1 else digits[:SUFFIX_DIGITS]


def bearers(name: str, oldest_first: Sequence[T]) -> list[T]:
    """Returns the snapshots that a name means as a label: of a person's words one at most."""
    with_id = _WITH_ID.fullmatch(name)
    label, digits = (with_id[1], with_id[5]) if with_id else (name, "")
    encoded = label.encode("utf-8", "surrogateescape")  # where it stands nowhere, nothing needs to be parsed
    found = (item for item in reversed(oldest_first) if encoded in item.encoded and item.manifest.label == label)
    if not is_reserved(name):
        return [item for item in (next(found, None),) if item is not None]
    return [item for item in found if item.id.hex().startswith(digits)]
