"""What a gateway says of a payment, a payment method or a dispute: in an answer, or later in a report.

What is not understood is refused, never guessed; members that are not known are passed over.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from retention.money import MAX_MINOR, Money
from service.agreement.payments import MAX_METHOD_CHARS, MAX_REFERENCE_CHARS
from storage.days import MAX_TIME_MS

MAX_DETAIL_CHARS = 300
MAX_URL_CHARS = 2000


def _printable(text: str) -> str:
    """People read it: in answers, histories and mail."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _page(url: str) -> str:
    """An owner's browser is sent there."""
    if not url:
        return url
    parts = urlsplit(url)
    if not url.isascii() or not url.isprintable() or " " in url or parts.username is not None:
        raise ValueError("is no address for a browser")
    if not parts.hostname or not (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1"))
    ):
        raise ValueError("is no https:// address")
    return url


Reference = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=MAX_REFERENCE_CHARS,
        description="of the payment or of the method's set-up, by Clipkeep",
    ),
]
Detail = Annotated[
    str,
    AfterValidator(_printable),
    Field(max_length=MAX_DETAIL_CHARS, description="why, in words for the account's owner"),
]
Minor = Annotated[int, Field(ge=0, le=MAX_MINOR, description="in minor units of the currency, as cents")]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$", description="ISO 4217")]
Page = Annotated[
    str,
    AfterValidator(_page),
    Field(max_length=MAX_URL_CHARS, description="where the owner goes: https://, with `needs_customer`"),
]
ExpiresMs = Annotated[
    int | None, Field(ge=0, le=MAX_TIME_MS, description="Unix ms until which `url` holds, with it")
]
GatewayId = Annotated[str, AfterValidator(_printable), Field(max_length=200)]


class _Said(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class PaymentTold(_Said):
    """What became of a charge or a refund. `done`, `declined` and `void` are for ever: the same is said whenever it is
    asked for again. `void`: nothing was charged under this reference, or will be."""

    about: Literal["payment"] = "payment"
    reference: Reference
    outcome: Literal["done", "declined", "pending", "needs_customer", "void", "unknown"]
    amount_minor: Minor | None = None
    currency: Currency | None = None
    gateway_id: Annotated[GatewayId, Field(description="the gateway's own number for it")] = ""
    detail: Detail = ""
    url: Page = ""
    expires_ms: ExpiresMs = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.outcome == "done" and (self.amount_minor is None or self.currency is None):
            raise ValueError("`done` says of how much: amount_minor and currency")
        _require_page(self.outcome, self.url, self.expires_ms)
        return self

    @property
    def money(self) -> Money | None:
        if self.amount_minor is None or self.currency is None:
            return None
        return Money(self.amount_minor, self.currency)


class MethodTold(_Said):
    """What became of setting up a payment method."""

    about: Literal["method"] = "method"
    reference: Reference
    outcome: Literal["usable", "failed", "needs_customer", "removed", "unknown"]
    method: Annotated[
        str,
        Field(
            pattern=r"^[\x21-\x7e]*$",
            max_length=MAX_METHOD_CHARS,
            description="the gateway's name for it, with `usable`: what charges name. Never a card number",
        ),
    ] = ""
    label: Annotated[
        str,
        AfterValidator(_printable),
        Field(max_length=80, description="what its owner knows it by, as `Visa 4242`"),
    ] = ""
    detail: Detail = ""
    url: Page = ""
    expires_ms: ExpiresMs = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.outcome == "usable" and not self.method:
            raise ValueError("`usable` says what charges name: method")
        _require_page(self.outcome, self.url, self.expires_ms)
        return self


class DisputeTold(_Said):
    """That whoever paid asks a charge back from the bank, and how it ended. `lost`: the money was taken back. `won`: it
    stays, or has come back after all. Each says the same whenever it is sent again."""

    about: Literal["dispute"]
    reference: Annotated[Reference, Field(description="of the charge")]
    dispute: Annotated[
        str,
        Field(
            pattern=r"^[\x21-\x7e]+$",
            max_length=200,
            description="the gateway's own number for the dispute; a new one for each",
        ),
    ]
    outcome: Literal["open", "lost", "won"]
    amount_minor: Annotated[int, Field(ge=1, le=MAX_MINOR, description="that is asked back")]
    currency: Currency
    detail: Detail = ""


def _require_page(outcome: str, url: str, expires_ms: int | None) -> None:
    if outcome == "needs_customer" and not (url and expires_ms):
        raise ValueError("`needs_customer` says where, and until when: url and expires_ms")


Report = Annotated[PaymentTold | MethodTold | DisputeTold, Field(discriminator="about")]
"""What comes later, to `POST /v1/payments/reports`."""
