"""Reads what stands beside snapshots, from docs/format.md alone: the log, access logs, lists of checksums.

python records.py REPOSITORY log [HEAD]             checks chains and signatures, prints the entries; compares a head
python records.py REPOSITORY access DIRECTORY       checks the lines that a machine has written, prints what they say
python records.py REPOSITORY sums SNAPSHOT          prints the SHA-256 of its files as far as it is kept
python records.py REPOSITORY states                 prints of each snapshot: pinned, in the trash, verified
python records.py REPOSITORY repeats                checks segments and catalogues against what they repeat
It opens with a passphrase or key as reader.py; with RESPALDO_CLIENT, the area of that client.
"""

import base64
import hashlib
import os
import re
import struct
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

sys.path.insert(0, str(Path(__file__).parent))

from area import Area
from reader import Damaged, Repository, canonical, derive, need, open_seal, parse, unframe

CONTEXT, ADMINS = b"respaldo 2026-11 signature ", ("forget", "prune", "rotate", "retire", "lost")
NOTHING = hashlib.sha256(b"").digest()


class Log:
    """Holds the entries of all clients, each checked with the one before it, and with what others say they saw."""

    def __init__(self, repository):
        self.repository, self.entries, self.keys, self.encoded = repository, {}, {}, {}
        root = getattr(repository, "of_epochs", [repository.roots[0][1]])[-1]  # of an area: it has epochs of its own
        self.admins = [(None, Ed25519PrivateKey.from_private_bytes(derive("admin signature", root)).public_key())]
        for _, _, key, heads in repository.former:
            self.admins.append((dict(heads), Ed25519PublicKey.from_public_bytes(key)))
        for name in repository.names("log", r"[0-9a-f]{32}\.[0-9a-f]{16}(-[0-9a-f]{1,16})?"):
            version, entries = parse(repository.record("log", name), name)
            need(version == 1 and 0 < len(entries) <= 256, f"{name} has an unknown form")
            for encoded in entries:
                client, number = parse(parse(encoded, name)[0], name)[1:3]
                need(
                    self.encoded.setdefault((client, number), encoded) == encoded, f"{name} contradicts another object"
                )
            need(name[4:].startswith(f"{client.hex()}.{number:016x}"), f"{name} ends with another entry")
        self.lost = [
            (subject[:16], int.from_bytes(subject[16:24], "big"), int.from_bytes(subject[24:32], "big"), subject[32:])
            for encoded in self.encoded.values()
            for signed in [parse(parse(encoded, "log")[0], "log")]
            for subject in (signed[8] if signed[7] == "lost" else [])
        ]
        for place in sorted(self.encoded):
            self._check(*place, self.encoded[place])
        for entry in self.entries.values():
            for client, number, seen in entry["heads"]:
                there = self.encoded.get((client, number))
                need(there is None or hashlib.sha256(there).digest() == seen, "a head is of another history")
                need(there or self._given_up(client, number, number), f"entry {number} of {client.hex()[:8]} is gone")

    def _given_up(self, client, first, last):
        return [key for who, begin, end, key in self.lost if who == client and begin <= first and last <= end]

    def _check(self, client, number, encoded):
        what = f"entry {number} of {client.hex()[:8]}"
        signed, admin, signature = parse(encoded, what)
        fields = parse(signed, what)
        version, _, _, previous, key, time, heads, verb, subjects, note, access = fields
        before = self.encoded.get((client, number - 1))
        if number == 0:
            need(hashlib.sha256(CONTEXT + b"client\0" + key).digest()[:16] == client, f"{what} has the key of another")
            self.keys[client] = key
        elif before is None:
            known = self._given_up(client, number - 1, number - 1)
            need(known, f"entry {number - 1} of {client.hex()[:8]} is gone")
            self.keys.setdefault(client, known[0])
        need(version == 1 and (number == 0 or not key), f"{what} has an unknown form")
        hashed = hashlib.sha256(before).digest() if before else bytes(32)
        need(previous == hashed or (not before and number), f"{what} does not follow the one before")
        self._verify(self.keys[client], b"log entry", signed, signature, what)
        if verb in ADMINS:
            need(
                any(self._admin(heads, key, client, number, signed, admin) for heads, key in self.admins),
                f"{what} is no admin's",
            )
        self.entries[client, number] = {
            "time": time, "heads": heads, "verb": verb, "subjects": subjects, "note": note, "access": access
        }  # fmt: skip

    def _admin(self, heads, key, client, number, signed, admin):
        try:
            self._verify(key.public_bytes_raw(), b"log admin", signed, admin, "")
        except Damaged:
            return False
        return heads is None or number <= heads.get(client, -1)

    def _verify(self, key, purpose, signed, signature, what):
        try:
            message = CONTEXT + purpose + b"\0" + self.repository.header_hash + signed
            Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        except InvalidSignature:
            raise Damaged(f"{what} has a wrong signature") from None

    def compare(self, head):
        """Checks that everything is there that a head which was kept elsewhere speaks of."""
        text = re.sub(r"[\s]", "", head).lower().removeprefix("respaldo-head-").upper()
        data = base64.b32decode(text + "=" * (-len(text) % 8))
        need(hashlib.sha256(data[:-4]).digest()[:4] == data[-4:], "the head is mistyped")
        version, repository, rows = parse(data[:-4], "head")
        need(version == 1 and repository == self.repository.id, "the head is of another repository")
        for client, number, seen in rows:
            there = self.encoded.get((client, number))
            need(there, f"entry {number} of {client.hex()[:8]} is gone")
            need(hashlib.sha256(there).digest()[:16] == seen, "the head is of another history")

    def told(self):
        for (client, number), entry in sorted(self.entries.items(), key=lambda item: item[1]["time"]):
            subjects = " ".join(subject.hex()[:32] for subject in entry["subjects"])
            yield f"{client.hex()} {number} {entry['verb']} {subjects}".rstrip()


def accesses(repository, directory, log):
    """Yields what the lines of a machine's access log say, and whether the log has signed that far."""
    content_keys = repository.id_keys
    for purpose in ("chunker", "name order", "link group") if len(content_keys) < 192 else ():
        content_keys += derive(purpose, repository.roots[0][1])  # the reader of snapshots needs three of the six
    private = X25519PrivateKey.from_private_bytes(derive("access log", content_keys + repository.header_hash))
    public = private.public_key().public_bytes_raw()
    need((Path(directory) / "key").read_bytes()[:32] == public, "the access log is of another repository")
    aad = canonical([1, "box", "access", repository.header_hash, ""])
    signed = {tuple(entry["access"]) for entry in log.entries.values() if entry["access"][0]}
    number, previous = 0, bytes(32)
    files = [*sorted(Path(directory).glob("log." + "[0-9]" * 18)), Path(directory) / "log"]
    for line in b"".join(path.read_bytes() for path in files).split(b"\n"):
        found = re.fullmatch(rb"([1-9]\d*) ([0-9a-f]{64}) ([A-Za-z0-9+/=]+)\.", line)
        if not found:
            continue
        box = base64.b64decode(found[3], validate=True)
        agreed = derive("box", private.exchange(X25519PublicKey.from_public_bytes(box[:32])) + box[:32] + public)
        frame = open_seal(derive("box seal", agreed), aad, box[32:], "line", repository.suite)
        fields = parse(unframe(frame, "line"), "line")
        need(fields[0] == 1 and fields[1] == int(found[1]) and fields[2].hex().encode() == found[2], "a line was moved")
        need(not number or (fields[1], fields[2]) == (number + 1, previous), f"line {number + 1} is gone")
        number, previous = fields[1], hashlib.sha256(line).digest()
        verb, who, snapshots, paths, ended = fields[4], fields[5], fields[6], fields[8], fields[10]
        yield {
            "number": number, "verb": verb, "user": who[2], "snapshots": [item.hex() for item in snapshots],
            "paths": paths, "of": ended[0], "outcome": ended[1], "signed": (number, previous) in signed,
        }  # fmt: skip


def sums(repository, snapshot):
    """Yields (path, SHA-256 or None) of each regular file of a snapshot, from what records of checksums say."""
    known = {}
    for name in repository.names("sums", r"[0-9a-f]{32}"):
        version, keys, digests = parse(repository.record("sums", name), name)
        rows = [keys[at : at + 48] for at in range(0, len(keys), 48)]
        need(
            version == 1 and rows == sorted(set(rows)) and len(digests) == 32 * len(rows), f"{name} has an unknown form"
        )
        known |= {key: digests[32 * row : 32 * row + 32] for row, key in enumerate(rows)}

    def below(tree, path):
        for name, (mode, _, _, size, _, mark, level, ids, *_) in repository.entries(tree):
            if mode & 0o170000 == 0o040000:
                for tree_id in ids:
                    yield from below(tree_id, path + b"/" + name)
            elif mode & 0o170000 == 0o100000 and mark not in (1, 2):
                rest = hashlib.sha256(bytes([level]) + b"".join(ids)).digest()[:16]
                key = ids[0] + (bytes(16) if level == 0 and len(ids) == 1 else rest) if ids else b""
                yield path + b"/" + name, known.get(key) if size else NOTHING

    yield from below(snapshot["root"], b".")


def listed(path, digest):
    """Returns a line as sha256sum prints it."""
    odd = any(sign in path for sign in b"\\\n\r")
    text = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return b"\\" * odd + digest.hex().encode() + b"  " + text


def states(repository, snapshots):
    """Yields of each snapshot what pins, the trash and records of verification say."""
    pins = {name[5:]: parse(repository.record("pin", name), name) for name in repository.names("pins", r"[0-9a-f]{32}")}
    trash = {name[6:] for name in repository.names("trash", r"[0-9a-f]{32}") if repository.record("trash", name)}
    verified = {}
    for name in repository.names("verified", r"[0-9a-f]{32}"):
        for snapshot, root, time, how in parse(repository.record("verified", name), name)[1]:
            if snapshots.get(snapshot.hex(), {}).get("root") == root:
                verified[snapshot.hex()] = max((time, how), verified.get(snapshot.hex(), (0, "")))
    for snapshot in snapshots:
        words = ["pinned " + ascii(pins[snapshot][2])[1:-1]] if snapshot in pins else []
        words += ["trash"] if snapshot in trash else []
        words += [f"verified by {verified[snapshot][1]}"] if snapshot in verified else []
        yield f"{snapshot} {', '.join(words) or '-'}"


def repeats(repository, snapshots):
    """Checks that segments and catalogues repeat what stands in packs and manifests; yields how many there are."""

    def objects(folder, kind):
        for name in repository.names(folder, r"[0-9a-f]{64}"):
            sealed = repository.read(name)
            need(hashlib.sha256(sealed).hexdigest() == name.partition("/")[2], f"{name} has other bytes than its name")
            raw = unframe(repository.unseal(kind, "", len(sealed) - 72, sealed, name), name)
            yield parse(raw, name)

    packs = rows = 0
    for version, _, _, listed_packs in objects("segments", "segment"):
        for pack, length, footer in listed_packs:
            name = f"packs/{pack.hex()}"
            if name not in repository.names("packs", pack.hex()):
                continue
            there = repository.read(name)
            (at,) = struct.unpack("<Q", repository.unseal("trailer", "", 16, there[-88:], name)[:8])
            sealed = there[at:-88]
            same = unframe(repository.unseal("footer", "", len(sealed) - 72, sealed, name), name)
            need(version == 1 and length == len(there) and footer == same, f"a segment says something else of {name}")
            packs += 1
    for version, _, listed_rows in objects("catalogue", "catalogue"):
        need([row[0] for row in listed_rows] == sorted({row[0] for row in listed_rows}), "a catalogue is out of order")
        for snapshot, pending, manifest in listed_rows:
            name = f"pending/{snapshot.hex()}"
            if snapshot.hex() in snapshots:
                need(version == 1 and hashlib.sha256(repository.read(name)).digest() == pending, f"{name} is another")
                need(parse(manifest, name) == snapshots[snapshot.hex()], f"a catalogue says something else of {name}")
                rows += 1
    yield f"{packs} packs in segments, {rows} snapshots in catalogues"


def main(arguments):
    with open(os.environ.get("RESPALDO_KEY_FILE") or os.devnull, "rb") as file:
        repository = Repository(arguments[0], os.environb.get(b"RESPALDO_PASSWORD"), file.read() or None)
    if client := os.environ.get("RESPALDO_CLIENT"):
        repository = Area(repository, client)
    snapshots, missing = repository.snapshots(), 0
    if arguments[1] == "log":
        log = Log(repository)
        for head in arguments[2:]:
            log.compare(head)
        lines = log.told()
    elif arguments[1] == "access":
        lines = map(ascii, accesses(repository, arguments[2], Log(repository)))
    elif arguments[1] == "sums":
        (snapshot,) = [name for name in snapshots if name.startswith(arguments[2])]
        for path, digest in sums(repository, snapshots[snapshot]):
            missing += digest is None
            sys.stdout.buffer.write(listed(path, digest) + b"\n" if digest else b"")
        lines = ()
    else:
        lines = {"states": states, "repeats": repeats}[arguments[1]](repository, snapshots)
    for line in lines:
        print(line)
    return 3 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
