"""A chart of what was measured, as SVG: for each step the tools' wall clock as a multiple of the step's limit.

Readable on light and on dark ground, without scripts and fonts of its own. Steps without a limit stand below in
seconds. A bar that is missing says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benches.course import LIMITS, STEPS
from benches.figures import Figure

COLOURS = {"respaldo": "#0f766e", "borg": "#d97706", "restic": "#6366f1"}
OTHER = "#64748b"
WIDTH, LEFT, RIGHT = 760, 190, 150
BAR, GAP, HEAD = 16, 4, 34


def draw(found: Sequence[Figure], data: str, title: str) -> str:
    """Returns the chart of one set of data."""
    mine = [figure for figure in found if figure.data == data]
    tools = list(dict.fromkeys(figure.tool for figure in mine if not figure.is_limit))
    steps = [step for step in STEPS if any(figure.step == step for figure in mine)]
    longest = max((figure.ratio for figure in mine if figure.ratio is not None), default=1.0)
    scale = (WIDTH - LEFT - RIGHT) / max(longest, 1.0)
    slowest = max((item.wall_s for item in mine if not item.is_limit and item.step not in LIMITS), default=1.0)
    scale_s = (WIDTH - LEFT - RIGHT) / max(slowest, 1e-9) * 0.5
    parts: list[str] = []
    top = 64
    for step in steps:
        limit = next((figure for figure in mine if figure.step == step and figure.is_limit), None)
        rows = {figure.tool: figure for figure in mine if figure.step == step and not figure.is_limit}
        height = len(tools) * (BAR + GAP)
        parts.append(_text(16, top + 14, step, "font-weight='600'"))
        if limit is not None:
            parts.append(_text(16, top + 31, f"limit: {limit.tool.partition(',')[0]}", "class='soft'"))
            parts.append(_text(16, top + 46, f"{limit.wall_s:.2f} s", "class='soft'"))
        for number, tool in enumerate(tools):
            y = top + number * (BAR + GAP)
            parts += _bar(rows.get(tool), tool, y, scale, scale_s)
        if limit is not None:
            x = LEFT + scale
            parts.append(f"<line x1='{x:.1f}' y1='{top - 4}' x2='{x:.1f}' y2='{top + height}' class='limit'/>")
        top += max(height, 50) + 18
    parts.append(_text(LEFT, top + 4, "dashed: the limit, 1 ×. Shorter is better. one file: seconds", "class='soft'"))
    return _document(title, parts, tools, top + 20)


def _bar(figure: Figure | None, tool: str, y: float, scale: float, scale_s: float) -> list[str]:
    if figure is None:
        return [_text(LEFT, y + 12, f"{tool}: not measured", "class='soft'")]
    width = figure.wall_s * scale_s if figure.ratio is None else figure.ratio * scale
    label = f"{figure.wall_s:.2f} s" if figure.ratio is None else f"{figure.ratio:.1f} ×  ({figure.wall_s:.2f} s)"
    colour = COLOURS.get(tool, OTHER)
    place = f"x='{LEFT}' y='{y}' width='{max(width, 1):.1f}' height='{BAR}' rx='2'"
    return [
        f"<rect {place} fill='{colour}'><title>{escape(tool)}: {escape(label)}</title></rect>",
        _text(LEFT + width + 6, y + 12, label, "font-size='11'"),
    ]


def _document(title: str, parts: Sequence[str], tools: Sequence[str], height: float) -> str:
    legend = []
    x = float(LEFT)
    for tool in tools:
        legend.append(f"<rect x='{x}' y='36' width='11' height='11' rx='2' fill='{COLOURS.get(tool, OTHER)}'/>")
        legend.append(_text(x + 16, 46, tool))
        x += 30 + 8 * len(tool)
    style = (
        "text{font:12px system-ui,sans-serif;fill:#1e293b}.soft{fill:#64748b;font-size:11px}"
        ".limit{stroke:#94a3b8;stroke-dasharray:3 3}.ground{fill:#ffffff}"
        "@media(prefers-color-scheme:dark){text{fill:#e2e8f0}.soft{fill:#94a3b8}.ground{fill:#0d1117}}"
    )
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height:.0f}' width='{WIDTH}' role='img'>",
            f"<title>{escape(title)}</title>",
            f"<style>{style}</style>",
            f"<rect class='ground' width='{WIDTH}' height='{height:.0f}' rx='6'/>",
            _text(16, 22, title, "font-weight='600' style='font-size:14px'"),
            *legend,
            *parts,
            "</svg>\n",
        ]
    )


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {attributes}>{escape(text)}</text>"
