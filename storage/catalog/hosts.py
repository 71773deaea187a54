"""The hosts that serve one home, as they and whoever changes rights see them."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from storage.rows.hosts import Beat, HostRow


class HostsCatalog(Protocol):
    """The list of hosts. All moments are by home's clock: a server's own, the machine's where home is a folder."""

    @abstractmethod
    def register_host(self, host: str, *, name: str, release: str, max_stale_ms: int) -> None:
        """List a host, as heard now. To be called before it reads what its bitmap is made from: whatever is committed
        after this finds the host in the list, and whatever was committed before is in what it reads.

        Args:
            host: a random id. One that is listed is listed anew: the feed of a host was restarted.
            max_stale_ms: for how long it acts by what it has asked.
        """

    @abstractmethod
    def beat(self, host: str, *, applied: int, load_pct: int, lag_ms: int, clock_ms: int) -> Beat | None:
        """Note that a host's feed is there and how far it is. Durable when this returns.

        Args:
            applied: number of the last change that its bitmap has.
            clock_ms: the host's own clock, Unix milliseconds.

        Returns:
            None: it is not listed (any more), and has to register again.
        """

    @abstractmethod
    def leave_host(self, host: str) -> None:
        """Take a host from the list. To be called when nothing of it serves any more."""

    @abstractmethod
    def hosts(self) -> tuple[list[HostRow], int]:
        """All hosts by name and id, and home's clock at that moment, Unix milliseconds."""

    @abstractmethod
    def home_ms(self) -> int:
        """What home's clock says, Unix milliseconds."""

    @abstractmethod
    def forget_hosts(self, *, unseen_ms: int) -> int:
        """Take those from the list that home has not heard for longer than this. Returns how many."""
