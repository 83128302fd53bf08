"""Authority: what entries of the log may say, and which of it takes the admin key.

Never: reads or writes anything. Implements docs/format.md, "Log".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from respaldo.codec.signing import is_signed
from respaldo.format.epoch import Former
from respaldo.format.logbook import Entry
from respaldo.store.logloss import LOST

COMMIT: Final = "commit"
FORGET: Final = "forget"
PRUNE: Final = "prune"
ROTATE: Final = "rotate"
RETIRE: Final = "retire"
REMOVE: Final = "remove"
"""The verb of the removal of a client with an area. It counts if an admin key has signed it; early ones have none."""
ADMIN_VERBS: Final = frozenset({FORGET, PRUNE, ROTATE, RETIRE, LOST})
"""What takes an admin key."""
ENTRY_PURPOSE: Final = b"log entry"
ADMIN_PURPOSE: Final = b"log admin"


def admin_signed(
    entry: Entry, admin: bytes, former: Iterable[Former], header_hash: bytes, *, accept: bool = False
) -> bool:
    """Whether an admin key has signed an entry, or that of an earlier epoch one that was there when it ended.

    ``accept``: of an earlier epoch, whenever the entry came.
    """
    keys = [admin, *(item.admin for item in former if accept or dict(item.heads).get(entry.client, -1) >= entry.number)]
    message = entry.signed()
    return any(is_signed(key, entry.admin, ADMIN_PURPOSE, header_hash, message) for key in keys)
