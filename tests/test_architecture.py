"""The rules of the source that no linter knows: who may touch the outside, how long a module is, what it is called.

Which layer may import which is checked by import-linter, from the contracts in pyproject.toml.
"""

from __future__ import annotations

import ast
import builtins
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "respaldo"
MODULES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))

LINES_MAX = 400
BANNED_NAMES = {"helper", "helpers", "util", "utils", "common", "manager", "managers", "misc"}

ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv", "os.unsetenv"}
TERMINAL = {
    "print",
    "input",
    "getpass.getpass",
    "os.get_terminal_size",
    "os.isatty",
    "shutil.get_terminal_size",
    "sys.argv",
    "sys.exit",
    "sys.stderr",
    "sys.stdin",
    "sys.stdout",
}
HOME = {"os.path.expanduser", "os.path.expandvars", "pathlib.Path.home", "platformdirs"}
CLOCK = {
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
    "time.clock_gettime",
    "time.clock_gettime_ns",
    "time.monotonic",
    "time.monotonic_ns",
    "time.perf_counter",
    "time.perf_counter_ns",
    "time.time",
    "time.time_ns",
}
CHANCE = {"os.urandom", "os.getrandom", "random", "secrets", "uuid.uuid1", "uuid.uuid4"}


class Use(NamedTuple):
    """Is a place where a name from outside the module is used, or imported."""

    name: str
    line: int


@cache
def uses(text: str) -> tuple[Use, ...]:
    """Returns every imported or built-in name that a source text uses, aliases resolved: a parameter is neither."""
    aliases: dict[str, str] = {}
    found: dict[Use, None] = {}
    nodes = list(ast.walk(parsed(text)))
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                aliases[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
                found[Use(alias.name, node.lineno)] = None
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                found[Use(f"{node.module}.{alias.name}", node.lineno)] = None
    for node in nodes:
        name = dotted(node)
        first, _, rest = (name or "").partition(".")
        if first in aliases or first in vars(builtins):
            found[Use(".".join(filter(None, (aliases.get(first, first), rest))), node.lineno)] = None
    return tuple(found)


@cache
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


def dotted(node: ast.AST) -> str | None:
    """Returns `a.b.c` for the expression a.b.c, None for any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else None
    return None


def offences(text: str, banned: set[str]) -> list[Use]:
    """Returns the uses of banned names, or of anything in a banned module, in a source text."""
    return [use for use in uses(text) if use.name in banned or any(use.name.startswith(f"{name}.") for name in banned)]


def places(module: str, found: list[Use]) -> str:
    return f"src/respaldo/{module}: " + ", ".join(f"{use.name} (line {use.line})" for use in found)


@cache
def read(module: str) -> str:
    return (SOURCE / module).read_text("utf-8")


def outside_cli() -> list[str]:
    return [module for module in MODULES if not module.startswith("cli/")]


def test_modules_are_found():
    """The rules below are not kept by finding nothing to look at."""
    assert {"core/seams.py", "cli/main.py", "kernel/__init__.py"} <= set(MODULES)
    assert len(outside_cli()) > 200


def test_environment_terminal_and_home_are_left_to_cli():
    """The library reads no environment, writes to no terminal and knows no home directory: take it as an argument."""
    wrong = []
    for module in outside_cli():
        found = offences(read(module), ENVIRONMENT | TERMINAL | HOME)
        if module == "kernel/__init__.py":
            # Which kernel is at work is decided at import, before anybody could pass an argument.
            found = [use for use in found if use.name.partition(".get")[0] not in {"os", "os.environ"}]
            assert read(module).count("RESPALDO_") == read(module).count("RESPALDO_REQUIRE_KERNEL")
        wrong += [places(module, found)] if found else []
    assert wrong == []


def test_clock_and_chance_come_through_the_seams():
    """Nothing but core/seams.py reads a clock or draws randomness, so that a test can do both: pass them on."""
    found = {module: offences(read(module), CLOCK | CHANCE) for module in outside_cli() if module != "core/seams.py"}
    assert [places(module, uses) for module, uses in found.items() if uses] == []


def test_source_has_no_assert():
    """Integrity is never checked by a statement that -O removes: raise an error of core/errors."""
    lines = [
        (module, node.lineno)
        for module in MODULES
        for node in ast.walk(parsed(read(module)))
        if isinstance(node, ast.Assert)
    ]
    assert lines == []


def test_module_says_what_it_owns_and_is_short():
    """Each module says what it owns, and is short enough to be read at a sitting: split it."""
    assert [module for module in MODULES if not ast.get_docstring(parsed(read(module)))] == []
    lines = {module: read(module).count("\n") for module in MODULES}
    assert {module: count for module, count in lines.items() if count > LINES_MAX} == {}


def test_module_is_named_after_what_it_holds():
    """No module is a drawer for what found no other place."""
    words = {
        module: {word for part in Path(module).with_suffix("").parts for word in part.strip("_").split("_")}
        for module in MODULES
    }
    assert [module for module in MODULES if words[module] & BANNED_NAMES] == []


def test_core_imports_the_standard_library_only():
    """What every layer imports drags nothing in; import-linter's list could only name what is known today."""
    allowed = sys.stdlib_module_names | {"respaldo"}
    wrong = []
    for module in (module for module in MODULES if module.startswith("core/")):
        for node in ast.walk(parsed(read(module))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            wrong += [(module, node.lineno, name) for name in names if name.partition(".")[0] not in allowed]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import os\nos.environ['X']", ["os.environ"]),
        ("import os as o\no.environ.get('X')", ["os.environ", "os.environ.get"]),
        ("def f():\n    from os import getenv as g\n    return g('X')", ["os.getenv"]),
        ("import time as t\nx = t.time", ["time.time"]),
        ("from datetime import datetime\ndatetime.now()", ["datetime.datetime.now"]),
        ("import datetime as dt\ndt.datetime.now(dt.UTC)", ["datetime.datetime.now"]),
        ("print('x')", ["print"]),
        ("import secrets", ["secrets"]),
        ("class A:\n    time = 1\n    def print(self): self.print(self.time.time)", []),
        ("def f(random): return random(32)", []),
        ("'os.environ'  # print()", []),
    ],
)
def test_offences_are_found_under_any_name(text, names):
    """The rules above see through aliases and function-level imports, and leave alone what merely looks alike."""
    found = {use.name for use in offences(text, ENVIRONMENT | TERMINAL | CLOCK | CHANCE)}
    assert found == set(names)
