"""Nothing reads what others wrote without a fuzzer: whoever adds a parser adds a target."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from tests.fuzz.targets import TARGETS

SOURCE = Path(__file__).parents[2] / "src" / "respaldo"
PARSER = re.compile(
    r"(parse|unpack|unpacked|decode|unclose|unbuild)(_\w+)?|leaf_as_encoded|read_rules|open_(with|block|box)"
)
"""How functions are called that read bytes or words of others."""
SLOW = {"area", "author", "storage"}


def parsers(path: Path) -> set[str]:
    """Returns the public functions of a module that read what others wrote, as `module.function`."""
    name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    tree = ast.parse(path.read_text())
    return {
        f"{name}.{node.name}" for node in tree.body if isinstance(node, ast.FunctionDef) and PARSER.fullmatch(node.name)
    }


def called(target) -> set[str]:
    """Returns which functions of the project a target calls for what a writer makes."""
    found = set()

    def note(frame, event, _):
        if event == "call" and frame.f_globals.get("__name__", "").startswith("respaldo."):
            found.add(f"{frame.f_globals['__name__'].partition('.')[2]}.{frame.f_code.co_name}")

    seeds = list(target.seeds())
    sys.setprofile(note)
    try:
        for data in seeds:
            target.examine(data)
    finally:
        sys.setprofile(None)
    return found


def test_every_parser_has_a_target():
    """Whatever is called a parser is called by a target, with an input that a writer makes."""
    reached = set().union(*(called(target) for name, target in TARGETS.items() if name not in SLOW))
    every = set().union(*map(parsers, SOURCE.rglob("*.py")))
    assert len(every) > 40
    assert sorted(every - reached) == []


def test_parser_that_has_no_target_is_missed(tmp_path, monkeypatch):
    """A module that is added is looked at."""
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    (tmp_path / "fresh.py").write_text(
        "def parse_fresh(data):\n    return data\n\n\ndef show(data):\n    return data\n"
    )
    assert parsers(tmp_path / "fresh.py") == {"fresh.parse_fresh"}
