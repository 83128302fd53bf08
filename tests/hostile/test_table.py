"""The table of known bugs: no line without what tries it, nothing that tries something and is in no line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.hostile import every
from tests.hostile.scenario import SCENARIOS

TOP = Path(__file__).parents[2]
LINES = re.findall(r"^\| (.+?) \| (.+) \|$", Path(__file__).with_name("README.md").read_text("utf-8"), re.MULTILINE)[2:]
NAMED = {known: re.findall(r"`(.+?)`", tried) for known, tried in LINES}


@pytest.mark.parametrize("known", NAMED)
def test_every_known_bug_is_tried(known):
    """By scenarios that say so themselves, or by tests that are there."""
    names = NAMED[known]
    assert names
    short = known.partition(":")[0]
    for name in names:
        if "/" in name:
            path, _, function = name.partition("::")
            assert f"def {function}" in (TOP / path).read_text("utf-8")
        else:
            assert short in SCENARIOS[name].known, f"{name} does not say that it is about {short}"


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_is_in_the_table_and_asserts_something(name):
    """A repository alone proves nothing: statuses, what is there afterwards, or a look of its own."""
    scenario = SCENARIOS[name]
    lines = {known.partition(":")[0] for known, names in NAMED.items() if name in names}
    assert lines == set(scenario.known)
    assert scenario.make.__doc__
    assert scenario.statuses or scenario.there is not None or scenario.look or scenario.endless
    assert every.SCENARIOS is SCENARIOS
