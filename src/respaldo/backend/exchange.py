"""Puts a new file in the place of an object's, in one step, if and only if the object is there.

For bytes that have decayed. By RENAME_EXCHANGE, so that an object that another run has just deleted does not come back;
where a file system lacks that, by looking and renaming over it.

Never: shows a name without a whole file behind it, or leaves a file that is not durable under it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Final

from respaldo.backend.base import check_name
from respaldo.backend.filestage import TEMPORARY, write_error
from respaldo.backend.folders import Folders, shard
from respaldo.backend.publish import Syncer, exchange, write_new
from respaldo.core.errors import ObjectMissing, StorageFailed
from respaldo.core.seams import Buffer, Random

_RANDOM_BYTES: Final = 12


def replace_file(folders: Folders, syncer: Syncer, random: Random, name: str, pieces: Sequence[Buffer]) -> None:
    """Replaces an object; promises and errors as of `Backend.replace`."""
    folder, leaf = check_name(name)
    temporary = TEMPORARY + random(_RANDOM_BYTES).hex()
    try:
        directory = folders.open(folder, shard(folder, leaf))
    except FileNotFoundError as error:
        if folders.is_gone():
            raise StorageFailed(name, "the repository's directory is gone") from error
        raise ObjectMissing(name) from error
    except OSError as error:
        raise write_error(error, name, folders) from error
    try:
        write_new(directory, temporary, pieces, syncer)
        try:
            exchange(directory, temporary, leaf)
        except FileNotFoundError as error:
            raise ObjectMissing(name) from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
        syncer.sync_dir(directory)
    except OSError as error:
        raise write_error(error, name, folders) from error
    finally:
        os.close(directory)
