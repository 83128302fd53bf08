"""Several objects read at a time: where a call takes a round trip, many small objects would take an hour one by one.

Results come in the order of what was asked for, whatever order they arrived in. At most `AT_ONCE` are on their way or
wait to be taken, so that memory stays flat.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from respaldo.core.errors import Corruption, ObjectMissing
from respaldo.core.threads import thread_pool

if TYPE_CHECKING:
    from concurrent.futures import Future

K = TypeVar("K")
V = TypeVar("V")

AT_ONCE = 16
Failure = Corruption | ObjectMissing
"""What concerns one object; any other error ends the reading, when its turn comes."""


def read_several(read: Callable[[K], V], keys: Sequence[K]) -> Iterator[tuple[K, V | Failure]]:
    """Yields each key with what reading it gave, or with the failure that concerns it alone.

    ``read`` runs in other threads, save for a single key; the index must not be used in it.
    """

    def attempt(key: K) -> V | Failure:
        try:
            return read(key)
        except (Corruption, ObjectMissing) as failure:
            return failure

    if len(keys) < 2:
        for key in keys:
            yield key, attempt(key)
        return
    workers = thread_pool(min(AT_ONCE, len(keys)), "read")
    coming: deque[tuple[K, Future[V | Failure]]] = deque()
    try:
        for key in keys:
            coming.append((key, workers.submit(attempt, key)))
            if len(coming) >= AT_ONCE:
                first, future = coming.popleft()
                yield first, future.result()
        while coming:
            first, future = coming.popleft()
            yield first, future.result()
    finally:
        workers.shutdown(wait=True, cancel_futures=True)
