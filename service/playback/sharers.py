"""On whose account a viewer reads."""

from __future__ import annotations

import trio

from service.playback.gate import Viewer
from service.playback.sharing import Sharer
from storage.catalog.devices import DevicesCatalog
from storage.rows.accounts import OPERATOR_ACCOUNT

MAX_DEVICES = 100_000
"""Remembered at once, some 20 MB. A device keeps its account."""


class Sharers:
    """The accounts of devices, asked for once. Only viewers whom the gate has let in may ask."""

    def __init__(self, catalog: DevicesCatalog) -> None:
        self._catalog = catalog
        self._accounts: dict[int, int] = {}
        self._thread = trio.CapacityLimiter(1)

    async def of(self, viewer: Viewer) -> Sharer:
        """The viewer's share. Devices of the operator's own account share by device: nobody owns them together.

        Raises:
            WorldError: the catalog can't be asked.
        """
        device = viewer.device
        account = self._accounts.get(device)
        if account is None:
            facts = await trio.to_thread.run_sync(self._catalog.device, device, limiter=self._thread)
            account = facts.account
            if len(self._accounts) >= MAX_DEVICES:
                self._accounts.clear()
            self._accounts[device] = account
        return Sharer(("device", device) if account == OPERATOR_ACCOUNT else account, viewer)
