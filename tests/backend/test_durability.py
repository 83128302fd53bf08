"""The medium that can lose power."""

from __future__ import annotations

import itertools

import pytest

from respaldo.backend.durability import KEPT, LOST, TORN, DurabilityModel
from respaldo.backend.faults import Crash
from respaldo.core.errors import ObjectExists, ObjectMissing
from tests.backend.contract import BackendContract


class TestDurabilityModel(BackendContract):
    replaces = False

    @pytest.fixture
    def backend(self):
        return DurabilityModel()


def run(backend) -> None:
    """Puts two objects and deletes the first."""
    backend.put("log/a", [b"aaaa"])
    backend.put("log/b", [b"bbbb"])
    backend.delete("log/a")


def test_steps_are_two_in_each_change():
    """A run that goes well tells how many points there are."""
    model = DurabilityModel()
    run(model)
    assert model.steps == 6
    assert model.volatile() == set()


@pytest.mark.parametrize("fates", [LOST, KEPT, TORN])
def test_what_returned_survives_a_power_cut_at_every_step(fates):
    """Whatever becomes of the change that was under way, those before it are as they were reported."""
    for step in range(1, 7):
        model = DurabilityModel(crash_at=step)
        with pytest.raises(Crash):
            run(model)
        with pytest.raises(Crash):
            model.list("log")
        model.power_cut(fates)
        found = {name: model.get(name) for name, _ in model.list("log")}
        under_way = {
            LOST: ({}, {}, {"a"}, {"a"}, {"a", "b"}, {"a", "b"}),
            KEPT: ({}, {"a"}, {"a"}, {"a", "b"}, {"a", "b"}, {"b"}),
            TORN: ({}, {"a"}, {"a"}, {"a", "b"}, {"a", "b"}, {"a", "b"}),
        }[fates][step - 1]
        assert {name[-1] for name in found} == set(under_way)
        torn = {name for name, content in found.items() if len(content) != 4}
        assert torn == ({f"log/{'ab'[step // 2 - 1]}"} if fates is TORN and step in (2, 4) else set())
        model.put("log/c", [b"works again"])


def test_a_disk_that_lies_loses_everything_not_synced():
    """Without sync, only what an explicit one covered survives."""
    model = DurabilityModel(sync=False)
    model.put("log/a", [b"a"])
    model.sync()
    model.put("log/b", [b"b"])
    model.delete("log/a")
    assert model.volatile() == {"log/a", "log/b"}
    model.power_cut()
    assert model.snapshot() == {"log/a": b"a"}


def halfway(verb: str, **options) -> DurabilityModel:
    """Returns a medium on which somebody put or deleted log/a and was killed before the sync, power still on."""
    model = DurabilityModel(**options)
    if verb == "delete":
        model.put("log/a", [b"a"])
    model.crash_at = model.steps + 2
    with pytest.raises(Crash):
        model.put("log/a", [b"a"]) if verb == "put" else model.delete("log/a")
    model.crash_at, model.dead = None, False
    assert model.volatile() == {"log/a"}
    return model


@pytest.mark.parametrize(("verb", "look"), list(itertools.product(("put", "delete"), ("list", "again"))))
def test_what_others_relied_on_survives(verb, look):
    """A listing, and a put or delete that finds the work done, make durable what a killed process left volatile."""
    model = halfway(verb)
    if look == "list":
        assert model.list("log") == ([("log/a", 1)] if verb == "put" else [])
    elif verb == "put":
        with pytest.raises(ObjectExists):
            model.put("log/a", [b"b"])
    else:
        with pytest.raises(ObjectMissing):
            model.delete("log/a")
    model.power_cut(LOST)
    assert model.exists("log/a") == (1 if verb == "put" else None)


def test_listings_can_be_made_to_promise_nothing():
    """With `list_syncs` off, what a listing showed may be lost: for showing what depends on that promise."""
    model = halfway("put", list_syncs=False)
    assert model.list("log") == [("log/a", 1)]
    model.power_cut(LOST)
    assert model.list("log") == []
