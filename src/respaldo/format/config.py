"""The configuration of a repository: what every client must agree on.

Implements docs/format.md, "Config".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from respaldo.core.errors import Corruption
from respaldo.format import canonical

PARITY_MAX = 500
"""In thousandths."""
CONTENT_KEYS_BYTES = 192
"""Six keys of 32 bytes, as `respaldo.codec.keys` joins them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Is the configuration of a repository: what every client must agree on.

    Sealed and versioned; the highest version counts. ``chunker``: minimum, average, maximum (bytes), strict and loose
    threshold. ``pack_bytes``: the size packs are closed at. ``parity``: the share of it, in thousandths, 0 for none.
    ``content_keys``: those of the repository that this one names content like, empty where it has its own.
    """

    chunker: tuple[int, int, int, int, int]
    block_bytes: int = 1 << 20
    pack_bytes: int = 32 << 20
    level: int = 3
    parity: int = 0
    content_keys: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        more: list[canonical.Value] = [self.parity] if self.parity or self.content_keys else []
        if self.content_keys:
            more.append(self.content_keys)
        return canonical.pack([1, list(self.chunker), self.block_bytes, self.pack_bytes, self.level, *more])


def parse_config(data: bytes, what: str) -> Config:
    """Parses a configuration; raises `Corruption`."""
    match canonical.unpack(data, what):
        case [
            1,
            [int(low), int(mean), int(high), int(strict), int(loose)],
            int(block),
            int(pack),
            int(level),
            *more,
        ] if (
            64 <= low <= mean <= high <= block <= (8 << 20)
            and (1 << 20) <= pack <= (128 << 20)
            and 0 <= strict < 1 << 64
            and 0 <= loose < 1 << 64
            and -7 <= level <= 22
        ):
            parity, content_keys = 0, b""
            match more:
                case []:
                    pass
                case [int(share)] if 0 < share <= PARITY_MAX:
                    parity = share
                case [int(share), bytes(keys)] if 0 <= share <= PARITY_MAX and len(keys) == CONTENT_KEYS_BYTES:
                    parity, content_keys = share, keys
                case _:
                    raise Corruption(what, "not a configuration of this format")
            chunker = (low, mean, high, strict, loose)
            return Config(
                chunker=chunker,
                block_bytes=block,
                pack_bytes=pack,
                level=level,
                parity=parity,
                content_keys=content_keys,
            )
    raise Corruption(what, "not a configuration of this format")
