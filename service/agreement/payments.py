"""The payment gateway: what moves money. `service.agreement.gateway` has those that there are.

Clipkeep holds no card. A *method* is the gateway's own name for what is charged, and opaque here. Every call carries
a reference, and a gateway acts once for each: whoever was killed before it heard the answer asks again under the
same one. That is all that the crash safety of the desk asks of a gateway.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from retention.money import Money
from service.agreement.errors import PaymentRefused, Unprocessable
from storage.errors import WorldError

MAX_REFERENCE_CHARS = 120
"""A reference is a file name of the recording gateway, and an idempotency key of others: Stripe allows 255."""
MAX_METHOD_CHARS = 200
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_METHOD = re.compile(r"[\x21-\x7e]+")


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
