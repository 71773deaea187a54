"""Rows about people beside their accounts: corrections asked for, consents, downloads; and public announcements."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class CorrectionState(StrEnum):
    """How far a request to correct untrue data has come (agreement 6.1.1): `retention.corrections` has what follows."""

    NOTIFIED = "notified"
    REMINDED = "reminded"
    SUSPENDED = "suspended"
    CANCELLED = "cancelled"  # the cancellation of the account was ordered
    CORRECTED = "corrected"
    WITHDRAWN = "withdrawn"  # an operator took the request back


@dataclass(frozen=True, slots=True)
class CorrectionRow:
    """
    Args:
        fields: what is untrue and not corrected yet: "name", "email", "mobile", separated by spaces.
        due_on: the last day on which the owner may correct it, a day number.
        next_on: the day of the next step; None when it is over.
        suspended_ms: the `suspended_ms` that it gave the account; None when it suspended nothing.
    """

    correction_id: int  # 0 for a row that is not stored yet
    account: int
    state: CorrectionState
    fields: str
    detail: str  # what an operator wrote
    asked_ms: int
    due_on: int
    next_on: int | None
    suspended_ms: int | None = None
    ended_ms: int | None = None


@dataclass(frozen=True, slots=True)
class AnnouncementRow:
    """What is planned for everybody, shown to anybody until it is over. Nothing personal."""

    reference: str
    subject: str
    body: str
    from_ms: int
    until_ms: int
    made_ms: int


@dataclass(frozen=True, slots=True)
class ConsentRow:
    """What the owner has said of something that is not owed.

    Args:
        subject: "advertisements", or "partner:" and a partner's name.
        how: "owner", "operator" or "link" (of a notice).
    """

    account: int
    subject: str
    given: bool
    how: str
    at_ms: int


class ExportState(StrEnum):
    """Of an owner's download of all that is kept about the account."""

    QUEUED = "queued"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ExportRow:
    """
    Args:
        claimed_ms: until then somebody makes it.
        secret: key of its parts in the store, in hexadecimal digits; gone with the account.
        parts, length: objects of it in the store, and bytes of the file that they make.
        error: a code; "" when nothing went wrong.
    """

    export_id: int  # 0 for a row that is not stored yet
    account: int
    state: ExportState
    asked_ms: int
    expires_ms: int
    claimed_ms: int = 0
    ready_ms: int | None = None
    parts: int = 0
    length: int = 0
    secret: str = ""
    error: str = ""
