"""What a new snapshot is called: its kind, its label or version, the tags of a milestone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import Bump, Changes

KINDS = ("snapshot", "full", "incremental")
MILESTONE = "milestone"
"""The tag that all milestones have, for policies to keep."""
F = TypeVar("F", bound=Callable[..., Any])
_OPTIONS = (
    click.option(
        "--kind",
        type=click.Choice(KINDS),
        default=None,
        help="Its kind, a name for views and policies. Without it: the first of a week is a snapshot, the first of a "
        "day full, all others incremental.",
    ),
    click.option(
        "--minor", is_flag=True, help="Give it the next minor version (v1.3.0), not just the next patch (v1.2.8)."
    ),
    click.option("--major", is_flag=True, help="Give it the next major version (v2.0.0)."),
    click.option(
        "--milestone",
        default="",
        metavar="TEXT",
        help="Make it a milestone: its kind is full, its tags are milestone and TEXT.",
    ),
    click.option(
        "--label", default="", metavar="TEXT", help="Call it so, instead of by its version and time; it answers to it."
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """Says what a snapshot is to be called; empty is for the rules to decide."""

    kind: str
    label: str
    bump: Bump
    tags: tuple[str, ...]


def calling_options(function: F) -> F:
    """Adds the options."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def called_as(given: Mapping[str, Any]) -> Called:
    """Returns what the options say; raises `UsageError` where they contradict one another."""
    from respaldo.api import Bump, is_reserved  # start-up time

    label, kind, milestone = given["label"], given["kind"] or "", given["milestone"].strip()
    if label == "latest" or label.startswith(("latest:", "latest~")) or ":/" in label:
        raise UsageError(f"a snapshot cannot be labelled {label!r}", hint='":/" and "latest" mean something in names')
    if is_reserved(label):
        raise UsageError(
            f"a snapshot cannot be labelled {label!r}", hint="such labels are given by rule; use --minor or --major"
        )
    if given["minor"] + given["major"] + bool(label) > 1:
        raise UsageError("--label, --minor and --major exclude one another")
    if given["milestone"] and not milestone:
        raise UsageError("--milestone needs a text")
    if milestone and kind not in {"", "full"}:
        raise UsageError(f"a milestone is full, not {kind}")
    return Called(
        kind="full" if milestone else kind,
        label=label,
        bump=Bump.MAJOR if given["major"] else Bump.MINOR if given["minor"] else Bump.PATCH,
        tags=(MILESTONE, milestone) if milestone else (),
    )


def changes_fields(changes: Changes | None) -> dict[str, int] | None:
    """Returns counts of what changed, for JSON."""
    if changes is None:
        return None
    return {"added": changes.added, "changed": changes.changed, "removed": changes.removed}
