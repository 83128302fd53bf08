"""The header: the one object in clear, immutable, bound into every key by its hash.

Also the SHA-256 that ends every object whose name is not a hash of its bytes. Implements docs/format.md, "Header" and
"Closing hash".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from respaldo.core.errors import Corruption, NotARepository, UnsupportedFormat
from respaldo.core.ids import AES_256_GCM, RANDOM_ID_BYTES, SUITES
from respaldo.format import canonical

MAGIC = b"respaldo repository\n"
FORMAT = 1
HEADER = "header"
HEADER_BYTES_MAX = 4096
HASH_BYTES = 32


def close_object(data: bytes) -> bytes:
    """Returns an object's bytes followed by their SHA-256."""
    return data + hashlib.sha256(data).digest()


def unclose_object(data: bytes, what: str) -> bytes:
    """Returns the bytes before the closing SHA-256; raises `Corruption` where it does not fit."""
    if len(data) < HASH_BYTES or hashlib.sha256(data[:-HASH_BYTES]).digest() != data[-HASH_BYTES:]:
        raise Corruption(what, "its closing hash does not fit its bytes")
    return data[:-HASH_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Identifies a repository: format, suite, 16 random bytes, and the time it was made."""

    repository: bytes
    created_ns: int
    suite: str = AES_256_GCM

    def __post_init__(self) -> None:
        if len(self.repository) != RANDOM_ID_BYTES:
            msg = "a repository id is 16 bytes long"
            raise ValueError(msg)
        if self.suite not in SUITES:
            msg = f"no such cipher suite: {self.suite}"
            raise ValueError(msg)

    def encode(self) -> bytes:
        """Returns the object's bytes, closing hash included."""
        return close_object(MAGIC + canonical.pack([FORMAT, self.suite, self.repository, self.created_ns]))

    @property
    def hash(self) -> bytes:
        """The SHA-256 that clients pin and that enters every key: of the whole object."""
        return hashlib.sha256(self.encode()).digest()


def parse_header(data: bytes, location: str) -> Header:
    """Parses a header.

    Raises `NotARepository` where it is something else, `Corruption` where it is damaged, `UnsupportedFormat` where it
    is of a format or suite this program does not know.
    """
    if not data.startswith(MAGIC):
        raise NotARepository(location, "its header is not that of a repository")
    if len(data) > HEADER_BYTES_MAX:
        raise Corruption(HEADER, "too long")
    body = unclose_object(data, HEADER)[len(MAGIC) :]
    match canonical.unpack(body, HEADER):
        case [int(version), *_] if version != FORMAT:
            raise UnsupportedFormat("repository format", version)
        case [1, str(suite), bytes(repository), int(created_ns)] if len(
            repository
        ) == RANDOM_ID_BYTES and canonical.is_time(created_ns):
            if suite not in SUITES:
                raise UnsupportedFormat("cipher suite", suite)
            return Header(repository=repository, created_ns=created_ns, suite=suite)
        case _:
            raise Corruption(HEADER, "not a header of this format")
