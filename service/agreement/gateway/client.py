"""`PaymentGateway` over HTTP: each call is one signed request, and what can't be believed counts as not answered."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from retention.money import Money
from service.agreement.gateway.asked import ChargeAsked, MethodAsked, RefundAsked, RemovalAsked, VoidAsked
from service.agreement.gateway.signing import SIGNATURE, TIMESTAMP, Keys, is_signed, signed_headers
from service.agreement.gateway.told import MethodTold, PaymentTold
from service.agreement.gateway.wire import Endpoint, Lost
from service.agreement.payments import (
    CustomerNeeded,
    Method,
    PaymentDeclined,
    PaymentPending,
    PaymentUnavailable,
    Receipt,
    checked_reference,
)

T = TypeVar("T", PaymentTold, MethodTold)


class HttpGateway:
    """See `docs/payments.md`. An answer counts when its status is 200 and its signature right, and when it is about
    what was asked; any other, and none at all, is a call that was not answered.

    Args:
        return_url: where the gateway sends a customer back to; "": it decides.
        now_s: Unix s, for signatures. By the machine's own clock, which the other side compares with its own.
    """

    keeps_methods = True

    def __init__(
        self,
        endpoint: Endpoint,
        keys: Keys,
        *,
        return_url: str = "",
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint
        self._keys = keys
        self._return_url = return_url
        self._now_s = now_s

    def charge(self, reference: str, money: Money, method: str, why: str) -> Receipt:
        asked = ChargeAsked(
            reference=reference,
            amount_minor=money.minor,
            currency=money.currency,
            method=method,
            why=why,
            return_url=self._return_url,
        )
        told = self._payment("POST", "/charges", reference, asked.body())
        return _known(_receipt(told, reference, "charge", money, ""))

    def refund(self, reference: str, of_reference: str, money: Money) -> Receipt:
        asked = RefundAsked(
            reference=reference, of=of_reference, amount_minor=money.minor, currency=money.currency
        )
        told = self._payment("POST", "/refunds", reference, asked.body())
        return _known(_receipt(told, reference, "refund", money, of_reference))

    def void(self, reference: str, money: Money) -> Receipt | None:
        asked = VoidAsked(reference=reference, amount_minor=money.minor, currency=money.currency)
        told = self._payment("POST", "/voids", reference, asked.body())
        if told.outcome in ("void", "declined"):
            return None
        if told.outcome == "needs_customer":
            raise PaymentPending("the payment gateway has not voided the payment; try again later")
        return _known(_receipt(told, reference, "charge", money, ""))

    def look_up(self, reference: str, kind: str, money: Money, of_reference: str = "") -> Receipt | None:
        told = self._payment("GET", f"/payments/{checked_reference(reference)}", reference, b"")
        return _receipt(told, reference, kind, money, of_reference)

    def set_up_method(self, reference: str) -> Method:
        asked = MethodAsked(reference=reference, return_url=self._return_url)
        return _known(_method(self._method("POST", "/methods", reference, asked.body())))

    def receipts(self) -> None:
        """It has no list: each payment is looked up by its reference."""
        return None

    def look_up_method(self, reference: str) -> Method | None:
        return _method(self._method("GET", f"/methods/{checked_reference(reference)}", reference, b""))

    def remove_method(self, reference: str, method: str) -> None:
        asked = RemovalAsked(reference=reference, method=method)
        told = self._method("POST", "/methods/removals", reference, asked.body())
        if told.outcome not in ("removed", "unknown", "failed"):
            raise PaymentUnavailable("the payment gateway has not removed the method; try again later")

    def _payment(self, method: str, path: str, reference: str, body: bytes) -> PaymentTold:
        return self._ask(PaymentTold, method, path, reference, body)

    def _method(self, method: str, path: str, reference: str, body: bytes) -> MethodTold:
        return self._ask(MethodTold, method, path, reference, body)

    def _ask(self, kind: type[T], method: str, path: str, reference: str, body: bytes) -> T:
        keys, timestamp, subject = self._keys.now(), str(int(self._now_s())), f"{method} {path}"
        headers = signed_headers(keys, "request", timestamp, subject, body)
        try:
            answer = self._endpoint.ask(method, path, headers, body)
        except Lost as error:
            raise _unanswered(str(error)) from error
        if answer.status != 200:
            raise _unanswered(f"status {answer.status}")
        stamped, made = answer.headers.get(TIMESTAMP.lower(), ""), answer.headers.get(SIGNATURE.lower(), "")
        if stamped != timestamp or not is_signed(keys, "answer", timestamp, subject, answer.body, made):
            raise _unanswered("an answer that is not signed with our key")
        try:
            told = kind.model_validate_json(answer.body)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "answer"
            raise _unanswered(f"{place[:60]}: {first['msg']}") from error
        if told.reference != reference:
            raise _unanswered("an answer about another reference")
        return told


def _receipt(told: PaymentTold, reference: str, kind: str, money: Money, of_reference: str) -> Receipt | None:
    """Of money that moved; None for what is unknown."""
    match told.outcome:
        case "done" if told.money == money:
            return Receipt(reference, kind, money, told.gateway_id, of_reference)
        case "done":
            raise _unanswered(f"it moved {told.money} where {money} were asked for")
        case "declined":
            raise PaymentDeclined(told.detail or "the payment was declined")
        case "void":
            raise PaymentDeclined("the payment is void: nothing was charged")
        case "needs_customer" if kind == "charge":
            assert told.expires_ms is not None, "was checked"
            raise CustomerNeeded(told.url, told.expires_ms, subject=reference)
        case "unknown":
            return None
        case _:
            raise PaymentPending("the payment gateway has not decided yet; it is asked again")


def _method(told: MethodTold) -> Method | None:
    match told.outcome:
        case "usable":
            return Method(told.method, told.label or told.method)
        case "needs_customer":
            assert told.expires_ms is not None, "was checked"
            raise CustomerNeeded(told.url, told.expires_ms, subject=told.reference)
        case "unknown":
            return None
        case _:
            raise PaymentDeclined(told.detail or "the payment method was refused")


R = TypeVar("R", Receipt, Method)


def _known(found: R | None) -> R:
    if found is None:
        raise _unanswered("it does not know what it was just asked for")
    return found


def _unanswered(detail: str) -> PaymentUnavailable:
    return PaymentUnavailable(f"the payment gateway gave no answer that counts: {detail}; try again later")
