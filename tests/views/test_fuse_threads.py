"""How many threads answer the kernel: no more than are needed, and always one that waits for what comes next."""

from __future__ import annotations

import socket
import threading

import pytest

from respaldo.views import fuse
from respaldo.views import fuse_wire as wire
from respaldo.views.fuse_wire import Op

WAIT_S = 20


class Slow:
    """Answers what is asked of node 2 only when it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def answer(self, request):
        if request.node == 2 and not self.go.wait(WAIT_S):
            raise TimeoutError
        return b"%d" % request.node


class Kernel:
    """Asks over a socket in the place of ``/dev/fuse``."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(WAIT_S)
        self.answers = Slow()
        self.session = fuse.Session.__new__(fuse.Session)
        self.session._answers = self.answers
        self.session._fd = self._theirs.fileno()
        self.session._be_idle()
        self.session._start_one()

    def ask(self, unique, node, op=Op.GETATTR):
        self._ours.send(wire.IN_HEADER.pack(wire.IN_HEADER.size, op, unique, node, 0, 0, 0, 0))

    def answered(self):
        """Returns which request was answered, and how."""
        data = self._ours.recv(1 << 16)
        _, error, unique = wire.OUT_HEADER.unpack_from(data)
        assert error == 0
        return unique, data[wire.OUT_HEADER.size :]

    @property
    def threads(self):
        return len(self.session._threads)

    def end(self):
        """Ends every thread: each reads one request more."""
        self.answers.go.set()
        for number in range(self.threads):
            self.ask(number, 1, Op.DESTROY)
        for thread in self.session._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()
        self._ours.close()
        self._theirs.close()


@pytest.fixture
def kernel():
    made = Kernel()
    yield made
    made.end()


def test_one_who_asks_one_after_the_other_has_two_threads(kernel):
    """One that answers and one that waits: no more, however often he asks."""
    for number in range(200):
        kernel.ask(number, 1)
        assert kernel.answered() == (number, b"1")
    assert kernel.threads == 2


def test_requests_that_take_long_keep_nobody_waiting(kernel):
    """While some are answered slowly, others are answered: with one thread fewer than there may be at most."""
    for number in range(fuse.THREADS - 1):
        kernel.ask(number, 2)
        kernel.ask(100 + number, 1)
        assert kernel.answered() == (100 + number, b"1")
    assert kernel.threads == fuse.THREADS
    kernel.answers.go.set()
    assert {kernel.answered()[0] for _ in range(fuse.THREADS - 1)} == set(range(fuse.THREADS - 1))


def test_threads_are_so_many_and_no_more(kernel):
    """However many requests wait, there are as many threads as that, and all are answered in the end."""
    for number in range(3 * fuse.THREADS):
        kernel.ask(number, 2)
    kernel.ask(99, 1)
    kernel.answers.go.set()
    assert len({kernel.answered()[0] for _ in range(3 * fuse.THREADS + 1)}) == 3 * fuse.THREADS + 1
    assert kernel.threads <= fuse.THREADS
