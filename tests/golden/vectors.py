"""Golden vectors of the format: fixed keys, fixed randomness, fixed values, and the bytes that came out.

They must not change: a repository that exists would not open. Rewriting them is a change of the format and comes with
an ADR, never by the way:  python -m tests.golden.vectors --regenerate
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from respaldo.codec.box import box_public, seal_box
from respaldo.codec.compress import Compressor
from respaldo.codec.keys import RUN_KINDS, SEALED_KINDS, KeyRing, RunRing
from respaldo.codec.padding import SMALL_STEP_BYTES, STEP_BYTES, padded, padme
from respaldo.codec.seal import Sealer
from respaldo.codec.slots import STANDARD, Secret, Stretching, parse_slot, rewrap, wrap
from respaldo.core.ids import AES_256_GCM, XCHACHA20_POLY1305, Kind
from respaldo.format.epoch import EpochObject, record_name
from respaldo.format.header import close_object, unclose_object
from respaldo.store.vault import Vault
from tests.format import samples

FOLDER = Path(__file__).parent
MASTER = bytes(range(32))
RING = KeyRing(MASTER, samples.HEADER.hash)
SECRET = Secret(passphrase="correcto caballo batería grapa".encode())


def counting(length_bytes):
    """Stands for randomness, and counts."""
    return bytes(n % 256 for n in range(length_bytes))


def keys():
    """Returns every key of a ring."""
    return {
        "master": MASTER,
        "header_hash": samples.HEADER.hash,
        "hedge": RING.hedge,
        "chunker": RING.chunker_secret,
        "link group": RING.link_group,
        "name order": RING.name_order,
        **{f"id {kind.word}": RING.id_keys[kind] for kind in Kind},
        **{f"seal {kind}": RING.seal_key(kind) for kind in sorted(SEALED_KINDS)},
    }


def sealed(suite=AES_256_GCM):
    """Returns sealed texts: blocks (stored and compressed) and records under their names, with what went in."""
    sealer = Sealer(RING, samples.HEADER.repository, counting, suite)
    cases = [
        ("data", "", 5, b"bytes"),
        ("data", "", 520, bytes(range(100))),
        ("tree", "", len(samples.LEAF.encode()), samples.LEAF.encode()),
        ("list", "", len(samples.NODE), samples.NODE),
        ("trailer", "", 16, samples.pack.pack_trailer(1000)),
        ("footer", "", 200, bytes(range(200))),
        ("outcome", "outcome/" + "0a" * 16, 200, bytes(range(200))),
    ]
    return [
        {
            "kind": kind,
            "name": name,
            "length": length,
            "message": message,
            "sealed": b"".join(sealer.seal(kind, name, length, message)),
        }
        for kind, name, length, message in cases
    ]


def slots(suite=AES_256_GCM):
    """Returns whole slot objects, one of each method."""
    rows = []
    for name, secret in (
        ("keys/00112233445566aa", SECRET),
        ("keys/00112233445566ab", Secret(key=bytes(range(100, 132)))),
    ):
        slot = wrap(
            master=MASTER,
            secret=secret,
            kdf=STANDARD,
            header_hash=samples.HEADER.hash,
            name=name,
            about=lambda _: b"about",
            random=counting,
            suite=suite,
        )
        rows.append(
            {
                "name": name,
                "secret": secret.passphrase or secret.key,
                "master": MASTER,
                "object": close_object(slot.encode()),
            }
        )
    return rows


def clients(suite=AES_256_GCM):
    """Returns what areas of clients add: the keys of owner and run, a box, a credential."""
    public = box_public(RING.box_seed)
    box = seal_box(
        public,
        purpose="root",
        header_hash=samples.HEADER.hash,
        name="runs/" + "0a" * 16,
        message=MASTER,
        random=counting,
        suite=suite,
    )
    run = RunRing(MASTER, samples.HEADER.hash)
    later = Sealer(RunRing(MASTER, samples.HEADER.hash, epoch=1), samples.HEADER.repository, counting, suite)
    return {
        "box seed": RING.box_seed,
        "box public": public,
        "run hedge": run.hedge,
        "run": {kind: run.seal_key(kind) for kind in sorted(RUN_KINDS)},
        "list": run.list_keys,
        "message": MASTER,
        "box": box,
        "credential": samples.CREDENTIAL.encode().decode(),
        "credential, renewed": samples.RENEWED_CREDENTIAL.encode().decode(),
        "sealed by a run of epoch 1": b"".join(later.seal("tree", "", len(MASTER), MASTER)),
    }


def rotation(suite=AES_256_GCM):
    """Returns the object of an epoch with a slot in it that was made without its secret, and all that went in."""
    name, before = "keys/00112233445566ac", slots(suite)[1]
    stretching = Stretching(Secret(key=before["secret"]))
    old = parse_slot(before["name"], unclose_object(before["object"], before["name"]))
    public = stretching.public(old)
    given = {"header_hash": samples.HEADER.hash, "random": counting, "suite": suite}
    made = rewrap(old, public=public, master=MASTER[::-1], name=name, about=b"about", **given)
    ring = KeyRing(MASTER[::-1], samples.HEADER.hash, epoch=1)
    record = replace(samples.EPOCH, content_keys=RING.content_keys)
    vault = Vault(Sealer(ring, samples.HEADER.repository, counting, suite), Compressor(3))
    sealed = vault.seal_record("epoch", record_name(1, 0), record.encode())
    return {
        "secret": before["secret"],
        "public": public,
        "master": MASTER[::-1],
        "name": record_name(1, 0),
        "record": record.encode(),
        "slot": name,
        "object": EpochObject(sealed=sealed, slots=((name, made.encode()),)).encode(),
    }


def encodings():
    """Returns the canonical encoding of one value of every structure."""
    return {
        name: [row for row in rows if len(row) < 4096]
        for name, rows in samples.CORPUS.items()
        if name not in {"frame", "closing"}
    }


def frames():
    """Returns frames: another version of the zstd library writes others, but every one reads these."""
    return {"text": samples.unbuild(samples.FRAMES[0]), "frames": samples.FRAMES}


def ids():
    """Returns chunk ids of every kind of one plaintext."""
    from blake3 import blake3

    return {kind.word: blake3(b"plaintext", key=RING.id_keys[kind]).digest() for kind in Kind}


def padding():
    """Returns sizes: length, padded to 64 KiB steps, to 4 KiB steps, Padmé."""
    lengths = [0, 1, 2, 9, 100, 4095, 4096, 4097, 65535, 65536, 65537, (1 << 20) - 1, 1 << 20, (1 << 20) + 1]
    lengths += [1_500_000, 10_000_000, (1 << 25) - 1, 1 << 25, (1 << 25) + 1, 268_435_456]
    return [[length, padded(length, STEP_BYTES), padded(length, SMALL_STEP_BYTES), padme(length)] for length in lengths]


VECTORS = {
    "keys": keys,
    "sealed": sealed,
    "slots": slots,
    "sealed-xchacha": partial(sealed, XCHACHA20_POLY1305),
    "slots-xchacha": partial(slots, XCHACHA20_POLY1305),
    "clients": clients,
    "clients-xchacha": partial(clients, XCHACHA20_POLY1305),
    "rotation": rotation,
    "rotation-xchacha": partial(rotation, XCHACHA20_POLY1305),
    "encodings": encodings,
    "frames": frames,
    "ids": ids,
    "padding": padding,
}


def plain(value):
    """Returns a value as JSON holds it: bytes as hex, long ones by their hash too."""
    match value:
        case bytes():
            return value.hex()
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    return value


def text(name):
    """Returns a vector file's text as it would be written now."""
    return json.dumps(plain(VECTORS[name]()), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Compares, or with --regenerate rewrites."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--regenerate", action="store_true", help="rewrite the vectors: a change of the format")
    regenerate = parser.parse_args().regenerate
    changed = 0
    for name in VECTORS:
        if name == "frames" and not regenerate:
            continue
        path, now = FOLDER / f"{name}.json", text(name)
        before = path.read_text("utf-8") if path.exists() else ""
        if now != before:
            changed += 1
            print(f"{path.name}: {hashlib.sha256(before.encode()).hexdigest()[:12]} differs", file=sys.stderr)
            if regenerate:
                path.write_text(now, "utf-8")
    return 0 if regenerate else min(changed, 1)


if __name__ == "__main__":
    sys.exit(main())
