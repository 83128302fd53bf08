"""What a rewriting is asked for, and what came of it. Values only."""

from __future__ import annotations

from dataclasses import dataclass, replace

from respaldo.core.errors import Corruption, UsageError
from respaldo.core.ids import SnapshotId
from respaldo.format.snapshot import ITEMS_MAX, Manifest, parse_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteOptions:
    """Says what new snapshots leave out of old ones, and what they say otherwise of themselves.

    ``exclude`` are patterns as of a backup, relative to each source; ``exclude_larger_bytes`` 0 means no limit. Of the
    texts and the time, None leaves what is there. ``program`` is who rewrites.
    """

    exclude: tuple[str, ...] = ()
    exclude_larger_bytes: int = 0
    host: str | None = None
    user: str | None = None
    kind: str | None = None
    label: str | None = None
    reason: str | None = None
    add_tags: tuple[str, ...] = ()
    remove_tags: tuple[str, ...] = ()
    time_ns: int | None = None
    program: str = ""
    dry_run: bool = False

    @property
    def leaves_out(self) -> bool:
        """Whether trees are to be gone through."""
        return bool(self.exclude or self.exclude_larger_bytes)

    def described(self, manifest: Manifest) -> Manifest:
        """Returns what a snapshot says of itself afterwards, but for what is in it.

        Raises `UsageError` where no manifest could hold that: before anything is done.
        """
        tags = [tag for tag in manifest.tags if tag not in self.remove_tags]
        fresh = replace(
            manifest,
            host=manifest.host if self.host is None else self.host,
            user=manifest.user if self.user is None else self.user,
            kind=manifest.kind if self.kind is None else self.kind,
            label=manifest.label if self.label is None else self.label,
            reason=manifest.reason if self.reason is None else self.reason,
            tags=tuple(dict.fromkeys([*tags, *self.add_tags])),
            time_ns=manifest.time_ns if self.time_ns is None else self.time_ns,
            rules=joined_rules(manifest.rules, self),
        )
        try:
            readable = len(fresh.tags) <= ITEMS_MAX and parse_manifest(fresh.encode(), "manifest") == fresh
        except (Corruption, OverflowError):
            readable = False
        if not readable:
            raise UsageError("a snapshot cannot record that: it is too long, too much, or a time out of bounds")
        return fresh


def joined_rules(old: tuple[str, ...], options: RewriteOptions) -> tuple[str, ...]:
    """Returns rules by which is left out what the old ones left out, and what the new ones do.

    Whoever restores with ``--delete`` spares by them what was never stored: where both take something back, which one
    list cannot say of two, they rather leave out too much.
    """
    fresh = tuple(f"exclude={pattern}" for pattern in options.exclude)
    others = tuple(rule for rule in old if not rule.startswith("exclude="))
    before = tuple(rule for rule in old if rule.startswith("exclude="))
    if options.exclude_larger_bytes:
        others = (*others, f"exclude-larger-than={options.exclude_larger_bytes}")
    if not any(map(_takes_back, fresh)) or not before:
        return (*before, *fresh, *others)
    if not any(map(_takes_back, before)):
        return (*fresh, *before, *others)
    return (*before, *(rule for rule in fresh if not _takes_back(rule)), *others)


def _takes_back(rule: str) -> bool:
    return rule.startswith("exclude=!")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """Is what became of one snapshot.

    ``manifest``: of the new one, or that it would have; None where the old one was ``forgotten`` meanwhile.
    ``snapshot``: the new one, None of a dry run and where there was nothing to change. ``lost``: directories that could
    not be read, so that nothing below them was left out.
    """

    old: SnapshotId
    before: Manifest | None = None
    manifest: Manifest | None = None
    snapshot: SnapshotId | None = None
    lost: tuple[bytes, ...] = ()

    @property
    def forgotten(self) -> bool:
        """Whether the old one was forgotten before the new one was there."""
        return self.manifest is None

    @property
    def changed(self) -> bool:
        """Whether anything is to be changed."""
        return self.manifest is not None and self.manifest != self.before

    def less(self, figure: str) -> int:
        """Returns by how much a figure of what is in it became less."""
        if self.manifest is None or self.before is None:
            return 0
        return max(0, int(getattr(self.before.figures, figure)) - int(getattr(self.manifest.figures, figure)))
