"""What is said of parity, and what came of it. Values only."""

from __future__ import annotations

import re
from dataclasses import dataclass

from respaldo.core.errors import UsageError
from respaldo.format.config import PARITY_MAX

_SHARE = re.compile(r"(\d{1,2})(?:\.(\d))?%", re.ASCII)
_DAMAGED = 4


def parse_share(text: str) -> int:
    """Returns a share in thousandths that a user's words mean: ``5%``, ``2.5%``; raises `UsageError`."""
    found = _SHARE.fullmatch(text.strip())
    share = int(found[1]) * 10 + int(found[2] or 0) if found else 0
    if not 0 < share <= PARITY_MAX:
        raise UsageError(f"not a share of parity: {text}", hint="write 5%, or 2.5%; from 0.1% to 50%")
    return share


def show_share(share: int) -> str:
    """Returns a share in thousandths for a person."""
    return f"{share // 10}.{share % 10}%" if share % 10 else f"{share // 10}%"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityStatus:
    """Is how things stand. ``share`` in thousandths, 0 where parity is off; ``able``: whether the library is here."""

    share: int
    able: bool
    objects: int
    object_bytes: int
    sidecars: int
    sidecar_bytes: int
    missing: int
    missing_bytes: int
    orphans: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityChange:
    """Is what `switch_on` or `switch_off` did. ``unsound`` names damaged objects, of which no parity can be made."""

    share: int
    made: int = 0
    made_bytes: int = 0
    removed: int = 0
    unsound: tuple[str, ...] = ()

    @property
    def exit_status(self) -> int:
        """0; 4 where an object is damaged."""
        return _DAMAGED if self.unsound else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """Is a damaged object: what was wrong with it, whether it is mended, and where the damaged one was copied to."""

    name: str
    reason: str
    mended: bool
    aside: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MendResult:
    """Is what came of looking at every object. ``dry_run``: nothing was changed, and ``mended`` says what could be."""

    objects: int
    read_bytes: int
    damaged: tuple[Mended, ...]
    dry_run: bool = False

    @property
    def left(self) -> tuple[Mended, ...]:
        """What is damaged and cannot be mended."""
        return tuple(item for item in self.damaged if not item.mended)

    @property
    def exit_status(self) -> int:
        """0 where all is sound now; 4 where damage is left, or would be mended by a run that is not dry."""
        return _DAMAGED if self.left or (self.dry_run and self.damaged) else 0
