"""Medians and ratios of what was measured.

A ratio is the median of the ratios within each run, in which both were measured one after the other, and not the ratio
of two medians: a run that the machine slowed down keeps its sense.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benches.course import STEPS, Results, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Is what a table's row and a chart's bar show: medians of all runs. ``ratio`` is that of wall to the limit's."""

    data: str
    step: str
    tool: str
    is_limit: bool
    runs: int
    wall_s: float
    cpu_s: float
    ratio: float | None
    anonymous_bytes: int | None
    resident_bytes: int | None
    stored_bytes: int
    added_bytes: int | None
    """What a backup added to the repository; of the first, all that it holds."""


def figures(results: Results) -> list[Figure]:
    """Returns a figure for each set, step and tool, in this order, each step's limit first."""
    grouped: dict[tuple[str, str, str], list[Sample]] = {}
    for sample in results.samples:
        grouped.setdefault((sample.data, sample.step, sample.tool), []).append(sample)
    sets = list(dict.fromkeys(sample.data for sample in results.samples))
    order = sorted(grouped, key=lambda key: (sets.index(key[0]), STEPS.index(key[1]), not grouped[key][0].is_limit))
    return [_figure(grouped[key], results.samples) for key in order]


def _figure(samples: Sequence[Sample], everything: Sequence[Sample]) -> Figure:
    first = samples[0]
    return Figure(
        data=first.data,
        step=first.step,
        tool=first.tool,
        is_limit=first.is_limit,
        runs=len(samples),
        wall_s=statistics.median(sample.usage.wall_s for sample in samples),
        cpu_s=statistics.median(sample.usage.cpu_s for sample in samples),
        ratio=None if first.is_limit else _ratio(samples, everything),
        anonymous_bytes=_peak([sample.usage.anonymous_bytes for sample in samples]),
        resident_bytes=_peak([sample.usage.resident_bytes for sample in samples]),
        stored_bytes=round(statistics.median(sample.stored_bytes for sample in samples)),
        added_bytes=None if first.is_limit else _added(samples, everything),
    )


def _ratio(samples: Sequence[Sample], everything: Sequence[Sample]) -> float | None:
    ratios = []
    for sample in samples:
        # Where the tools went one after the other, each has a limit of its own: the last before it.
        before = everything[: everything.index(sample)]
        limits = [item.usage.wall_s for item in before if item.is_limit and _same(item, sample, sample.step)]
        if limits:
            ratios.append(sample.usage.wall_s / limits[-1])
    return statistics.median(ratios) if ratios else None


def _added(samples: Sequence[Sample], everything: Sequence[Sample]) -> int | None:
    previous = {"fresh": None, "again": "fresh", "next": "again"}
    if samples[0].step not in previous:
        return None
    step = previous[samples[0].step]
    if step is None:
        return round(statistics.median(sample.stored_bytes for sample in samples))
    added = [
        sample.stored_bytes - item.stored_bytes
        for sample in samples
        for item in everything
        if item.tool == sample.tool and _same(item, sample, step)
    ]
    return round(statistics.median(added)) if added else None


def _same(item: Sample, sample: Sample, step: str) -> bool:
    return item.data == sample.data and item.run == sample.run and item.step == step


def _peak(values: Sequence[int | None]) -> int | None:
    """Returns the highest: of memory the worst case counts, and a sample may miss it."""
    return max((value for value in values if value is not None), default=None)


def as_document(found: Sequence[Figure]) -> list[dict[str, object]]:
    """Returns the figures as JSON has them."""
    return [asdict(figure) for figure in found]
