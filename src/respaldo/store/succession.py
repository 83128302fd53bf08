"""Epochs that begin while a repository is open: who only reads goes on under the newest key, where the secret opens it.

Invariant: who writes stays in the epoch that counted when it was opened, as the protocol wants it. Nobody is asked for
anything. Where the master keys that are known here are about to be destroyed, and the new one is not to be had, that is
said: else all that was sealed anew would look like damage. Implements docs/format.md, "Epochs" (readers).
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from respaldo.codec.slots import Opened, Secret
from respaldo.core.errors import KeyRotated, WrongSecret
from respaldo.store.epochs import Epoch, is_retiring, newest_listed, open_newest
from respaldo.store.repo import Repo


class Succession:
    """Sees to it that an open repository follows its epochs. ``secret``: of who only reads; None where none is held."""

    def __init__(self, repo: Repo, secret: Secret | None) -> None:
        self._repo = repo
        self._secret = secret
        self._tried = 0

    def __call__(self) -> None:
        """Takes over a newer epoch where there is one; raises `KeyRotated` where nothing can be read without it."""
        repo = self._repo
        newest = newest_listed(repo.backend)
        if newest <= repo.epoch.number:
            return
        if self._secret is not None and newest != self._tried:
            self._tried = newest  # a secret that was left out opens it never, and to try it takes time
            with contextlib.suppress(WrongSecret):
                self._take_over(*open_newest(repo.backend, repo.header, self._secret, repo.random))
                self._tried = 0
        if newest > repo.epoch.number and is_retiring(repo.backend, repo.epoch):
            raise KeyRotated(newest)

    def _take_over(self, epoch: Epoch, opened: Opened) -> None:
        """Goes on in an epoch that comes from the present one; raises `KeyRotated` for any other."""
        repo, former = self._repo, epoch.former
        checks = {item.epoch: item.check for item in former}
        if checks.get(repo.epoch.number) != repo.ring.check or epoch.ring.content_keys != repo.ring.content_keys:
            raise KeyRotated(epoch.number)  # whoever opens it anew is told what is wrong with it
        repo.epoch.rings.take_over(epoch.rings)
        repo.epoch = replace(epoch, rings=repo.epoch.rings)
        repo.ring, repo.slot = epoch.ring, opened.slot
        if repo.log is not None:
            repo.log.take_over(epoch.ring, former)
