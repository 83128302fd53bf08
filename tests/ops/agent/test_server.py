"""The agent: gives the key to its own user, for as long as the lease says, and not a moment longer."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from respaldo.core.errors import Refused
from respaldo.core.seams import awake_or_asleep_s
from respaldo.ops.agent import client, place, server, wire
from respaldo.ops.agent.locked import Locked

HEADER = b"H" * 32
SLOT = "keys/" + "0" * 16
KEY = bytes(range(32))
NAME = place.name_of(HEADER)


class Clock:
    """Is moved by hand."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "run" / "respaldo"


@pytest.fixture
def serve(directory, clock):
    """Runs agents in threads; returns the thread and the key's memory."""
    running = []

    def start(*, for_s=100.0, idle_s=0.0, leader=0, leader_started=0):
        lease = wire.Lease(
            directory=str(directory),
            name=NAME,
            slot=SLOT,
            repository="ab" * 16,
            location="/there",
            for_s=for_s,
            idle_s=idle_s,
            leader=leader,
            leader_started=leader_started,
        )
        key = Locked(32)
        key.view[:] = KEY
        ready = threading.Event()

        def run():
            with place.entered(directory, make=True) as fd:
                agent = server.Agent(lease, key, place.listen(fd, NAME), fd, clock)
                ready.set()
                agent.serve()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert ready.wait(60)
        running.append(thread)
        return thread, key

    yield start
    with contextlib.suppress(Refused):
        client.lock(directory)
    for thread in running:
        thread.join(60)
        assert not thread.is_alive()


def ended(thread, key):
    thread.join(60)
    return not thread.is_alive() and bytes(key.view) == bytes(32)


def test_key_is_given_and_wiped_by_lock(directory, serve):
    """It is given as often as it is asked for; after lock the memory is zero and the socket gone."""
    thread, key = serve()
    for _ in range(3):
        opened = client.fetch(directory, HEADER)
        assert (opened.master, opened.slot) == (KEY, SLOT)
    [held] = client.status(directory)
    assert (held.repository, held.location, held.slot, held.pid) == ("ab" * 16, "/there", SLOT, os.getpid())
    assert client.lock(directory, HEADER) == 1
    assert ended(thread, key)
    assert os.listdir(directory) == []
    assert client.fetch(directory, HEADER) is None
    assert client.lock(directory, HEADER) == 0


def test_another_repository_gets_nothing(directory, serve):
    """A key is found by the hash of the header that it belongs to."""
    serve()
    assert client.fetch(directory, b"I" * 32) is None
    assert client.lock(directory, location="/elsewhere") == 0
    assert client.fetch(directory, HEADER) is not None
    assert client.lock(directory, location="/there") == 1


def test_time_asleep_counts(directory, serve, clock):
    """After the machine slept over the end, nothing is given, even before the agent looks at the clock by itself."""
    thread, key = serve(for_s=60)
    clock.now_s += 59
    assert client.fetch(directory, HEADER) is not None
    clock.now_s += 3600
    assert client.fetch(directory, HEADER) is None
    assert ended(thread, key)


def test_it_ends_by_itself(directory, serve, clock):
    """Nobody need ask for it to end."""
    thread, key = serve(for_s=60)
    clock.now_s += 61
    assert ended(thread, key)
    assert os.listdir(directory) == []


def test_clock_is_the_one_that_counts_suspend():
    """Not the monotonic one, which stands still while the machine sleeps, nor the wall clock, which can be set."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= awake_or_asleep_s() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_idle_ends_it_and_only_getting_the_key_counts_as_use(directory, serve, clock):
    """Asking how long it lasts does not prolong it, and use does not prolong it beyond its end."""
    thread, key = serve(for_s=100, idle_s=30)
    for _ in range(3):
        clock.now_s += 20
        assert client.fetch(directory, HEADER) is not None
    [held] = client.status(directory)
    assert (held.left_s, held.idle_left_s) == (40, 30)
    clock.now_s += 20
    client.status(directory)
    clock.now_s += 11
    assert client.status(directory) == []
    assert ended(thread, key)


def test_it_ends_with_its_socket(directory, serve):
    """Whoever takes the socket away, or puts another one there, ends it, and the other one stays."""
    thread, key = serve()
    (directory / NAME).unlink()
    assert ended(thread, key)
    thread, key = serve()
    with socket.socket(socket.AF_UNIX) as other, place.entered(directory) as fd:
        os.unlink(directory / NAME)
        other.bind(place.path_of(fd, NAME))
        assert ended(thread, key)
        assert place.names(fd) == [NAME]


def test_it_ends_with_the_directory_of_the_login(directory, serve):
    """At logout the system removes it with all that is in it."""
    import shutil

    thread, key = serve()
    shutil.rmtree(directory.parent)
    assert ended(thread, key)


def test_it_ends_with_the_process_that_stands_for_the_login(directory, serve):
    """Without such a directory, the end of the session's first process is the end of the login."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        thread, key = serve(leader=process.pid, leader_started=server.started_at(process.pid))
        assert client.fetch(directory, HEADER) is not None
        process.kill()
    assert ended(thread, key)


def test_process_number_that_came_back_is_not_the_login(directory, serve):
    """The process of that number must be the one that it was."""
    thread, key = serve(leader=os.getpid(), leader_started=server.started_at(os.getpid()) - 1)
    assert ended(thread, key)


@pytest.mark.parametrize(
    "question",
    [b"", b"x", wire.MAGIC, wire.MAGIC + b"x", b"x" * 100, wire.MAGIC[:-2] + b"2 g", b"GET / HTTP/1.1\r\n\r\n"],
)
def test_other_questions_get_nothing(directory, serve, question):
    """And do it no harm."""
    serve()
    with place.entered(directory) as fd, place.connect(fd, NAME) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(question)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    assert client.fetch(directory, HEADER) is not None


def test_peer_that_says_nothing_does_not_keep_others_waiting_for_ever(directory, serve):
    """It is hung up on after a second."""
    serve()
    with place.entered(directory) as fd, place.connect(fd, NAME):
        assert client.fetch(directory, HEADER) is not None


def test_another_user_is_refused_by_what_the_kernel_says(directory, serve, monkeypatch):
    """Whatever the modes of directory and socket have become, and in both directions."""
    serve()
    real = place.peer_of
    monkeypatch.setattr(place, "peer_of", lambda connection: (real(connection)[0], os.geteuid() + 1))
    with place.entered(directory) as fd:
        assert place.connect(fd, NAME) is None
        with socket.socket(socket.AF_UNIX) as bare:
            bare.connect(place.path_of(fd, NAME))
            with contextlib.suppress(ConnectionError):
                bare.sendall(wire.MAGIC + wire.GET)
                assert bare.recv(100) == b""


@pytest.mark.root
def test_another_user_gets_nothing_through_open_doors(directory, serve, tmp_path):
    """A directory and a socket that anybody can reach do not suffice: the agent looks at who asks."""
    serve()
    (tmp_path / "ask.py").write_text(
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(20)\n"
        "os.chdir(sys.argv[1]); s.connect(sys.argv[2])\n"
        "try: s.sendall(sys.argv[3].encode()); print('got', len(s.recv(100)))\n"
        "except ConnectionError: print('got 0')\n"
    )
    here = directory
    while here != here.parent and here.stat().st_uid == os.getuid() and str(here).startswith("/tmp/"):
        here.chmod(0o755)
        here = here.parent
    (directory / NAME).chmod(0o777)
    words = [str(directory), NAME, (wire.MAGIC + wire.GET).decode()]
    ran = subprocess.run([sys.executable, tmp_path / "ask.py", *words], capture_output=True, text=True, check=False)
    directory.chmod(0o700)
    assert ran.stdout == "got 0\n", ran.stderr


# --- places that are not safe ---


def test_directory_that_is_not_private_is_refused(directory, tmp_path):
    """A link, a file, a directory that others can reach: nothing is bound there, and nobody is asked there."""
    directory.parent.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    directory.symlink_to(elsewhere)
    with pytest.raises(Refused, match="a link"):
        client.fetch(directory, HEADER)
    with pytest.raises(Refused, match="a link"), place.entered(directory, make=True):
        pass
    directory.unlink()
    directory.touch()
    with pytest.raises(Refused, match="no directory"):
        client.status(directory)
    directory.unlink()
    directory.mkdir()
    for mode in (0o755, 0o770, 0o701):
        directory.chmod(mode)
        with pytest.raises(Refused, match=f"mode {mode:o}"):
            client.lock(directory, HEADER)
    assert os.listdir(elsewhere) == []


@pytest.mark.root
def test_directory_of_somebody_else_is_refused(directory):
    """Whoever made it could put a socket of his own there."""
    directory.mkdir(parents=True, mode=0o700)
    os.chown(directory, 65534, 65534)
    with pytest.raises(Refused, match="somebody else"):
        client.fetch(directory, HEADER)


def test_what_is_no_socket_is_neither_followed_nor_removed(directory, tmp_path):
    """A link in the socket's place leads nowhere, and what it points at stays as it is."""
    with place.entered(directory, make=True) as fd:
        target = tmp_path / "precious"
        target.write_text("precious")
        for put in (lambda: (directory / NAME).symlink_to(target), lambda: (directory / NAME).write_text("file")):
            put()
            assert client.fetch(directory, HEADER) is None
            assert client.lock(directory) == 0
            with pytest.raises(Refused, match="no socket"):
                place.listen(fd, NAME)
            assert os.path.lexists(directory / NAME)
            (directory / NAME).unlink()
    assert target.read_text() == "precious"


def test_link_to_a_socket_is_not_followed(directory, serve, tmp_path):
    """Somebody's own agent elsewhere is not asked through a link."""
    serve()
    (directory / NAME).rename(directory / ("f" * 32))
    (directory / NAME).symlink_to(directory / ("f" * 32))
    assert client.fetch(directory, HEADER) is None
    (directory / NAME).unlink()


def test_socket_that_nobody_listens_at_is_swept_away(directory):
    """What a killed agent left is none, and in nobody's way."""
    with place.entered(directory, make=True) as fd:
        place.listen(fd, NAME).close()
        assert client.fetch(directory, HEADER) is None
        assert client.status(directory) == []
        assert client.lock(directory) == 0
        assert place.names(fd) == []
        place.listen(fd, NAME).close()
        place.listen(fd, NAME).close()


@pytest.mark.parametrize("answer", [b"", b"x", SLOT.encode() + KEY[:-1], SLOT.encode() + KEY + b"x", b"{}", b"[1]"])
def test_answer_of_another_form_is_none(directory, answer):
    """An agent of another version, or something else that listens there, gives no key and no status."""
    with place.entered(directory, make=True) as fd:
        listener = place.listen(fd, NAME)

        def talk():
            for _ in range(2):
                connection, _ = listener.accept()
                connection.recv(100)
                connection.sendall(answer)
                connection.close()

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        assert client.fetch(directory, HEADER) is None
        assert client.status(directory) == []
        thread.join(60)
        listener.close()


def test_memory_is_locked_and_wiped():
    """It counts as locked, and is zero afterwards, in a child from the first moment."""

    def locked_kib():
        with open("/proc/self/status") as file:
            return int(next(line for line in file if line.startswith("VmLck")).split()[1])

    before = locked_kib()
    made = Locked(32)
    assert locked_kib() > before
    made.view[:] = KEY
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, made.view)
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 100) == bytes(32)
    assert bytes(made.view) == KEY
    made.wipe()
    assert bytes(made.view) == bytes(32)
    os.close(reader)
    os.close(writer)


def test_key_comes_through_a_pipe_whole_or_not_at_all():
    """In however many pieces."""
    reader, writer = os.pipe()
    made = Locked(32)
    os.write(writer, KEY[:5])
    threading.Timer(0.05, lambda: os.write(writer, KEY[5:])).start()
    made.fill(reader)
    assert bytes(made.view) == KEY
    os.write(writer, KEY[:5])
    os.close(writer)
    with pytest.raises(EOFError):
        made.fill(reader)
    os.close(reader)
