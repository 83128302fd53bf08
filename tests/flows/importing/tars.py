"""Tar archives for tests, member by member, as honest programs and liars make them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.snapshots import load
from respaldo.catalog.trees import TreeReader
from respaldo.core.model import Entry
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.importing.options import ImportOptions, ImportResult
from respaldo.flows.importing.run import run_import
from respaldo.views.content import Contents
from tests.protocol.scene import Kept, make_repository, open_repository

DIRECTORY, LINK, SYMLINK = tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE


class Archive:
    """Collects members; `bytes` ends it."""

    def __init__(self, form: int = tarfile.PAX_FORMAT) -> None:
        self._file = io.BytesIO()
        self._tar = tarfile.open(  # noqa: SIM115 - closed by bytes
            fileobj=self._file, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
        )

    def add(
        self, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, *, pax: Mapping[str, str] = {}, **fields
    ) -> Archive:
        info = tarfile.TarInfo(name)
        info.type = kind
        info.size = len(content)
        info.mtime = 1_600_000_000
        info.pax_headers = dict(pax)
        for field, value in fields.items():
            setattr(info, field, value)
        self._tar.addfile(info, io.BytesIO(content))
        return self

    def raw(self, data: bytes) -> Archive:
        """Appends blocks as they are."""
        self._file.write(data)
        self._tar.offset += len(data)
        return self

    def bytes(self) -> bytes:
        self._tar.close()
        return self._file.getvalue()


class Shop:
    """Has an empty repository that archives are imported into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.backend = MemoryBackend()
        make_repository(self.backend)
        self.notes: list[tuple[str, bytes]] = []

    def open(self):
        repo = open_repository(Kept(self.backend), self.folder / "cache")
        repo.synchronise(lenient=True)
        return repo

    def take(self, archive: bytes, **options) -> ImportResult:
        """Imports an archive; whatever is told stands in `notes`."""
        self.notes.clear()
        notes = self.notes

        class Noting(Silent):
            def note(self, level: int, text: str, path: bytes = b"") -> None:
                if level < 0:
                    notes.append((text, path))

        with self.open() as repo:
            return run_import(
                repo,
                b"test.tar",
                io.BytesIO(archive),
                ImportOptions(**{"default_host": "here"} | options),
                progress=Noting(),
                cancel=Cancel(),
            )

    def entries(self, result: ImportResult) -> dict[bytes, Entry]:
        """Returns all entries of what was imported, by path."""
        found: dict[bytes, Entry] = {}
        with self.open() as repo:
            trees = TreeReader(repo.source)
            stack = [(b"", result.manifest.root)]
            while stack:
                above, tree = stack.pop()
                for entry in trees.entries(tree):
                    found[above + b"/" + entry.name] = entry
                    stack += [(above + b"/" + entry.name, below) for below in entry.content if entry.is_dir]
        return found

    def content(self, result: ImportResult) -> dict[bytes, bytes]:
        """Returns what is in the files of what was imported, by path."""
        entries = self.entries(result)
        with self.open() as repo:
            contents = Contents(repo.source, TreeReader(repo.source))
            return {
                path: b"".join(contents.read(entry))
                for path, entry in entries.items()
                if entry.is_regular and not entry.mark
            }

    def snapshots(self) -> int:
        with self.open() as repo:
            return len(load(repo).snapshots)
