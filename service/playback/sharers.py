"""On whose account a viewer reads."""

from __future__ import annotations

import math
from dataclasses import replace

import trio

from service.playback.gate import Viewer
from service.playback.sharing import Sharer, Shares
from storage.catalog.devices import DevicesCatalog
from storage.rows.accounts import OPERATOR_ACCOUNT

MAX_DEVICES = 100_000
"""Remembered at once, some 20 MB. A device keeps its account."""


class Sharers:
    """The accounts of devices, asked for once. Only viewers whom the gate has let in may ask.

    Args:
        wait_s: longest wait for a turn to ask.
    """

    def __init__(self, catalog: DevicesCatalog, *, wait_s: float = math.inf) -> None:
        self._catalog = catalog
        self._wait_s = wait_s
        self._turns = Shares(1, account_share=1.0, viewer_share=1.0)
        self._accounts: dict[int, int] = {}
        self._thread = trio.CapacityLimiter(1)

    async def of(self, viewer: Viewer) -> Sharer:
        """The viewer's share. Devices of the operator's own account share by device: nobody owns them together.

        Raises:
            Refused: `overloaded`, no turn within `wait_s`.
            WorldError: the catalog can't be asked.
        """
        device = viewer.device
        account = self._accounts.get(device)
        if account is None:
            async with self._turns.hold(Sharer(device, None), wait_s=self._wait_s):
                facts = await trio.to_thread.run_sync(self._catalog.device, device, limiter=self._thread)
            account = facts.account
            if len(self._accounts) >= MAX_DEVICES:
                self._accounts.clear()
            self._accounts[device] = account
        return Sharer(
            ("device", device) if account == OPERATOR_ACCOUNT else account, replace(viewer, clip=None)
        )
