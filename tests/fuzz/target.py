"""Targets: what takes bytes from anybody, and what it promises about them.

Of every input, a target either says by one of its own errors that it is none, or returns what was meant; nothing else
comes out, in bounded time and memory. What it returns can be used without a further look, and, where it has one form
only, encodes to the very input.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from respaldo.core.errors import Corruption
from tests.fuzz.mutate import LENGTH_MAX, Form, Mutator, Wrapping

SLOW_S = 2.0
"""So much processor time is a denial of service, of an input of 64 KiB at most."""
MEMORY_BYTES = 192 << 20
"""So much an input may take, as `respaldo.format.canonical` promises it; what was taken before counts for none."""
_KIB = 1024


class BrokenPromise(AssertionError):
    """Says what a target did that it promises not to do."""


def nothing(_: object) -> None:
    """Uses a value in no way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Is a parser, or what calls several.

    ``parse``: takes the bytes. ``seeds``: makes valid inputs. ``refusals``: its own errors. ``again``: encodes what it
    returned; None where many inputs mean the same. ``use``: does with what it returned what its readers do.
    ``modules``: whose literals an input may have to hold. ``slow_s``: more than this is too long. ``corpus_max``: so
    many inputs are kept, since each is tried by every run of the tests. ``length_max``: in bytes; of a pattern, say,
    most of the time goes into what nobody would write.
    """

    name: str
    parse: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    refusals: tuple[type[BaseException], ...] = (Corruption,)
    again: Callable[[object], bytes] | None = None
    use: Callable[[object], None] = nothing
    form: Form = Form.BYTES
    wrappings: Sequence[Wrapping] = ()
    modules: Sequence[str] = ()
    slow_s: float = SLOW_S
    corpus_max: int = 40
    length_max: int = LENGTH_MAX

    def mutator(self, tokens: Iterable[bytes | int] = ()) -> Mutator:
        """Returns what bends its inputs."""
        ordered = sorted(tokens, key=lambda token: (isinstance(token, int), token))
        return Mutator(form=self.form, wrappings=self.wrappings, tokens=ordered, length_max=self.length_max)

    def examine(self, data: bytes) -> bool:
        """Gives it an input; returns whether it was accepted. Raises `BrokenPromise`, or whatever leaked."""
        peak_before, begun = _peak_bytes(), time.process_time()
        try:
            value = self.parse(data)
        except self.refusals:
            accepted = False
        else:
            accepted = True
            self.use(value)
            if self.again is not None and self.again(value) != data:
                raise BrokenPromise("what was accepted has another form")
        taken_s, grown = time.process_time() - begun, _peak_bytes() - peak_before
        if taken_s > self.slow_s:
            raise BrokenPromise(f"{len(data)} bytes took more than {self.slow_s} s")
        if grown > MEMORY_BYTES:
            raise BrokenPromise(f"{len(data)} bytes took more than {MEMORY_BYTES >> 20} MiB")
        return accepted


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
