"""The key tree: a master key and the subkeys that are derived from it, one for each purpose.

Invariant: no key serves two purposes, and every key depends on the hash of the repository's header, so that a master
key never works under another header. Never writes a key anywhere. Implements docs/format.md, "Keys".
"""

from __future__ import annotations

from functools import cache

from blake3 import blake3

from respaldo.core.ids import Kind

KEY_BYTES = 32
CONTEXT = "respaldo 2026-11 "

SEALED_KINDS = frozenset(
    {
        "data",
        "tree",
        "list",
        "footer",
        "trailer",
        "segment",
        "manifest",
        "outcome",
        "condemnation",
        "marker",
        "config",
        "pin",
        "trash",
        "about",
        "log",
        "catalogue",
        "verified",
        "sums",
    }
)


def derive(context: str, material: bytes, length_bytes: int = KEY_BYTES) -> bytes:
    """Derives key material by BLAKE3's ``derive_key`` under a context of this format."""
    return blake3(material, derive_key_context=CONTEXT + context).digest(length_bytes)


class KeyRing:
    """Holds the subkeys of one epoch of a repository's master key. Immutable; safe to share between threads.

    Raises ValueError where the master key or the header's hash is not 32 bytes long.
    """

    def __init__(self, master: bytes, header_hash: bytes, *, epoch: int = 0) -> None:
        if len(master) != KEY_BYTES or len(header_hash) != KEY_BYTES:
            msg = "a master key and a header hash are 32 bytes each"
            raise ValueError(msg)
        self.epoch = epoch
        self.master = master
        self.header_hash = header_hash
        self._root = derive("root", master + header_hash)
        self.seal_key = cache(self._seal_key)
        self.hedge = self._purpose("hedge")
        self.chunker_secret = self._purpose("chunker")
        self.link_group = self._purpose("link group")
        self.name_order = self._purpose("name order")
        self.admin_seed = self._purpose("admin signature")
        self.id_keys = {kind: self._purpose("id " + kind.word) for kind in Kind}

    def _purpose(self, purpose: str) -> bytes:
        return derive(purpose, self._root)

    def _seal_key(self, kind: str) -> bytes:
        if kind not in SEALED_KINDS:
            msg = f"no such kind: {kind}"
            raise ValueError(msg)
        return self._purpose("seal " + kind)
