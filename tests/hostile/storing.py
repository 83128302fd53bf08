"""Hostile repositories whose storage is not what a repository's is: cut off, in another order, with things in it."""

from __future__ import annotations

import hashlib
import os
import shutil
from array import array
from dataclasses import replace

from respaldo.core.ids import PackName, SegmentName
from respaldo.format.header import close_object
from respaldo.format.pack import Footer
from respaldo.format.segment import Listed, Segment, parse_segment
from tests.hostile.forge import FILE, SESSION, Forger
from tests.hostile.ground import COMMANDS
from tests.hostile.restoring import CHECKS, good
from tests.hostile.scenario import GOOD, scenario


@scenario("restic #21977", statuses=CHECKS | {"key list": 4}, there=GOOD)
def key_slots_cut_off(forger: Forger):
    """Beside the one that opens: slots that are empty, cut off anywhere, and torn so that their hash is right."""
    good(forger)
    whole = forger.get(forger.names("keys")[0])
    for number, length in enumerate((0, 1, 31, 32, 33, 100, len(whole) - 1)):
        forger.put(f"keys/{number:016x}", whole[:length])
        forger.put(f"keys/{number:015x}f", close_object(whole[:length]))


@scenario(
    "restic #21977", statuses=dict.fromkeys(COMMANDS, 4), says={"restore": "keys/.*(?s:.)*hint: no other key slot"}
)
def only_key_slot_cut_off(forger: Forger):
    """The only one is cut off: nothing opens, and that is damage, not a wrong passphrase."""
    good(forger)
    (name,) = forger.names("keys")
    forger.put(name, forger.get(name)[:100])


def _unlist(folder, how):
    """Returns what makes a folder one that cannot be listed."""

    def spoil(ground):
        path = ground.repository / folder
        shutil.move(path, ground.place / "aside" / folder)
        if how == "file":
            path.write_bytes(b"")
        else:
            path.symlink_to(path)

    return spoil


def _remove_packs(ground):
    shutil.rmtree(ground.repository / "packs")


STOPS = dict.fromkeys(COMMANDS, 4) | {"key list": 0}
WITHOUT_PACKS = {command: 0 for command in COMMANDS if command.startswith(("snapshots", "log", "key list"))}


@scenario("restic #4612", statuses=STOPS, spoil=_unlist("pending", "file"))
def manifests_that_cannot_be_listed(forger: Forger):
    """In the place of the folder of manifests lies a file: a listing that failed is none, and no empty one."""
    good(forger)


@scenario("restic #4612", statuses=STOPS | WITHOUT_PACKS, spoil=_unlist("packs", "loop"))
def packs_that_cannot_be_listed(forger: Forger):
    """In the place of the folder of packs lies a link that leads to itself."""
    good(forger)


NOTHING_THERE = {
    command: 4
    for command in COMMANDS
    if not command.startswith(("snapshots", "diff", "key list", "log", "repair", "snapshot", "mount"))
}


@scenario("restic #4612", statuses=NOTHING_THERE | {"repair --dry-run": 4}, spoil=_remove_packs)
def packs_that_are_gone(forger: Forger):
    """The folder of packs is not there: everything is missing, and nothing is deleted because of that."""
    good(forger)


def _litter(ground):
    top = ground.repository
    name = hashlib.sha256(b"evil").hexdigest()
    (top / "packs" / name[:2]).mkdir(exist_ok=True)
    (top / "packs" / name[:2] / (".respaldo-temporary-" + name)).write_bytes(b"left behind")
    (top / "packs" / name[:2] / "\x1b[2J").write_bytes(b"evil")
    for folder in ("pending", "outcome", "keys", "segments", "catalogue", "log", "pins", "trash", "verified", "sums"):
        (top / folder).mkdir(exist_ok=True)
        for leaf in ("\x1b]0;title\x07", "..name", "\udcff", ".respaldo-temporary", " ", "x" * 255):
            (top / folder / leaf).write_bytes(b"evil")
    (top / "nobody's").mkdir()
    os.mkfifo(top / "nobody's" / "fifo")
    os.mkfifo(top / "fifo")


@scenario("a temporary file left behind", there=GOOD, spoil=_litter)
def litter_in_the_folders(forger: Forger):
    """Temporary files, and files of names that no object has, wherever objects lie; FIFOs beside them."""
    good(forger)


def _block(folder, how):
    def spoil(ground):
        path = ground.repository / folder / ("ab" * 16)
        if how == "fifo":
            os.mkfifo(path)
        elif how == "link":
            path.symlink_to(ground.room / "outside" / "file")
        else:
            path.mkdir()

    return spoil


_BLOCKED = {"says": {"restore": "(pending|outcome)/abab.*: something else than a regular file"}, "statuses": STOPS}


@scenario("FIFOs and devices that would block an open", spoil=_block("pending", "fifo"), **_BLOCKED)
def fifo_in_the_place_of_a_manifest(forger: Forger):
    """To open one would wait for ever."""
    good(forger)


@scenario("FIFOs and devices that would block an open", spoil=_block("outcome", "link"), **_BLOCKED)
def link_in_the_place_of_an_outcome(forger: Forger):
    """A link leads to a file of somebody else's."""
    good(forger)


@scenario("restic #3151", statuses=CHECKS, there=GOOD)
def snapshot_cut_off(forger: Forger):
    """Manifests that nobody decided: no outcome, an empty one, a torn one."""
    good(forger)
    manifest = forger.manifest(forger.root(forger.tree((b"evil", FILE, b"evil"))), label="never")
    forger.save()
    for length in (None, 0, 10, 100):
        snapshot = forger.committed(manifest.encode())
        whole = forger.get("outcome/" + snapshot.hex())
        forger.delete("outcome/" + snapshot.hex())
        if length is not None:
            forger.put("outcome/" + snapshot.hex(), whole[:length])


@scenario("borg #9748", there=GOOD)
def segments_of_packs_that_are_gone(forger: Forger):
    """Segments list packs that do not exist, and say that they hold what is held elsewhere, too."""
    good(forger)
    for name in forger.names("segments"):
        segment = parse_segment(forger.vault.open_segment(forger.get(name), name), name)
        lost = [
            Listed(pack=PackName(os.urandom(32)), length_bytes=p.length_bytes, footer=p.footer) for p in segment.packs
        ]
        forger.segment(Segment(session=SESSION, packs=tuple(lost)).encode())


@scenario("borg #9904", there=GOOD)
def segment_that_hides_the_others(forger: Forger):
    """A segment lists nothing, and says that it takes the place of all others."""
    good(forger)
    names = tuple(SegmentName(bytes.fromhex(name.partition("/")[2])) for name in forger.names("segments"))
    forger.segment(Segment(session=SESSION, packs=(), supersedes=names).encode())


@scenario(
    "borg #9904",
    statuses=CHECKS | {"prune": 4},
    says={"verify": "segments/.*: it does not repeat the footer of packs/", "repair": "set aside +segments/"},
    there=GOOD,
)
def segment_with_half_a_footer(forger: Forger):
    """A segment lists packs with footers that have none of their chunks."""
    good(forger)
    nothing = Footer(session=SESSION, body_hash=bytes(32), blocks=(), ids=b"", lengths=array("I")).encode()
    for name in forger.names("segments"):
        segment = parse_segment(forger.vault.open_segment(forger.get(name), name), name)
        lying = tuple(replace(listed, footer=nothing) for listed in segment.packs)
        forger.delete(name)
        forger.segment(replace(segment, packs=lying).encode())
