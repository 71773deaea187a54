"""What all parts of the books stand on: one transaction of the catalog."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from storage.account_keys import AccountKeys
from storage.catalog.books import Books
from storage.errors import CatalogUnavailable, Unprocessable
from storage.rows.devices import DeviceFacts
from storage.sql.connection import Connection


class OnBooks(Books):
    """See `Catalog.transact` for the arguments."""

    def __init__(
        self,
        connection: Connection,
        keys: AccountKeys,
        *,
        write: bool,
        key_ids: Sequence[bytes] = (),
        before_change: Callable[[DeviceFacts, DeviceFacts], None] | None = None,
        now_ms: int | None = None,
        max_device: int | None = None,
    ) -> None:
        self._connection: Connection | None = connection
        self._keys = keys
        self._write = write
        self.unused_keys = list(key_ids)
        """Ids of keys that were made ahead, for accounts that are added."""
        self.spoiled_keys: set[bytes] = set()
        """Those of them that the catalog refused."""
        self._before_change = before_change
        self._now_ms = now_ms
        self._max_device = max_device
        self.erased = False
        """Whether `erase_account` was called."""

    @property
    def _reader(self) -> Connection:
        """The connection, for statements that read."""
        if self._connection is None:
            raise CatalogUnavailable("the transaction of these books has ended; begin another one")
        return self._connection

    @property
    def _writer(self) -> Connection:
        """The connection, for statements that write: in a transaction for reading SQLite would make it another."""
        if not self._write:
            raise CatalogUnavailable("this transaction is for reading; write in one of `transact`")
        return self._reader

    def end(self) -> None:
        """The transaction is over: the connection is somebody else's from here on."""
        self._connection = None

    def _next_key(self) -> bytes:
        """The id of a key for a new account."""
        if not self.unused_keys:
            raise Unprocessable(
                "accounts are added in a transaction that was begun with new_accounts", code="no_account_key"
            )
        return self.unused_keys.pop()

    def _logging(self) -> int:
        """The time for the change log."""
        if self._now_ms is None:
            raise Unprocessable(
                "devices are added in a transaction that was begun with now_ms", code="no_time"
            )
        return self._now_ms

    def _revoking(self) -> Callable[[DeviceFacts, DeviceFacts], None]:
        """What must be called before the commit of a change of what a device may do."""
        if self._before_change is None:
            raise Unprocessable(
                "this changes what devices may do: go through Entitlements.transact, the one path to the bitmap",
                code="not_through_bitmap",
            )
        return self._before_change
