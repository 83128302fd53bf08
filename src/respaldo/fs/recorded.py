"""Options that a snapshot records because they decided what it left out, read back: its author may mean ill.

Each letter of a pattern may cost a kilobyte and some microseconds, so that they are taken only as far as anybody writes
them. Where they are not, nobody knows what was left out, which is an error and never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from respaldo.core.errors import Refused
from respaldo.fs.match import Rules

LETTERS_MAX = 1 << 17
_EXCLUDE, _LARGER = "exclude=", "exclude-larger-than="
_SIZE = re.compile(r"\d{1,19}", re.ASCII)


def recorded_rules(recorded: Sequence[str]) -> Rules:
    """Returns the patterns by which a snapshot was made; raises `Refused` where they are longer than is taken."""
    patterns = [option.removeprefix(_EXCLUDE) for option in recorded if option.startswith(_EXCLUDE)]
    if sum(map(len, patterns)) > LETTERS_MAX:
        raise Refused(
            f"the snapshot records patterns of more than {LETTERS_MAX:,} letters; what it left out cannot be told",
            hint="restore it without --delete; compare it with another snapshot",
        )
    return Rules(patterns)


def recorded_limit(recorded: Sequence[str]) -> int:
    """Returns the size in bytes above which files were left out of a snapshot, 0 for none."""
    larger = [option.removeprefix(_LARGER) for option in recorded if option.startswith(_LARGER)]
    return min((int(limit) for limit in larger if _SIZE.fullmatch(limit)), default=0)
