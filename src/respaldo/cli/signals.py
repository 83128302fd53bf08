"""Signals: the first one asks a run to stop cleanly, the second one ends the process at once.

Outside a run (a passphrase is being typed, a listing printed) a signal ends the command where it stands.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from respaldo.core.errors import Interrupted
from respaldo.core.seams import Cancel

_STANDARD_ERROR = 2
_AGAIN_S = 0.01
_SHOW_CURSOR = b"\x1b[?25h\r\n"
"""A progress display hides it."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted(signal.Signals(number).name)


@contextlib.contextmanager
def stopping(*, for_good: bool) -> Iterator[None]:
    """Turns signals into `Interrupted`.

    ``for_good``: the process ends behind it, with a status that a late signal shall not change any more.
    """
    with _handled(_stop, for_good=for_good), _raised_again():
        yield


@contextlib.contextmanager
def _raised_again() -> Iterator[None]:
    """Raises `Interrupted` once more where it was swallowed: what runs as an object goes cannot raise anything.

    The command would go on, as if it had not been asked to end. Not at once: the same place may be next.
    """
    before = sys.unraisablehook
    standing: list[signal._HANDLER] = []

    def heed(what: sys.UnraisableHookArgs) -> None:
        lost = what.exc_value
        if not isinstance(lost, Interrupted):
            before(what)
            return

        def stop(_number: int, _frame: FrameType | None) -> NoReturn:
            raise Interrupted(lost.signal_name)

        with contextlib.suppress(ValueError):  # not the main thread
            standing.append(signal.signal(signal.SIGALRM, stop))
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)

    sys.unraisablehook = heed
    try:
        yield
    finally:
        sys.unraisablehook = before
        if standing:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, standing[0])


@contextlib.contextmanager
def cancelling() -> Iterator[Cancel]:
    """Turns the first signal into a request to stop, which the run heeds where it can; the second ends the process."""
    cancel = Cancel()

    def ask(number: int, _frame: FrameType | None) -> None:
        if cancel.requested:
            with contextlib.suppress(OSError):
                if os.isatty(_STANDARD_ERROR):
                    os.write(_STANDARD_ERROR, _SHOW_CURSOR)
            os._exit(Interrupted.exit_status)
        cancel.request(signal.Signals(number).name)
        with contextlib.suppress(OSError):
            os.write(_STANDARD_ERROR, b"\nstopping; once more to stop at once\n")

    with _handled(ask):
        yield cancel


@contextlib.contextmanager
def _handled(handler: signal._HANDLER, *, for_good: bool = False) -> Iterator[None]:
    before: dict[signal.Signals, signal._HANDLER] = {}
    with contextlib.suppress(ValueError):  # not the main thread: whoever runs us there handles signals
        for number in _SIGNALS:
            standing = signal.getsignal(number)
            if standing is signal.SIG_IGN and number == signal.SIGHUP:
                continue  # nohup
            before[number] = standing
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, standing in before.items():
            signal.signal(number, signal.SIG_IGN if for_good else standing)
