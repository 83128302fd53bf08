"""The entry point: `--version` at once, everything else through `cli.run`.

Imports nothing heavy: what a script asks a hundred times an hour (`respaldo --version`) costs the start of Python
and no more.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from respaldo import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words in (["--version"], ["-V"]):
        sys.stdout.write(f"respaldo {__version__}\n")
        return 0
    from respaldo.cli.run import run  # start-up time: see above

    return run(words)


if __name__ == "__main__":
    sys.exit(main())
