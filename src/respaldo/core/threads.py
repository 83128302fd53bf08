"""Threads that work side by side, loaded when they are asked for: with nothing new there is nothing for them to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor


def thread_pool(count: int, name: str) -> ThreadPoolExecutor:
    """Returns so many threads, which show under a name in a debugger."""
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - start-up time

    return ThreadPoolExecutor(count, thread_name_prefix=name)
