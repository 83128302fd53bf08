"""A target that has some of what lies in the source's blocks."""

from __future__ import annotations

from respaldo.core.ids import Kind
from respaldo.format.pack import parse_footer
from respaldo.store.chunks import ChunkSink
from respaldo.store.repo import Repo


def store_every_other(source: Repo, target: Repo) -> None:
    """Stores every other data chunk of the source in the target."""
    session = b"E" * 16
    sink = ChunkSink.into(target, session)
    try:
        for pack in source.index.packs():
            footer = parse_footer(source.index.footer(pack.number), "pack")
            for at, block in enumerate(footer.blocks):
                if Kind(block.kind) is Kind.DATA:
                    for row in range(footer.first_rows[at], footer.first_rows[at] + block.chunks, 2):
                        sink.put(Kind.DATA, source.source.get(Kind.DATA, footer.chunk_id(row)))
        sink.flush()
        target.put_segments(session, sink.unlisted)
    finally:
        sink.close()
