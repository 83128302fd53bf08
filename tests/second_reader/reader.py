"""A second reader of Respaldo repositories, written from docs/format.md alone; shares no code with the product.

Lists the snapshots of a repository on a local disk, or extracts one into a new directory, checking every id on the way:
python reader.py REPOSITORY [SNAPSHOT TARGET]. Ignores segments, holds all chunk ids in memory, restores no inode flags.
The passphrase comes from RESPALDO_PASSWORD, a key (32 bytes) from the file that RESPALDO_KEY_FILE names.
"""

import hashlib
import hmac
import os
import re
import stat
import struct
import sys
from functools import lru_cache

import msgpack
import nacl.pwhash
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KINDS, MAGIC = {1: "data", 2: "tree", 3: "list"}, b"respaldo repository\n"
XCHACHA = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt
WITHOUT_CONTENT = {1: "it could not be read", 2: "it is a mount point"}


class Damaged(Exception):
    """Says that something is not what docs/format.md says it is."""


def need(condition, what):
    if not condition:
        raise Damaged(what)


def derive(context, material, length=32):
    return blake3(material, derive_key_context="respaldo 2026-11 " + context).digest(length)


def canonical(value):
    return msgpack.packb(value, use_bin_type=True, unicode_errors="surrogateescape")


def parse(data, what):
    value = msgpack.unpackb(data, unicode_errors="surrogateescape", max_array_len=1 << 20, strict_map_key=True)
    need(canonical(value) == data, f"{what} is not canonical")
    return value


def open_seal(seal_key, aad, sealed, what, suite):
    need(len(sealed) >= 72, f"{what} is shorter than a seal")
    derived = blake3(sealed[:24] + aad, key=seal_key).digest(64)
    need(hmac.compare_digest(derived[32:], sealed[24:56]), f"{what} has a commitment to another key or place")
    try:
        key, body = derived[:32], bytes(sealed[56:])
        return AESGCM(key).decrypt(bytes(12), body, aad) if "gcm" in suite else XCHACHA(body, aad, bytes(24), key)
    except (InvalidTag, nacl.exceptions.CryptoError):
        raise Damaged(f"{what} has a wrong tag") from None


def unzstd(frame, raw_length, what):
    need(frame[:4] == b"\x28\xb5\x2f\xfd" and 0 < raw_length <= 256 << 20, f"{what} is no zstd frame")
    head = zstandard.get_frame_parameters(frame)
    need(head.content_size == raw_length and not head.dict_id, f"{what} declares another size")
    raw = zstandard.ZstdDecompressor(max_window_size=128 << 20).decompress(frame, allow_extra_data=False)
    return raw if len(raw) == raw_length else need(False, f"{what} has another size")


def unframe(frame, what):
    codec, zero, stored, raw_length = struct.unpack_from("<B3sIQ", frame)
    body, padding = frame[16 : 16 + stored], frame[16 + stored :]
    need(zero == bytes(3) and len(body) == stored and not padding.strip(b"\0"), f"{what} has an impossible frame")
    if codec == 1:
        need(stored < raw_length, f"{what} was compressed to no use")
        return unzstd(body, raw_length, what)
    need(codec == 0 and stored == raw_length, f"{what} has an unknown codec")
    return body


def unclose(data, what):
    need(hashlib.sha256(data[:-32]).digest() == data[-32:], f"{what} has a wrong closing hash")
    return data[:-32]


class Repository:
    def __init__(self, path, passphrase=None, key=None):
        self.path, self.former = os.fsencode(path), ()
        header = self.read("header")
        need(header.startswith(MAGIC), "there is no repository")
        version, self.suite, self.id, _ = parse(unclose(header, "header")[len(MAGIC) :], "header")
        need(version == 1 and self.suite in ("aes-256-gcm", "xchacha20-poly1305"), "it has an unknown format")
        self.header_hash = hashlib.sha256(header).digest()
        self.roots, content_keys = self._epoch(*self._masters(passphrase, key))
        self.chunks, self.links, self.complaints = {}, {}, []
        for name in self.names("config", r"[0-9a-f]{16}")[::-1]:
            try:
                self.config = parse(self.record("config", name), "config")
                break
            except Damaged:  # put under a key that was destroyed since
                continue
        derived = [derive("id " + kind, self.roots[0][1]) for kind in KINDS.values()]
        self.id_keys = content_keys or b"".join(self.config[6:] or derived)
        for name in self.names("packs", r"[0-9a-f]{64}"):
            self._read_footer(name)

    def read(self, name):
        folder, _, leaf = name.partition("/")
        parts = ("packs", leaf[:2], leaf) if folder == "packs" else name.split("/")
        with open(os.path.join(self.path, *map(os.fsencode, parts)), "rb") as file:
            return file.read()

    def names(self, folder, pattern):
        found = []
        for _, _, leaves in os.walk(os.path.join(self.path, folder.encode())):
            found += [leaf.decode() for leaf in leaves if re.fullmatch(pattern.encode(), leaf)]
        return sorted(f"{folder}/{leaf}" for leaf in found)

    def _masters(self, passphrase, key):
        """Returns what the secret opens, and the objects of the newest epoch by name."""
        records, found = {}, []
        for name in self.names("epochs", r"[0-9a-f]{16}\.[0-9a-f]{16}"):
            try:
                _version, slots, sealed = parse(unclose(self.read(name), name), name)
            except (Damaged, ValueError):
                continue  # torn
            newest = max((name[7:23], *(other[7:23] for other in records)))
            records[name] = (slots, sealed)
            records = {other: item for other, item in records.items() if other[7:23] == newest}
        slots = {name: unclose(self.read(name), name) for name in self.names("keys", r"[0-9a-f]{16}")[:32]}
        for name, data in {**slots, **{name: data for item in records.values() for name, data in item[0]}}.items():
            found += self._slot(name, data, passphrase, key)
        need(found, "no key slot opens with this secret")
        return found, records

    def _slot(self, name, data, passphrase, key):
        form, method, cost, salt, wrapped, _ = parse(data, name)
        need(form in (1, 2), f"{name} has an unknown form")
        if method == "argon2id" and passphrase is not None:
            passes, kib = cost
            need(1 <= passes <= 10 and 1 << 16 <= kib <= 1 << 20, f"{name} asks for too much or too little")
            stretched = nacl.pwhash.argon2id.kdf(32, passphrase, salt, opslimit=passes, memlimit=kib << 10)
            wrapping = derive("slot passphrase", stretched + salt)
        elif method == "key" and key is not None:
            wrapping = derive("slot key", key + salt)
        else:
            return []
        aad, what = canonical([form, "slot", self.header_hash, name, method, cost, salt]), "slot"
        if form == 2:
            seed, ephemeral, wrapped, what = derive("slot box", wrapping), wrapped[:32], wrapped[32:], "box"
            shared = nacl.bindings.crypto_scalarmult(seed, ephemeral)
            wrapping = derive("box", shared + ephemeral + nacl.bindings.crypto_scalarmult_base(seed))
        try:
            return [(form, open_seal(derive(what + " seal", wrapping), aad, wrapped, name, self.suite))]
        except Damaged:
            return []

    def _epoch(self, found, records):
        """Returns (epoch, root) of the newest epoch and those before it, and the content keys."""
        if not records:
            return [(0, self._root(master)) for form, master in found if form == 1][:1], None
        for name, master in ((name, item[1]) for name in sorted(records, reverse=True) for item in found):
            epoch, sealed = int(name[7:23], 16), unclose(records[name][1], name)
            self.roots = [(epoch, self._root(master))]
            try:
                raw = unframe(self.unseal("epoch", name, len(sealed) - 72, sealed, name), name)
            except Damaged:
                continue
            _, _, content_keys, masters, self.former, _ = parse(raw, name)
            return [*self.roots, *((epoch, self._root(master)) for epoch, master in masters)], content_keys
        raise Damaged("the key was rotated, and this secret opens what is older only")

    def _root(self, master):
        return derive("root", master + self.header_hash)

    def unseal(self, kind, name, length, sealed, what):
        for epoch, root in self.roots:
            aad = canonical([1, self.suite, epoch, self.id, kind, name, length])
            derived = blake3(sealed[:24] + aad, key=derive("seal " + kind, root)).digest(64)
            if derived[32:] == sealed[24:56] or epoch == self.roots[-1][0]:
                return open_seal(derive("seal " + kind, root), aad, sealed, what, self.suite)
        raise Damaged(what)

    def record(self, kind, name):
        sealed = unclose(self.read(name), name)
        return unframe(self.unseal(kind, name, len(sealed) - 72, sealed, name), name)

    def _read_footer(self, name):
        pack = self.read(name)
        need(hashlib.sha256(pack).hexdigest() == name[6:], f"{name} has other bytes than its name")
        footer_at, zero = struct.unpack("<QQ", self.unseal("trailer", "", 16, pack[-88:], name))
        sealed = pack[footer_at:-88]
        footer = unframe(self.unseal("footer", "", len(sealed) - 72, sealed, name), name)
        version, _, body_hash, rows, ids, lengths = parse(footer, name)
        need(version == 1 and zero == 0 and len(ids) == 8 * len(lengths), f"{name} has an impossible footer")
        need(hashlib.sha256(pack[:footer_at]).digest() == body_hash, f"{name} has another body than its footer says")
        block_at = row = 0
        for kind, sealed_length, raw_length, count, commitment in struct.iter_unpack("<B3xIII32s", rows):
            block = (name, block_at, sealed_length, raw_length, KINDS[kind], commitment)
            at = 0
            for number in range(row, row + count):
                (length,) = struct.unpack_from("<I", lengths, 4 * number)
                self.chunks.setdefault((KINDS[kind], ids[32 * number : 32 * number + 32]), (block, at, length))
                at += length
            need(at == raw_length and sealed_length <= raw_length + 72, f"{name} has lengths that do not add up")
            block_at, row = block_at + sealed_length, row + count
        need(block_at == footer_at and row * 32 == len(ids), f"{name} has blocks that do not add up")

    @lru_cache(maxsize=32)  # noqa: B019 - one repository a run
    def block(self, name, at, sealed_length, raw_length, kind, commitment):
        with open(os.path.join(self.path, b"packs", name[6:8].encode(), name[6:].encode()), "rb") as file:
            file.seek(at)
            sealed = file.read(sealed_length)
        need(sealed[24:56] == commitment, f"a block of {name} is not the one of its footer")
        message = self.unseal(kind, "", raw_length, sealed, name)
        return message if len(message) == raw_length else unzstd(message, raw_length, name)

    def chunk(self, kind, chunk_id):
        need((kind, chunk_id) in self.chunks, f"{kind} chunk {chunk_id.hex()[:16]} is in no pack")
        block, at, length = self.chunks[kind, chunk_id]
        raw = self.block(*block)[at : at + length]
        need(blake3(raw, key=self.id_keys[32 * "dtl".index(kind[0]) :][:32]).digest() == chunk_id, f"{kind} is another")
        return raw

    def snapshots(self):
        found = {}
        for name in self.names("pending", r"[0-9a-f]{32}"):
            try:
                outcome = parse(self.record("outcome", "outcome/" + name[8:]), "outcome")
            except (FileNotFoundError, Damaged):
                continue  # undecided
            if outcome == [1, "commit", hashlib.sha256(self.read(name)).digest()]:
                found[name[8:]] = parse(self.record("manifest", name), name)
        return dict(sorted(found.items(), key=lambda item: item[1]["time"]))

    def entries(self, tree_id):
        value = parse(self.chunk("tree", tree_id), "tree")
        if value[0] == 2:
            for run, count in struct.iter_unpack("<32sQ", value[1]):
                rows = list(self.entries(run))
                need(len(rows) == count, "a run has more or fewer entries than its branch says")
                yield from rows
            return
        need(value[0] == 1, "a tree has an unknown form")
        names, meta, content, targets = value[1].split(b"\0")[:-1], value[2], value[3], value[4].split(b"\0")
        levels = {row: (level, count) for row, level, count in value[5]}
        links, xattrs, marks = (dict(rows) for rows in value[6:9])
        need(len(meta) == 40 * len(names) and names == sorted(set(names)), "a tree has columns that do not fit")
        at = link = 0
        for row, fields in enumerate(struct.iter_unpack("<IIIIQqq", meta)):
            mode, uid, gid, _, size, mtime_ns, _ = fields
            need(re.fullmatch(rb"[^/\0]{1,255}", names[row]) and names[row] not in (b".", b".."), "an impossible name")
            mark = marks.get(row, 0)
            count = mark not in WITHOUT_CONTENT and (stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and size > 0))
            level, count = levels.get(row, (0, int(count)))
            ids = [content[n : n + 32] for n in range(at, at + 32 * count, 32)]
            at += 32 * count
            target = targets[link] if stat.S_ISLNK(mode) else b""
            link += stat.S_ISLNK(mode)
            extra = (mark, level, ids, target, links.get(row), xattrs.get(row, []))
            yield names[row], (mode, uid, gid, size, mtime_ns, *extra)
        need(at == len(content) and link == len(targets) - 1, "a tree has content or targets left over")

    def pieces(self, level, ids):
        for raw in (self.chunk("data", chunk_id) for chunk_id in ids if level == 0):
            yield len(raw), raw
        for chunk_id in ids if level else ():
            for below, length in struct.iter_unpack("<32sQ", self.chunk("list", chunk_id)):
                if level == 1 and below == bytes(32):
                    yield length, None
                else:
                    total = 0
                    for piece in self.pieces(level - 1, [below]):
                        total += piece[0]
                        yield piece
                    need(total == length, "a list has lengths that do not add up")

    def directory(self, tree_id, path):
        for name, entry in self.entries(tree_id):
            below = os.path.join(path, name)
            try:
                self.entry(below, entry)
            except (OSError, Damaged) as error:
                self.complaints.append(f"{below!r}: {error}")

    def entry(self, path, entry):
        mode, uid, gid, size, mtime_ns, mark, level, ids, target, group, xattrs = entry
        if mark in WITHOUT_CONTENT:
            self.complaints.append(f"{path!r}: {WITHOUT_CONTENT[mark]}")
        same = (stat.S_IFMT(mode), size, level, tuple(ids), target)
        if group and group in self.links and self.links[group][0] == same:
            os.link(self.links[group][1], path, follow_symlinks=False)
            return
        if stat.S_ISDIR(mode):
            os.mkdir(path, 0o700)
            for tree_id in ids:
                self.directory(tree_id, path)
        elif stat.S_ISREG(mode):
            self.file(path, size if ids else 0, level, ids)
        elif stat.S_ISLNK(mode):
            os.symlink(target, path)
        else:
            os.mknod(path, stat.S_IFMT(mode) | 0o600, os.makedev(size >> 32, size & 0xFFFFFFFF))
        if group:
            self.links[group] = same, path
        if os.geteuid() == 0:
            os.chown(path, uid, gid, follow_symlinks=False)
        if not stat.S_ISLNK(mode):
            os.chmod(path, stat.S_IMODE(mode))
        for name, value in xattrs:
            os.setxattr(path, name, value, follow_symlinks=False)
        os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)

    def file(self, path, size, level, ids):
        total = 0
        with open(path, "xb") as file:
            for length, raw in self.pieces(level, ids):
                if raw is None:
                    file.seek(length, os.SEEK_CUR)
                else:
                    file.write(raw)
                total += length
            file.truncate(total)
        need(total == size, f"has {total} bytes of content for a size of {size}")


def main(arguments, opened=lambda repository: repository):
    words = os.environb.get(b"RESPALDO_PASSWORD")
    with open(os.environ.get("RESPALDO_KEY_FILE") or os.devnull, "rb") as file:
        return show(opened(Repository(arguments[0], words, file.read() or None)), arguments[1:])


def show(repository, arguments):
    found = repository.snapshots()
    if not arguments:
        for snapshot, manifest in found.items():
            sources = " ".join(ascii(source)[2:-1] for source in manifest["sources"])
            print(snapshot, manifest["time"] // 10**9, ascii(manifest["host"])[1:-1], sources)
        return 0
    (snapshot,) = [name for name in found if name.startswith(arguments[0])]
    os.mkdir(arguments[1])
    repository.directory(found[snapshot]["root"], os.fsencode(arguments[1]))
    for complaint in repository.complaints:
        print(complaint, file=sys.stderr)
    return 3 if repository.complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
