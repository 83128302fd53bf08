"""docs/format.md says what the program does, where it can be compared line by line."""

from __future__ import annotations

import re
from pathlib import Path

from respaldo.api.accessed import ACCEPT
from respaldo.catalog import runs
from respaldo.chunk.chunker import ChunkerParams
from respaldo.codec import compress, slots
from respaldo.codec.keys import SEALED_KINDS
from respaldo.codec.padding import SMALL_STEP_BYTES, STEP_BYTES, padded
from respaldo.format import (
    canonical,
    catalogue,
    content,
    credential,
    figures,
    frame,
    header,
    leafcheck,
    notice,
    pack,
    runrecord,
    segment,
    snapshot,
    tree,
)
from respaldo.kernel.layout import INODE_FLAGS
from respaldo.store import areas
from respaldo.store.authority import COMMIT, FORGET, PRUNE, REMOVE, RETIRE, ROTATE
from respaldo.store.logloss import LOST
from respaldo.store.renewing import RENEW

TEXT = (Path(__file__).parents[2] / "docs" / "format.md").read_text("utf-8")
FLAT = " ".join(TEXT.split())


def numbers(text):
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", text)]


def test_padding_table():
    """Each row of the table is what the code pads to."""
    table = TEXT.partition("| L | padded")[2].partition("\n\n")[0]
    rows = [numbers(line) for line in table.splitlines()[2:]]
    assert len(rows) == 6
    for length, big, small in rows:
        assert (padded(length, STEP_BYTES), padded(length, SMALL_STEP_BYTES)) == (big, small)


def test_limits():
    """Each limit of the last table is the program's."""
    table = TEXT.partition("| what | at most |")[2].partition("\n\n")[0]
    found = {row.split("|")[1].strip(): row.split("|")[2].strip() for row in table.splitlines()[2:]}
    mib = {
        "raw content of a block": pack.BLOCK_RAW_BYTES_MAX,
        "tree, encoded": tree.TREE_RAW_BYTES_MAX,
        "pack": pack.PACK_BYTES_MAX,
        "footer, encoded": pack.FOOTER_RAW_BYTES_MAX,
        "segment, encoded": segment.SEGMENT_RAW_BYTES_MAX,
        "catalogue, encoded": catalogue.CATALOGUE_RAW_BYTES_MAX,
        "record, encoded": snapshot.RECORD_RAW_BYTES_MAX,
        "segment as stored, sealed and padded": segment.SEGMENT_BYTES_MAX,
        "record as stored, sealed and padded": snapshot.RECORD_BYTES_MAX,
        "notice, encoded": notice.NOTICE_RAW_BYTES_MAX,
        "notice as stored, sealed and padded": notice.NOTICE_BYTES_MAX,
    }
    assert {name: found[name] for name in mib} == {name: f"{size >> 20} MiB" for name, size in mib.items()}
    assert found["header"] == f"{header.HEADER_BYTES_MAX} bytes"
    assert found["run"] == f"{runrecord.RUN_BYTES_MAX} bytes"
    assert found["credential"] == f"{credential.CREDENTIAL_BYTES_MAX} bytes"
    assert found["key slot without closing hash"] == f"{slots.SLOT_BYTES_MAX} bytes"
    assert numbers(found["slots tried"]) == [slots.SLOTS_READ_MAX, slots.SLOTS_MAX]
    assert numbers(found["chunk ids of a file in a tree"]) == [content.DIRECT_CHUNKS_MAX]
    assert numbers(found["list node"]) == [content.NODE_ROWS_MAX]
    assert numbers(found["list levels"]) == [leafcheck.LEVEL_MAX]
    assert numbers(found["a text in a record"]) == [snapshot.TEXT_BYTES_MAX >> 10]
    assert snapshot.ITEMS_MAX == 1 << 17
    assert compress.RAW_BYTES_MAX == 256 << 20


def test_numbers_in_the_text():
    """Rules that are written in words hold the program's numbers."""
    for sentence in (
        f"more than {content.DIRECT_CHUNKS_MAX} chunks, or with holes",
        f"A directory of at most {runs.RUN_ENTRIES_SPLIT} entries whose leaf has at most",
        f"the run would weigh more than {runs.RUN_BYTES_MAX >> 20} MiB with the entry after it",
        f"the run has at least {runs.RUN_ENTRIES_MIN} entries with it, or if the run has {runs.RUN_ENTRIES_MAX}",
        f"has {content.NODE_ROWS_MAX} rows with it, or has at least {content.NODE_ROWS_MIN} with it",
        f"the mask 0x{INODE_FLAGS:08X}",
        "max(2¹⁶, ⌊n / 4⌋) arrays and 2¹⁰ maps",
        "At most 2²⁰ items in an array or map, and in all arrays and maps of an encoding together",
    ):
        assert sentence in FLAT
    assert canonical.ARRAY_ITEMS_MAX == canonical.ITEMS_MAX == 1 << 20
    assert (canonical.ARRAYS_FREE, canonical.ARRAY_BYTES_MIN, canonical.MAPS_MAX) == (1 << 16, 4, 1 << 10)
    assert (frame.HEAD.size, pack.BLOCK_ROW.size, pack.TRAILER_BYTES, tree.META.size) == (16, 48, 88, 40)
    assert ChunkerParams.standard() == ChunkerParams(
        minimum=16 << 10, average=64 << 10, maximum=256 << 10, strict=1 << 54, loose=1 << 58
    )


def test_every_kind_and_figure_and_key_is_listed():
    """Nothing that enters the bytes is missing from the page."""
    for kind in SEALED_KINDS:
        assert kind in TEXT
    for name in figures.FIGURE_NAMES:
        assert name in TEXT


def test_every_verb_is_listed():
    """Whoever reads a log finds what each of its entries, and each line of an access log, may say."""
    logged, accessed = (row for row in TEXT.splitlines() if row.startswith("| verb | text"))
    for verb in (COMMIT, FORGET, PRUNE, ROTATE, RETIRE, LOST, ACCEPT, areas.ENROL, REMOVE, RENEW):
        assert f"`{verb}`" in logged
    source = Path(__file__).parents[2] / "src" / "respaldo" / "api"
    for path in source.rglob("*.py"):
        for verb in re.findall(r'recorded\(\s*"([^"]*)"', path.read_text("utf-8")):
            assert f"`{verb}`" in accessed


def test_every_section_that_a_module_names_exists():
    """A module that implements a section of the page finds it there."""
    sections = {line.lstrip("# ").lower() for line in TEXT.splitlines() if line.startswith("#")}
    source = Path(__file__).parents[2] / "src" / "respaldo"
    for folder in ("codec", "format"):
        for path in (source / folder).glob("*.py"):
            text = " ".join(path.read_text("utf-8").partition("from __future__")[0].split())
            for claim in re.findall(r"Implements docs/format.md, ([^.]*)", text):
                for section in re.findall(r'"([^"]*)"', claim):
                    assert section.lower() in sections, f"{path.name} names {section}"
