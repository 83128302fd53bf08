"""Policies by name: what comes with the program, and what a file may say."""

from __future__ import annotations

import pytest

from respaldo.catalog.policies import BUILT_IN, choose, parse_policies, parse_span
from respaldo.catalog.retention import Policy
from respaldo.core.errors import UsageError

HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS
FILE = """
[laptop]
keep-last = 3
keep-daily = 7
keep-within = "36h"
keep-within-weekly = "1y6m"
keep-tag = ["milestone", "tax"]
keep-kind = { incremental = "7d", full = "12w" }
grace = "7d"

[server]
keep-hourly = 48
"""


def test_standard_is_what_it_is_documented_to_be():
    """7 days, 4 weeks, 12 months, 5 years."""
    assert BUILT_IN["standard"] == Policy(keep={"daily": 7, "weekly": 4, "monthly": 12, "yearly": 5})
    assert set(BUILT_IN) == {"standard", "aggressive", "archive"}
    assert all(policy.has_rules for policy in BUILT_IN.values())


def test_file():
    """Every key means what its option means."""
    found = parse_policies(FILE, "f")
    assert found["laptop"] == Policy(
        keep={"last": 3, "daily": 7},
        within_ns={"": 36 * HOUR_NS, "weekly": (366 + 6 * 31) * DAY_NS},
        tags=("milestone", "tax"),
        kinds_ns={"incremental": 7 * DAY_NS, "full": 84 * DAY_NS},
        grace_ns=7 * DAY_NS,
    )
    assert found["server"] == Policy(keep={"hourly": 48})


@pytest.mark.parametrize(
    ("text", "span_ns"),
    [
        ("36h", 36 * HOUR_NS),
        ("30d", 30 * DAY_NS),
        ("12w", 84 * DAY_NS),
        ("1m", 31 * DAY_NS),
        ("2y", 732 * DAY_NS),
        ("0d", 0),
        ("1w2d", 9 * DAY_NS),
        ("", None),
        ("7", None),
        ("d", None),
        ("-7d", None),
        ("7 d", None),
        ("1.5d", None),
        ("7s", None),
        ("9999999d", None),
        ("\u0667d", None),
    ],
)
def test_span(text, span_ns):
    """Months and years are the longest there are."""
    assert parse_span(text) == span_ns


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a\n", "not TOML"),
        ("", "holds no policy"),
        ("keep-last = 3", "[keep-last] is not a policy"),
        ("[a]", "would keep nothing"),
        ("[a]\nkeep-daily = 0", "would keep nothing"),
        ('[a]\ngrace = "7d"', "would keep nothing"),
        ("[a]\nkeep-dayly = 7", "f, [a]: keep-dayly: there is no such key"),
        ("[a]\nkeep_daily = 7", "no such key"),
        ('[a]\nkeep-daily = "7"', "[a]: keep-daily is not a number"),
        ("[a]\nkeep-daily = -1", "not a number"),
        ("[a]\nkeep-daily = true", "not a number"),
        ("[a]\nkeep-daily = 7.0", "not a number"),
        ("[a]\nkeep-within = 7", "not a span"),
        ('[a]\nkeep-within = "7"', "not a span"),
        ("[a]\nkeep-tag = []", "not a list of tags"),
        ("[a]\nkeep-tag = [7]", "not a list of tags"),
        ('[a]\nkeep-kind = "full=7d"', "not a table"),
        ('[a]\nkeep-kind = { full = "x" }', "keep-kind.full is not a span"),
        ('[a]\nkeep-last = 1\ngrace = "x"', "grace is not a span"),
        ("[a]\nkeep-last = 1\nkeep-last = 2", "not TOML"),
        (f"[a]\nk{'.k' * 1001} = 1", "f, line 2: more than 1000 dots"),
    ],
)
def test_mistake_is_named_with_its_place(text, said):
    """A typing error never passes for a policy that keeps less."""
    with pytest.raises(UsageError) as caught:
        parse_policies(text, "f")
    assert said in str(caught.value)


def test_choosing():
    """By name; of a file with one policy, that one."""
    found = parse_policies(FILE, "f")
    assert choose(found, "server", "f") is found["server"]
    assert choose({"only": found["laptop"]}, "", "f") is found["laptop"]
    for name, said in (("", "several"), ("x", "no policy 'x'")):
        with pytest.raises(UsageError) as caught:
            choose(found, name, "f")
        assert said in str(caught.value)
        assert "laptop" in caught.value.hint
