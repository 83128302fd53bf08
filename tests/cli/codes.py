"""QR codes in pages: what is drawn, and what should be."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import segno


def dark_modules(page: ET.Element) -> set[tuple[int, int]]:
    """Returns the dark modules of the code that is drawn on a page in SVG."""
    [path] = page.iter("{http://www.w3.org/2000/svg}path")
    return {
        (int(x) + step, int(y))
        for x, y, length in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", path.get("d", ""))
        for step in range(int(length))
    }


def code_of(text: str) -> set[tuple[int, int]]:
    """Returns the dark modules of the code of a text."""
    code = segno.make(text, error="m", micro=False)
    return {(x, y) for y, row in enumerate(code.matrix_iter()) for x, module in enumerate(row) if module}
