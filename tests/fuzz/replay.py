"""Gives targets the inputs of files again, and shows what comes out.

    python -m tests.fuzz.replay FILE…

The target is what a file's name begins with; of a corpus, its folder's.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.fuzz.loop import CORPUS, State, guard, target_of, try_input
from tests.fuzz.targets import TARGETS


def main(paths: list[str]) -> int:
    """Replays inputs; 1 where one breaks a promise."""
    guard()
    broke = False
    for path in map(Path, paths):
        name = path.parent.name if path.resolve().parent.parent == CORPUS else target_of(path)
        if name not in TARGETS:
            print(f"{path}: there is no target of this name", file=sys.stderr)
            return 2
        state = State(TARGETS[name])
        sound = try_input(state, path.read_bytes())
        print(f"{path}: {name} {('refused it', 'accepted it')[state.accepted] if sound else 'broke a promise'}")
        broke |= not sound
    return int(broke)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
