"""Targets: what people type, and files that they write: names of snapshots, times, sizes, rules, policies, keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC
from zoneinfo import ZoneInfo

import click
from shamir_mnemonic import shamir

from respaldo.api import exporting, history, importing, naming, parse_recovery
from respaldo.backend.base import check_name
from respaldo.catalog import labels, moments, policies, selectors
from respaldo.cli import show, streams, values
from respaldo.codec import recovery, shares
from respaldo.core.errors import NoSuchSnapshot, Refused, UsageError
from respaldo.core.ids import NAME_BYTES, RANDOM_ID_BYTES, parse_hash_leaf, parse_leaves, parse_random_leaf
from respaldo.core.model import Entry
from respaldo.flows.check.options import parse_subset
from respaldo.flows.parity.options import parse_share as parse_parity
from respaldo.format import canonical
from respaldo.fs import match
from respaldo.fs.recorded import recorded_limit, recorded_rules
from respaldo.views.criteria import Criteria
from tests.fuzz.mutate import LENGTH_MAX, Form, Wrapping
from tests.fuzz.target import Target, nothing

NOW_NS = 1_780_000_000_000_000_000
ZONE = ZoneInfo("America/Asuncion")  # whose clocks are set at midnight
CONTEXT = selectors.Context(now_ns=NOW_NS, zone=ZONE, verified=frozenset)
KEY = bytes(range(32))
_PATTERN_MAX = 1500
_RECORDED_MAX = 1 << 20
"""So many letters a target repeats at most: a manifest holds more, which costs the fuzzer more than it shows."""


def decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _target(
    name: str,
    parse: Callable[[str], object],
    seeds: Iterable[str],
    *,
    refusals: tuple[type[BaseException], ...] = (UsageError,),
    use: Callable[[object], None] = nothing,
    modules: tuple[str, ...] = (),
    wrappings: tuple[Wrapping, ...] = (),
    length_max: int = LENGTH_MAX,
) -> Target:
    kept = tuple(seed.encode("utf-8", "surrogateescape") for seed in seeds)
    return Target(
        name=name,
        parse=lambda data: parse(decoded(data)),
        seeds=lambda: kept,
        refusals=refusals,
        use=use,
        form=Form.TEXT,
        modules=modules,
        wrappings=wrappings,
        length_max=length_max,
    )


# --- names, times, numbers -------------------------------------------------------------------------------------------


def _named(text: str) -> None:
    name, path = naming.split_name(text)
    if path is not None:
        assert path.startswith(b"/"), path
        assert not {b"", b"."} & set(path.split(b"/")[1:]) or path == b"/", path
    found = selectors.parse_selector(name, CONTEXT)
    if found is not None:
        _is_shown(found.text)


def _is_shown(text: str) -> None:
    assert show.shown(text).isprintable()


def _moment(text: str) -> None:
    for zone in (UTC, ZONE):
        found = moments.parse_moment(text, now_ns=NOW_NS, zone=zone)
        if found is not None:
            assert found.first_ns <= found.last_ns
            _is_shown(found.text)


def _amount(text: str) -> None:
    """Takes one text for everything that an option may take."""
    for kind in (values.SIZE, values.SHARE, values.SPAN, values.DURATION, values.RATE, values.MOMENT, values.ZONE):
        try:
            found = kind.convert(text, None, None)
        except click.BadParameter as error:
            found = error.format_message()
        if isinstance(found, str):
            assert found.isprintable()
        if isinstance(found, int | float):
            assert found == found  # noqa: PLR0124 - a number, and not none
    policies.parse_span(text)
    for parse in (parse_subset, parse_parity):
        try:
            parse(text)
        except UsageError:
            continue


def _time_in_name(text: str) -> object:
    pattern, _, name = text.partition("\n")
    return importing.time_from_name(name, pattern)


def _template(text: str) -> None:
    exporting.check_template(text)


def _label(text: str) -> None:
    found = labels.version_of(text)
    if found is not None:
        assert labels.is_reserved(text)
        for bump in labels.Bump:
            assert labels.following(found, bump) > found


def _object_name(text: str) -> None:
    for parse, length in ((parse_hash_leaf, NAME_BYTES), (parse_random_leaf, RANDOM_ID_BYTES)):
        found = parse(text)
        assert found is None or found.hex() == text
        leaves = parse_leaves([f"packs/{text}", f"packs/{text}"], length) if "/" not in text else ()
        assert not leaves or list(leaves) == [found, found]
    check_name(text)


# --- rules and patterns ----------------------------------------------------------------------------------------------

_PATHS = (b"a", b"a/b", b"a/b/c.o", b"\xff\n", b"a" * 200, b"[x]/]-", b"aaaa/aaaa/aaaa/b")


def _rules(data: bytes) -> None:
    found = match.Rules(match.read_rules(data))
    for path in _PATHS:
        for is_dir in (False, True):
            found.excluded(path, is_dir)
    found.kept(b"a", [b"b", b"c.o", b"\xff"], [True, False, False])


def _recorded(data: bytes) -> None:
    """Takes options from a snapshot, one a line, as often as the first number says."""
    head, _, lines = decoded(data).partition("\n")
    times = int(head) if head.isascii() and head.isdecimal() and len(head) < 6 else 1
    options = lines.split("\n") * min(times, max(1, _RECORDED_MAX // (len(lines) + 1)))
    recorded_limit(options)
    recorded_rules(options).excluded(b"a/b", False)


def _pattern(text: str) -> None:
    """Looks for a pattern; the first letter says whether it is a regular expression."""
    for ignore_case in (False, True):
        found = Criteria(pattern=text, ignore_case=ignore_case)
        for path in _PATHS:
            names = path.split(b"/")
            found.among(b"".join(name + b"\0" for name in names))
            found.fits_path(b"/" + path)
            found.leads_on(b"/" + path, len(names))
        found.fits(Entry(name=b"a", mode=0o100644))


def _expression(text: str) -> None:
    """Takes a regular expression; what it matches is the user's own business, and may take long."""
    Criteria(pattern=text, regex=True)


# --- keys and heads --------------------------------------------------------------------------------------------------


def _headed(raw: bytes) -> str:
    return history.encode_head(raw)


def _unheaded(text: bytes) -> bytes:
    """Returns what a head encodes, its checksum left out."""
    import base64

    body = text.decode().strip().removeprefix(history._HEAD).upper()
    return base64.b32decode(body + "=" * (-len(body) % 8))[: -history._CHECK_BYTES]


_HEAD = _headed(canonical.pack([1, KEY[:16], [[b"c" * 16, 7, b"h" * 16]]]))


def _shares() -> tuple[str, ...]:
    """Divides a key into the same shares in every run."""
    drawn, shamir.RANDOM_BYTES = shamir.RANDOM_BYTES, lambda length: bytes(range(length))
    try:
        return shares.split_key(KEY, 2, 3)
    finally:
        shamir.RANDOM_BYTES = drawn


SHARES = _shares()
_POLICY = """
[laptop]
keep-last = 3
keep-daily = 7
keep-within = "30d"
keep-within-weekly = "26w"
keep-tag = ["milestone"]
keep-kind = { incremental = "7d", full = "30d" }
grace = "7d"
sources = ["/home/ana"]
[other]
keep-yearly = 0x10
"""

TARGETS = [
    _target(
        "name",
        _named,
        (
            "latest",
            "latest~2:/home/ana/x",
            "latest:verified,host=granja,tag=a\\,b",
            "2026-11-20 14:30:/etc",
            "3 days ago:kind=full",
            "v1.4.12-20261125_101500+ab12",
            "ab12cd",
            "latest:path=/a/b:",
        ),
        refusals=(NoSuchSnapshot,),
        modules=("respaldo.catalog.selectors",),
    ),
    _target(
        "moment",
        _moment,
        (
            "2026-11-20",
            "2026-11",
            "yesterday 14:30",
            "2026-10-04T00:30:15.5+02:00",
            "14:05Z",
            "3 days ago",
            "a year and 2 months and 36h ago",
            "now",
        ),
        modules=("respaldo.catalog.moments",),
    ),
    _target(
        "amount",
        _amount,
        (
            *(
                "5M",
                "1.5GiB",
                "500KB",
                "20MiB/s",
                "5%",
                "12.5%",
                "90s",
                "1h30m",
                "2d",
                "36h",
                "1y6m",
                "1/7",
                "10m",
                "2.5%",
            ),
            *("2026-11-30T18:05:00+01:00", "Europe/Madrid", "local", "UTC"),
        ),
        modules=("respaldo.cli.values", "respaldo.flows.check.options"),
    ),
    _target(
        "time-in-name",
        _time_in_name,
        ("%Y-%m-%d_%H%M\nbackup/2026-11-20_1430.tar.gz", "%d %b %y %I%p%z\n20 Nov 26 02PM+0100", "%B %j\nMay 120"),
        modules=("respaldo.api.importing",),
    ),
    _target(
        "template",
        _template,
        ("{prefix}-{time:%Y-%m-%d_%H%M%S}-{kind}.tar.gz", "{id:.8}{{}}{label!r:>20}{checksum}{user}{host}", "x"),
        modules=("respaldo.api.exporting",),
    ),
    _target(
        "label",
        _label,
        ("v1.4.12-20261125_101500", "v0.999999999.999999999-20261125_101500+ab", "before the move"),
        modules=("respaldo.catalog.labels",),
    ),
    _target(
        "object-name",
        _object_name,
        ("ab" * 32, "cd" * 16, "packs/" + "ab" * 32, "header", "keys/0011223344556677"),
        refusals=(ValueError,),
        modules=("respaldo.core.ids", "respaldo.backend.base"),
    ),
    Target(
        name="rules",
        parse=_rules,
        seeds=lambda: (
            b"*.o\n!keep.o\n# comment\n/build/\n**/x/**\na/**/b\n",
            b"[[:alpha:]]*[!a-z]\\ \n\\#x\n?[]-]\n[a-\\]]\r\n",
            b"\xef\xbb\xbf*a*a*a*a*b\n***/**/\n",
        ),
        refusals=(),
        form=Form.TEXT,
        modules=("respaldo.fs.match",),
        length_max=_PATTERN_MAX,
    ),
    Target(
        name="recorded",
        parse=_recorded,
        seeds=lambda: (b"1\nexclude=*.o\nexclude=!/keep/**\nexclude-larger-than=1000000\none-file-system",),
        refusals=(Refused,),
        form=Form.TEXT,
        modules=("respaldo.fs.recorded", "respaldo.fs.match"),
        slow_s=20.0,
        length_max=_PATTERN_MAX,
    ),
    _target(
        "pattern",
        _pattern,
        ("*.tex", "/home/*/x?", "**/src/**/[a-z]*.c", "dir/", "[[:digit:]]*", "*a*a*a*a*b"),
        modules=("respaldo.fs.match", "respaldo.views.criteria"),
        length_max=_PATTERN_MAX,
    ),
    _target("expression", _expression, (r"^a+(b|c)*\d{2,3}$", r"/home/(?P<who>\w+)/", r"(?i)x\u00e9"), modules=("re",)),
    _target(
        "policies",
        lambda text: policies.parse_policies(text, "x"),
        (_POLICY, "[a]\nkeep-last = 1\n"),
        modules=("respaldo.catalog.policies",),
    ),
    _target("command", streams.split_command, ('pg_dump -U \'a b\' "c\\"d" # e', "a\\ b")),
    _target(
        "head",
        history.parse_head,
        (_HEAD, f" {_HEAD.upper()}\n"),
        modules=("respaldo.api.history",),
        wrappings=(Wrapping(off=_unheaded, on=lambda raw: _headed(raw).encode()),),
    ),
    _target(
        "recovery",
        parse_recovery,
        (recovery.show_key(KEY), "# comment\n" + "\n".join(SHARES[:2]), " ".join(SHARES[1:])),
        use=lambda secret: _same_key(secret.key),  # type: ignore[attr-defined]
        modules=("respaldo.codec.recovery", "respaldo.codec.shares"),
    ),
    _target("share", shares.parse_share, SHARES, modules=("respaldo.codec.shares",)),
]


def _same_key(key: bytes | None) -> None:
    """A key that was read, but for one in a million with a wrong check, is one that was shown."""
    assert key is not None
    assert len(key) == 32
    assert re.fullmatch("[0-9A-Z\n-]+", recovery.show_key(key))
    assert recovery.parse_key(recovery.show_key(key)) == key
