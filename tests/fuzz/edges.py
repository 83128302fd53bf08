"""Which branches of the project's code were taken: probes put into its modules as they are imported.

A probe is one store into an array, at the head of every block, of every function, and of every operand that another one
decides about, so that a fuzzer sees which part of a long condition an input got past. What is watched takes two or
three times as long. Must be installed before anything of the project is imported; imports nothing of it.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import CodeType, ModuleType

PACKAGE = "respaldo"
PROBES_MAX = 1 << 15
TAKEN = bytearray(PROBES_MAX)
"""One byte a probe: whether it was passed."""
_TOKEN_BYTES_MAX = 40


class Prober(ast.NodeTransformer):
    """Puts probes into a module, and collects what it compares with: its numbers, texts and bytes."""

    def __init__(self, first: int) -> None:
        self.next = first
        self.literals: set[bytes | int] = set()

    def _number(self) -> ast.Constant:
        number, self.next = self.next, self.next + 1
        return ast.Constant(number)

    def _statement(self) -> ast.stmt:
        taken = ast.Subscript(ast.Name("__taken__", ast.Load()), self._number(), ast.Store())
        return ast.Assign([taken], ast.Constant(1))

    def _before(self, value: ast.expr) -> ast.expr:
        """Returns an expression with a probe before it; the probe's value is None, so that the other one counts."""
        passed = ast.Call(ast.Name("__take__", ast.Load()), [self._number(), ast.Constant(1)], [])
        return ast.BoolOp(ast.Or(), [passed, value])

    def _block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        documented = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
        return [*body[:documented], self._statement(), *body[documented:]]

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ExceptHandler() | ast.match_case():
                node.body = self._block(node.body)
            case ast.If() | ast.For() | ast.While():
                node.body = self._block(node.body)
                if node.orelse or isinstance(node, ast.If):
                    node.orelse = [self._statement(), *node.orelse]
            case ast.BoolOp():
                node.values[1:] = [self._before(value) for value in node.values[1:]]
            case ast.IfExp():
                node.body, node.orelse = self._before(node.body), self._before(node.orelse)
            case ast.Constant(str(text)) if 0 < len(text) <= _TOKEN_BYTES_MAX:
                self.literals.add(text.encode("utf-8", "surrogatepass"))
            case ast.Constant(bytes(text)) if 0 < len(text) <= _TOKEN_BYTES_MAX:
                self.literals.add(text)
            case ast.Constant(int(number)) if not isinstance(number, bool) and -(1 << 63) <= number < 1 << 64:
                self.literals.add(number)
        return node


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles with probes, and takes nothing from a cache nor leaves anything in one."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        prober = Prober(sum(PROBES.values()))
        tree = ast.fix_missing_locations(prober.visit(ast.parse(self.get_data(path), path)))
        PROBES[fullname] = prober.next - sum(PROBES.values())
        if prober.next > PROBES_MAX:
            raise ImportError(f"more than {PROBES_MAX} probes")
        LITERALS[fullname] = frozenset(prober.literals)
        return compile(tree, path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__.update(__taken__=TAKEN, __take__=TAKEN.__setitem__)
        super().exec_module(module)


PROBES: dict[str, int] = {}
"""How many probes a module has, by its name."""
LITERALS: dict[str, frozenset[bytes | int]] = {}
"""What is written in a module, by its name: what an input has to hold to get on is often among it."""


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != PACKAGE and not fullname.startswith(PACKAGE + "."):
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if isinstance(spec.loader, importlib.machinery.SourceFileLoader) and spec.origin:
                    spec.loader = _Loader(fullname, spec.origin)
                return spec
        return None


def install() -> None:
    """Puts probes into whatever of the project is imported from now on."""
    early = [name for name in sys.modules if name == PACKAGE or name.startswith(PACKAGE + ".")]
    if early:
        raise RuntimeError(f"imported before there were probes: {', '.join(early)}")
    sys.meta_path.insert(0, _Finder())


def count() -> int:
    """Returns how many probes were passed since `forget`."""
    return TAKEN.count(1, 0, sum(PROBES.values()))


def taken() -> int:
    """Returns which probes were passed since `forget`, a byte each."""
    return int.from_bytes(TAKEN, "little")


def forget() -> None:
    """Begins anew."""
    TAKEN[:] = bytes(PROBES_MAX)
