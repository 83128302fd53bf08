"""The layout of a mount: which directories stand above the snapshots, and what their entries are. Pure.

A spec says what stands at a name: a directory with its entries, a symbolic link, text, or a place inside a snapshot.
Snapshots stand whole in ``snapshots/`` and once; hosts, tags, kinds and periods are links to there. Nothing is read but
manifests, until somebody looks into what is computed (`Folder.children`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo

from respaldo.catalog.kinds import kind_of
from respaldo.catalog.labels import SUFFIX_DIGITS
from respaldo.catalog.snapshots import Snapshot
from respaldo.core.ids import RANDOM_ID_BYTES, SnapshotId
from respaldo.core.model import Entry

PERIODS = ("daily", "weekly", "monthly", "yearly")
NAME_BYTES_MAX = 255
ARCHIVE, SEAL = b".tar", b".sha256"
LATEST = b"latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """Is a path inside a snapshot. ``entry`` where it is known already."""

    snapshot: Snapshot
    path: bytes = b"/"
    entry: Entry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Is a symbolic link."""

    target: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Is a small file that is made up."""

    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Is a directory that is made up. ``children`` is called when somebody looks, and may read trees."""

    children: Callable[[], Mapping[bytes, Spec]]
    time_ns: int = 0
    snapshot: SnapshotId | None = None
    """The snapshot that it is about: another one under the same name is another directory."""
    like: Inside | None = None
    """The directory of a snapshot whose owner, mode and time it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Is a snapshot as a tar archive."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSum:
    """Is the SHA-256 of an archive; where nobody has read that yet, who reads this waits for it."""

    snapshot: Snapshot
    name: bytes
    """What the archive is called."""
    sha256: str = ""


Spec = Inside | Link | Text | Folder | Archive | ArchiveSum


class Sealing(Mapping[bytes, Spec]):
    """Is entries, and the SHA-256 of each archive among them: those that it takes reading to know are not listed.

    Whoever looks into every file of a directory, as a file manager does, reads no archive by that.
    """

    def __init__(self, listed: Mapping[bytes, Spec]) -> None:
        self._listed = listed

    def __getitem__(self, name: bytes) -> Spec:
        found = self._listed.get(name)
        if found is not None:
            return found
        archive = name.removesuffix(SEAL)
        sealed = self._listed[archive]
        if archive == name or not isinstance(sealed, Archive):
            raise KeyError(name)
        return ArchiveSum(snapshot=sealed.snapshot, name=archive)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)


def seal_text(sha256: str, name: bytes) -> bytes:
    """Returns what stands beside an archive, as ``sha256sum -c`` reads it."""
    return sha256.encode() + b"  " + name + b"\n"


@dataclass(slots=True)
class Names:
    """Gives snapshots names: the label, else the time in a zone; where several have the same, their ids behind it.

    Whoever sees the same snapshots sees the same names. A name that was given before stays beside the new one as long
    as no other snapshot needs it: somebody may stand in that directory.
    """

    zone: tzinfo
    apart: Sequence[Snapshot] = ()
    """Those in the trash, which are not shown: the others are called what they would be called beside them."""
    _names: dict[SnapshotId, bytes] = field(default_factory=dict)
    _before: dict[SnapshotId, tuple[bytes, ...]] = field(default_factory=dict)

    def of(self, snapshot: Snapshot) -> bytes:
        """Returns the name of a snapshot that was looked at."""
        return self._names[snapshot.id]

    def all_of(self, snapshot: Snapshot) -> tuple[bytes, ...]:
        """Returns the name of a snapshot that was looked at, and those that it had before."""
        return (self._names[snapshot.id], *self._before.get(snapshot.id, ()))

    def look_at(self, snapshots: Sequence[Snapshot]) -> None:
        """Names snapshots, all that there are."""
        snapshots = (*snapshots, *self.apart)
        wanted = {item.id: file_name(item.manifest.label) or time_name(item.time_ns, self.zone) for item in snapshots}
        names = dict(wanted)
        for digits in (SUFFIX_DIGITS, 2 * RANDOM_ID_BYTES):
            counts = Counter(names.values())
            for item in snapshots:
                if counts[names[item.id]] > 1:
                    end = NAME_BYTES_MAX - 1 - digits
                    names[item.id] = wanted[item.id][:end] + b"+" + item.hex[:digits].encode()
        taken = set(names.values())
        before: dict[SnapshotId, tuple[bytes, ...]] = {}
        for snapshot, name in self._names.items():
            if snapshot in names:
                given = dict.fromkeys((name, *self._before.get(snapshot, ())))
                before[snapshot] = tuple(other for other in given if other not in taken)
                taken.update(before[snapshot])
        self._names, self._before = names, before


def file_name(text: str) -> bytes:
    """Returns what a text is called as a file: no separators, not too long; empty where nothing is left of it."""
    name = text.replace("/", "∕").replace("\0", "").encode("utf-8", "surrogateescape")
    if len(name) > NAME_BYTES_MAX:
        name = name[:NAME_BYTES_MAX].decode("utf-8", "ignore").encode()
    return b"" if name in {b".", b".."} else name


def time_name(time_ns: int, zone: tzinfo) -> bytes:
    """Returns a time as a name that sorts."""
    seconds = min(max(time_ns // 10**9, -(1 << 33)), 1 << 36)
    return f"{datetime.fromtimestamp(seconds, UTC).astimezone(zone):%Y-%m-%dT%H-%M-%S}".encode()


Periods = Callable[[Sequence[Snapshot], str], Sequence[tuple[Snapshot, str]]]
"""Returns the snapshots that stand for the days, weeks, months or years that there are, and which each stands for."""


def folder(children: Mapping[bytes, Spec], time_ns: int = 0) -> Folder:
    """Returns a directory with known entries."""
    return Folder(children=lambda: children, time_ns=time_ns)


def layout(
    snapshots: Sequence[Snapshot],
    names: Names,
    periods: Periods,
    newest: Callable[[Sequence[Snapshot]], Spec],
    more: Mapping[bytes, Spec] | None = None,
    seals: Mapping[SnapshotId, str] | None = None,
) -> Folder:
    """Returns the root of a mount; ``more`` stands beside what is here, or instead of it.

    ``newest`` returns what is newest in snapshots. ``seals``: the SHA-256 of archives, as far as they are known.
    """
    names.look_at(snapshots)
    newest_ns = snapshots[-1].time_ns if snapshots else 0
    whole = {name: Inside(snapshot=item) for item in snapshots for name in names.all_of(item)}
    kinds: dict[str, list[Snapshot]] = {"full": [], "incremental": [], "snapshot": []}
    hosts: dict[bytes, list[Snapshot]] = {}
    tags: dict[bytes, list[Snapshot]] = {}
    for item in snapshots:
        manifest = item.manifest
        kinds.setdefault(kind_of(manifest.kind, manifest.parent), []).append(item)
        hosts.setdefault(file_name(manifest.host) or b"unknown", []).append(item)
        for tag in manifest.tags:
            tags.setdefault(file_name(tag) or b"_", []).append(item)
    root: dict[bytes, Spec] = {
        LATEST: newest(snapshots),
        b"snapshots": folder(whole, newest_ns),
        b"hosts": _shelves(hosts, names, newest_ns, newest),
        b"tags": _shelves(tags, names, newest_ns),
    }
    for kind in ("full", "incremental", "snapshot"):
        links = _links(kinds[kind], names, 1)
        sealed = _archives(snapshots, names, seals or {}) if kind == "snapshot" else {}
        root[kind.encode()] = folder(Sealing(sealed | links) if sealed else links, newest_ns)
    for period in PERIODS:
        root[period.encode()] = Folder(children=_period(snapshots, period, periods, names), time_ns=newest_ns)
    return folder(root | dict(more or {}), newest_ns)


def _links(snapshots: Iterable[Snapshot], names: Names, depth: int) -> dict[bytes, Spec]:
    up = b"../" * depth + b"snapshots/"
    return {names.of(item): Link(target=up + names.of(item)) for item in snapshots}


def _archives(snapshots: Iterable[Snapshot], names: Names, seals: Mapping[SnapshotId, str]) -> dict[bytes, Spec]:
    """Returns every snapshot as an archive, and beside it its SHA-256 as ``sha256sum -c`` reads it."""
    found: dict[bytes, Spec] = {}
    for item in snapshots:
        for name in (shown + ARCHIVE for shown in names.all_of(item)):
            if len(name) + len(SEAL) > NAME_BYTES_MAX or b"\n" in name or b"\\" in name:
                continue
            found[name] = Archive(snapshot=item)
            if item.id in seals:
                found[name + SEAL] = ArchiveSum(snapshot=item, name=name, sha256=seals[item.id])
    return found


def _shelves(
    groups: Mapping[bytes, Sequence[Snapshot]],
    names: Names,
    time_ns: int,
    newest: Callable[[Sequence[Snapshot]], Spec] | None = None,
) -> Folder:
    found: dict[bytes, Spec] = {}
    for name, items in groups.items():
        more = {} if newest is None else {LATEST: newest(items)}
        found[name] = folder(_links(items, names, 2) | more, items[-1].time_ns)
    return folder(found, time_ns)


def _period(
    snapshots: Sequence[Snapshot], period: str, periods: Periods, names: Names
) -> Callable[[], Mapping[bytes, Spec]]:
    def children() -> Mapping[bytes, Spec]:
        """Buckets of several sources bear the name of the snapshot behind their own."""
        found = periods(snapshots, period)
        counts: dict[str, int] = {}
        for _, bucket in found:
            counts[bucket] = counts.get(bucket, 0) + 1
        return {
            bucket.encode() + (b"_" + names.of(item) if counts[bucket] > 1 else b""): Link(
                target=b"../snapshots/" + names.of(item)
            )
            for item, bucket in found
        }

    return children
