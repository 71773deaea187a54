"""The catalog as playback asks it for share links. The desk makes and ends them in the books."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Protocol

from storage.rows.shares import ShareRow


class SharesCatalog(Protocol):
    """Links by number. One that was revoked has no row."""

    @abstractmethod
    def shares_by_number(self, numbers: Collection[int]) -> list[ShareRow]:
        """Those of these that there are, in order of number."""

    @abstractmethod
    def count_opens(self, opens: Mapping[int, int], *, now_ms: int) -> None:
        """Add to how often links were opened, in one transaction. Those that are gone are passed over.

        Args:
            opens: how many times more, by number.
            now_ms: of the last of them, Unix ms.
        """
