"""The catalog as whoever must be alone sees it."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import Protocol


class LeasesCatalog(Protocol):
    """Leases with fencing tokens: a change under a stale token (`fence`) raises LeaseLost and changes nothing."""

    @abstractmethod
    def acquire_lease(self, name: str, *, holder: str, ttl_ms: int, now_ms: int) -> int | None:
        """Take or renew a lease. Returns its fencing token, None while another holder's has not run out.

        Args:
            holder: unique to one run of one process: who has the same name is taken for the same.
        """

    @abstractmethod
    def release_lease(self, name: str, *, fence: int) -> None:
        """Give the lease back, if it is still ours. The fence is stale from here on."""

    @abstractmethod
    def holding_lease(self, *, fence: int) -> AbstractContextManager[None]:
        """Inside, nobody can take the sweep's lease: for steps that change something outside the catalog.
        Everyone's writes wait meanwhile, so it is for milliseconds, and nothing of the catalog may be changed.

        Raises:
            LeaseLost: on entry, the lease is somebody else's.
        """
