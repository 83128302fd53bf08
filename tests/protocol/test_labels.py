"""Writers of one source in the same second, who see one another or not: what their snapshots are called."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from respaldo.catalog.labels import shown_labels, version_of
from respaldo.catalog.snapshots import Catalogue, forget, load
from respaldo.core.errors import NoSuchSnapshot
from tests.protocol.scene import OPTIONS, back_up, fresh_cache, memory_with, open_repository, snapshot_of
from tests.protocol.scheduler import Scheduler, Shared

pytestmark = pytest.mark.usefixtures("_inline")
WRITERS = ("one", "two", "three")
NOW = replace(OPTIONS, time_ns=1_780_000_000_000_000_000)
"""For all of them, and all the time."""


@pytest.fixture
def race(stage):
    """Has three writers make two snapshots each, in the order of a seed; returns the storage and what each made."""

    def run(seed):
        storage, scheduler = memory_with(stage.objects), Scheduler(seed)
        made = {name: [] for name in WRITERS}

        def write(name):
            cache = stage.copy_of_cache(f"{seed}-{name}")
            with open_repository(Shared(storage, scheduler), cache) as repo:
                made[name] += [back_up(repo, stage.source, options=NOW) for _ in range(2)]

        scheduler.run({name: lambda name=name: write(name) for name in WRITERS})
        return storage, made

    return run


def names_of(catalogue: Catalogue):
    return shown_labels(catalogue.snapshots, (*catalogue.trash, *catalogue.snapshots))


def test_all_readers_call_snapshots_the_same_and_each_is_meant(race, stage):
    """Whatever the order: labels are unique, mean one snapshot each, and are the same to all who see the same."""
    shared: Counter[bool] = Counter()
    for seed in range(16):
        storage, made = race(seed)
        seen = []
        for cache in [*(stage.folder / f"{seed}-{name}" for name in WRITERS), fresh_cache(stage.folder / "reader")]:
            with open_repository(storage, cache) as repo:
                catalogue = load(repo)
                seen.append(names_of(catalogue))
                for item, label in seen[-1].items():
                    assert catalogue.find(label).id == item, f"seed {seed}"
        assert all(names == seen[0] for names in seen), f"seed {seed}"
        assert len(set(seen[0].values())) == len(seen[0]) == 1 + 2 * len(WRITERS)
        recorded = [[result.manifest.label for result in results] for results in made.values()]
        assert all(version_of(first) < version_of(second) for first, second in recorded)
        labels = [label for pair in recorded for label in pair]
        shared.update(labels.count(label) > 1 for label in labels)
        for results in made.values():
            for result in results:
                name, label = seen[0][snapshot_of(result)], result.manifest.label
                assert name == (label if labels.count(label) == 1 else f"{label}+{result.snapshot.hex()[:8]}")
    assert min(shared[True], shared[False]) > 9, shared


def test_names_that_were_shown_stay_good(race, stage):
    """A label with an id means the same when the others that bear the label have been forgotten; without, the rest."""
    seed = next(seed for seed in range(8) if _collides(race(seed)[1]))
    storage, _ = race(seed)
    with open_repository(storage, fresh_cache(stage.folder / "reader")) as repo:
        catalogue = load(repo)
        names = names_of(catalogue)
        item, name = next((item, name) for item, name in names.items() if "+" in name)
        label = name.partition("+")[0]
        bearers = [each for each in catalogue.snapshots if each.manifest.label == label]
        with pytest.raises(NoSuchSnapshot):
            catalogue.find(label)
        for other in bearers:
            if other.id != item:
                forget(repo, other.id)
        catalogue = load(repo)
        assert catalogue.find(label).id == catalogue.find(name).id == item
        assert names_of(catalogue)[item] == label
        for other in bearers:
            if other.id != item:
                with pytest.raises(NoSuchSnapshot):
                    catalogue.find(names[other.id])


def _collides(made) -> bool:
    labels = [result.manifest.label for results in made.values() for result in results]
    return len(set(labels)) < len(labels)
