"""Fetching: blocks are decoded once each by worker threads, ahead of who reads them, and their chunks checked there.

The main thread orders chunks in the order in which it will write them; chunks that lie in one block become one task. A
task holds its block until everything that waits for it has been written; decoded blocks are kept a little longer,
because files that were backed up together lie together. Of those that are let go, what is likely to be needed stays
compressed (`respaldo.store.remains`). Memory is bounded by `HELD_BYTES`, `KEPT_BYTES` and `REMAINS_BYTES`, whatever is
restored.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing, RespaldoError, StorageError
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.seams import Cancel
from respaldo.store.blocks import Blocks, Location, Run
from respaldo.store.remains import Remains
from respaldo.store.reopened import Key

HELD_BYTES = 18 << 20
KEPT_BYTES = 8 << 20
FILLING_MAX = 12
"""So many blocks are collected for at once: files that were backed up together lie in few, those of one snapshot out of
many in a dozen: with four of them, a restore of one out of a hundred had a quarter more tasks."""
CHUNKS_MAX = 512
"""A task has no more chunks than this, so that the writer never waits long for the first of them."""
FAILURES_IN_A_ROW_MAX = 64
"""So many blocks that cannot be fetched, and none that can in between: the storage is gone, not a block."""
_COPIED_MAX, _COPIED_PART = 16, 8
"""Of a block from which no more chunks are needed, and less than such a part, these are copied."""
_WAIT_S = 0.5
_SPARED = (MemoryError, OSError, Corruption)
"""What remains of a block may meet these, as where the system has no more memory: it is opened again instead."""


class Task:
    """Is chunks of one block. ``views`` are theirs once it is done; ``bad`` says which have none, and why."""

    __slots__ = ("bad", "done", "error", "ids", "key", "mended", "sent", "spans", "users", "views")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.ids: list[ChunkId] = []
        self.spans: list[tuple[int, int]] = []
        self.views: list[memoryview] = []
        self.bad: dict[int, RespaldoError] = {}
        self.error: BaseException | None = None
        self.users = 0
        self.sent = False
        self.mended = False
        self.done = threading.Lock()
        self.done.acquire()


class _Kept:
    """Is a decoded block, and how far chunks of it were asked for."""

    __slots__ = ("asked_to", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.asked_to = 0


class Fetcher:
    """Hands out checked chunks. A context manager; all methods belong to one thread."""

    def __init__(self, blocks: Blocks, cancel: Cancel) -> None:
        self._blocks = blocks
        self._cancel = cancel
        self._queue: SimpleQueue[Task | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._kept_bytes = 0
        self._remains = Remains()
        self._busy: dict[Key, threading.Event] = {}
        """Blocks that a thread is opening, taking from or cutting up."""
        self._block_bytes = 1 << 20
        self._filling: dict[Key, Task] = {}
        self._held: Counter[Key] = Counter()
        self._gone: set[int] = set()
        self._failures_in_a_row = 0
        self._threads = [threading.Thread(target=self._work, name="open", daemon=True) for _ in range(blocks.at_once)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        queue = self._queue
        if error is not None:
            with suppress(Empty):  # A worker may take the last one at any moment: never wait for one.
                while True:
                    queue.get_nowait()
        for _ in self._threads:
            queue.put(None)
        for thread in self._threads:
            thread.join()

    @property
    def full(self) -> bool:
        """Whether something has to be written before more is ordered."""
        return len(self._held) * self._block_bytes >= HELD_BYTES

    def want(self, chunk_id: ChunkId, at: Location) -> tuple[Task, int]:
        """Orders a chunk; returns the task that it will be in, and its number there."""
        task = self._task((at.pack, at.block))
        task.ids.append(chunk_id)
        task.spans.append((at.offset, at.length))
        slot = len(task.ids) - 1
        if slot + 1 >= CHUNKS_MAX:
            self._send(task)
        return task, slot

    def want_run(self, ids: Sequence[ChunkId], run: Run) -> tuple[Task, int]:
        """Orders chunks that lie in a run, `CHUNKS_MAX` at most; returns their task, and the number of the first."""
        key = (run.pack, run.block)
        filling = self._filling.get(key)
        if filling is not None and len(filling.ids) + len(ids) > CHUNKS_MAX:
            self._send(filling)
        task = self._task(key)
        slot = len(task.ids)
        task.ids += ids
        task.spans += run.spans
        if len(task.ids) >= CHUNKS_MAX:
            self._send(task)
        return task, slot

    def _task(self, key: Key) -> Task:
        """Returns the task of a block that takes chunks."""
        task = self._filling.get(key)
        if task is None:
            if len(self._filling) >= FILLING_MAX:
                self._send(next(iter(self._filling.values())))
            task = self._filling[key] = Task(key)
            self._held[key] += 1
        return task

    def _send(self, task: Task) -> None:
        """Hands a task to the workers."""
        del self._filling[task.key]
        task.sent = True
        self._queue.put(task)

    def wait(self, tasks: Sequence[Task]) -> None:
        """Returns when tasks are done; raises `Interrupted`, and what no task should."""
        for task in tasks:
            if not task.sent:
                self._send(task)
            while not task.done.acquire(timeout=_WAIT_S):
                self._cancel.check()
            task.done.release()
            if task.error is not None:
                self._look_again(task)
            if task.bad and not task.mended:
                self._mend(task)

    def release(self, task: Task) -> None:
        """Counts down who waits for a task; the last one lets its block go."""
        task.users -= 1
        if task.users == 0 and task.sent:
            task.views = []
            self._held[task.key] -= 1
            if not self._held[task.key]:
                del self._held[task.key]

    def _look_again(self, task: Task) -> None:
        """Settles a task whose block could not be had: a pack that has gone may have been copied elsewhere."""
        error, task.error = task.error, None
        if not isinstance(error, RespaldoError):
            raise error or RuntimeError("a task failed without an error")
        if isinstance(error, StorageError) and not isinstance(error, ObjectMissing):
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= FAILURES_IN_A_ROW_MAX:
                raise error
        if isinstance(error, ObjectMissing) and task.key[0] not in self._gone:
            self._gone.add(task.key[0])
            self._blocks.refresh()
        if isinstance(error, ObjectMissing):
            self._fetch_one_by_one(task)
            return
        task.views = [memoryview(b"")] * len(task.ids)
        task.bad = dict.fromkeys(range(len(task.ids)), error)

    def _mend(self, task: Task) -> None:
        """Takes chunks that are damaged here from another pack that holds them, where there is one."""
        task.mended = True
        damaged = [task.ids[number] for number, error in task.bad.items() if isinstance(error, Corruption)]
        if damaged:
            self._blocks.damaged(task.key[0], damaged)
        for number, error in list(task.bad.items()):
            if not isinstance(error, Corruption):
                continue
            try:
                task.views[number] = memoryview(self._blocks.copy(Kind.DATA, task.ids[number]))
            except RespaldoError:
                continue
            del task.bad[number]

    def _fetch_one_by_one(self, task: Task) -> None:
        task.views = []
        for number, chunk_id in enumerate(task.ids):
            view = memoryview(b"")
            try:
                at = self._blocks.locate(Kind.DATA, chunk_id)
                (view,) = self._pieces((at.pack, at.block), [(at.offset, at.length)])
                self._let_go()
                self._blocks.check(Kind.DATA, chunk_id, view)
            except (ObjectMissing, ChunkMissing):  # moved again, or listed neither where it was nor where it is
                view = self._found(task, number)
            except RespaldoError as error:
                task.bad[number] = error
            task.views.append(view)

    def _found(self, task: Task, number: int) -> memoryview:
        """Returns a chunk from wherever it is now."""
        try:
            return memoryview(self._blocks.copy(Kind.DATA, task.ids[number]))
        except RespaldoError as error:
            task.bad[number] = error
            return memoryview(b"")

    # --- in the workers ----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        queue = self._queue
        while (task := queue.get()) is not None:
            try:
                self._open(task)
            except BaseException as error:  # noqa: BLE001 - raised again by `wait`, in the thread that can handle it
                task.error = error
            task.done.release()
            del task  # An idle worker holds no block.
            with suppress(Exception):  # All that is lost is what a block is opened again for.
                self._let_go()

    def _open(self, task: Task) -> None:
        check = self._blocks.check
        views = self._pieces(task.key, task.spans)
        for number, (chunk_id, (_, length)) in enumerate(zip(task.ids, task.spans, strict=True)):
            piece = views[number]
            try:
                if len(piece) != length:
                    raise Corruption(f"data chunk {chunk_id.hex()[:16]}", "it lies outside its block")
                check(Kind.DATA, chunk_id, piece)
            except Corruption as error:
                task.bad[number] = error
        task.views = views
        self._failures_in_a_row = 0

    def _pieces(self, key: Key, spans: list[tuple[int, int]]) -> list[memoryview]:
        """Returns pieces of a block; where another thread is at it, waits for that."""
        while True:
            with self._lock:
                kept = self._kept.get(key)
                if kept is not None:
                    self._kept.move_to_end(key)
                    return _cut_out(kept, spans)
                busy = self._busy.get(key)
                if busy is None:
                    mine = self._busy[key] = threading.Event()
                    rest = self._remains.pop(key)
                    break
            busy.wait()
        try:
            views = None
            if rest is not None:
                with suppress(*_SPARED):
                    views = rest.take(self._remains.decompressor, spans)
            if rest is not None and views is not None:
                with self._lock:
                    self._remains.put(key, rest, taken=1)
                return views
            kept = _Kept(self._blocks.block(*key))
            with self._lock:
                self._block_bytes = max(self._block_bytes, len(kept.raw))
                self._kept[key] = kept
                self._kept_bytes += len(kept.raw)
                self._remains.opened(key, spans[0][0])
                return _cut_out(kept, spans)
        finally:
            self._done_with(key, mine)

    def _let_go(self) -> None:
        """Lets go of blocks that were used longest ago, but for what remains of them."""
        while True:
            with self._lock:
                if self._kept_bytes <= KEPT_BYTES or len(self._kept) <= 1:
                    return
                key, kept = self._kept.popitem(last=False)
                self._kept_bytes -= len(kept.raw)
                if not self._remains.takes(key, kept.asked_to, len(kept.raw)):
                    continue
                mine = self._busy[key] = threading.Event()
            try:
                with suppress(*_SPARED):
                    rest = self._remains.cut(kept.raw, kept.asked_to)
                    with self._lock:
                        self._remains.put(key, rest)
            finally:
                self._done_with(key, mine)

    def _done_with(self, key: Key, mine: threading.Event) -> None:
        """Lets others at a block; one that was let go at once may be busy again, for another thread."""
        with self._lock:
            if self._busy.get(key) is mine:
                del self._busy[key]
        mine.set()


def _cut_out(kept: _Kept, spans: list[tuple[int, int]]) -> list[memoryview]:
    """Returns pieces of a block; few small ones as copies, so that they do not hold all of it."""
    view = memoryview(kept.raw)
    kept.asked_to = max(kept.asked_to, sum(max(spans)))
    views = [view[offset : offset + length] for offset, length in spans]
    if len(views) <= _COPIED_MAX and sum(map(len, views)) * _COPIED_PART < len(view):
        return [memoryview(bytes(piece)) for piece in views]
    return views


class Order:
    """Is chunks that were ordered together, in the order of their writing."""

    __slots__ = ("slots", "tasks", "together")

    def __init__(self) -> None:
        self.together: dict[Task, None] = {}
        self.tasks: list[Task] = []
        self.slots: list[int] = []

    def add(self, fetcher: Fetcher, chunk_id: ChunkId, at: Location) -> None:
        task, slot = fetcher.want(chunk_id, at)
        if task not in self.together:
            self.together[task] = None
            task.users += 1
        self.tasks.append(task)
        self.slots.append(slot)

    def add_run(self, fetcher: Fetcher, ids: Sequence[ChunkId], run: Run) -> None:
        task, slot = fetcher.want_run(ids, run)
        if task not in self.together:
            self.together[task] = None
            task.users += 1
        self.tasks += [task] * len(ids)
        self.slots += range(slot, slot + len(ids))

    def release(self, fetcher: Fetcher) -> None:
        """Lets the blocks go."""
        for task in self.together:
            fetcher.release(task)
