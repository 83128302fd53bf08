"""Hostile repositories in which something stands for what it is not."""

from __future__ import annotations

import hashlib
import os
import struct

from respaldo.catalog.snapshots import outcome_name, pending_name
from respaldo.core.ids import Kind, SnapshotId
from respaldo.format import canonical, frame
from respaldo.format.catalogue import Roll, Row
from respaldo.format.header import close_object
from respaldo.format.snapshot import Verdict
from tests.hostile.forge import DIRECTORY, FILE, Block, Forger
from tests.hostile.ground import COMMANDS
from tests.hostile.restoring import CHECKS, DAMAGED, LOST, UNREADABLE, good
from tests.hostile.scenario import GOOD, scenario


def _stored(raw):
    """Returns the frame of a record that is not compressed."""
    return frame.HEAD.pack(frame.STORED, len(raw), len(raw)) + raw


@scenario(
    "borg CVE-2023-36811",
    "borg CVE-2016-10099",
    statuses=LOST | DAMAGED | {"find": 4, "history": 4, "dump": 4, "prune --dry-run": 4, "rewrite": 4, "repair": 4},
    says={"ls": "tree chunk .* its bytes do not have its id"},
)
def content_for_a_tree(forger: Forger):
    """The newest snapshot's root is a chunk of a file whose bytes are those of a tree."""
    tree = forger.leaf((b"evil", FILE, b"evil")).encode()
    root = forger.leaf((b"source", DIRECTORY, forger.chunk(tree))).encode()
    good(forger, (b"planted root", FILE, root), (b"planted tree", FILE, tree))
    manifest = forger.manifest(forger.chunk(root))
    forger.save()
    forger.committed(manifest.encode())


@scenario("borg CVE-2023-36811", "borg CVE-2016-10099", statuses=UNREADABLE, says={"snapshots": "seal was not made"})
def content_for_a_manifest(forger: Forger):
    """A server puts what a planter has had sealed as the content of a file where manifests lie, closed as they are."""
    good(forger)
    snapshot = SnapshotId(os.urandom(16))
    raw = _stored(forger.manifest(forger.root(forger.tree((b"evil", FILE, b"evil")))).encode())
    forger.save()
    sealed = b"".join(forger.sealer.seal("data", "", len(raw), raw))
    forger.put(pending_name(snapshot), close_object(sealed))
    forger.outcome(snapshot)


@scenario("borg CVE-2015-4082", statuses=UNREADABLE)
def manifest_without_encryption(forger: Forger):
    """A manifest that is not sealed, and one whose seal is all zeros, with outcomes that are genuine."""
    good(forger)
    raw = _stored(forger.manifest(forger.root(forger.tree((b"evil", FILE, b"evil")))).encode())
    forger.save()
    for data in (raw, bytes(56) + raw + bytes(16)):
        snapshot = SnapshotId(os.urandom(16))
        forger.put(pending_name(snapshot), close_object(data))
        forger.outcome(snapshot)


@scenario(
    "borg CVE-2015-4082",
    statuses=CHECKS | {"stats": 4},
    there=GOOD,
)
def pack_without_encryption(forger: Forger):
    """A pack of clear blocks with a clear footer, that gives content a new place; a segment, too."""
    good(forger)
    raw = canonical.pack([1, bytes(16), hashlib.sha256(b"evil").digest(), b"", b"", b""])
    data = b"evil" + _stored(raw) + struct.pack("<QQ", 4, 0) + bytes(72)
    forger.put("packs/" + hashlib.sha256(data).hexdigest(), data)
    segment = _stored(canonical.pack([1, bytes(16), [], []]))
    forger.put("segments/" + hashlib.sha256(segment).hexdigest(), segment)


@scenario(
    "borg CVE-2015-4082", statuses=dict.fromkeys(COMMANDS, 1), says={"restore": "unsupported cipher suite: 'none'"}
)
def header_without_encryption(forger: Forger):
    """A header that says that nothing is encrypted."""
    good(forger)
    header = forger.repo.header
    forger.header(b"respaldo repository\n" + canonical.pack([1, "none", header.repository, header.created_ns]))


def _look_for_the_dead(ground):
    for command in ("snapshots --json", *(f"{name}: snapshots" for name in ("prune", "repair", "snapshot", "rewrite"))):
        assert b"forgotten" not in ground.results[command].out
        assert b"aborted" not in ground.results[command].out


@scenario("borg CVE-2016-10100", statuses=CHECKS, there=GOOD, look=_look_for_the_dead)
def forgotten_and_aborted_snapshots(forger: Forger):
    """A catalogue repeats two snapshots: one was forgotten, its content is there; one was aborted, its manifest is."""
    good(forger)
    rows = []
    for label in ("forgotten", "aborted"):
        manifest = forger.manifest(forger.root(forger.tree((b"evil", FILE, label.encode()))), label=label)
        forger.save()
        raw = manifest.encode()
        snapshot = forger.committed(raw)
        pending_hash = hashlib.sha256(forger.get(pending_name(snapshot))).digest()
        rows.append(Row(snapshot=snapshot, pending_hash=pending_hash, manifest=raw))
        if label == "aborted":
            forger.outcome(snapshot, Verdict.ABORT)
        else:
            forger.delete(pending_name(snapshot), outcome_name(snapshot))
    forger.catalogue(Roll(rows=tuple(sorted(rows, key=lambda row: row.snapshot))).encode())


@scenario("the wrong object under a right name", statuses=UNREADABLE, says={"snapshots": "seal was not made"})
def manifests_exchanged(forger: Forger):
    """Two genuine manifests lie under one another's names."""
    one = good(forger)
    two = good(forger, (b"more", FILE, b"more"))
    names = [pending_name(item) for item in (one, two)]
    data = [forger.get(name) for name in names]
    forger.put(names[0], data[1])
    forger.put(names[1], data[0])


@scenario("the wrong object under a right name", statuses=CHECKS, there=GOOD)
def outcome_replayed(forger: Forger):
    """The commit of one snapshot lies under the name of another that nobody committed, which would be the latest."""
    one = good(forger)
    manifest = forger.manifest(forger.root(forger.tree((b"evil", FILE, b"evil"))))
    forger.save()
    snapshot = forger.committed(manifest.encode())
    forger.put(outcome_name(snapshot), forger.get(outcome_name(one)))


@scenario(
    "the wrong object under a right name",
    "restic #4523",
    statuses={name: status for name, status in LOST.items() if name != "verify"} | {"repair": 4},
    says={"restore": "evil: .* its bytes do not have its id"},
    there=GOOD | {"after": b"after"},
)
def content_under_the_id_of_another(forger: Forger):
    """A pack holds other bytes under a chunk's id: a compressor's bug, or malice."""
    wanted = forger.session.sink.name(Kind.DATA, b"what was backed up")
    forger.pack(Block(raw=b"what was never so.", ids=wanted))
    good(forger, (b"after", FILE, b"after"), (b"evil", FILE, (18, wanted)))
