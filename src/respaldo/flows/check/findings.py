"""What a check found so far: damaged objects by name, and which rows of which packs are no use any more.

Bounded: bitmaps for rows, a limit on the paths that are kept, one finding an object.
"""

from __future__ import annotations

from respaldo.core.ids import PackName, SnapshotId, pack_object
from respaldo.flows.check.result import AFFECTED_KEPT, Affected, Damage

_REASONS_KEPT = 4


class Bits:
    """Is a set of small numbers, at a bit each."""

    __slots__ = ("_bits",)

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, number: int) -> None:
        """Puts a number in."""
        at = number >> 3
        if at >= len(self._bits):
            self._bits.extend(bytes(at + 1 - len(self._bits)))
        self._bits[at] |= 1 << (number & 7)

    def number(self) -> int:
        """Returns it as a number whose bit n says whether n is in it."""
        return int.from_bytes(self._bits, "little")

    def __contains__(self, number: int) -> bool:
        at = number >> 3
        return at < len(self._bits) and bool(self._bits[at] >> (number & 7) & 1)

    def __len__(self) -> int:
        return int.from_bytes(self._bits, "little").bit_count()


class Positions:
    """Is a set of (pack number, row)."""

    __slots__ = ("_packs",)

    def __init__(self) -> None:
        self._packs: dict[int, Bits] = {}

    def add(self, position: tuple[int, int]) -> None:
        """Puts a position in."""
        self._packs.setdefault(position[0], Bits()).add(position[1])

    def __contains__(self, position: tuple[int, int]) -> bool:
        bits = self._packs.get(position[0])
        return bits is not None and position[1] in bits


class Finding:
    """Is one damaged object, as far as it is known."""

    __slots__ = (
        "affected",
        "affected_count",
        "lost",
        "mendable",
        "missing",
        "name",
        "needed",
        "reasons",
        "rows",
        "spared",
        "unsaid",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.reasons: list[str] = []
        self.unsaid = 0
        self.rows = Bits()
        """The rows of a pack whose chunks are no use."""
        self.lost = Bits()
        """Those of them that a snapshot needs and that have no sound copy."""
        self.spared = Bits()
        """Those of them that a snapshot needs and that have one."""
        self.missing = 0
        """Chunks that a snapshot needs and that were in a pack that is gone."""
        self.needed = False
        self.mendable = False
        """Whether its parity gives its bytes back."""
        self.affected: list[Affected] = []
        self.affected_count = 0

    def because(self, reason: str) -> None:
        """Adds a reason; only the first few are kept."""
        if reason in self.reasons:
            return
        if len(self.reasons) < _REASONS_KEPT:
            self.reasons.append(reason)
        else:
            self.unsaid += 1

    def affects(self, snapshot: SnapshotId, path: bytes, *, below: bool = False) -> None:
        """Counts a path that it affects; names the first ones."""
        self.affected_count += 1
        if len(self.affected) < AFFECTED_KEPT:
            self.affected.append(Affected(snapshot=snapshot, path=path, below=below))

    def freeze(self) -> Damage:
        """Returns it as a value."""
        reason = "; ".join(self.reasons) + (f"; and {self.unsaid} more" if self.unsaid else "")
        return Damage(
            name=self.name,
            reason=reason,
            needed=self.needed or bool(self.affected_count or self.missing or len(self.lost) or len(self.spared)),
            chunks_lost=len(self.lost) + self.missing,
            chunks_spared=len(self.spared),
            affected=tuple(self.affected),
            affected_count=self.affected_count,
            mendable=self.mendable,
        )


class Findings:
    """Collects findings. One thread."""

    def __init__(self) -> None:
        self.by_name: dict[str, Finding] = {}
        self.by_pack: dict[int, Finding] = {}
        """Findings with rows that are no use, by the pack's number."""

    def add(self, name: str, reason: str) -> Finding:
        """Says what is wrong with an object."""
        finding = self.by_name.get(name)
        if finding is None:
            finding = self.by_name[name] = Finding(name)
        finding.because(reason)
        return finding

    def spoil(self, number: int, pack: PackName, rows: range, reason: str) -> None:
        """Says that some rows of a pack are no use."""
        finding = self.add(pack_object(pack), reason)
        self.by_pack[number] = finding
        for row in rows:
            finding.rows.add(row)

    def freeze(self) -> tuple[Damage, ...]:
        """Returns all as values, by name."""
        return tuple(self.by_name[name].freeze() for name in sorted(self.by_name))
