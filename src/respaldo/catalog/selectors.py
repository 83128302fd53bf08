r"""Selectors: what the names of snapshots mean that are no ids and no labels.

::

    selector  = which [":" condition {"," condition}]
    which     = "latest" | "latest~" N | a time (`respaldo.catalog.moments`)
    condition = "verified" | "complete" | ("kind" | "host" | "tag" | "path" | "user") "=" value

``latest~2`` is the second one before the latest, of those that fulfil the conditions; a time means the newest one that
is not after it. A comma in a value is written ``\,``. Pure: what is verified, the clock and the zone are arguments.

Invariant: a whole id and a label go before everything else but ``latest``; no older snapshot stands in for one whose
manifest is damaged. What a restore put away for safety is no "latest" and no snapshot of any time, unless it is asked
for by ``tag=safety``: it is what somebody wanted to get rid of.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo

from respaldo.catalog.kinds import kind_of
from respaldo.catalog.moments import MOMENT_FORM, Moment, parse_moment, show_moment
from respaldo.catalog.snapshots import SAFETY, Catalogue, Snapshot, ordinary
from respaldo.core.errors import NoSuchSnapshot, Refused
from respaldo.core.ids import SnapshotId

ID_SHOWN = 8
"""Digits of a snapshot's id that are shown to people."""
_NEAREST = 5
_SELECTOR = re.compile(r"(.+?)(?::(?=[A-Za-z])(.*)|:)?", re.DOTALL)
_LATEST = re.compile(r"latest(?:~(\d{1,9}))?", re.ASCII)
_TIMELY = re.compile(r"\d{1,4}[-:/.]\d|.*\bago\b|last\b|to?day|yester", re.IGNORECASE)
"""What was to be a time, perhaps."""
_FLAGS = ("complete", "verified")
_KEYS = ("host", "kind", "path", "tag", "user")
CONDITIONS = "kind=…, host=…, tag=…, path=…, user=…, verified, complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Is what names are resolved by: when it is, where, which snapshots are verified (asked only where that counts)."""

    now_ns: int
    zone: tzinfo = UTC
    verified: Callable[[], Collection[SnapshotId]] = frozenset


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Is a name that was understood. ``moment`` None: the latest, or ``back`` before it."""

    name: str
    moment: Moment | None = None
    back: int = 0
    conditions: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """What was understood, for a person."""
        which = f"the newest snapshot not after {self.moment.text}" if self.moment else "the latest snapshot"
        if self.back:
            which = f"the snapshot {self.back} before the latest"
        wanted = [f"{key}={value}" if value else key for key, value in self.conditions]
        return which + (f" with {' and '.join(wanted)}" if wanted else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Is a snapshot and how it was named: ``selector`` None means by its id or label."""

    name: str
    snapshot: Snapshot
    selector: Selector | None = None


Test = Callable[[Snapshot], bool]


def parse_selector(name: str, context: Context) -> Selector | None:
    """Returns what a name means, None where it is none of the grammar; raises `NoSuchSnapshot` for half of it."""
    found = _SELECTOR.fullmatch(name)
    if not found:
        return None
    which, wanted = found.groups()
    latest = _LATEST.fullmatch(which)
    moment = None if latest else parse_moment(which, now_ns=context.now_ns, zone=context.zone)
    if latest is None and moment is None:
        return None
    if wanted is None and name.endswith(":"):
        raise NoSuchSnapshot(name, "nothing stands behind the colon", hint=f"it may be followed by {CONDITIONS}")
    conditions = tuple(_condition(part, name) for part in re.split(r"(?<!\\),", wanted)) if wanted else ()
    return Selector(name=name, moment=moment, back=int((latest and latest[1]) or 0), conditions=conditions)


def _condition(part: str, name: str) -> tuple[str, str]:
    key, equals, value = part.strip().partition("=")
    value = value.replace("\\,", ",")
    if (key in _FLAGS and not equals) or (key in _KEYS and value):
        return key, value
    shown = f'"{part.strip()}" is no condition' if part.strip() else "a condition is empty"
    nearest = difflib.get_close_matches(key, (*_FLAGS, *_KEYS), 1)
    hint = f"did you mean {nearest[0]}{'=…' if nearest[0] in _KEYS else ''}? " if nearest else ""
    raise NoSuchSnapshot(name, shown, hint=f"{hint}conditions are {CONDITIONS}")


def choose(catalogue: Catalogue, name: str, context: Context, *, tests: Sequence[Test] = (), where: str = "") -> Chosen:
    """Returns the snapshot that a name means.

    ``tests``: what the one that a selector means must fulfil, the first that any fulfils counts (for a path: whose
    sources cover it, else lie below it); ``where`` says so to a person. Raises `NoSuchSnapshot`, and `Corruption` as
    `Catalogue.find` does.
    """
    exact = catalogue.named(name) if not name.startswith("latest") else None
    if exact is not None:
        return Chosen(name=name, snapshot=exact)
    selector = parse_selector(name, context)
    if selector is None:
        try:
            return Chosen(name=name, snapshot=catalogue.find(name))
        except NoSuchSnapshot as error:
            raise _nearest(error, catalogue, context) from None
    catalogue.need_whole()
    return Chosen(name=name, snapshot=_select(catalogue, selector, context, tests, where), selector=selector)


def _select(catalogue: Catalogue, selector: Selector, context: Context, tests: Sequence[Test], where: str) -> Snapshot:
    if not catalogue.snapshots:
        raise NoSuchSnapshot(selector.name, "there is no snapshot yet", hint="make one with: respaldo snapshot PATH")
    found = ordinary(catalogue.snapshots)
    if ("tag", SAFETY) in selector.conditions:
        found = catalogue.snapshots
    elif not found:
        raise NoSuchSnapshot(
            selector.name,
            "there are none but those that restores put away for safety",
            hint=f"name one by its id, or latest:tag={SAFETY}",
        )
    for condition in selector.conditions:
        left = _fulfilling(found, condition, context)
        if not left:
            raise _unfulfilled(selector, condition, found, context)
        found = left
    for test in tests:
        covering = tuple(filter(test, found))
        if covering:
            return _newest(covering, selector, context)
    if tests:
        raise NoSuchSnapshot(selector.name + where, "no snapshot has a source that covers this path")
    return _newest(found, selector, context)


def _newest(found: Sequence[Snapshot], selector: Selector, context: Context) -> Snapshot:
    moment = selector.moment
    if moment is None:
        if selector.back >= len(found):
            raise NoSuchSnapshot(
                selector.name,
                f"there are only {len(found)} of them",
                hint=f"the oldest is {describe(found[0], context.zone)}",
            )
        return found[-1 - selector.back]
    for item in reversed(found):
        if item.time_ns <= moment.last_ns:
            return item
    raise NoSuchSnapshot(
        selector.name,
        f"{_upper(selector.text)}: there is none so old",
        hint=f"the oldest is {describe(found[0], context.zone)}",
    )


def _fulfilling(found: Sequence[Snapshot], condition: tuple[str, str], context: Context) -> tuple[Snapshot, ...]:
    key, value = condition
    if key == "verified":
        verified = context.verified()
        return tuple(item for item in found if item.id in verified)
    return tuple(item for item in found if _TESTS[key](item, value))


def covers(snapshot: Snapshot, path: bytes) -> bool:
    """Whether one of a snapshot's sources is the path or lies above it."""
    return any(path == source or path.startswith(source.rstrip(b"/") + b"/") for source in snapshot.manifest.sources)


def plain_path(path: str) -> bytes:
    """Returns a recorded path, absolute and without empty parts."""
    parts = [part for part in path.encode("utf-8", "surrogateescape").split(b"/") if part not in {b"", b"."}]
    return b"/" + b"/".join(parts)


_TESTS: dict[str, Callable[[Snapshot, str], bool]] = {
    "complete": lambda item, _: not item.manifest.figures.errors,
    "host": lambda item, value: item.manifest.host == value,
    "kind": lambda item, value: kind_of(item.manifest.kind, item.manifest.parent) == value,
    "path": lambda item, value: covers(item, plain_path(value)),
    "tag": lambda item, value: value in item.manifest.tags,
    "user": lambda item, value: item.manifest.user == value,
}

_VALUES: dict[str, Callable[[Snapshot], Collection[str]]] = {
    "host": lambda item: (item.manifest.host,),
    "kind": lambda item: (kind_of(item.manifest.kind, item.manifest.parent),),
    "path": lambda item: [source.decode("utf-8", "surrogateescape") for source in item.manifest.sources],
    "tag": lambda item: item.manifest.tags,
    "user": lambda item: (item.manifest.user,),
}


def _unfulfilled(
    selector: Selector, condition: tuple[str, str], found: Sequence[Snapshot], context: Context
) -> NoSuchSnapshot:
    """Says which condition no snapshot fulfils, and what there is instead."""
    key, value = condition
    if key not in _VALUES:
        reason = {"verified": "no such snapshot was read and found whole", "complete": "none is complete"}[key]
        hint = "read all with: respaldo verify --read-data; " if key == "verified" else ""
        return NoSuchSnapshot(selector.name, reason, hint=f"{hint}the latest is {describe(found[-1], context.zone)}")
    known = sorted({item for snapshot in found for item in _VALUES[key](snapshot)})
    nearest = difflib.get_close_matches(value, known, _NEAREST) or known[:_NEAREST]
    more = ", …" if len(known) > len(nearest) else ""
    hint = f"there is {', '.join(f'{key}={item}' for item in nearest)}{more}" if nearest else ""
    return NoSuchSnapshot(selector.name, f"no snapshot has {key}={value}", hint=hint)


def _nearest(error: NoSuchSnapshot, catalogue: Catalogue, context: Context) -> NoSuchSnapshot:
    """Adds to an error what the name may have meant."""
    name = error.name
    several = [item for item in catalogue.snapshots if name and item.hex.startswith(name)]
    if several:
        shown = "; ".join(describe(item, context.zone) for item in several[-_NEAREST:])
        return NoSuchSnapshot(name, error.reason, hint=f"say more of it: {shown}")
    labels = list(dict.fromkeys(item.manifest.label for item in reversed(catalogue.snapshots) if item.manifest.label))
    nearest = [*difflib.get_close_matches(name, labels, _NEAREST), *difflib.get_close_matches(name, ["latest"], 1)]
    if nearest:
        return NoSuchSnapshot(name, error.reason, hint=f"did you mean {' or '.join(nearest)}?")
    reason = "neither an id, nor a label, nor a time that can be understood" if _TIMELY.match(name) else error.reason
    return NoSuchSnapshot(name, reason, hint=f"{error.hint}; or write {MOMENT_FORM}")


def need_exact(catalogue: Catalogue, chosen: Chosen, context: Context) -> None:
    """Raises `Refused` unless a name means one snapshot whoever reads it.

    "2026-11-20" is a snapshot of that day if there is just one, and not an older one; "3 days ago" is none.
    """
    selector = chosen.selector
    moment = selector.moment if selector else None
    if selector is None or moment is None:
        return
    inside = [item for item in catalogue.snapshots if moment.first_ns <= item.time_ns <= moment.last_ns]
    if moment.exact and inside == [chosen.snapshot]:
        return
    what = f"{chosen.name} is no exact name: the newest not after {moment.text} is"
    if moment.exact and inside:
        what = f"{chosen.name} is no exact name: {len(inside)} snapshots lie in it, the newest of them is"
    raise Refused(
        f"{what} {describe(chosen.snapshot, context.zone)}",
        hint=f"name it by its id if that is the one: {chosen.snapshot.hex[:ID_SHOWN]}",
    )


def describe(snapshot: Snapshot, zone: tzinfo) -> str:
    """Returns what a person tells snapshots apart by."""
    return f"{snapshot.hex[:ID_SHOWN]} of {show_moment(snapshot.time_ns, zone)}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
