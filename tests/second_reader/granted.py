"""Reads an area as the client that was given the right to, with its credential, from docs/format.md alone.

python granted.py AREA CREDENTIAL [SNAPSHOT TARGET], where AREA is the directory below clients/ of the repository.
"""

import base64
import contextlib
import hashlib
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

sys.path.insert(0, str(Path(__file__).parent))

import reader
from area import OF_RUNS
from reader import Damaged, canonical, derive, need, open_seal, parse, unclose


def credentials(text):
    """Returns what the lines of a credential say, the highest epoch first."""
    found = []
    for line in text.splitlines():
        if line.startswith("respaldo-client-"):
            data = base64.urlsafe_b64decode(line.removeprefix("respaldo-client-"))
            need(hashlib.sha256(data[:-4]).digest()[:4] == data[-4:], "the credential is damaged")
            fields = parse(data[:-4], "credential")
            need((fields[0], len(fields)) in ((1, 10), (2, 12)), "the credential has an unknown form")
            found.append(fields if fields[0] == 2 else [*fields, b"", 0])
    need(found, "there is no credential")
    return sorted(found, key=lambda fields: -fields[11])


class Granted(reader.Repository):
    def __init__(self, path, credential):
        self.lines = credentials(Path(credential).read_text())
        self.runs = []
        super().__init__(path)

    def _masters(self, passphrase, key):
        need(all(fields[3] == self.header_hash for fields in self.lines), "the area has another header")
        for fields in self.lines:
            private = X25519PrivateKey.from_private_bytes(fields[5])
            signs = Ed25519PrivateKey.from_private_bytes(fields[4]).public_key()
            authors = {"client": (b"run", signs)}
            authors["owner"] = (b"run owner", Ed25519PublicKey.from_public_bytes(fields[7]))
            for name in self.names("runs", r"[0-9a-f]{32}"):
                with contextlib.suppress(Damaged, InvalidSignature):  # of another epoch, or of nobody
                    self.runs.append((name[5:], fields[11], self._granted(name, private, authors)))
        return [], {}

    def _granted(self, name, private, authors):
        version, signed, signature = parse(unclose(self.read(name), name), name)
        form, author, _, session, _, _, grants = parse(signed, name)
        need((version, form, name) == (1, 1, "runs/" + session.hex()), f"{name} is odd")
        purpose, public = authors[author]
        public.verify(signature, b"respaldo 2026-11 signature " + purpose + b"\0" + self.header_hash + signed)
        box = dict(grants).get("restore")
        need(box, f"{name} grants nothing")
        shared = private.exchange(X25519PublicKey.from_public_bytes(box[:32]))
        key = derive("box", shared + box[:32] + private.public_key().public_bytes_raw())
        aad = canonical([1, "box", "restore", self.header_hash, name])
        root_key = open_seal(derive("box seal", key), aad, box[32:], name, self.suite)
        return derive("run root", root_key + self.header_hash)

    def _epoch(self, found, records):
        return [(0, bytes(32))], self.lines[0][8]  # it has no master key, and the content keys from its credential

    def _read_footer(self, name):
        with contextlib.suppress(Damaged):  # of what it was not given
            super()._read_footer(name)

    def unseal(self, kind, name, length, sealed, what):
        own = name.partition("/")[2].partition(".")[0] if kind in ("manifest", "outcome", "marker") else ""
        for run, epoch, root in self.runs:
            if kind in OF_RUNS and own in ("", run):
                aad = canonical([1, self.suite, epoch, self.id, kind, name, length])
                with contextlib.suppress(Damaged):
                    return open_seal(derive("seal " + kind, root), aad, sealed, what, self.suite)
        raise Damaged(f"{what} opens under no key that was given")


if __name__ == "__main__":
    sys.exit(reader.show(Granted(sys.argv[1], sys.argv[2]), sys.argv[3:]))
