"""What a measurement is asked for, and what came of it. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from respaldo.core.errors import UsageError

SIZE_MIN_BYTES = 1 << 20
SIZE_MAX_BYTES = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """Says what is measured: at most ``size_bytes`` are restored, some ``sample_bytes`` go through each stage.

    ``name`` is the snapshot (or a part of it) that is restored. ``places`` are directories for what is restored: the
    first that has room is taken. ``files`` single files are restored, and as many waited for.
    """

    name: str = "latest"
    host: str = ""
    places: tuple[str, ...] = ()
    size_bytes: int = 256 << 20
    sample_bytes: int = 64 << 20
    files: int = 32
    runs: bool = True

    def __post_init__(self) -> None:
        for what, length in (("size", self.size_bytes), ("sample", self.sample_bytes)):
            if not SIZE_MIN_BYTES <= length <= SIZE_MAX_BYTES:
                raise UsageError(f"the {what} must be between 1 MiB and 1 TiB")

    @property
    def made_bytes(self) -> int:
        """How much data is made up for a snapshot."""
        return min(self.size_bytes, 64 << 20)

    @property
    def single_bytes(self) -> int:
        """Of a single file, at most so much is restored: all of them are at most as much as ``size_bytes``."""
        return min(4 << 20, self.size_bytes // max(self.files, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Is how long something took: of a disk, a stage, a run. ``cpu_ns``: user and system, 0 where nobody looked."""

    name: str
    length_bytes: int
    duration_ns: int
    cpu_ns: int = 0
    files: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Is a finished measurement.

    ``own_data``: whether the sample is the repository's content. ``disk``: sequential rates, ``read`` of the
    repository's packs (where it has any) and ``write`` at the scratch place; ``write beside`` at the scratch
    repository's, where that is another file system. ``restoring`` and ``storing``: stages in the order of the road,
    each alone on one thread. ``first_byte_ns``: how long each of some files was waited for, ascending. ``damaged``:
    how many blocks, files and objects turned out damaged.
    """

    own_data: bool
    sample_bytes: int
    disk: tuple[Timing, ...]
    restoring: tuple[Timing, ...]
    storing: tuple[Timing, ...]
    runs: tuple[Timing, ...]
    first_byte_ns: tuple[int, ...]
    snapshot: str
    place: str
    place_beside: str
    skipped: str
    damaged: int = 0
