"""Policies by name: those that come with the program, and those of a file in TOML.

::

    [laptop]
    keep-last = 3
    keep-daily = 7
    keep-within = "30d"
    keep-within-weekly = "26w"
    keep-tag = ["milestone"]
    keep-kind = { incremental = "7d", full = "30d" }
    grace = "7d"
    sources = ["/home/ana"]

``sources`` says whose policy it is: that of every snapshot of these paths, or of some of them. Strict: a key that does
not exist, a value of another type or a span that is none is a `UsageError` that names file, policy and key; a typing
error never makes a policy keep less than what was meant. Never touches a file itself.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping

from respaldo.catalog.retention import COUNTS, PERIODS, Policy
from respaldo.core.errors import UsageError

_HOUR_NS = 3600 * 10**9
_DAY_NS = 24 * _HOUR_NS
_UNITS_NS = {"h": _HOUR_NS, "d": _DAY_NS, "w": 7 * _DAY_NS, "m": 31 * _DAY_NS, "y": 366 * _DAY_NS}
"""Months and years are the longest there are: a span never ends before the calendar's would."""
_SPAN = re.compile(r"(?:[0-9]{1,6}[hdwmy])+")
_PART = re.compile(r"([0-9]+)([hdwmy])")
COUNT_MAX = 1_000_000
_DOTS_MAX = 1000
"""What a key of ten thousand parts takes of the parser's memory grows with the square of their number."""
SPAN_FORM = "write 36h, 30d, 12w, 6m, 5y or 1y6m"

BUILT_IN: Mapping[str, Policy] = {
    "standard": Policy(keep={"daily": 7, "weekly": 4, "monthly": 12, "yearly": 5}),
    "aggressive": Policy(keep={"last": 1, "daily": 3, "weekly": 2, "monthly": 3}),
    "archive": Policy(keep={"daily": 30, "weekly": 26, "monthly": 60, "yearly": 100}),
}


def parse_span(text: str) -> int | None:
    """Returns a span such as ``36h``, ``30d``, ``12w``, ``6m``, ``1y6m`` in ns; None where it is none."""
    if not _SPAN.fullmatch(text):
        return None
    return sum(int(number) * _UNITS_NS[unit] for number, unit in _PART.findall(text))


def parse_policies(text: str, what: str) -> dict[str, Policy]:
    """Returns the policies of a file by name; raises `UsageError`, which names the file as ``what``."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > _DOTS_MAX:
            raise UsageError(f"{what}, line {number}: more than {_DOTS_MAX} dots in a line")
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, arrays as deep
        raise UsageError(f"{what} is not TOML: {error}") from None
    if not tables:
        raise UsageError(
            f"{what} holds no policy", hint="a policy is a table, such as [laptop], with keys such as keep-daily"
        )
    return {name: _policy(table, f"{what}, [{name}]") for name, table in tables.items()}


def choose(policies: Mapping[str, Policy], name: str, what: str) -> Policy:
    """Returns the policy of a name, of a file with one policy that one where no name is given."""
    if name in policies:
        return policies[name]
    if not name and len(policies) == 1:
        return next(iter(policies.values()))
    there = ", ".join(sorted(policies))
    if name:
        raise UsageError(f"{what} has no policy {name!r}", hint=f"it has: {there}")
    raise UsageError(
        f"{what} has several policies", hint=f"name one of them, as {what}:{min(policies)}; it has: {there}"
    )


def choose_for(policies: Mapping[str, Policy], sources: Iterable[bytes], what: str) -> Policy:
    """Returns the policy whose sources hold all of these; raises `UsageError` where that is none, or several."""
    wanted = set(sources)
    found = [name for name, policy in policies.items() if wanted and wanted <= set(policy.sources)]
    shown = ", ".join(source.decode("utf-8", "backslashreplace") for source in sorted(wanted))
    if not found:
        raise UsageError(
            f"no policy of {what} names the source {shown}", hint=f'name it in one: sources = ["{shown}"], or: --policy'
        )
    if len(found) > 1:
        raise UsageError(f"several policies of {what} name {shown}: {', '.join(found)}", hint="use --policy")
    return policies[found[0]]


def _policy(table: object, where: str) -> Policy:
    if not isinstance(table, dict):
        raise UsageError(f"{where} is not a policy", hint="a policy is a table, such as [laptop]")
    keep: dict[str, int] = {}
    within_ns: dict[str, int] = {}
    kinds_ns: dict[str, int] = {}
    tags: tuple[str, ...] = ()
    grace_ns = 0
    sources: tuple[bytes, ...] = ()
    for key, value in table.items():
        place = f"{where}: {key}"
        if key in _COUNT_KEYS:
            keep[_COUNT_KEYS[key]] = _count(value, place)
        elif key in _WINDOW_KEYS:
            within_ns[_WINDOW_KEYS[key]] = _span(value, place)
        elif key == "keep-tag":
            tags = _texts(value, place)
        elif key == "keep-kind":
            if not isinstance(value, dict):
                raise UsageError(f'{place} is not a table; write {{ incremental = "7d", full = "30d" }}')
            kinds_ns = {kind: _span(span, f"{place}.{kind}") for kind, span in value.items()}
        elif key == "grace":
            grace_ns = _span(value, place)
        elif key == "sources":
            sources = _paths(value, place)
        else:
            known = ", ".join((*_COUNT_KEYS, *_WINDOW_KEYS, "keep-tag", "keep-kind", "grace", "sources"))
            raise UsageError(f"{place}: there is no such key", hint=f"there are: {known}")
    policy = Policy(keep=keep, within_ns=within_ns, tags=tags, kinds_ns=kinds_ns, grace_ns=grace_ns, sources=sources)
    if not policy.has_rules:
        raise UsageError(f"{where} would keep nothing", hint="give it a rule, such as keep-daily = 7")
    return policy


_COUNT_KEYS = {f"keep-{rule}": rule for rule in COUNTS}
_WINDOW_KEYS = {"keep-within": "", **{f"keep-within-{period}": period for period in PERIODS}}


def _count(value: object, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= COUNT_MAX:
        raise UsageError(f"{place} is not a number from 0 to {COUNT_MAX}")
    return value


def _span(value: object, place: str) -> int:
    span_ns = parse_span(value) if isinstance(value, str) else None
    if span_ns is None:
        raise UsageError(f"{place} is not a span in quotation marks; {SPAN_FORM}")
    return span_ns


def _texts(value: object, place: str) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise UsageError(f'{place} is not a list of tags; write ["milestone"]')
    found: list[str] = []
    for item in items:
        if not isinstance(item, str) or not item:
            raise UsageError(f'{place} is not a list of tags; write ["milestone"]')
        found.append(item)
    return tuple(found)


def _paths(value: object, place: str) -> tuple[bytes, ...]:
    items = value if isinstance(value, list) else []
    paths = [item.encode("utf-8", "surrogateescape") for item in items if isinstance(item, str)]
    if not paths or len(paths) != len(items) or not all(path.startswith(b"/") for path in paths):
        raise UsageError(f'{place} is not a list of absolute paths; write ["/home/ana"]')
    return tuple(path.rstrip(b"/") or b"/" for path in paths)
