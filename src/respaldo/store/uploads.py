"""Finishing packs: at once where storage is near, several at a time and behind the back of those that seal where not.

Bounded: whoever finishes one more than may be under way waits. An error of one that is under way is told to whoever
made this, at once, and raised by `wait`. A pack counts as finished when it is durable.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from respaldo.core.errors import StorageFailed
from respaldo.core.threads import thread_pool
from respaldo.store.packs import Finished, PackWriter

if TYPE_CHECKING:
    from concurrent.futures import Future

AT_ONCE: Final = 4


@contextlib.contextmanager
def of_storage() -> Iterator[None]:
    """Turns what the system says of storage into an error of storage: a reader would take it for one of its file."""
    try:
        yield
    except OSError as error:
        raise StorageFailed("packs", error.strerror or str(error)) from error


class Uploads:
    """Finishes packs. `finish` may be called by any thread, all else by one."""

    def __init__(self, *, distant: bool, failed: Callable[[BaseException], None]) -> None:
        self.finished: deque[Finished] = deque()
        """Packs that are durable, in the order in which they became so; whoever takes them enters them."""
        self._failed = failed
        self._pool = thread_pool(AT_ONCE, "upload") if distant else None
        self._room = threading.Semaphore(AT_ONCE)
        self._under_way: deque[tuple[Future[None], PackWriter]] = deque()

    def finish(self, pack: PackWriter) -> None:
        """Finishes a pack, or sees to it that it is finished; a pack that fails is discarded."""
        if self._pool is None:
            self._finish(pack)
            return
        self._room.acquire()
        self._under_way.append((self._pool.submit(self._upload, pack), pack))

    def _finish(self, pack: PackWriter) -> None:
        with pack, of_storage():
            self.finished.append(pack.finish())

    def _upload(self, pack: PackWriter) -> None:
        try:
            self._finish(pack)
        except BaseException as error:
            self._failed(error)
            raise
        finally:
            self._room.release()

    def wait(self) -> None:
        """Returns when nothing is under way; raises what any of it failed with. Nobody may finish one meanwhile."""
        while self._under_way:
            self._under_way.popleft()[0].result()

    def close(self) -> None:
        """Waits for what has begun and discards what has not. Nobody may finish one meanwhile."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        for _, pack in self._under_way:
            pack.discard()
