"""Options that a manifest could not hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from respaldo.core.errors import UsageError
from respaldo.flows.backup.options import BackupOptions, check_recordable
from respaldo.format.snapshot import ITEMS_MAX, TEXT_BYTES_MAX

if TYPE_CHECKING:
    from tests.flows.backup.world import Reads, World

LONG = "x" * (TEXT_BYTES_MAX + 1)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"tags": ("t", LONG)}, "a tag is too long"),
        ({"label": LONG}, "a label is too long"),
        ({"reason": "é" * (TEXT_BYTES_MAX // 2 + 1)}, "a reason is too long"),
        ({"host": LONG}, "a host is too long"),
        ({"kind": LONG}, "a kind is too long"),
        ({"exclude": (LONG,)}, "a pattern is too long"),
        ({"exclude": ("x",) * (ITEMS_MAX + 1)}, "patterns are too many"),
        ({"exclude": ("x" * 60_000,) * 1000}, "too long to be recorded"),
        ({"time_ns": 1 << 63}, "between the years"),
    ],
)
def test_what_cannot_be_recorded_is_refused_before_anything_is_read(world: World, reads: Reads, options, reason):
    """A run that could only end in a record that nobody can read does not begin."""
    (world.source / "file").write_bytes(b"content")
    with pytest.raises(UsageError, match=reason):
        world.backup(**options)
    assert reads.take() == []
    assert world.snapshots == []


def test_sources_have_a_number_that_a_manifest_holds():
    """A list of more paths than a manifest holds is refused; one that it holds is not."""
    paths = [b"/%d" % number for number in range(ITEMS_MAX + 1)]
    check_recordable(BackupOptions(), paths[1:])
    with pytest.raises(UsageError, match="131,073 paths are too many"):
        check_recordable(BackupOptions(), paths)
