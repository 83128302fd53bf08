"""Renewals of a client while its area is open: an owner who only reads goes on under the newest keys.

As `respaldo.store.succession`, for areas: what their new keys are stands in the owner's repository. Implements
docs/format.md, "Renewal" (readers).
"""

from __future__ import annotations

from respaldo.core.errors import KeyRotated
from respaldo.store.areas import list_clients
from respaldo.store.owned import OwnedArea
from respaldo.store.repo import Repo


class AreaSuccession:
    """Sees to it that who only reads the area of a client follows its renewals, as long as ``owner`` is open, too."""

    def __init__(self, area: OwnedArea, owner: Repo) -> None:
        self._area = area
        self._owner = owner

    def __call__(self) -> None:
        """Takes over what a renewal says where there is one; raises `KeyRotated` where that cannot be read here.

        A sign says only where to look: it is there before the renewal is, and storage can put one.
        """
        area, owner = self._area, self._owner
        newest = area.newest_epoch()
        if newest <= area.epoch.number:
            return
        owner.keep_up()
        number = area.area.client.enrolment.client
        client = next((item for item in list_clients(owner)[0] if item.enrolment.client == number), None)
        if client is None or client.damage is not None:
            raise KeyRotated(newest)
        if len(client.renewals) > area.epoch.number:
            area.take_over(client)
