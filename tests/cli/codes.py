"""QR codes: what is drawn, what should be, and what a reader of another make takes from the picture that people see."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import segno
import zxingcpp

_MODULE = 8
_HALVES = {" ": (False, False), "▀": (True, False), "▄": (False, True), "█": (True, True)}
"""Which halves of a character are lit."""


def read_page(text: str) -> str:
    """Returns what the QR code on a page in SVG says, from the pixels of it."""
    page = ET.fromstring(text)  # noqa: S314 - our own
    width, height = int(page.get("width", "0")), int(page.get("height", "0"))
    pixels = [bytearray(b"\xff" * width) for _ in range(height)]
    [path] = page.iter("{http://www.w3.org/2000/svg}path")
    moved = re.fullmatch(r"translate\((\d+) (\d+)\) scale\((\d+)\)", path.get("transform", ""))
    assert moved
    left, top, scale = map(int, moved.groups())
    for x, y, length in dark_runs(path):
        for row in range(top + y * scale, top + (y + 1) * scale):
            pixels[row][left + x * scale : left + (x + length) * scale] = bytes(length * scale)
    return _read(pixels)


def read_shown(text: str) -> str:
    """Returns what a QR code on a terminal says, whose characters are light on a dark ground."""
    pixels = []
    for line in text.splitlines():
        if line and set(line) <= _HALVES.keys():
            for half in (0, 1):
                row = b"".join((b"\xff" if _HALVES[letter][half] else b"\0") * _MODULE for letter in line)
                pixels += [bytearray(row)] * _MODULE
    return _read(pixels)


def _read(pixels: list[bytearray]) -> str:
    image = memoryview(b"".join(pixels)).cast("B", (len(pixels), len(pixels[0])))
    [found] = zxingcpp.read_barcodes(image, formats=zxingcpp.BarcodeFormat.QRCode, try_invert=False)
    return str(found.text)


def dark_runs(path: ET.Element) -> list[tuple[int, int, int]]:
    """Returns (column, row, length) of the dark modules of a code as they are drawn."""
    runs = re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", path.get("d", ""))
    return [(int(x), int(y), int(length)) for x, y, length in runs]


def dark_modules(page: ET.Element) -> set[tuple[int, int]]:
    """Returns the dark modules of the code that is drawn on a page in SVG."""
    [path] = page.iter("{http://www.w3.org/2000/svg}path")
    return {(x + step, y) for x, y, length in dark_runs(path) for step in range(length)}


def code_of(text: str) -> set[tuple[int, int]]:
    """Returns the dark modules of the code of a text."""
    code = segno.make(text, error="m", micro=False)
    return {(x, y) for y, row in enumerate(code.matrix_iter()) for x, module in enumerate(row) if module}
