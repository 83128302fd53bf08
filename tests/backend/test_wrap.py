"""Wrappers around a backend."""

from __future__ import annotations

import threading

import pytest

from respaldo.backend.base import Backend
from respaldo.backend.faults import Fault, Faults, lasting_failure, passing_failure
from respaldo.backend.memory import MemoryBackend
from respaldo.backend.wrap import Counting, Latency, RateLimit, ReadOnly, Retry, Wrapper
from respaldo.core.errors import ObjectExists, ObjectMissing, StorageDenied, StorageFailed
from respaldo.core.seams import Cancel
from tests.backend.contract import BackendContract


class FakeTime:
    """Is a clock that only sleeping moves."""

    def __init__(self) -> None:
        self.ns = 5 * 10**9
        self.sleeps: list[float] = []

    def now_ns(self) -> int:
        return self.ns

    def monotonic_ns(self) -> int:
        return self.ns

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.ns += round(seconds * 1e9)


class TestWrapper(BackendContract):
    @pytest.fixture
    def backend(self):
        return Wrapper(MemoryBackend())


class TestLatency(BackendContract):
    @pytest.fixture
    def backend(self):
        return Latency(MemoryBackend(), 0)


class TestRateLimit(BackendContract):
    @pytest.fixture
    def backend(self):
        return RateLimit(MemoryBackend(), 1 << 40)


class TestCounting(BackendContract):
    @pytest.fixture
    def backend(self):
        return Counting(MemoryBackend())


class TestRetry(BackendContract):
    @pytest.fixture
    def backend(self):
        return Retry(MemoryBackend())


class TestStack(BackendContract):
    """As a repository on a server would be opened."""

    @pytest.fixture
    def backend(self):
        return Counting(RateLimit(Retry(Latency(MemoryBackend(), 0)), 1 << 40))


class TestDefaults(BackendContract):
    """A backend with nothing but what it must have."""

    replaces = False

    @pytest.fixture
    def backend(self):
        class Least(Backend):
            location = "least"
            inner = MemoryBackend()
            put, get, list = inner.put, inner.get, inner.list
            delete, exists = inner.delete, inner.exists

        return Least()


def test_latency_waits_once_a_call():
    """Every round trip costs what was asked for."""
    time = FakeTime()
    backend = Latency(MemoryBackend(), 0.02, time.sleep)
    backend.put("log/a", [b"x"])
    with backend.stage("log") as stage:
        stage.write(b"x")
        stage.write(b"x")
        stage.commit("log/b")
    backend.get("log/a")
    backend.list("log")
    backend.names("log")
    backend.exists("log/a")
    backend.space()
    backend.arrivals("pending")
    backend.now_ns()
    backend.delete("log/a")
    assert time.sleeps == [0.02] * 10
    backend.discard(["log/a", "log/b"])
    assert time.sleeps[10:] == [0.04]


class Arrivals(MemoryBackend):
    """Notes when which bytes arrive."""

    def __init__(self, time: FakeTime) -> None:
        super().__init__()
        self.time = time
        self.arrived: list[tuple[int, int]] = []

    def stage(self, folder):
        outer, inner = self, super().stage(folder)
        write = inner.write

        class Noting(type(inner)):
            __slots__ = ()

            def write(self, piece):
                outer.arrived.append((outer.time.ns, len(piece)))
                write(piece)

        inner.__class__ = Noting
        return inner


@pytest.mark.parametrize("rate", [20 << 20, 100_000])
def test_rate_limit_is_smooth(rate):
    """No tenth of a second sees more than its share and one slice, however big the pieces are."""
    time = FakeTime()
    inner = Arrivals(time)
    backend = RateLimit(inner, rate, time, time.sleep)
    total = rate * 3
    backend.put("packs/ab", [bytes(total // 2), bytes(total - total // 2)])
    assert inner.exists("packs/ab") == total
    assert sum(length for _, length in inner.arrived) == total
    longest = max(length for _, length in inner.arrived)
    assert longest <= max(rate / 20, 4096)
    for start_ns, _ in inner.arrived:
        window = sum(length for at_ns, length in inner.arrived if start_ns <= at_ns < start_ns + 10**8)
        assert window <= rate / 10 + 2 * longest
    assert sum(time.sleeps) == pytest.approx((total - longest) / rate, rel=0.05)


def test_rate_limit_counts_the_header_and_what_came_before():
    """The bytes of one call are paid for by the next."""
    time = FakeTime()
    backend = RateLimit(MemoryBackend(), 1000, time, time.sleep)
    backend.put("header", [bytes(500)])
    assert time.sleeps == []
    backend.put("keys/a", [b"x"])
    assert time.sleeps == [0.5]


def test_rate_limit_is_shared_by_threads():
    """Two threads together get one rate."""
    time = FakeTime()
    pauses: list[float] = []
    backend = RateLimit(MemoryBackend(), 1000, time, pauses.append)  # nobody moves the clock
    threads = [threading.Thread(target=backend.put, args=(f"log/{number}", [bytes(1000)])) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(pauses) == [1.0, 2.0]


def test_rate_limit_ends_with_the_run():
    """A stop that is asked for in the middle of a wait ends it within a moment, and what comes later does not wait."""
    time = FakeTime()
    inner = MemoryBackend()
    stop = Cancel()
    backend = RateLimit(inner, 100, time, time.sleep)
    backend.lift_when(lambda: stop.requested)
    real = time.sleep

    def sleep(seconds):
        real(seconds)
        if sum(time.sleeps) >= 3:
            stop.request("SIGINT")

    backend._sleep = sleep
    began = time.ns
    backend.put("packs/ab", [bytes(20_000)])
    backend.put("segments/ab", [bytes(20_000)])
    assert 3 * 10**9 <= time.ns - began <= 3.2 * 10**9
    assert (inner.exists("packs/ab"), inner.exists("segments/ab")) == (20_000, 20_000)
    assert max(time.sleeps) <= 0.1


@pytest.mark.parametrize("rate", [0, -1])
def test_rate_limit_needs_a_rate(rate):
    """A limit of nothing would wait for ever."""
    with pytest.raises(ValueError):
        RateLimit(MemoryBackend(), rate)


def test_rate_limit_does_not_wait_for_reads():
    """Only what is put is limited."""
    time = FakeTime()
    inner = MemoryBackend()
    inner.put("log/a", [bytes(10_000)])
    backend = RateLimit(inner, 10, time, time.sleep)
    assert len(backend.get("log/a")) == 10_000
    backend.list("log")
    backend.names("log")
    backend.delete("log/a")
    assert time.sleeps == []


def test_counting_counts():
    """Calls and bytes are counted by verb, a committed stage as one put."""
    backend = Counting(MemoryBackend())
    backend.put("log/a", [b"abc", b"d"])
    with backend.stage("log") as stage:
        stage.write(b"abc")
        stage.write(b"de")
        stage.commit("log/b")
    with backend.stage("log") as stage:
        stage.write(b"never put")
    backend.get("log/a", 1, 2)
    backend.list("log")
    backend.names("log")
    backend.exists("log/a")
    backend.delete("log/a")
    backend.discard(["log/b", "log/c"])
    assert backend.calls == {"put": 2, "get": 1, "list": 2, "exists": 1, "delete": 3}
    assert backend.length_bytes["put"] == 9
    assert backend.length_bytes["get"] == 2
    backend.reset()
    assert backend.calls == {}


def test_read_only_writes_nothing():
    """Whatever would change something is refused before it gets anywhere."""
    inner = Faults(MemoryBackend())
    inner.put("log/a", [b"abc"])
    calls = len(inner.calls)
    backend = ReadOnly(inner)
    for use in (
        lambda: backend.put("log/b", [b"x"]),
        lambda: backend.put("header", [b"x"]),
        lambda: backend.stage("packs"),
        lambda: backend.delete("log/a"),
        lambda: backend.delete("log/none"),
        lambda: backend.discard(["log/a"]),
    ):
        with pytest.raises(StorageDenied):
            use()
    assert len(inner.calls) == calls
    assert backend.get("log/a") == b"abc"
    assert backend.list("log") == [("log/a", 3)]
    assert backend.names("log") == ["log/a"]
    assert backend.exists("log/a") == 3
    assert backend.discard([]) == 0


def test_read_only_knows_malformed_names():
    """The caller's mistakes are the same mistakes."""
    backend = ReadOnly(MemoryBackend())
    for use in (lambda: backend.put("a", []), lambda: backend.stage("a"), lambda: backend.delete("a")):
        with pytest.raises(ValueError):
            use()


def retrying(*plan: Fault, attempts: int = 4, draw: bytes = b"\xff\xff\xff\xff"):
    time = FakeTime()
    faults = Faults(MemoryBackend(), plan)
    return Retry(faults, attempts, time.sleep, lambda length: draw[:length], first_s=1, longest_s=4), faults, time


def uses(backend):
    """Yields one use of every verb, on a backend that holds log/a."""
    yield "get", lambda: backend.get("log/a")
    yield "list", lambda: backend.list("log")
    yield "names", lambda: backend.names("log")
    yield "exists", lambda: backend.exists("log/a")
    yield "put", lambda: backend.put("log/b", [b"x"])
    yield "delete", lambda: backend.delete("log/a")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("verb", ["get", "list", "names", "exists", "put", "delete"])
def test_retry_overcomes_passing_failures(verb, after):
    """Every verb is tried again, whether or not the attempt that failed had its effect."""
    called = "list" if verb == "names" else verb
    backend, faults, time = retrying(Fault(at=1, error=passing_failure, after=after, verbs=frozenset({called})))
    faults.inner.put("log/a", [b"abc"])
    dict(uses(backend))[verb]()
    assert time.sleeps == [pytest.approx(1)]
    assert set(faults.inner.snapshot()) == ({"put": {"log/a", "log/b"}, "delete": set()}.get(verb, {"log/a"}))


def test_retry_gives_up():
    """The last attempt's error is the caller's, and the pauses grow up to the longest."""
    backend, faults, time = retrying(Fault(at=1, times=99, error=passing_failure), attempts=6)
    with pytest.raises(StorageFailed):
        backend.list("log")
    assert len(faults.calls) == 6
    assert time.sleeps == [pytest.approx(pause) for pause in (1, 2, 4, 4, 4)]


def test_retry_draws_its_pauses():
    """Pauses are drawn, so that clients do not come back all at once; never none at all."""
    _, _, time = case = retrying(Fault(at=1, times=2, error=passing_failure), draw=b"\0\0\0\x80")
    case[0].list("log")
    assert time.sleeps == [pytest.approx(0.5), pytest.approx(1)]
    _, _, time = case = retrying(Fault(at=1, error=passing_failure), draw=b"\0\0\0\0")
    case[0].list("log")
    assert time.sleeps == [pytest.approx(0.1)]


def test_retry_leaves_lasting_failures_alone():
    """What says that a retry cannot help is not retried."""
    backend, faults, time = retrying(Fault(at=1, error=lasting_failure))
    with pytest.raises(StorageFailed):
        backend.list("log")
    with pytest.raises(ObjectMissing):
        backend.get("log/none")
    with pytest.raises(ObjectMissing):
        backend.delete("log/none")
    assert len(faults.calls) == 3
    assert time.sleeps == []


def test_retry_takes_no_other_object_for_its_own():
    """Only the same bytes are taken for success, and only after a failure that left it open."""
    for theirs in (b"y", b"xy", b""):
        backend, faults, _ = retrying(Fault(at=1, error=passing_failure, verbs=frozenset({"put"})))
        faults.inner.put("outcome/a", [theirs])
        with pytest.raises(ObjectExists):
            backend.put("outcome/a", [b"x"])
    backend, faults, _ = retrying()
    faults.inner.put("outcome/a", [b"x"])
    with pytest.raises(ObjectExists):
        backend.put("outcome/a", [b"x"])


def test_retry_covers_stages():
    """A staged object is put with retries too."""
    backend, faults, _ = retrying(Fault(at=1, times=2, error=passing_failure, after=True, verbs=frozenset({"put"})))
    with backend.stage("packs") as stage:
        stage.write(b"ab")
        stage.write(b"cd")
        stage.commit("packs/ab")
    assert faults.inner.get("packs/ab") == b"abcd"


def test_retry_of_a_sweep():
    """A sweep is taken up again where it failed."""
    backend, faults, _ = retrying(Fault(at=2, error=passing_failure, after=True, verbs=frozenset({"delete"})))
    for leaf in "abc":
        faults.inner.put(f"log/{leaf}", [])
    backend.discard(["log/a", "log/b", "log/c"])
    assert faults.inner.list("log") == []


def test_retry_needs_an_attempt():
    """No attempt at all would be no backend."""
    with pytest.raises(ValueError):
        Retry(MemoryBackend(), 0)
