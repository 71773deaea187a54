"""The catalog as those see it who decide what devices may do, and who follow what was decided."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from storage.rows.devices import DeviceFacts, PlanRow
from storage.rows.recordings import Unindexed

CHANGES_PAGE = 1000
"""Changes of the log that are read at once."""


class DevicesCatalog(Protocol):
    """Devices with their plans, and the log of what was changed of them."""

    @abstractmethod
    def device(self, device: int) -> DeviceFacts:
        """The facts of one device."""

    @abstractmethod
    def devices(self, *, after: int = 0, limit: int = 1000) -> list[DeviceFacts]:
        """Facts of devices numbered above `after`, in order."""

    @abstractmethod
    def device_columns(
        self, *, after: int = 0, limit: int = 1000, numbers: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the entitlement bitmap needs of many devices, for little CPU: of the first `limit` devices numbered
        above `after`, in order of number.

        Args:
            numbers: of these devices alone, some thousand at most; those that no device has are left out.

        Returns:
            (n,) of DEVICE_COLUMNS, and of all their plans (m,) of PLAN_COLUMNS, in order of device and plan.
        """

    @abstractmethod
    def upload_limits(self) -> list[tuple[int, int, int]]:
        """(limit class, most bytes a day, most chunks a second) of all packages that have limits, each class once."""

    @abstractmethod
    def devices_numbered(self, numbers: Sequence[int]) -> list[DeviceFacts]:
        """Facts of these devices, in order of number; numbers that no device has are left out."""

    @abstractmethod
    def changes_after(self, number: int, limit: int = CHANGES_PAGE) -> tuple[list[int], int]:
        """Devices changed by the first `limit` changes after change `number`, each once, in order, and the number of
        the last of these changes: of the newest one where there are fewer.

        Changes are numbered from 1 without gaps, and are seen in order of their numbers: who has read the log up to a
        number never misses one at or below it that is committed later. So the number is given in the transaction
        that writes the change, and nobody is given the next one before that has ended.
        """

    @abstractmethod
    def devices_changing_on(self, day: int) -> list[int]:
        """Devices with a plan that starts on `day` or whose last entitled day was the day before."""


class ChangesCatalog(Protocol):
    """What changes devices, and what is kept of them. Facts are changed by `retention.entitlements` alone: whoever else
    does so leaves the entitlement bitmap as it was."""

    @abstractmethod
    def add_devices(
        self, count: int, *, account: int, plans: Sequence[PlanRow], now_ms: int
    ) -> list[DeviceFacts]:
        """Make `count` devices with consecutive numbers, each with these plans, and log the changes."""

    @abstractmethod
    def update_device(
        self,
        device: int,
        change: Callable[[DeviceFacts], DeviceFacts],
        *,
        what: str,
        now_ms: int,
        before_commit: Callable[[DeviceFacts, DeviceFacts], None] | None = None,
    ) -> tuple[DeviceFacts, int]:
        """Change one device's facts: the only way to do so.

        Reads the facts inside a write transaction, asks `change` for the new ones (it may raise to refuse;
        returning the same facts changes nothing), calls `before_commit(old, new)`, writes the difference,
        appends to the change log and commits.

        Args:
            what: a code for the change log: who, and what was done, in small letters. It is not sealed, and stays when
                the account ends: what a person wrote belongs into the account's history (`Books.add_event`).

        Returns:
            The new facts (plans carry their ids) and the number of the change, 0 when nothing changed.
        """

    @abstractmethod
    def delete_range(
        self,
        device: int,
        from_ms: int,
        to_ms: int,
        *,
        reason: str,
        who: str,
        now_ms: int,
        delete_after_ms: int,
        keep_clips: bool = False,
    ) -> Unindexed:
        """Un-serve a range of recordings for ever: chunks uploaded again later stay refused as DELETED.

        Recorded, and in force for readers and commits, with the first transaction. The rows of a long range go in
        several, so that commits do not wait; when this is killed, `finish_deletion` does the rest.

        Args:
            reason: what a person wrote, or nothing. It is sealed with the key of the device's account.
            who: a role: `owner`, `operator` or `system`.
            keep_clips: leave kept clips that have something of the range; else they end, with all that is in them.

        Raises:
            CallerError: the range is empty; `not_a_role`.
        """
