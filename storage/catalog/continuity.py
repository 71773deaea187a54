"""What the catalog must know to go on safely after a clock was wrong or a backup was put back.

Nothing here is about a device or an account: these are the few facts that outlive what was lost.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol

from storage.clock import ClockMark


class ContinuityCatalog(Protocol):
    """The catalog's facts about itself: whose it is, how far it is, and what it must not do twice."""

    @abstractmethod
    def require_files(self) -> None:
        """Make sure that what is committed now will be found again: the files that are open have their names still.
        Cheap, and asked once a second.

        Raises:
            CatalogUnavailable: `catalog_replaced`. Every commit raises it too.
        """

    @abstractmethod
    def require_writable(self) -> None:
        """Commit something that changes nothing: whoever found that nothing can be committed asks so whether it is
        over, for a standby, or a file that was mounted read-only, answers every read.

        Raises:
            CatalogUnavailable: nothing can be committed.
        """

    @abstractmethod
    def clock_mark(self) -> ClockMark | None:
        """The last moment that was believed (`retention.witness`), None before the first."""

    @abstractmethod
    def note_clock(self, mark: ClockMark) -> None:
        """Keep a moment that was believed, in place of the last one."""

    @property
    @abstractmethod
    def home(self) -> int | None:
        """Which home it belongs to, as `settle_home` was told; None before that."""

    @abstractmethod
    def settle_home(self, home: int) -> int:
        """Say which home it belongs to, unless that is known already. Returns what is known now."""

    @abstractmethod
    def newest_seen_ms(self) -> int:
        """When the newest object was prepared or the newest sweep ended, by the clock of then; 0 when neither ever
        was."""

    @property
    @abstractmethod
    def closed_through(self) -> int:
        """The last expiry day already swept, 0 before the first."""

    @abstractmethod
    def newest_change(self) -> int:
        """The number of the newest change in the change log."""

    @abstractmethod
    def highest_segment_id(self) -> int:
        """The highest segment id ever prepared, as far as this catalog knows."""

    @property
    @abstractmethod
    def is_doubted(self) -> bool:
        """Whether it was found to be older than what had been seen of it, and nobody has accepted it since. It may have
        gone on, so that its numbers tell nothing any more."""

    @abstractmethod
    def note_doubt(self, doubted: bool) -> None:
        """It was found to be older than what was seen of it; or it was accepted all the same."""

    @property
    @abstractmethod
    def first_key_month(self) -> int:
        """The first month (yyyymm) that may have data keys: those of all earlier ones are destroyed for good. What
        expires in an earlier one, though that day is not closed, has its keys in this month. 0: no month was ever
        destroyed before its time."""

    @abstractmethod
    def raise_first_key_month(self, month: int) -> None:
        """Say that months before `month` are destroyed for good. Only ever grows."""

    @abstractmethod
    def numbers_given(self) -> dict[str, int]:
        """By kind (`device`, `account`, `plan`, `payment`, `notice`, `generation` of tokens) the highest number that
        was given, or that may have been."""

    @abstractmethod
    def ceilings(self) -> dict[str, int]:
        """By kind the highest number that may be given: reserved in the store first. Kinds that were never reserved
        are left out, and without bound."""

    @abstractmethod
    def raise_ceilings(self, ceilings: Mapping[str, int]) -> None:
        """Let numbers be given up to these: the store has them already. Only ever grow."""

    @abstractmethod
    def start_above(self, ceilings: Mapping[str, int]) -> None:
        """This catalog was restored: numbers up to these may be out. Log-ins and codes of before end too, for those
        that ended since would be valid again."""

    @abstractmethod
    def reopen_days(self, through: int, *, fence: int, delete_after_ms: int) -> None:
        """Take back that days after `through` are closed, for new uploads: what was un-indexed with them stays so, and
        its objects may go from `delete_after_ms` on, where that is earlier.

        Raises:
            CallerError: `not_closed`, no day after it is.
        """
