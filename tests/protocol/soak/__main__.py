"""The soak: commands of the real program on one repository, for minutes, while others are stopped, or killed with -9.

Writers, one of them a client that cannot read, collectors, restorers and others (`writers`, `readers`), each of
them one command after another, some of them with caches and states in common. Now and then all markers go, as if a day
had passed: then collectors heed nobody. In the end everything is verified and restored, what was left over must go, and
a second repository, into which was copied meanwhile, is verified, too.

Called as ``python -m tests.protocol.soak SECONDS [SEED [FOLDER]]``; prints what it did as JSON. A seed is no schedule:
it says what is done, stopped and killed, not when.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.protocol.soak.ending import Ending
from tests.protocol.soak.run import Soak


def main() -> None:
    """Runs; the folder stays where something is wrong."""
    seconds = float(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp(prefix="respaldo-soak-", dir=where))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"soaking for {seconds:.0f} s, seed {seed}, in {folder}", file=sys.stderr)
    soak = Soak(folder, seed)
    try:
        soak.soak(seconds)
        found = Ending(soak).check()
    finally:
        for task in soak.tasks.values():
            task.process.kill()
        if soak.mount is not None:
            soak.mount.terminate()
            soak.mount.wait()
    print(json.dumps({"seed": seed, "seconds": seconds, **found}, indent=1))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
