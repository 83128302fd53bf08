"""What a client has written itself, kept a second time: it cannot read it back when its index is lost.

Files beside the cache, each a list of packs as in a segment, durable before they count; disposable like the index, but
for another price: without either the client stores everything again. Never says that a pack is there: storage does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Final

from respaldo.core.errors import Corruption
from respaldo.core.ids import RANDOM_ID_BYTES, PackName
from respaldo.core.private import read_file, write_file
from respaldo.core.seams import Random
from respaldo.format.header import close_object, unclose_object
from respaldo.format.segment import SEGMENT_RAW_BYTES_MAX, Listed, Segment, parse_segment
from respaldo.store.packs import Finished

FILES_MAX: Final = 32
_FULL_BYTES: Final = 4 << 20
"""A file from so many bytes on is left as it is when others are put together."""
_SUFFIX: Final = ".packs"


class OwnPacks:
    """Is the directory of those lists."""

    def __init__(self, path: Path, random: Random) -> None:
        self.path = path
        self._random = random

    def add(self, session: bytes, packs: Iterable[Finished]) -> None:
        """Notes packs that are durable in storage. Raises OSError."""
        listed = [Listed(pack=item.name, length_bytes=item.length_bytes, footer=item.encoded) for item in packs]
        if listed:
            self._put(session, listed)

    def __iter__(self) -> Iterator[Listed]:
        """Yields what was noted; passes over what is damaged."""
        for path in self._files():
            with contextlib.suppress(OSError, Corruption):
                yield from _read(path)

    def gather(self, there: Container[PackName]) -> None:
        """Puts small files together where there are many, without what is not there any more. Raises OSError."""
        files = self._files()
        if len(files) <= FILES_MAX:
            return
        part: list[Listed] = []
        length = 0
        old: list[Path] = []
        for path in files:
            if path.stat().st_size >= _FULL_BYTES:
                continue
            old.append(path)
            with contextlib.suppress(Corruption):
                kept = [item for item in _read(path) if item.pack in there]
                part += kept
                length += sum(len(item.footer) for item in kept)
            if length >= _FULL_BYTES:
                self._put(bytes(RANDOM_ID_BYTES), part)
                part, length = [], 0
        if part:
            self._put(bytes(RANDOM_ID_BYTES), part)
        for path in old:
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        try:
            return sorted(path for path in self.path.iterdir() if path.name.endswith(_SUFFIX))
        except OSError:
            return []

    def _put(self, session: bytes, packs: list[Listed]) -> None:
        data = close_object(Segment(session=session, packs=tuple(packs)).encode())
        path = self.path / (self._random(RANDOM_ID_BYTES).hex() + _SUFFIX)
        write_file(path, data, durable=True)


def _read(path: Path) -> tuple[Listed, ...]:
    data = read_file(path, SEGMENT_RAW_BYTES_MAX)
    return parse_segment(unclose_object(data, str(path)), str(path)).packs
