"""Accounts, log-ins, and what happened to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field

from service.agreement.texts import MAX_NAME_CHARS, MAX_REASON_CHARS
from service.api.models.base import MAX_ROW, Asked, Day, Ms, fields_of, maybe_day
from storage.rows.accounts import AcceptanceRow, AccountRow, ClosingState, EventRow

MAX_ADDRESS_CHARS = 320
MAX_PASSWORD_CHARS = 1024
MAX_CODE_CHARS = 64

Name = Annotated[str, Field(max_length=MAX_NAME_CHARS)]
Email = Annotated[str, Field(min_length=3, max_length=MAX_ADDRESS_CHARS, examples=["owner@example.com"])]
Mobile = Annotated[str, Field(min_length=5, max_length=40, description="E.164", examples=["+4915112345678"])]
Password = Annotated[
    str, Field(min_length=1, max_length=MAX_PASSWORD_CHARS, json_schema_extra={"format": "password"})
]
Code = Annotated[str, Field(min_length=1, max_length=MAX_CODE_CHARS, description="from the notice")]
Why = Annotated[str, Field(min_length=1, max_length=MAX_REASON_CHARS, description="kept in the history")]
Login = Annotated[
    str,
    Field(min_length=1, max_length=MAX_ADDRESS_CHARS, description="account number, e-mail or mobile number"),
]
Version = Annotated[int, Field(ge=1, le=MAX_ROW, description="of the agreement")]


class Registration(Asked):
    """At least one address. The current version of the agreement has to be accepted (11.4)."""

    email: Email | None = None
    mobile: Mobile | None = None
    password: Password
    name: Name = ""
    accepts_version: Version


class ActivationCode(Asked):
    code: Code


class Update(Asked):
    """What is to change. A new address is bound when the code that is sent to it comes back; an empty one removes the
    address, when another one stays."""

    name: Name | None = None
    email: Annotated[str | None, Field(max_length=MAX_ADDRESS_CHARS)] = None
    mobile: Annotated[str | None, Field(max_length=40)] = None


class LogIn(Asked):
    login: Login
    password: Password


class NewPassword(Asked):
    old: Password
    new: Password


class ResetRequest(Asked):
    login: Login


class Reset(Asked):
    login: Login
    code: Code
    password: Password


class WithReason(Asked):
    reason: Why


class Closing(BaseModel):
    """A cancellation under way (6.4)."""

    state: Literal["none", "requested", "approved"]
    requested_ms: Ms | None
    reason: str
    by: Annotated[str, Field(description="owner or operator")]


class AccountView(BaseModel):
    account: int
    kind: Literal["operator", "owner"]
    name: str
    email: str | None
    mobile: str | None
    state: Literal["new", "active", "cancelled"]
    created_ms: Ms
    activated_ms: Ms | None
    suspended_ms: Ms | None
    suspend_reason: str
    trial_used: Annotated[bool, Field(description="its one trial has begun (7.1)")]
    closing: Closing
    cancelled_on: Day | None

    @classmethod
    def of(cls, row: AccountRow) -> Self:
        same = ("account", "kind", "name", "email", "mobile", "state", "created_ms", "activated_ms")
        return cls(
            **fields_of(row, *same, "suspended_ms", "suspend_reason"),
            trial_used=row.trial_ms is not None,
            closing=closing_of(row),
            cancelled_on=maybe_day(row.cancelled_on),
        )


class Accepted(BaseModel):
    """A version of the agreement that the account accepted."""

    version: int
    how: Annotated[
        Literal["registered", "deemed", "purchase"], Field(description="deemed: by continued use (11.2)")
    ]
    at_ms: Ms


class AccountShown(AccountView):
    """An account, and what it accepted."""

    accepted: list[Accepted]

    @classmethod
    def with_accepted(cls, row: AccountRow, rows: Sequence[AcceptanceRow]) -> Self:
        accepted = [Accepted(**fields_of(one, "version", "how", "at_ms")) for one in rows]
        return cls(**AccountView.of(row).model_dump(), accepted=accepted)


def closing_of(row: AccountRow) -> Closing:
    asked = row.closing is not ClosingState.NONE
    return Closing(
        state=row.closing.value,
        requested_ms=row.closing_ms if asked else None,
        reason=row.closing_reason if asked else "",
        by=row.closing_by if asked else "",
    )


class Session(BaseModel):
    account: int
    token: Annotated[str, Field(description="send it as Bearer; it is not shown again")]
    expires_ms: Ms


class Event(BaseModel):
    """A line of an account's history."""

    event: int
    at_ms: Ms
    what: Annotated[str, Field(examples=["registered", "subscribed"])]
    who: Literal["owner", "operator", "system"]
    operator: Annotated[
        str,
        Field(description="the name of the operator who did it; empty for others, and of earlier releases"),
    ]
    why: str
    device: int | None
    facts: dict[str, Any]

    @classmethod
    def of(cls, row: EventRow) -> Self:
        return cls(
            event=row.event_id, **fields_of(row, "at_ms", "what", "who", "operator", "why", "device", "facts")
        )
