"""The key tree: a master key and the subkeys that are derived from it, one for each purpose.

Invariant: no key serves two purposes, and every key depends on the hash of the repository's header, so that a master
key never works under another header. Never writes a key anywhere. Implements docs/format.md, "Keys".
"""

from __future__ import annotations

from copy import copy
from functools import cache
from typing import Self

from blake3 import blake3

from respaldo.core.ids import Kind

KEY_BYTES = 32
CONTENT_KEYS_BYTES = 6 * KEY_BYTES
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
        self.access_seed = self._purpose("access log")
        self.id_keys = {kind: self._purpose("id " + kind.word) for kind in Kind}

    @property
    def content_keys(self) -> bytes:
        """The keys that say how content is cut and named, joined: ids of data, trees, lists; chunker, order, links.

        They open nothing. Repositories that have the same ones name equal content alike.
        """
        ids = [self.id_keys[kind] for kind in (Kind.DATA, Kind.TREE, Kind.LIST)]
        return b"".join((*ids, self.chunker_secret, self.name_order, self.link_group))

    def naming_as(self, content_keys: bytes) -> Self:
        """Returns a ring that opens and seals what this one does, and cuts and names content by other keys.

        Empty ones are its own. Raises ValueError where they are not six.
        """
        if not content_keys:
            return self
        if len(content_keys) != CONTENT_KEYS_BYTES:
            msg = f"content keys are {CONTENT_KEYS_BYTES} bytes"
            raise ValueError(msg)
        keys = [content_keys[at : at + KEY_BYTES] for at in range(0, CONTENT_KEYS_BYTES, KEY_BYTES)]
        ring = copy(self)
        ring.id_keys = dict(zip((Kind.DATA, Kind.TREE, Kind.LIST), keys, strict=False))
        ring.chunker_secret, ring.name_order, ring.link_group = keys[3:]
        return ring

    def _purpose(self, purpose: str) -> bytes:
        return derive(purpose, self._root)

    def _seal_key(self, kind: str) -> bytes:
        if kind not in SEALED_KINDS:
            msg = f"no such kind: {kind}"
            raise ValueError(msg)
        return self._purpose("seal " + kind)
