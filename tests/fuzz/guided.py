"""The same targets under atheris (pip install '.[fuzz]'), whose libFuzzer sees every comparison.

    python -m tests.fuzz.guided --seconds 60 --seed 1 TARGET

Half of the inputs it bends by itself, guided by what was compared with what; half are bent as the targets' own loop
does, behind their seals. Ends with the first finding, which lies where those of the loop lie.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["respaldo"], enable_loader_override=False):
    from tests.fuzz.loop import FOUND, HANG_S, guard, kept
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzzes one target; libFuzzer ends the process itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("target", choices=TARGETS)
    asked = parser.parse_args()
    target = TARGETS[asked.target]
    mutator = target.mutator()

    def bent(data: bytes, length_max: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(data, length_max))
        return mutator.bend(chance, data)[:length_max]

    def one_input(data: bytes) -> None:
        target.examine(bytes(data))

    FOUND.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate((*target.seeds(), *kept(target))):
            (Path(folder) / str(number)).write_bytes(data)
        options = [f"-max_total_time={max(1, round(asked.seconds))}", f"-seed={asked.seed}", f"-timeout={HANG_S}"]
        options += ["-max_len=65536", "-rss_limit_mb=4096", "-print_final_stats=1", "-verbosity=0"]
        options += [f"-artifact_prefix={FOUND}/{target.name}-", folder]
        guard()
        atheris.Setup([sys.argv[0], *options], one_input, custom_mutator=bent)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
