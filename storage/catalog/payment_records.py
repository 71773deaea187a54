"""The catalog as the recording gateway sees it, where a home has several hosts."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from storage.rows.payment_records import PaymentRecord


class PaymentRecordsCatalog(Protocol):
    """Records by reference. They are kept in transactions of their own, and no row of the books refers to one: what a
    gateway has done stays done, whatever becomes of the transaction that asked for it."""

    @abstractmethod
    def record_payment(self, record: PaymentRecord) -> PaymentRecord:
        """Keep it, unless one with its reference is kept. Of several at once, on whatever hosts, one is kept.

        Returns:
            The one that is kept, durably.
        """

    @abstractmethod
    def recorded_payment(self, reference: str) -> PaymentRecord | None:
        """The record with this reference."""

    @abstractmethod
    def recorded_payments(self, *, after: str = "", limit: int = 1000) -> list[PaymentRecord]:
        """A page of them, by reference."""
