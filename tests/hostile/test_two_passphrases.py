"""A key slot whose wrapped key opens under two passphrases: one question to a server would test both."""

from __future__ import annotations

from dataclasses import replace

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from respaldo.codec import slots
from respaldo.codec.slots import STANDARD, Secret, parse_slot
from respaldo.format.header import HASH_BYTES, close_object
from tests.codec.collisions import collide_gcm
from tests.fidelity.product import Product
from tests.hostile.forge import FILE, Forger

PASSPHRASES = ("correct horse", "battery staple")
SALT = b"s" * 24


class ByPassphrase(Product):
    """Opens with the passphrase that a file has."""

    def words(self, *words):
        return [word.replace("--key-file", "--password-file") for word in super().words(*words)]


@pytest.mark.parametrize("committed", [0, 1])
def test_slot_of_two_passphrases_opens_under_one_at_most(tmp_path, committed):
    """AES-GCM alone lets a text open under two keys, and here one does; the commitment that a slot has is of one only.

    Under the other passphrase the answer is 12, wrong passphrase; under this one the key in it opens nothing: 4.
    """
    product = Product(tmp_path / "product")
    name = "keys/" + "ab" * 8
    with Forger(product.place) as forger:
        forger.commit(forger.tree((b"file", FILE, b"file")))
        header = forger.repo.header.hash
        for slot in forger.names("keys"):
            forger.delete(slot)
        forger.slot(name, Secret(passphrase=PASSPHRASES[0].encode()))
        slot = parse_slot(name, forger.get(name)[:-HASH_BYTES])
        aad = slots._slot_aad(header, slot.name, slot.method, slot.kdf, slot.salt)
        secrets = [Secret(passphrase=text.encode()) for text in PASSPHRASES]
        wrapping = [slots._wrapping_key(secret, STANDARD, slot.salt) for secret in secrets]
        derived = [blake3(SALT + aad, key=slots.derive("slot seal", key)).digest(64) for key in wrapping]
        body = collide_gcm([text[:32] for text in derived], aad, before=b"first 16 bytes..")
        for text in derived:
            AESGCM(text[:32]).decrypt(bytes(12), body, aad)  # it does open, under both
        forged = replace(slot, wrapped=SALT + derived[committed][32:] + body)
        forger.put(name, close_object(forged.encode()))
    for number, text in enumerate(PASSPHRASES):
        (product.place / "key").write_text(text)
        ran = ByPassphrase(product.place).run("snapshots", expected=4 if number == committed else 12)
        assert ran.out == ""
