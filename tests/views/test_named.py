"""Snapshots looked up in a mount by what people call them; and what is never the newest."""

from __future__ import annotations

from datetime import UTC

import pytest

from respaldo.catalog.selectors import SAFETY, Context
from respaldo.views.layout import Inside, Link, Names
from respaldo.views.named import Named
from respaldo.views.newest import latest

DAY_NS = 86_400 * 10**9
NOW_NS = 1_790_000_000 * 10**9


@pytest.fixture
def made(scene):
    """Has a snapshot of three days ago, one of yesterday, and what was put away for safety today."""
    for days, label, tags in ((3, "first", ()), (1, "second", ()), (0, "aside", (SAFETY,))):
        (scene.source / "file").write_text(label)
        scene.snapshot(label=label, tags=tags, time_ns=NOW_NS - days * DAY_NS)
    return scene.look()


def test_name_is_a_link_to_the_snapshot_it_means(made):
    """Times, labels, ids, conditions; another one is not there, and nothing is listed."""
    names = Names(zone=UTC)
    names.look_at(made)
    named = Named(made, names, lambda: Context(now_ns=NOW_NS, verified=lambda: {made[0].id}))
    for name, label in (
        ("latest", "second"),
        ("yesterday", "second"),
        ("2 days ago", "first"),
        ("latest~1", "first"),
        ("latest:verified", "first"),
        ("latest:tag=safety", "aside"),
        ("first", "first"),
        (made[1].hex[:8], "second"),
    ):
        assert named.get(name.encode()) == Link(target=b"../snapshots/" + label.encode()), name
    for name in (b"9 days ago", b"latest:kind=odd", b"nobody", b"\xff", b"latest:"):
        assert named.get(name) is None
    assert list(named.items()) == []


def test_latest_shows_nothing_that_was_put_away_for_safety(made, scene):
    """It is what somebody wanted to get rid of."""
    spec = latest(None, made)  # no source inside another: no directory is looked into
    for name in str(scene.source).encode().strip(b"/").split(b"/"):
        spec = spec.children()[name]
    assert spec == Inside(snapshot=made[1], path=str(scene.source).encode())
