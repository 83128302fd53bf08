"""Reads the area of a client that cannot read, as the owner of the repository: what reader.py lacks of docs/format.md.

python area.py REPOSITORY CLIENT-NAME [SNAPSHOT TARGET], with the passphrase or key of the repository as for reader.py.
"""

import contextlib
import os
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

sys.path.insert(0, str(Path(__file__).parent))

import reader
from reader import Damaged, canonical, derive, need, open_seal, parse, unclose

OF_RUNS = {"data", "tree", "list", "footer", "trailer", "segment", "manifest", "outcome", "marker", "log"}


def read(owner, pattern):
    return [parse(owner.record("client", item), item) for item in owner.names("enrolled", pattern)]


class Area(reader.Repository):
    def __init__(self, owner, name):
        again = r"(-[0-9a-f]{1,16})?(\.copy)?"  # each is there twice, and may be sealed anew
        found = {item[1]: item for item in read(owner, r"[0-9a-f]{32}" + again)}
        (self.enrolled,) = [item for item in found.values() if item[2] == name]
        self.client = self.enrolled[1].hex()
        renewals = {item[2]: item for item in read(owner, rf"{self.client}\.[1-9a-f][0-9a-f]*" + again)}
        self.renewals = [renewals[epoch] for epoch in range(1, len(renewals) + 1)]
        removed = read(owner, rf"{self.client}\.removed" + again)
        self.counts = (
            {removed[0][3][at : at + 16].hex() for at in range(0, len(removed[0][3]), 16)} if removed else None
        )
        self.runs = []
        super().__init__(os.path.join(owner.path, b"clients", self.client.encode()))

    def _masters(self, passphrase, key):
        need(self.header_hash == self.enrolled[6], "the area has another header")
        self.of_epochs = []
        keys = [(self.enrolled[4], self.enrolled[7]), *((item[4], item[6]) for item in self.renewals)]
        for epoch, (public, master) in enumerate(keys):
            self.of_epochs.append(self._root(master))
            private = X25519PrivateKey.from_private_bytes(derive("run box", self.of_epochs[-1]))
            owner = Ed25519PrivateKey.from_private_bytes(derive("admin signature", self.of_epochs[-1])).public_key()
            if epoch < len(self.renewals):  # it has ended, and so has what its admin may say, at these heads
                self.former = (*self.former, (epoch, None, owner.public_bytes_raw(), self.renewals[epoch][8]))
            authors = {"client": Ed25519PublicKey.from_public_bytes(public), "owner": owner}
            for name in self.names("runs", r"[0-9a-f]{32}"):
                with contextlib.suppress(Damaged, InvalidSignature):  # it does not count, or is of another epoch
                    self.runs.append((name[5:], epoch, self._run(name, private, authors, epoch)))
        return [(1, self.enrolled[7])], {}

    def _run(self, name, private, authors, epoch):
        version, signed, signature = parse(unclose(self.read(name), name), name)
        form, author, client, session, _, box, _ = parse(signed, name)
        need((version, form, name) == (1, 1, "runs/" + session.hex()) and client.hex() == self.client, f"{name} is odd")
        need(author == "owner" or self.counts is None or session.hex() in self.counts, f"{name} came after the removal")
        ended = self.renewals[epoch][7] if epoch < len(self.renewals) else None
        listed = ended is None or session in [ended[at : at + 16] for at in range(0, len(ended), 16)]
        need(author == "owner" or listed, f"{name} came after the renewal")
        purpose = {"client": b"run", "owner": b"run owner"}[author]
        authors[author].verify(signature, b"respaldo 2026-11 signature " + purpose + b"\0" + self.header_hash + signed)
        shared = private.exchange(X25519PublicKey.from_public_bytes(box[:32]))
        key = derive("box", shared + box[:32] + private.public_key().public_bytes_raw())
        aad = canonical([1, "box", "root", self.header_hash, name])
        root_key = open_seal(derive("box seal", key), aad, box[32:], name, self.suite)
        return derive("run root", root_key + self.header_hash)

    def _read_footer(self, name):
        with contextlib.suppress(Damaged):  # of a run that does not count; else, what needs it is damaged
            super()._read_footer(name)

    def unseal(self, kind, name, length, sealed, what):
        own = name.partition("/")[2].partition(".")[0] if kind in ("manifest", "outcome", "marker") else ""
        roots = [(epoch, root) for run, epoch, root in self.runs if kind in OF_RUNS and own in ("", run)]
        for epoch, root in (*enumerate(self.of_epochs), *roots):
            aad = canonical([1, self.suite, epoch, self.id, kind, name, length])
            try:
                opened = open_seal(derive("seal " + kind, root), aad, sealed, what, self.suite)
            except Damaged:
                continue
            need(kind != "outcome" or root in self.of_epochs or b"abort" not in opened, f"{what} is a client's abort")
            return opened
        raise Damaged(f"{what} opens under no key")


if __name__ == "__main__":
    sys.exit(reader.main(sys.argv[1:2] + sys.argv[3:], opened=lambda owner: Area(owner, sys.argv[2])))
