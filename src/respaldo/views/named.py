"""Snapshots by the names that people give them: a directory that lists nothing and finds what is looked for.

``at/yesterday`` is a link to the snapshot that ``yesterday`` means, and so is every name that has no slash in it, as
`respaldo.catalog.selectors` understands them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from respaldo.catalog.selectors import Context, choose
from respaldo.catalog.snapshots import Catalogue, Snapshot
from respaldo.core.errors import Corruption, NoSuchSnapshot
from respaldo.views.layout import Link, Names, Spec


class Named(Mapping[bytes, Spec]):
    """Is links to snapshots by what they are called; looked up, not listed: there is no end of them.

    ``names`` has looked at the snapshots.
    """

    def __init__(
        self,
        snapshots: Sequence[Snapshot],
        names: Names,
        context: Callable[[], Context],
        damaged: Sequence[Corruption] = (),
    ) -> None:
        """``damaged``: manifests that cannot be read. What may mean one of their snapshots raises `Corruption`."""
        self._catalogue = Catalogue(
            snapshots=tuple(snapshots), undecided=(), damaged=tuple(damaged), trash=tuple(names.apart)
        )
        self._names = names
        self._context = context

    def __getitem__(self, name: bytes) -> Spec:
        try:
            chosen = choose(self._catalogue, name.decode("utf-8", "surrogateescape"), self._context())
        except NoSuchSnapshot:
            raise KeyError(name) from None
        return Link(target=b"../snapshots/" + self._names.of(chosen.snapshot))

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def __len__(self) -> int:
        return 0
