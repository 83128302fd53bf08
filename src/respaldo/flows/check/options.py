"""What a check is asked for: how deep it looks, and how much of the packs it reads. Values only."""

from __future__ import annotations

import re
from dataclasses import dataclass

from respaldo.core.errors import UsageError

_SIZE_BYTES = {"B": 1} | {
    letter + unit: base**power for power, letter in enumerate("KMGT", 1) for unit, base in (("iB", 1024), ("B", 1000))
}
_DURATION_S = {"s": 1, "m": 60, "h": 3600}
_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)(%|[a-zA-Z]+)", re.ASCII)
_PART = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)
_HINT = "write 5% (of all bytes), 2/7 (the second of seven parts), 10GiB, or 30m (minutes; also s and h)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """Says which packs are read: exactly one of its fields is set.

    ``share``: of the bytes in packs, above 0, at most 1. ``part``: (n, m), the packs whose name modulo m is n − 1.
    ``length_bytes`` and ``duration_s``: as many as fit. All but parts begin with what was verified longest ago, and
    take at least one pack.
    """

    share: float = 0.0
    part: tuple[int, int] | None = None
    length_bytes: int = 0
    duration_s: float = 0.0

    def __post_init__(self) -> None:
        if [bool(self.share), self.part is not None, bool(self.length_bytes), bool(self.duration_s)].count(True) != 1:
            raise UsageError("a subset is a share, a part, a size or a time", hint=_HINT)
        if not 0 <= self.share <= 1 or self.length_bytes < 0 or self.duration_s < 0:
            raise UsageError("a subset cannot be less than nothing or more than all", hint=_HINT)
        if self.part is not None and not 1 <= self.part[0] <= self.part[1]:
            raise UsageError(f"there is no part {self.part[0]} of {self.part[1]}", hint=_HINT)


def parse_subset(text: str) -> Subset:
    """Returns the subset that a user's words mean; raises `UsageError`."""
    part = _PART.fullmatch(text)
    if part is not None:
        return Subset(part=(int(part[1]), int(part[2])))
    found = _NUMBER.fullmatch(text)
    if found is not None and float(found[1]) > 0:
        number, unit = float(found[1]), found[2]
        if unit == "%":
            return Subset(share=number / 100)
        if unit in _SIZE_BYTES:
            return Subset(length_bytes=max(1, int(number * _SIZE_BYTES[unit])))
        if unit in _DURATION_S:
            return Subset(duration_s=number * _DURATION_S[unit])
    raise UsageError(f"not a subset: {text}", hint=_HINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """Says how deep a check looks: at structure always, with ``read_data`` or a ``subset`` at packs' bytes too.

    ``remember``: whether the repository is to remember which snapshots were read whole, where it can be written to;
    ``checksums``: whether the SHA-256 of files is computed, too, where ``read_data`` brings their content anyway;
    ``all_checksums``: of every file, whatever has to be read once more for it. The check itself writes nothing.
    """

    read_data: bool = False
    subset: Subset | None = None
    remember: bool = False
    checksums: bool = False
    all_checksums: bool = False

    @property
    def reads_data(self) -> bool:
        """Whether packs are read whole."""
        return self.read_data or self.subset is not None

    @property
    def computes_checksums(self) -> bool:
        """Whether the SHA-256 of files is computed."""
        return self.read_data and self.subset is None and (self.checksums or self.all_checksums)
