"""Faults on order."""

from __future__ import annotations

import pytest

from respaldo.backend.faults import CHANGES, Crash, Fault, Faults, lasting_failure, passing_failure
from respaldo.backend.memory import MemoryBackend
from respaldo.core.errors import StorageFailed
from tests.backend.contract import BackendContract


class TestFaultsWithoutPlan(BackendContract):
    @pytest.fixture
    def backend(self):
        return Faults(MemoryBackend())


def run(backend) -> None:
    """Does five calls, three of them changes."""
    backend.put("log/a", [b"a"])
    backend.list("log")
    with backend.stage("log") as stage:
        stage.write(b"b")
        stage.commit("log/b")
    backend.get("log/a")
    backend.delete("log/a")


def test_calls_are_recorded():
    """A run that goes well tells which points there are."""
    faults = Faults(MemoryBackend())
    run(faults)
    assert faults.calls == [
        ("put", "log/a"),
        ("list", "log"),
        ("put", "log/b"),
        ("get", "log/a"),
        ("delete", "log/a"),
    ]
    assert faults.count() == 5
    assert faults.count(CHANGES) == 3


@pytest.mark.parametrize(
    ("at", "after", "left"),
    [
        (1, False, set()),
        (1, True, {"log/a"}),
        (2, False, {"log/a"}),
        (2, True, {"log/a", "log/b"}),
        (3, False, {"log/a", "log/b"}),
        (3, True, {"log/b"}),
    ],
)
def test_crash_at_every_change(at, after, left):
    """A crash before a call leaves it undone, one after it leaves it done; nothing happens any more."""
    inner = MemoryBackend()
    faults = Faults(inner, [Fault(at=at, after=after, verbs=CHANGES)])
    with pytest.raises(Crash):
        run(faults)
    assert set(inner.snapshot()) == left
    for use in (lambda: faults.put("log/z", []), lambda: faults.list("log"), lambda: faults.discard(["log/a"])):
        with pytest.raises(Crash):
            use()
    assert set(inner.snapshot()) == left


def test_failures_pass_when_their_times_are_over():
    """A failure is not a death: what comes after it goes on."""
    faults = Faults(MemoryBackend(), [Fault(at=2, times=2, error=passing_failure, verbs=frozenset({"put"}))])
    faults.put("log/a", [])
    for _ in range(2):
        with pytest.raises(StorageFailed) as caught:
            faults.put("log/b", [])
        assert caught.value.retryable
    faults.put("log/b", [])
    assert not faults.crashed


def test_faults_count_each_their_own_verbs():
    """Two faults of one plan do not disturb each other's count."""
    plan = [
        Fault(at=2, error=lasting_failure, verbs=frozenset({"get"})),
        Fault(at=1, error=lasting_failure, verbs=frozenset({"delete"})),
    ]
    faults = Faults(MemoryBackend(), plan)
    faults.put("log/a", [b"a"])
    assert faults.get("log/a") == b"a"
    with pytest.raises(StorageFailed):
        faults.delete("log/a")
    with pytest.raises(StorageFailed):
        faults.get("log/a")
    faults.delete("log/a")


@pytest.mark.parametrize("wrong", [{"at": 0}, {"at": 1, "times": 0}, {"at": 1, "verbs": frozenset({"open"})}])
def test_a_plan_that_could_never_strike_is_refused(wrong):
    """A test that means to inject something must not pass because it injects nothing."""
    with pytest.raises(ValueError):
        Fault(**wrong)
