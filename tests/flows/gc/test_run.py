from __future__ import annotations

import pytest

from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.snapshots import forget
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.gc.options import PruneOptions
from respaldo.flows.gc.run import Collector
from tests.protocol.scene import Kept, back_up, contents, make_repository, on_disk, open_repository, snapshot_of


@pytest.mark.parametrize("gone", [True, False])
def test_collector_that_plans_without_a_snapshot_spares_it_where_it_stays(tmp_path, gone):
    """What was to be forgotten before the plan is executed, and was not, is a root like any other."""
    source = tmp_path / "source"
    source.mkdir()
    backend = MemoryBackend()
    make_repository(backend)
    with open_repository(Kept(backend), tmp_path / "cache") as repo:
        (source / "file").write_bytes(b"one" * 1000)
        first, had = snapshot_of(back_up(repo, source)), on_disk(source)
        (source / "file").write_bytes(b"two" * 1000)
        second = snapshot_of(back_up(repo, source))
        options = PruneOptions(repack_below=0)
        collector = Collector(repo, options, progress=Silent(), cancel=Cancel(), without={first})
        plan = collector.plan()
        assert plan.dead
        assert plan.snapshots == 1
        if gone:
            forget(repo, first)
        result = collector.execute(plan)
        assert (result.plan == plan) == gone
        assert result.deleted_packs == (len(plan.dead) if gone else 0)
        assert contents(repo, second) == on_disk(source)
        if not gone:
            assert contents(repo, first) == had
