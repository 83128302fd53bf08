"""The bytes of the format are what they were, and are still understood."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from respaldo.codec.box import open_box
from respaldo.codec.compress import Compressor
from respaldo.codec.keys import KeyRing, RunRing
from respaldo.codec.seal import Sealer
from respaldo.codec.slots import Secret, Stretching, parse_slot, unwrap
from respaldo.core.ids import AES_256_GCM, XCHACHA20_POLY1305
from respaldo.format import credential
from respaldo.format.epoch import parse_object
from respaldo.format.header import unclose_object
from respaldo.store.vault import Vault
from tests.format import samples
from tests.golden import vectors


def load(name):
    return json.loads((vectors.FOLDER / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("name", sorted(vectors.VECTORS.keys() - {"frames"}))
def test_writer_still_writes_the_same_bytes(name):
    """A difference is a change of the format: see tests/golden/vectors.py."""
    assert vectors.text(name) == (vectors.FOLDER / f"{name}.json").read_text("utf-8")


SUITES = [("", AES_256_GCM), ("-xchacha", XCHACHA20_POLY1305)]


@pytest.mark.parametrize(("ending", "suite"), SUITES)
def test_reader_still_opens_what_was_sealed(ending, suite):
    """Old seals open whatever a writer does now."""
    sealer = Sealer(vectors.RING, samples.HEADER.repository, vectors.counting, suite)
    for row in load("sealed" + ending):
        opened = sealer.open(row["kind"], row["name"], row["length"], bytes.fromhex(row["sealed"]), "x")
        assert opened.hex() == row["message"]


@pytest.mark.parametrize(("ending", "suite"), SUITES)
def test_reader_still_opens_old_slots(ending, suite):
    """Old passphrases and keys give the master key."""
    for row in load("slots" + ending):
        secret = bytes.fromhex(row["secret"])
        slot = parse_slot(row["name"], unclose_object(bytes.fromhex(row["object"]), row["name"]))
        as_key = slot.method == "key"
        found = unwrap(slot, Secret(key=secret) if as_key else Secret(passphrase=secret), samples.HEADER.hash, suite)
        assert found.hex() == row["master"]
        assert replace(slot) == slot


@pytest.mark.parametrize(("ending", "suite"), SUITES)
def test_owner_still_opens_old_boxes(ending, suite):
    """And a client's credential says what it said."""
    rows = load("clients" + ending)
    opened = open_box(
        bytes.fromhex(rows["box seed"]),
        bytes.fromhex(rows["box"]),
        purpose="root",
        header_hash=samples.HEADER.hash,
        name="runs/" + "0a" * 16,
        suite=suite,
    )
    assert opened.hex() == rows["message"]
    assert credential.parse_credential(rows["credential"].encode(), "x") == samples.CREDENTIAL
    assert credential.parse_credential(rows["credential, renewed"].encode(), "x") == samples.RENEWED_CREDENTIAL
    ring = RunRing(bytes.fromhex(rows["message"]), samples.HEADER.hash, epoch=1)
    sealed = bytes.fromhex(rows["sealed by a run of epoch 1"])
    assert (
        Sealer(ring, samples.HEADER.repository, vectors.counting, suite).open("tree", "", 32, sealed, "x")
        == ring.master
    )


@pytest.mark.parametrize(("ending", "suite"), SUITES)
def test_reader_still_opens_a_rotated_key(ending, suite):
    """A slot that was made without its secret gives the new master key, which opens the record of its epoch."""
    row = {key: bytes.fromhex(value) for key, value in load("rotation" + ending).items() if key not in {"name", "slot"}}
    name, where = load("rotation" + ending)["slot"], load("rotation" + ending)["name"]
    item = parse_object(row["object"], where)
    [(found, encoded)] = item.slots
    secret = Secret(key=row["secret"])
    master = unwrap(parse_slot(name, encoded), secret, samples.HEADER.hash, suite)
    assert (found, master) == (name, row["master"])
    assert Stretching(secret).public(parse_slot(name, encoded)) == row["public"]
    ring = KeyRing(master, samples.HEADER.hash, epoch=1)
    vault = Vault(Sealer(ring, samples.HEADER.repository, vectors.counting, suite), Compressor(3))
    assert vault.open_record("epoch", where, item.sealed) == row["record"]


def test_reader_still_parses_old_structures():
    """Every structure is parsed and means the same."""
    for name, rows in load("encodings").items():
        for row in rows:
            data = bytes.fromhex(row)
            assert samples.reencode(name, samples.PARSERS[name](data)) == data


def test_reader_still_opens_old_frames():
    """Compressed, stored and empty ones."""
    rows = load("frames")
    found = [samples.unbuild(bytes.fromhex(row)).hex() for row in rows["frames"]]
    assert found == [rows["text"], b"short".hex(), ""]
