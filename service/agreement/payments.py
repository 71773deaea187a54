"""The payment gateway: what moves money, and the one that only writes down what it was asked.

Clipkeep holds no card. A *method* is the gateway's own name for what is charged, and opaque here. Every call carries
a reference, and a gateway acts once for each: whoever was killed before it heard the answer asks again under the
same one. That is all that the crash safety of the desk asks of a gateway.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

from retention.money import Money
from service.agreement.errors import PaymentRefused, Unprocessable
from storage.disk import is_full, make_room
from storage.errors import WorldError

MAX_REFERENCE_CHARS = 120
"""A reference is a file name of the recording gateway, and an idempotency key of others: Stripe allows 255."""
MAX_METHOD_CHARS = 200
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_METHOD = re.compile(r"[\x21-\x7e]+")
DECLINED = "declined"
"""The recording gateway declines methods that begin so: with it operators rehearse what a customer will see."""


class PaymentDeclined(PaymentRefused):
    """The gateway said no. Under this reference it will always say so."""

    code = "payment_declined"


class PaymentExpired(PaymentDeclined):
    """It was not paid in time, and is void: nothing was charged, or will be."""

    code = "payment_expired"


class PurchaseAbandoned(PaymentDeclined):
    """Whoever ordered it has abandoned it: nothing was charged, or will be."""

    code = "purchase_abandoned"


class PaymentUnavailable(WorldError):
    """The gateway did not answer, or could not act. It may have acted: ask again under the same reference."""

    code = "payment_unavailable"


class PaymentPending(PaymentUnavailable):
    """The gateway has heard it, and does not know yet: it is asked again, or reports."""

    code = "payment_pending"


class CustomerNeeded(PaymentRefused):
    """Whoever pays has to do something on a page of the gateway's first: confirm it to the bank, enter a card. Nothing
    is charged before; under the same reference it is asked again what has become of it.

    Args:
        url: the page.
        until_ms: Unix ms until which it is there.
    """

    code = "needs_customer"

    def __init__(self, url: str, until_ms: int, *, subject: str = "") -> None:
        super().__init__(
            "the payment has to be confirmed by whoever pays: open the url, then send this again, or wait: the plan"
            " starts when it is paid",
            subject=subject,
        )
        self.url = url
        self.until_ms = until_ms


@dataclass(frozen=True, slots=True)
class Receipt:
    """That money moved.

    Args:
        gateway_id: the gateway's own number for it.
        of_reference: the charge that was refunded; "" for a charge.
    """

    reference: str
    kind: str  # "charge" or "refund"
    money: Money
    gateway_id: str
    of_reference: str = ""


@dataclass(frozen=True, slots=True)
class Method:
    """A payment method that a gateway keeps.

    Args:
        name: the gateway's, which charges name.
        label: what its owner knows it by, such as "Visa 4242".
    """

    name: str
    label: str


class PaymentGateway(Protocol):
    """What the desk needs of a gateway. All calls block, may come from several threads and processes at once, and
    are idempotent: the same reference has the same answer for ever, a receipt or a refusal, and moves money at most
    once.

    Raises:
        PaymentDeclined: no money moved or will move under this reference.
        PaymentUnavailable: not known whether it did; the same call may be made again.
        CustomerNeeded: nothing is charged, or set up, before whoever pays has been on a page.
    """

    @property
    def keeps_methods(self) -> bool:
        """Whether a charge may name only a method that the account has set up; else any that it is given."""
        ...

    def charge(self, reference: str, money: Money, method: str, why: str) -> Receipt: ...

    def refund(self, reference: str, of_reference: str, money: Money) -> Receipt:
        """Give back a part or all of the charge `of_reference`."""
        ...

    def void(self, reference: str, money: Money) -> Receipt | None:
        """See to it that nothing is charged under this reference any more.

        Returns:
            The receipt when it was charged already, and then nothing is changed; None when it never was and never will
            be: `charge` declines from now on.
        """
        ...

    def look_up(self, reference: str, kind: str, money: Money, of_reference: str = "") -> Receipt | None:
        """What became of a charge or a refund whose answer was lost. Nothing is changed.

        Returns:
            None when the gateway has never heard of it: then it may be asked for.
        """
        ...

    def receipts(self) -> Iterator[Receipt] | None:
        """All that was charged and refunded, in any order; None where the gateway has no list."""
        ...

    def set_up_method(self, reference: str) -> Method:
        """Keep a new payment method.

        Raises:
            PaymentDeclined: it is none, and under this reference never will be.
        """
        ...

    def look_up_method(self, reference: str) -> Method | None:
        """What became of its set-up; None when the gateway has never heard of it. Raises as `set_up_method`."""
        ...

    def remove_method(self, reference: str, method: str) -> None:
        """Keep it no longer: nothing is charged to it any more."""
        ...


def checked_reference(reference: str) -> str:
    """Raises Unprocessable `bad_reference`."""
    if len(reference) > MAX_REFERENCE_CHARS or not _REFERENCE.fullmatch(reference):
        raise Unprocessable(
            f"a payment's reference is 1 to {MAX_REFERENCE_CHARS} letters, digits, dots, dashes and underscores,"
            " with a letter or a digit first",
            code="bad_reference",
        )
    return reference


def checked_method(method: str) -> str:
    """Raises Unprocessable `bad_method`."""
    if len(method) > MAX_METHOD_CHARS or not _METHOD.fullmatch(method):
        raise Unprocessable(
            f"a payment method is the gateway's name for it: 1 to {MAX_METHOD_CHARS} visible ASCII characters,"
            " without spaces",
            code="bad_method",
        )
    return method


@dataclass(frozen=True, slots=True)
class _Record:
    """What a file of the recording gateway says. No method, no name, no address: when an account is cancelled its
    rows in the books are cleared, and nothing here leads to a person."""

    reference: str
    kind: str
    minor: int
    currency: str
    outcome: str  # "done" or "declined"
    detail: str
    of_reference: str = ""


class RecordingGateway:
    """Writes down what it is asked to charge and refund, one JSON file per reference, and moves no money. The default:
    for installations that bill elsewhere, and for rehearsals.

    A file is written aside, fsynced, and linked to its name: so it is whole when it is there, and of two processes
    with one reference exactly one makes it. One that is killed in between leaves its `.tmp` file, which means nothing.

    Args:
        folder: made when something is first recorded.

    Raises (all methods):
        PaymentUnavailable: the file system refused, or a file is no record.
    """

    keeps_methods = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def charge(self, reference: str, money: Money, method: str, why: str) -> Receipt:
        outcome = DECLINED if method.startswith(DECLINED) else "done"
        return self._once(_Record(reference, "charge", money.minor, money.currency, outcome, why))

    def refund(self, reference: str, of_reference: str, money: Money) -> Receipt:
        charge = self._read(of_reference)
        refusal = ""
        if charge is None or charge.kind != "charge" or charge.outcome != "done":
            refusal = f"nothing was charged under {of_reference}"
        elif charge.currency != money.currency or charge.minor < money.minor:
            refusal = f"more than the {charge.minor} {charge.currency} that were charged under {of_reference}"
        return self._once(
            _Record(
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
            return self._once(_Record(reference, "charge", money.minor, money.currency, DECLINED, "void"))
        except PaymentDeclined:
            return None

    def look_up(self, reference: str, kind: str, money: Money, of_reference: str = "") -> Receipt | None:
        record = self._read(reference)
        if record is None:
            return None
        return self._once(_Record(reference, kind, money.minor, money.currency, "done", "", of_reference))

    def set_up_method(self, reference: str) -> Method:
        """Nothing is kept: any name is charged."""
        return Method(reference, "not charged: payments are only written down")

    def look_up_method(self, reference: str) -> Method | None:
        return self.set_up_method(reference)

    def remove_method(self, reference: str, method: str) -> None:
        pass

    def receipts(self) -> Iterator[Receipt]:
        """Yield what was charged and refunded, in order of reference."""
        for path in sorted(self._folder.glob("*.json")):
            record = self._read(path.stem)
            if record is not None and record.outcome == "done":
                yield _receipt(record)

    def _once(self, wanted: _Record) -> Receipt:
        record = self._read(wanted.reference)
        if record is None:
            self._write(wanted)
            record = self._read(wanted.reference)
            assert record is not None, "nobody deletes records"
        self._make_durable(wanted.reference)  # also one that another process has only just linked
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

    def _path(self, reference: str) -> Path:
        return self._folder / f"{checked_reference(reference)}.json"

    def _read(self, reference: str) -> _Record | None:
        path = self._path(reference)
        try:
            document: Any = json.loads(path.read_text("utf-8"))
            return _Record(**document)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unavailable(path, error) from error
        except (ValueError, TypeError) as error:
            detail = "this is no payment record; restore it from a backup"
            raise PaymentUnavailable(detail, subject=str(path)) from error

    def _write(self, record: _Record) -> None:
        path = self._path(record.reference)
        temporary = self._folder / f".{record.reference}.{token_hex(4)}.tmp"
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            with open(
                os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
            ) as file:
                json.dump(asdict(record), file)
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


def _receipt(record: _Record) -> Receipt:
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
