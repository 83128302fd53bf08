"""A measurement as a chart in SVG: shares of the stages of both roads, and whole runs beside the disk.

Readable on light and on dark ground, without scripts and fonts of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from respaldo.cli import show

if TYPE_CHECKING:
    from respaldo.api import Bench, Timing

COLOURS = ("#0f766e", "#d97706", "#6366f1", "#be185d", "#64748b")
WIDTH, LEFT, RIGHT = 760, 170, 130
BAR, STEP, BETWEEN = 18, 24, 30
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1e293b}.soft{fill:#64748b;font-size:11px}.head{font-weight:600}"
    ".ground{fill:#ffffff}"
    "@media(prefers-color-scheme:dark){text{fill:#e2e8f0}.soft{fill:#94a3b8}.ground{fill:#0d1117}}"
)


def draw(bench: Bench, title: str) -> str:
    """Returns the chart."""
    parts = [_text(16, 24, title, "head")]
    y = 52.0
    for heading, stages in (("restoring, one thread", bench.restoring), ("storing, one thread", bench.storing)):
        if stages:
            parts += _stack(heading, stages, y)
            y += 2 * BETWEEN + BAR
    parts.append(_text(16, y, "speed", "head"))
    y += 10
    items = [*bench.disk, *bench.runs]
    fastest = max((_speed(item) for item in items), default=1.0)
    for item in items:
        length = (WIDTH - LEFT - RIGHT) * _speed(item) / max(fastest, 1.0)
        colour = COLOURS[4] if item in bench.disk else COLOURS[0]
        name = f"disk: {item.name}" if item in bench.disk else item.name
        parts += [
            _text(16, y + 13, name),
            f"<rect x='{LEFT}' y='{y:.0f}' width='{max(length, 1):.1f}' height='{BAR}' rx='2' fill='{colour}'/>",
            _text(LEFT + length + 6, y + 13, show.rate(item.length_bytes, item.duration_ns), "soft"),
        ]
        y += STEP
    height = y + 16
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height:.0f}' width='{WIDTH}' role='img'>",
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            f"<rect class='ground' width='{WIDTH}' height='{height:.0f}' rx='6'/>",
            *parts,
            "</svg>\n",
        ]
    )


def _stack(heading: str, stages: Sequence[Timing], y: float) -> Iterator[str]:
    """Yields one bar that is all of the time, in parts, and a legend below it."""
    together_ns = max(sum(stage.duration_ns for stage in stages), 1)
    yield _text(16, y + 13, heading)
    x, width = float(LEFT), float(WIDTH - LEFT - 16)
    at = LEFT
    for stage, colour in zip(stages, COLOURS, strict=False):
        share = stage.duration_ns / together_ns
        label = f"{stage.name} {share * 100:.0f} %"
        about = f"{label}, {show.rate(stage.length_bytes, stage.duration_ns)}"
        place = f"x='{x:.1f}' y='{y:.0f}' width='{max(width * share, 0.5):.1f}' height='{BAR}'"
        yield f"<rect {place} fill='{colour}'><title>{escape(about)}</title></rect>"
        yield f"<rect x='{at}' y='{y + BAR + 8:.0f}' width='10' height='10' rx='2' fill='{colour}'/>"
        yield _text(at + 14, y + BAR + 17, label, "soft")
        x += width * share
        at += 114


def _speed(item: Timing) -> float:
    return item.length_bytes * 1e9 / max(item.duration_ns, 1)


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    attribute = f" class='{kind}'" if kind else ""
    return f"<text x='{x:.1f}' y='{y:.1f}'{attribute}>{escape(text)}</text>"
