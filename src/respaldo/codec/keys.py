"""The key tree: a master key and the subkeys that are derived from it, one for each purpose.

Invariant: no key serves two purposes, and every key depends on the hash of the repository's header, so that a master
key never works under another header. Never writes a key anywhere. Implements docs/format.md, "Keys".
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from functools import cache
from typing import Protocol, Self

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
        "client",
        "epoch",
    }
)
RUN_KINDS = frozenset({"data", "tree", "list", "footer", "trailer", "segment", "manifest", "outcome", "marker", "log"})
"""What a run of a client that writes into an area may seal, and its key may open: nothing that takes away."""
LIST_KINDS = RUN_KINDS - {"data"}
"""What opens names and sizes, and no content of files."""
LIST_KEYS_BYTES = len(LIST_KINDS) * KEY_BYTES


def derive(context: str, material: bytes, length_bytes: int = KEY_BYTES) -> bytes:
    """Derives key material by BLAKE3's ``derive_key`` under a context of this format."""
    return blake3(material, derive_key_context=CONTEXT + context).digest(length_bytes)


def access_seed(material: bytes) -> bytes:
    """Returns what opens an access log, an X25519 private key.

    It comes from the content keys and the header's hash, which stay when the master key is rotated, so that what is
    recorded can be read afterwards; for a client that has none of them, from its own private key.
    """
    return derive("access log", material)


class KeyRing:
    """Holds the subkeys of one epoch of a repository's master key. Immutable; safe to share between threads.

    Raises ValueError where the master key or the header's hash is not 32 bytes long.
    """

    def __init__(
        self,
        master: bytes,
        header_hash: bytes,
        *,
        epoch: int = 0,
        context: str = "root",
        kinds: frozenset[str] = SEALED_KINDS,
    ) -> None:
        if len(master) != KEY_BYTES or len(header_hash) != KEY_BYTES:
            msg = "a master key and a header hash are 32 bytes each"
            raise ValueError(msg)
        self.epoch = epoch
        self.kinds = kinds
        """What it seals and opens; anything else is a ValueError."""
        self.master = master
        self.header_hash = header_hash
        self._root = derive(context, master + header_hash)
        self.seal_key = cache(self._seal_key)
        self.hedge = self._purpose("hedge")
        self.chunker_secret = self._purpose("chunker")
        self.link_group = self._purpose("link group")
        self.name_order = self._purpose("name order")
        self.admin_seed = self._purpose("admin signature")
        self.id_keys = {kind: self._purpose("id " + kind.word) for kind in Kind}

    @property
    def content_keys(self) -> bytes:
        """The keys that say how content is cut and named, joined: ids of data, trees, lists; chunker, order, links.

        They open nothing. Repositories that have the same ones name equal content alike.
        """
        ids = [self.id_keys[kind] for kind in (Kind.DATA, Kind.TREE, Kind.LIST)]
        return b"".join((*ids, self.chunker_secret, self.name_order, self.link_group))

    @property
    def box_seed(self) -> bytes:
        """The private key of boxes to the owner of an area."""
        return self._purpose("run box")

    @property
    def check(self) -> bytes:
        """What tells this epoch's master key from any other one without giving it away."""
        return self._purpose("epoch check")

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
        if kind not in self.kinds:
            msg = f"no such kind: {kind}"
            raise ValueError(msg)
        return self._purpose("seal " + kind)


class RunRing(KeyRing):
    """Is the ring of one run of a client, from the run's root key: seals and opens `RUN_KINDS` alone."""

    def __init__(self, root: bytes, header_hash: bytes, *, by_owner: bool = False, epoch: int = 0) -> None:
        super().__init__(root, header_hash, context="run root", kinds=RUN_KINDS, epoch=epoch)
        self.by_owner = by_owner
        """Whether it is not the client's, but the area's owner's."""

    @property
    def list_keys(self) -> bytes:
        """The keys that open `LIST_KINDS`, joined in the order of the kinds' names."""
        return b"".join(map(self.seal_key, sorted(LIST_KINDS)))


class ListRing(KeyRing):
    """Opens what a run wrote but for content, from `RunRing.list_keys`; seals nothing.

    Raises ValueError for keys of another length.
    """

    def __init__(self, keys: bytes, header_hash: bytes, *, epoch: int = 0) -> None:
        if len(keys) != LIST_KEYS_BYTES:
            msg = "not the keys of a list"
            raise ValueError(msg)
        super().__init__(bytes(KEY_BYTES), header_hash, kinds=LIST_KINDS, epoch=epoch)
        starts = range(0, len(keys), KEY_BYTES)
        self._keys = {kind: keys[at : at + KEY_BYTES] for kind, at in zip(sorted(LIST_KINDS), starts, strict=True)}

    def _seal_key(self, kind: str) -> bytes:
        if kind not in self._keys:
            msg = f"no such kind: {kind}"
            raise ValueError(msg)
        return self._keys[kind]


class Rings(Protocol):
    """Says which rings a repository's objects are sealed under: one that seals, any number that open."""

    @property
    def sealing(self) -> KeyRing:
        """The ring that everything new is sealed under."""

    def opening(self, kind: str, name: str) -> Iterable[KeyRing]:
        """Returns the rings that an object of this kind and name may have been sealed under, the likeliest first.

        ``name`` is empty for what is named by a hash of its bytes, and for what lies in it.
        """
