"""The gateway that only writes down what it was asked. It moves no money: the default, for installations that bill
elsewhere, and for rehearsals.

Where home is in the data folder its records are files there; where home is a server, rows of the catalog: what one host
was asked to charge, another one can be asked to refund.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

from retention.money import Money
from service.agreement.payments import (
    Method,
    PaymentDeclined,
    PaymentUnavailable,
    Receipt,
    checked_reference,
)
from storage.catalog.payment_records import PaymentRecordsCatalog
from storage.disk import is_full, make_room
from storage.errors import WorldError
from storage.rows.payment_records import PaymentRecord

DECLINED = "declined"
"""Methods that begin so are declined: with it operators rehearse what a customer will see."""
PAGE = 1000


class PaymentRecords(Protocol):
    """Where records are kept. Raises, all methods: PaymentUnavailable."""

    def keep(self, record: PaymentRecord) -> PaymentRecord:
        """Keep it, unless one with its reference is kept. Of several at once, by whatever process, one is kept.

        Returns:
            The one that is kept, durably.
        """
        ...

    def read(self, reference: str) -> PaymentRecord | None: ...

    def all(self) -> Iterator[PaymentRecord]:
        """In order of reference."""
        ...


class RecordingGateway:
    """See the module. A `PaymentGateway`."""

    keeps_methods = False

    def __init__(self, records: PaymentRecords) -> None:
        self._records = records

    def charge(self, reference: str, money: Money, method: str, why: str) -> Receipt:
        outcome = DECLINED if method.startswith(DECLINED) else "done"
        return self._once(PaymentRecord(reference, "charge", money.minor, money.currency, outcome, why))

    def refund(self, reference: str, of_reference: str, money: Money) -> Receipt:
        charge = self._records.read(checked_reference(of_reference))
        refusal = ""
        if charge is None or charge.kind != "charge" or charge.outcome != "done":
            refusal = f"nothing was charged under {of_reference}"
        elif charge.currency != money.currency or charge.minor < money.minor:
            refusal = f"more than the {charge.minor} {charge.currency} that were charged under {of_reference}"
        return self._once(
            PaymentRecord(
                reference,
                "refund",
                money.minor,
                money.currency,
                DECLINED if refusal else "done",
                refusal,
                of_reference,
            )
        )

    def void(self, reference: str, money: Money) -> Receipt | None:
        try:
            return self._once(
                PaymentRecord(reference, "charge", money.minor, money.currency, DECLINED, "void")
            )
        except PaymentDeclined:
            return None

    def look_up(self, reference: str, kind: str, money: Money, of_reference: str = "") -> Receipt | None:
        record = self._records.read(checked_reference(reference))
        if record is None:
            return None
        return self._once(
            PaymentRecord(reference, kind, money.minor, money.currency, "done", "", of_reference)
        )

    def set_up_method(self, reference: str) -> Method:
        """Nothing is kept: any name is charged."""
        return Method(reference, "not charged: payments are only written down")

    def look_up_method(self, reference: str) -> Method | None:
        return self.set_up_method(reference)

    def remove_method(self, reference: str, method: str) -> None:
        pass

    def receipts(self) -> Iterator[Receipt]:
        """Yield what was charged and refunded, in order of reference."""
        return (_receipt(record) for record in self._records.all() if record.outcome == "done")

    def _once(self, wanted: PaymentRecord) -> Receipt:
        checked_reference(wanted.reference)
        record = self._records.keep(wanted)
        asked, had = ((r.kind, r.minor, r.currency, r.of_reference) for r in (wanted, record))
        if asked != had:
            raise PaymentDeclined(
                "another payment has this reference; choose a new one",
                subject=wanted.reference,
                code="reference_taken",
            )
        if record.outcome != "done":
            raise PaymentDeclined(record.detail if record.kind == "refund" else "the payment was declined")
        return _receipt(record)


class RecordFiles:
    """One JSON file per reference.

    A file is written aside, fsynced, and linked to its name: so it is whole when it is there, and of two processes
    with one reference exactly one makes it. One that is killed in between leaves its `.tmp` file, which means nothing.

    Args:
        folder: made when something is first recorded.

    Raises (all methods):
        PaymentUnavailable: the file system refused, or a file is no record.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, record: PaymentRecord) -> PaymentRecord:
        kept = self.read(record.reference)
        if kept is None:
            self._write(record)
            kept = self.read(record.reference)
            assert kept is not None, "nobody deletes records"
        self._make_durable(record.reference)  # also one that another process has only just linked
        return kept

    def read(self, reference: str) -> PaymentRecord | None:
        path = self._path(reference)
        try:
            document: Any = json.loads(path.read_text("utf-8"))
            return PaymentRecord(**document)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unavailable(path, error) from error
        except (ValueError, TypeError) as error:
            detail = "this is no payment record; restore it from a backup"
            raise PaymentUnavailable(detail, subject=str(path)) from error

    def all(self) -> Iterator[PaymentRecord]:
        for path in sorted(self._folder.glob("*.json")):
            record = self.read(path.stem)
            if record is not None:
                yield record

    def _path(self, reference: str) -> Path:
        return self._folder / f"{reference}.json"

    def _write(self, record: PaymentRecord) -> None:
        path = self._path(record.reference)
        temporary = self._folder / f".{record.reference}.{token_hex(4)}.tmp"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with open(
                os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
            ) as file:
                json.dump(record._asdict(), file)
                file.flush()
                os.fsync(file.fileno())
            try:
                with suppress(FileExistsError):  # another process was first: its record is read
                    os.link(temporary, path)
            finally:
                temporary.unlink()
        except OSError as error:
            raise _unavailable(path, error) from error

    def _make_durable(self, reference: str) -> None:
        try:
            for folder in (self._folder, self._folder.parent):
                _fsync_folder(folder)
        except OSError as error:
            raise _unavailable(self._path(reference), error) from error


class RecordRows:
    """Rows of the catalog. What this host has in files, of the time when home was its data folder or had no other host,
    counts as well: `take_in` makes rows of it before another host joins."""

    def __init__(self, catalog: PaymentRecordsCatalog, files: RecordFiles) -> None:
        self._catalog = catalog
        self._files = files

    def keep(self, record: PaymentRecord) -> PaymentRecord:
        before = self._files.read(record.reference)
        try:
            return self._catalog.record_payment(before or record)
        except WorldError as error:
            raise _away(error) from error

    def read(self, reference: str) -> PaymentRecord | None:
        try:
            return self._catalog.recorded_payment(reference) or self._files.read(reference)
        except PaymentUnavailable:
            raise
        except WorldError as error:
            raise _away(error) from error

    def all(self) -> Iterator[PaymentRecord]:
        self.take_in()
        after = ""
        while page := self._page(after):
            yield from page
            after = page[-1].reference

    def _page(self, after: str) -> list[PaymentRecord]:
        try:
            return self._catalog.recorded_payments(after=after, limit=PAGE)
        except WorldError as error:
            raise _away(error) from error

    def take_in(self) -> None:
        """Make rows of this host's files. They stay, and mean nothing any more."""
        for record in self._files.all():
            self.keep(record)


def _receipt(record: PaymentRecord) -> Receipt:
    number = "rec-" + sha256(record.reference.encode()).hexdigest()[:16]
    return Receipt(
        record.reference, record.kind, Money(record.minor, record.currency), number, record.of_reference
    )


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unavailable(path: Path, error: OSError) -> PaymentUnavailable:
    if is_full(error):
        return PaymentUnavailable(f"the payment could not be recorded: {make_room(path)}", subject=str(path))
    return PaymentUnavailable(
        f"the payment could not be recorded: {error.strerror or error}. Try again later", subject=str(path)
    )


def _away(error: WorldError) -> PaymentUnavailable:
    return PaymentUnavailable(f"the payment could not be recorded: {error}")
