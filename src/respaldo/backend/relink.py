"""A second name for an object on a file system that has hard links: no bytes are read, and none are written.

So what is damaged is kept as it is, bad sectors included, also on a disk that is full.
"""

from __future__ import annotations

import os

from respaldo.backend.base import check_name
from respaldo.backend.filestage import object_exists
from respaldo.backend.folders import Folders, shard
from respaldo.backend.publish import Syncer


def link_again(folders: Folders, syncer: Syncer, name: str, target: str) -> bool:
    """Links an object under another name, durably; returns whether that was possible. Raises ObjectExists."""
    (folder, leaf), (other, other_leaf) = check_name(name), check_name(target)
    try:
        source = folders.open(folder, shard(folder, leaf))
        try:
            directory = folders.open_or_make(other, shard(other, other_leaf))
            try:
                os.link(leaf, other_leaf, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)
                syncer.sync_dir(directory)
            except FileExistsError:
                raise object_exists(target, directory, other_leaf, syncer) from None
            finally:
                os.close(directory)
        finally:
            os.close(source)
    except OSError:  # no such thing as a link there, or no such object: whoever copies it finds out
        return False
    return True
