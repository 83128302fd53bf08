"""Mending: every object is compared with its hash, and what is damaged is replaced by what its parity gives.

Needs no key, so that whoever keeps the storage can do it. Invariant: a damaged object is copied into ``lost+found``
first, and then replaced in one step by bytes that have its hash; at no time is it missing, because a manifest that is
missing, be it for a moment, is a snapshot that was forgotten. What is sound is never touched, and what is gone is not
brought back (it may have been deleted on purpose), the header aside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from respaldo.backend.base import HEADER, Backend
from respaldo.core.errors import Corruption, NotARepository, ObjectMissing, StorageError
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.parity.options import Mended, MendResult
from respaldo.format.parity import OBJECT_BYTES_MAX, SIDECAR_BYTES_MAX
from respaldo.store.aside import set_aside
from respaldo.store.mending import say
from respaldo.store.parity import (
    COVERED,
    FOLDER,
    Read,
    is_sound,
    mend,
    object_name,
    read_around,
    remake,
    sidecar_name,
)


def run_mend(backend: Backend, *, dry_run: bool, progress: Progress, cancel: Cancel) -> MendResult:
    """Looks at every object that has parity, and replaces what is damaged; ``dry_run`` says what it would do.

    Raises `NotARepository` where there is neither a header nor its copy, `Interrupted`, and errors of the storage.
    """
    if backend.exists(HEADER) is None and backend.exists(f"{FOLDER}/{HEADER}") is None:
        raise NotARepository(backend.location, "it has no header")
    names = list(_names(backend))
    progress.total(files=len(names), length_bytes=sum(length for _, length in names))
    damaged: list[Mended] = []
    objects = read = 0
    for name, length in names:
        cancel.check()
        found = _look(backend, name)
        if found is not None:
            objects += 1
            read += length
            if found.bad or not is_sound(name, found.data):
                damaged.append(_mend(backend, name, found, dry_run=dry_run))
                progress.note(-1, f"{name}: {damaged[-1].reason}")
        progress.advance(files=1, length_bytes=length)
    return MendResult(objects=objects, read_bytes=read, damaged=tuple(damaged), dry_run=dry_run)


def mend_named(backend: Backend, names: Iterable[str]) -> Iterator[Mended]:
    """Does what `run_mend` does with some objects, which a reader has found damaged; those that are sound are left."""
    for name in names:
        found = _look(backend, name)
        if found is not None and (found.bad or not is_sound(name, found.data)):
            yield _mend(backend, name, found, dry_run=False)


def _names(backend: Backend) -> Iterator[tuple[str, int]]:
    """Yields objects that can have parity, then sidecars: those are compared with objects that are sound by then."""
    yield HEADER, backend.exists(HEADER) or 0
    for folder in (*COVERED, FOLDER):
        for name, length in sorted(backend.list(folder)):
            if (object_name(name) if folder == FOLDER else sidecar_name(name)) is not None:
                yield name, length


def _look(backend: Backend, name: str) -> Read | None:
    """Reads an object; None where it has gone meanwhile."""
    try:
        return read_around(backend, name, SIDECAR_BYTES_MAX if name.startswith(FOLDER) else OBJECT_BYTES_MAX)
    except ObjectMissing:
        return Read(b"", frozenset(), 0) if name == HEADER else None
    except Corruption:
        return None  # no file: that is somebody else's trouble
    except StorageError:
        if backend.exists(HEADER) is None:
            raise
        return Read(b"", frozenset(), 0)


def _mend(backend: Backend, name: str, found: Read, *, dry_run: bool) -> Mended:
    sound = _again(backend, name, found) if name.startswith(FOLDER) else mend(backend, name)
    if sound is None:
        return Mended(name=name, reason="it is damaged, and cannot be mended", mended=False)
    missing = backend.exists(name) is None
    reason = "it is missing" if missing else say(found, sound)
    if dry_run:
        return Mended(name=name, reason=reason, mended=True)
    if missing:
        backend.put(name, [sound])
        return Mended(name=name, reason=reason, mended=True)
    # A damaged slot is worth nothing, and a copy of it would outlive its removal.
    aside = "" if name.startswith((FOLDER, "keys/")) else set_aside(backend, name, found.data)
    try:
        backend.replace(name, [sound])
    except ObjectMissing:
        return Mended(name=name, reason="it is damaged, and was deleted meanwhile", mended=True, aside=aside)
    return Mended(name=name, reason=reason, mended=True, aside=aside)


def _again(backend: Backend, name: str, found: Read) -> bytes | None:
    """Returns a damaged sidecar as it was, from its object, which is sound; None where that cannot be had."""
    of = object_name(name)
    try:
        sound = None if of is None else backend.get_whole(of, OBJECT_BYTES_MAX)
    except (Corruption, StorageError):
        return None
    return remake(of, sound, found.data) if of is not None and sound is not None and is_sound(of, sound) else None
