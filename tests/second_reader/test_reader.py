"""A reader that was written from docs/format.md alone gets back what the product backed up."""

from __future__ import annotations

import ast
import hashlib
import os
import random
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from respaldo.api import BackupOptions, Places, Secret, init, open_as_client, open_repository, parse_credential
from respaldo.core.seams import Cancel, Silent

READER = Path(__file__).parent / "reader.py"
AREA = Path(__file__).parent / "area.py"
GRANTED = Path(__file__).parent / "granted.py"
RECORDS = Path(__file__).parent / "records.py"
PASSPHRASE = Secret(passphrase=b"correcto caballo")
OPENS = {"RESPALDO_PASSWORD": "correcto caballo"}
KEY = Secret(key=bytes(range(32)))


def run(*arguments, script=READER, **environment):
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-I", str(script), *map(str, arguments)],
        capture_output=True,
        env=clean | environment,
        check=False,
        timeout=120,
    )


def make_source(source):
    """Makes a tree with one of everything that a backup has to bring back."""
    chance = random.Random(3)
    source.mkdir()
    (source / "text").write_text("hola\n" * 1000)
    (source / "empty").touch()
    (source / "one byte").write_bytes(b"x")
    (source / "chunks").write_bytes(chance.randbytes(3_000_000))
    (source / "list").write_bytes(chance.randbytes(24_000_000))
    Path(os.fsdecode(bytes(source) + b"/caf\xe9 \x1b[31m\n")).write_bytes(b"odd name")
    (source / ("n" * 255)).write_bytes(b"long name")
    with (source / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(chance.randbytes(300_000))
        file.seek(40 << 20)
        file.write(b"end")
        file.truncate(45 << 20)
    with (source / "hole only").open("wb") as file:
        file.truncate(10 << 20)
    (source / "dir" / "below").mkdir(parents=True)
    (source / "dir" / "none").mkdir(mode=0o500)
    (source / "dir" / "below" / "twin").write_bytes(b"twins")
    os.link(source / "dir" / "below" / "twin", source / "twin")
    os.link(source / "list", source / "dir" / "list too")
    (source / "link").symlink_to("../away/nowhere")
    (source / "dir" / "up").symlink_to("..")
    os.mkfifo(source / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(source)  # a socket's path has a hundred bytes at most
        listener.bind("socket")
        os.chdir(here)
    (source / "setuid").write_bytes(b"#!/bin/sh\n")
    (source / "setuid").chmod(0o4711)
    (source / "secret").write_bytes(b"secret")
    (source / "secret").chmod(0)
    try:
        os.setxattr(source / "text", "user.note", b"\0value\xff")
        os.setxattr(source / "dir", "user.empty", b"")
    except OSError:
        pass  # the file system of the test run has none
    many = source / "many"
    many.mkdir()
    for number in range(5000):
        (many / f"{number:05}-{chance.random()}").write_bytes(b"%d" % (number % 7))
    os.utime(source / "text", ns=(0, -1_234_567_891))
    os.utime(source / "dir" / "none", ns=(0, 1_700_000_000_123_456_789))
    os.utime(source / "link", ns=(0, 1_600_000_000_000_000_001), follow_symlinks=False)


def described(top):
    """Returns what restoring must bring back: all of every path; and which are twins."""
    found, twins = {}, {}
    for folder, folders, files in os.walk(bytes(top)):
        for name in [b"", *folders, *files] if folder == bytes(top) else folders + files:
            path = os.path.join(folder, name) if name else folder
            status = os.lstat(path)
            row = [status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns]
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    row += [status.st_size, hashlib.sha256(file.read()).digest()]
                if status.st_nlink > 1:
                    twins.setdefault(status.st_ino, set()).add(path[len(bytes(top)) :])
            elif stat.S_ISLNK(status.st_mode):
                row.append(os.readlink(path))
            if not stat.S_ISLNK(status.st_mode):
                row.append({name: os.getxattr(path, name) for name in os.listxattr(path, follow_symlinks=False)})
            found[path[len(bytes(top)) :]] = row
    return found, sorted(map(sorted, twins.values()))


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory):
    """A source, a repository with two snapshots of it, and the ids of these."""
    folder = tmp_path_factory.mktemp("second")
    source, location = folder / "source", folder / "repository"
    make_source(source)
    places = Places(cache_dir=folder / "cache", state_dir=folder / "data")
    init(str(location), PASSPHRASE, places=places)
    snapshots = []
    with open_repository(str(location), PASSPHRASE, places=places, writes=True) as repository:
        repository.slots.add(KEY, label="escrow")
        for _ in range(2):
            result = repository.backup(
                [bytes(source)], BackupOptions(host="granja"), progress=Silent(), cancel=Cancel()
            )
            snapshots.append(result.snapshot.hex())
            (source / "later").write_bytes(b"came later")
    (source / "later").unlink()
    return source, location, snapshots


def strip(description):
    """Leaves out what changes because of the second snapshot: the source's own time."""
    rows, twins = description
    return {path: row[:3] + row[4:] if path == b"" else row for path, row in rows.items()}, twins


@pytest.mark.skipif(os.geteuid() != 0, reason="a file of mode 0 cannot be read and compared by its owner")
def test_extraction_is_the_source(backed_up, tmp_path):
    """Types, modes, owners, times, contents, holes, targets, attributes and hard links come back."""
    source, location, snapshots = backed_up
    done = run(location, snapshots[0], tmp_path / "out", **OPENS)
    assert done.stderr == b""
    assert done.returncode == 0
    restored = Path(str(tmp_path / "out") + str(source))
    assert strip(described(restored)) == strip(described(source))
    for name in ("sparse", "hole only"):
        assert (restored / name).stat().st_blocks <= (source / name).stat().st_blocks + 64


def test_snapshots_are_listed(backed_up):
    """Both, oldest first, with a passphrase and with a key."""
    _, location, snapshots = backed_up
    by_passphrase = run(location, **OPENS)
    assert [line.split()[0] for line in by_passphrase.stdout.decode().splitlines()] == snapshots
    key_file = location.parent / "key"
    key_file.write_bytes(bytes(range(32)))
    by_key = run(location, RESPALDO_KEY_FILE=str(key_file))
    assert by_key.stdout == by_passphrase.stdout
    assert by_key.stdout.count(b"granja") == 2


def test_wrong_passphrase_opens_nothing(backed_up):
    """It says so."""
    done = run(backed_up[1], **{**OPENS, "RESPALDO_PASSWORD": "incorrecto"})
    assert done.returncode != 0
    assert b"no key slot opens" in done.stderr


def test_outcome_of_another_snapshot_commits_nothing(backed_up, tmp_path):
    """A server that copies a commit under another name gets a snapshot that is not listed, not a false one."""
    _, location, snapshots = backed_up
    forged = tmp_path / "forged"
    subprocess.run(["cp", "-a", str(location), str(forged)], check=True)
    (forged / "outcome" / snapshots[1]).write_bytes((location / "outcome" / snapshots[0]).read_bytes())
    done = run(forged, **OPENS)
    assert [line.split()[0] for line in done.stdout.decode().splitlines()] == snapshots[:1]


def test_damaged_pack_is_noticed(backed_up, tmp_path):
    """One bit anywhere."""
    forged = tmp_path / "forged"
    subprocess.run(["cp", "-a", str(backed_up[1]), str(forged)], check=True)
    pack = next(path for path in (forged / "packs").rglob("*") if path.is_file())
    data = bytearray(pack.read_bytes())
    data[len(data) // 3] ^= 4
    pack.chmod(0o600)
    pack.write_bytes(data)
    done = run(forged, **OPENS)
    assert done.returncode != 0
    assert b"has other bytes than its name" in done.stderr


def test_reader_opens_one_that_names_content_like_another(backed_up, tmp_path):
    """Content keys of another repository, as docs/format.md has them."""
    source, location, _ = backed_up
    places = Places(cache_dir=tmp_path / "cache", state_dir=tmp_path / "data")
    with open_repository(str(location), PASSPHRASE, places=places) as pattern:
        init(str(tmp_path / "like"), PASSPHRASE, places=places, like=pattern)
    with open_repository(str(tmp_path / "like"), PASSPHRASE, places=places, writes=True) as repository:
        result = repository.backup([bytes(source)], BackupOptions(), progress=Silent(), cancel=Cancel())
    ran = run(tmp_path / "like", result.snapshot.hex(), tmp_path / "out", **OPENS)
    unread = 0 if os.geteuid() == 0 else 1  # a file that nobody but root can read
    assert (ran.returncode, ran.stderr.count(b"\n")) == (3 * unread, unread), ran.stderr


def test_owner_reads_the_area_of_a_client(backed_up, tmp_path):
    """One that was renewed, and removed, too: what it wrote before is there, what it wrote after is not."""
    source, _, _ = backed_up
    location = str(tmp_path / "repository")
    places = Places(cache_dir=tmp_path / "cache", state_dir=tmp_path / "data")
    there = Places(cache_dir=tmp_path / "there" / "cache", state_dir=tmp_path / "there" / "data")
    init(location, KEY, places=places)
    with open_repository(location, KEY, places=places, writes=True) as repository:
        credential = parse_credential(repository.clients.add("web").credential, "x")
    key_file = tmp_path / "key"
    key_file.write_bytes(bytes(range(32)))

    def back_up():
        with open_as_client(location, credential, places=there, writes=True) as area:
            result = area.backup([bytes(source)], BackupOptions(), progress=Silent(), cancel=Cancel())
            return result.snapshot.hex()

    first = back_up()
    with open_repository(location, KEY, places=places, writes=True) as repository:
        credential = parse_credential(repository.clients.renew("web").credential, "x")
    second = back_up()
    with open_repository(location, KEY, places=places, writes=True) as repository:
        repository.clients.remove("web")
    for sign in (tmp_path / "repository" / "clients").rglob("*.removed"):
        sign.unlink()  # as storage can that hides it
    back_up()
    listed = run(location, "web", script=AREA, RESPALDO_KEY_FILE=str(key_file))
    assert [line.split()[0] for line in listed.stdout.decode().splitlines()] == [first, second], listed.stderr
    run(location, "web", second, tmp_path / "out", script=AREA, RESPALDO_KEY_FILE=str(key_file))
    restored = Path(str(tmp_path / "out") + str(source))
    if os.geteuid() == 0:  # a file of mode 0 cannot be read and compared by its owner
        assert strip(described(restored)) == strip(described(source))
    else:
        assert (restored / "list").read_bytes() == (source / "list").read_bytes()


def test_reader_opens_one_whose_key_was_rotated(backed_up, tmp_path):
    """Slots that were made without their secret, a record of an epoch, objects of two epochs, then of one again."""
    source, location, snapshots = backed_up
    rotated = tmp_path / "rotated"
    subprocess.run(["cp", "-a", str(location), str(rotated)], check=True)
    places = Places(cache_dir=tmp_path / "cache", state_dir=tmp_path / "data")
    with open_repository(str(rotated), PASSPHRASE, places=places, writes=True) as repository:
        repository.slots.rotate(repository.slots.plan_rotation(PASSPHRASE))
    with open_repository(str(rotated), PASSPHRASE, places=places, writes=True) as repository:
        result = repository.backup([bytes(source)], BackupOptions(), progress=Silent(), cancel=Cancel())
    assert {item.parent.name for item in (rotated / "epochs").iterdir()} == {"epochs"}
    names = [line.split()[0] for line in run(rotated, **OPENS).stdout.decode().splitlines()]
    assert names == [*snapshots, result.snapshot.hex()]
    key_file = tmp_path / "key"
    key_file.write_bytes(bytes(range(32)))
    unread = 0 if os.geteuid() == 0 else 1  # a file that nobody but root can read
    for number, environment in enumerate((OPENS, {"RESPALDO_KEY_FILE": str(key_file)})):
        ran = run(rotated, names[2 * number], tmp_path / f"out{number}", **environment)
        assert (ran.returncode, ran.stderr.count(b"\n")) == (3 * unread, unread), ran.stderr
    with open_repository(str(rotated), PASSPHRASE, places=places, writes=True) as repository:
        done = repository.slots.reencrypt(progress=Silent(), cancel=Cancel())
        assert done.retired.epochs == (0,)
    now = [line.split()[0] for line in run(rotated, **OPENS).stdout.decode().splitlines()]
    assert now == [*(done.snapshots[bytes.fromhex(name)].hex() for name in snapshots), names[2]]
    ran = run(rotated, now[0], tmp_path / "again", **OPENS)
    assert (ran.returncode, ran.stderr.count(b"\n")) == (3 * unread, unread), ran.stderr


@pytest.mark.parametrize("script", [READER, AREA, GRANTED, RECORDS], ids=lambda path: path.stem)
def test_reader_shares_nothing_with_the_product(script):
    """It imports five libraries and the standard one, and is short enough to be trusted in an emergency."""
    text = script.read_text("utf-8")
    assert text.count("\n") <= 350
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            top = name.partition(".")[0]
            assert top in sys.stdlib_module_names | {
                "area",
                "reader",
                "blake3",
                "zstandard",
                "cryptography",
                "nacl",
                "msgpack",
            }
