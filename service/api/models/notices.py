"""The outbox, and what operators tell everybody."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from service.agreement.texts import MAX_BODY_CHARS, MAX_SUBJECT_CHARS
from service.api.models.base import Asked, Ms, fields_of
from storage.rows.accounts import NoticeRow


class PlannedAsked(Asked):
    """When it is planned for; anybody can read it until then."""

    from_ms: Annotated[int, Field(ge=0, le=2**53, description="Unix ms")]
    until_ms: Annotated[int, Field(ge=0, le=2**53, description="Unix ms")]


class AnnouncementAsked(Asked):
    """To all active accounts (3.1, 3.2). Sent again, it goes on where it stopped, and reaches nobody twice."""

    subject: Annotated[str, Field(min_length=1, max_length=MAX_SUBJECT_CHARS)]
    body: Annotated[str, Field(min_length=1, max_length=MAX_BODY_CHARS)]
    reference: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=64,
            description="what makes it the same one; default: today's date and the text",
        ),
    ] = None
    planned: PlannedAsked | None = None
    to_suspended: Annotated[bool, Field(description="suspended accounts are told, too")] = False


class Announced(BaseModel):
    reference: str
    accounts: Annotated[int, Field(description="that got it with this request")]


class Notice(BaseModel):
    notice: int
    account: int
    channel: Literal["email", "mobile", "push"]
    address: str
    purpose: Annotated[str, Field(examples=["activate", "receipt", "closing"])]
    subject: str
    state: Literal["queued", "delivered", "failed"]
    attempts: int
    created_ms: Ms
    next_ms: Annotated[int, Field(description="Unix ms of the next attempt")]
    settled_ms: Ms | None
    error: str

    @classmethod
    def of(cls, row: NoticeRow) -> Self:
        same = ("account", "channel", "address", "purpose", "subject", "state", "attempts")
        return cls(
            notice=row.notice_id, **fields_of(row, *same, "created_ms", "next_ms", "settled_ms", "error")
        )
