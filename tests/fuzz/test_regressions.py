"""What fuzzers found once stays found, what they know is tried, and the fuzzers themselves work."""

from __future__ import annotations

import random

import pytest

from tests.fuzz import loop
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

KEPT = sorted(loop.REGRESSIONS.glob("*-*"))


@pytest.fixture(autouse=True)
def _found_elsewhere(monkeypatch, tmp_path):
    """What breaks in a test is no finding of a fuzzer."""
    monkeypatch.setattr(loop, "FOUND", tmp_path / "found")


@pytest.mark.parametrize("path", KEPT, ids=[path.name for path in KEPT])
def test_what_broke_a_promise_once_is_refused_or_fine(path):
    """The file's name begins with the target's."""
    state = loop.State(TARGETS[loop.target_of(path)])
    loop.try_input(state, path.read_bytes())
    assert state.findings == {}


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_breaks_no_promise(name):
    """Every input that got further once is tried, and at least one that a writer makes is accepted."""
    target = TARGETS[name]
    state = loop.State(target)
    for data in (*target.seeds(), *loop.kept(target)):
        loop.try_input(state, data)
    assert state.findings == {}
    assert state.accepted


def test_mutations_repeat_themselves():
    """A seed names a run."""
    runs = [
        [
            target.mutator((b"token", 77)).bend(chance, data, data)
            for chance in [random.Random(5)]
            for target in TARGETS.values()
            if target.name not in {"fuse", "mend", "pack"}
            for data in list(target.seeds())[:1] * 5
        ]
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_broken_promise_is_found_and_kept(tmp_path):
    """A parser that leaks another error is found, once for each place, and its input is kept."""

    def leaky(data):
        if data[:1] == b"k":
            raise KeyError(data)
        if data[:1] == b"i":
            raise IndexError(data)

    target = Target(name="leaky", parse=leaky, seeds=lambda: [b"k", b"i", b"x"], refusals=())
    state = loop.begin(target, 1)
    loop.fuzz(state, 5, inputs=500)
    assert sorted(name.partition(" ")[0] for name in state.findings) == ["IndexError", "KeyError"]
    assert len(list((tmp_path / "found").iterdir())) == 2


def test_slow_parser_is_found(monkeypatch):
    """One that takes too long, and one that never ends."""
    monkeypatch.setattr(loop, "HANG_S", 0.2)

    def endless(data):
        while data:
            pass

    state = loop.State(Target(name="endless", parse=endless, seeds=lambda: [b""], refusals=(Exception,)))
    assert not loop.try_input(state, b"x")
    assert [name.partition(" ")[0] for name in state.findings] == ["Hang"]
    slow = Target(name="slow", parse=lambda _: sum(range(10**6)), seeds=lambda: [b""], slow_s=0.001)
    assert not loop.try_input(loop.State(slow), b"x")


def test_what_has_two_forms_is_found():
    """What a parser accepts must be what encoding it gives."""
    target = Target(name="two", parse=bytes.lower, seeds=lambda: [b"a"], again=lambda value: value)
    assert loop.try_input(loop.State(target), b"a")
    assert not loop.try_input(loop.State(target), b"A")
