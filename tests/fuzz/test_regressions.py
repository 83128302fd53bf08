"""What fuzzers found once stays found, and the fuzzers themselves work."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz import parsers

KEPT = sorted(parsers.REGRESSIONS.glob("*-*"))


@pytest.mark.parametrize("path", KEPT, ids=[path.name for path in KEPT])
def test_what_broke_a_parser_once_is_refused_or_fine(path: Path):
    """The file's name begins with the parser's."""
    parsers.examine(path.name.partition("-")[0], path.read_bytes())


def test_mutations_repeat_themselves():
    """A seed names a run."""
    runs = [
        [
            parsers.mutate(chance, name, parsers.samples.CORPUS[name][0])
            for chance in [random.Random(5)]
            for name in parsers.NAMES * 5
        ]
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_broken_promise_is_found_and_kept(monkeypatch, tmp_path):
    """A parser that leaks another error fails the run, and its input is kept."""

    def leaky(data):
        raise KeyError(data)

    monkeypatch.setitem(parsers.samples.PARSERS, "marker", leaky)
    monkeypatch.setattr(parsers, "FOUND", tmp_path / "found")
    assert parsers.plain(0.2, ["marker"], 1) == 10
    assert any((tmp_path / "found").iterdir())
