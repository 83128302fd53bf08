"""What takes away and what mirrors, on the hostile repositories in which most would be lost by it."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.hostile.every import SCENARIOS
from tests.hostile.ground import objects
from tests.hostile.test_everything import lay, memory, runner

__all__ = ["memory", "runner"]
PRUNE = ("prune", "--keep-last", "1")
SYNC = ("sync", "--to", "{room}/other", "--other-key-file", "{room}/key")


@pytest.mark.parametrize(
    ("name", "status", "kept"),
    [
        ("packs_that_are_gone", 4, True),
        ("condemnation_of_impossible_lengths", 4, True),
        ("content_for_a_manifest", 4, True),
        ("segment_that_hides_the_others", 0, False),
        ("forgotten_and_aborted_snapshots", 0, False),
    ],
)
def test_prune_keeps_what_it_must(memory, runner, name, status, kept):
    """Where it cannot know what is needed nothing goes; where it can, what is left restores."""
    ground = lay(SCENARIOS[name], memory, runner)
    before = objects(ground.repository)
    assert ground.words("prune", PRUNE).status == status
    after = objects(ground.repository)
    gone = before.keys() - after.keys()
    if kept:  # the one that the rules name too: to forget it would free nothing
        assert not gone
    else:
        assert gone
        assert ground.words("restore", ("restore", "latest:/source", "{room}/target")).status == 0


@pytest.mark.parametrize(
    ("name", "status", "copied"),
    [
        ("manifest_without_encryption", 4, 2),
        ("content_for_a_tree", 4, 2),
        ("packs_that_are_gone", 4, 0),
        ("litter_in_the_folders", 0, 2),
    ],
)
def test_sync_passes_no_damage_on(memory, runner, name, status, copied):
    """What is whole is mirrored, what is damaged is not, and the mirror is sound."""
    ground = lay(SCENARIOS[name], memory, runner)
    ended = ground.words("sync", SYNC)
    assert ended.status == status, ended.err
    mirror = ground.place / "copy"
    mirror.mkdir()
    shutil.copy(ground.room / "key", mirror / "key")
    shutil.move(ground.room / "other", mirror / "repository")
    assert ground.words("verify", ("verify", "--read-data"), mirror).status == 0
    listed = json.loads(ground.words("snapshots", ("snapshots", "--json"), mirror).out)["snapshots"]
    assert len(listed) == copied
