"""The entry point: `--version` at once, everything else through `cli.run`.

Imports nothing heavy: what a script asks a hundred times an hour (`respaldo --version`) costs the start of Python
and no more.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from respaldo import __version__

_OBJECTS_BETWEEN_COLLECTIONS = 100_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    _open_standard_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words in (["--version"], ["-V"]):
        try:
            sys.stdout.write(f"respaldo {__version__}\n")
            sys.stdout.flush()
        except OSError as error:
            sys.stderr.write(f"error: cannot write the output: {error.strerror}\n")
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        return 0
    if arguments is None:
        # Importing makes a hundred thousand objects that stay, and by default every seven hundred are looked through.
        gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
        if not sys.warnoptions:
            warnings.simplefilter("ignore")  # they are for whoever writes the program
        # Until commands stop cleanly, Ctrl-C ends the process as it ends any other: a trace of imports helps nobody.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    from respaldo.cli.run import run  # start-up time: see above

    return run(words, for_good=arguments is None)


def start() -> None:
    """Is the program: runs the command line and ends the process.

    At once: taking apart object by object what importing has made takes a twentieth to a tenth of a short command. As
    ever where other threads still run, or what was printed cannot be written.
    """
    status = main()
    threading = sys.modules.get("threading")
    if threading is None or threading.active_count() == 1:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            sys.exit(status)
        atexit._run_exitfuncs()  # noqa: SLF001 - there is no other way to call what libraries have left
        os._exit(status)
    sys.exit(status)


def _open_standard_streams() -> None:
    """Puts /dev/null where standard input, output or error was closed.

    The next file that is opened would take its number, and a message would be written into a repository. What was
    closed stays of no use: reading or writing it fails, lest nothing be backed up as if it were all, or content go
    nowhere as if it were read. Messages may.
    """
    for fd, name, mode, how in (
        (0, "stdin", "r", os.O_WRONLY),
        (1, "stdout", "w", os.O_RDONLY),
        (2, "stderr", "w", os.O_RDWR),
    ):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, how)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115 - for as long as the program runs


if __name__ == "__main__":
    start()
