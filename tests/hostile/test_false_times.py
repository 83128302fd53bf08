"""An attacker who may add snapshots gives them false times, so that a weekly rule drops the good ones for his."""

from __future__ import annotations

import os

import pytest

from respaldo.catalog.snapshots import pending_name
from tests.fidelity.product import Product
from tests.hostile.forge import FILE, Forger

WEEK_NS = 7 * 86400 * 10**9
HOUR_NS = 3600 * 10**9
WEEKS = 6


def lay(place):
    """Makes honest snapshots of six weeks, which came when they say, and false ones, which all came just now."""
    honest = []
    with Forger(place) as forger:
        now = forger.repo.clock.now_ns() - HOUR_NS

        def commit(time_ns, content):
            times = {"time_ns": time_ns, "started_ns": time_ns, "ended_ns": time_ns}
            return forger.commit(forger.tree((b"file", FILE, content)), **times)

        for week in range(WEEKS):
            time_ns = now - (WEEKS - 1 - week) * WEEK_NS
            honest.append(commit(time_ns, b"honest %d" % week))
            os.utime(forger.location / pending_name(honest[-1]), ns=(time_ns, time_ns))
        last = [now - week * WEEK_NS + HOUR_NS // 2 for week in range(1, WEEKS)]  # in the week of a good one, and later
        to_come = [now + week * WEEK_NS for week in range(1, WEEKS)]
        false = [commit(time_ns, b"false") for time_ns in last + to_come]
    return [item.hex() for item in honest], [item.hex() for item in false]


@pytest.mark.parametrize("command", ["forget", "prune"])
def test_false_times_push_no_good_snapshot_out(tmp_path, command):
    """What came late, or is of the future, counts for no rule: the newest honest ones of each week stay.

    With --accept-times the attack works: that is what the doubts are for.
    """
    product = Product(tmp_path / "product")
    honest, false = lay(product.place)
    kept = {}
    for more in ((), ("--accept-times",)):
        ran = product.run(command, "--keep-weekly", "4", "--dry-run", "--json", *more)
        (group,) = (ran.json if command == "forget" else ran.json["retention"])["groups"]
        kept[more] = {row["id"] for row in group["snapshots"] if row["kept"]}
    assert kept[()] & set(honest) == set(honest[-4:])
    assert kept[()] >= set(false)
    assert not kept["--accept-times",] & set(honest)
