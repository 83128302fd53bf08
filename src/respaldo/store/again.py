"""Reading again what others may just be replacing: nothing is missing before it was looked for a few times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from respaldo.core.errors import ObjectMissing

T = TypeVar("T")
LOOKS: Final = 3


def look_again(read: Callable[[], T], is_whole: Callable[[T], bool] = lambda _: True) -> T:
    """Returns what reading several objects gives, once more where one went, or something lacks, while it was read.

    Whoever puts an object that takes the place of others deletes those, and a listing that goes on meanwhile may show
    neither. Raises `ObjectMissing` where that happens again and again.
    """
    for look in range(LOOKS):
        try:
            found = read()
        except ObjectMissing:
            if look + 1 == LOOKS:
                raise
        else:
            if look + 1 == LOOKS or is_whole(found):
                return found
    raise AssertionError
