"""Tables of what was measured, one for each set of data, and what was not measured."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benches.course import Results
from benches.figures import Figure


def show(console: Console, found: Sequence[Figure], results: Results, titles: dict[str, str]) -> None:
    """Prints everything."""
    for name in dict.fromkeys(figure.data for figure in found):
        console.print(_table([figure for figure in found if figure.data == name], titles.get(name, name)))
    console.print("× limit: wall clock as a multiple of the line above, in italics. Memory: peak of the process tree.")
    for trouble in results.troubles:
        console.print(f"[red]not measured or not sound: {trouble.data}, {trouble.tool}, {trouble.step}:[/red]", end=" ")
        console.print(escape(trouble.reason))


def _table(found: Sequence[Figure], title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("step")
    table.add_column("tool", no_wrap=True)
    for name in ("wall s", "× limit", "CPU s", "anon MB", "RSS MB", "stored MB", "added MB"):
        table.add_column(name, justify="right")
    step = ""
    for figure in found:
        if step and figure.step != step:
            table.add_section()
        table.add_row(
            figure.step if figure.step != step else "",
            figure.tool,
            f"{figure.wall_s:.2f}",
            "" if figure.ratio is None else f"{figure.ratio:.2f}",
            f"{figure.cpu_s:.2f}",
            _megabytes(figure.anonymous_bytes),
            _megabytes(figure.resident_bytes),
            _megabytes(figure.stored_bytes or None),
            _megabytes(figure.added_bytes, 2 if figure.step != "fresh" else 1),
            style="italic dim" if figure.is_limit else "bold" if figure.tool == "respaldo" else "",
        )
        step = figure.step
    return table


def _megabytes(length_bytes: int | None, digits: int = 1) -> str:
    return "" if length_bytes is None else f"{length_bytes / 1e6:.{digits}f}"
