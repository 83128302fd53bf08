"""Probes see every branch and change nothing."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.fuzz import edges

SOURCE = '''
def judge(data):
    """Says what data is."""
    if len(data) > 1 and data[0] == 7 and data[1] == 9:
        return "both"
    match data:
        case [1, *_]:
            kind = "one"
        case _ if data and (data[0] or len(data) > 3):
            kind = "more"
        case _:
            kind = "none"
    for number in data:
        while number > 100:
            number -= 100
    try:
        return kind + ("!" if data[2] else "?")
    except IndexError:
        return kind
'''


def probed():
    prober = edges.Prober(0)
    taken = bytearray(100)
    tree = ast.fix_missing_locations(prober.visit(ast.parse(SOURCE)))
    place = {"__taken__": taken, "__take__": taken.__setitem__}
    exec(compile(tree, "x", "exec"), place)  # noqa: S102 - the very thing that is tested
    return place["judge"], taken, prober


@pytest.mark.parametrize("data", [[], [1], [7], [7, 8], [7, 9], [0, 0, 0], [0, 0, 0, 200], [1, 2, 3], [300]])
def test_probes_change_nothing(data):
    """What a function returns does not depend on whether it is watched."""
    place: dict = {}
    exec(SOURCE, place)  # noqa: S102 - the very thing that is tested
    judge, taken, _ = probed()
    assert judge(data) == place["judge"](data)
    assert taken.count(1)


def test_each_part_of_a_condition_is_a_branch():
    """Who gets past the first part of a condition has got further."""
    judge, taken, _ = probed()
    seen = []
    for data in ([], [0, 0], [7, 0], [7, 9]):
        judge(data)
        seen.append(taken.count(1))
    assert seen == sorted(set(seen))


def test_literals_are_collected():
    """What an input has to hold is known to whoever bends it."""
    _, _, prober = probed()
    assert {7, 9, 100, b"both", b"none"} <= prober.literals


def test_probes_come_before_what_they_watch():
    """Whoever installs them too late hears of it; whoever does in time sees the project."""
    late = "import respaldo.core.errors; from tests.fuzz import edges; edges.install()"
    assert subprocess.run([sys.executable, "-c", late], check=False, capture_output=True).returncode == 1
    code = "from tests.fuzz import edges; edges.install(); import respaldo.format.canonical as c; n = edges.count(); "
    code += "c.unpack(c.pack([1]), 'x'); print(n < edges.count(), len(edges.PROBES))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("True")
