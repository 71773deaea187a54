"""The cancellation of an account, and what stands in its way (6.2 to 6.4)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from service.agreement.closing import Progress
from service.agreement.texts import MAX_REASON_CHARS
from service.api.models.accounts import Closing
from service.api.models.base import Asked, Ms, fields_of
from service.api.models.problems import Reason
from storage.rows.accounts import BlockRow

Kind = Literal["dispute", "linked_account", "balance", "transaction", "other"]


class ClosingView(BaseModel):
    """How far a cancellation has come, and all that stands in its way now."""

    account: int
    closing: Closing
    reasons: list[Reason]
    undelivered: Annotated[
        list[str], Field(description="addresses that the notice has not reached yet (6.4)")
    ]

    @classmethod
    def of(cls, account: int, progress: Progress) -> Self:
        return cls(
            account=account,
            closing=Closing(
                state=progress.state.value,
                requested_ms=progress.requested_ms,
                reason=progress.reason,
                by=progress.by,
            ),
            reasons=[
                Reason(**fields_of(reason, "code", "detail", "what_to_do")) for reason in progress.blocks
            ],
            undelivered=[notice.channel for notice in progress.waits_for],
        )


class ClosingAsked(Asked):
    reason: Annotated[str, Field(max_length=MAX_REASON_CHARS, description="kept in the history")] = ""


class BlockAsked(Asked):
    kind: Kind
    detail: Annotated[str, Field(min_length=1, max_length=MAX_REASON_CHARS, description="shown to the owner")]


class Block(BaseModel):
    """Why an account may not be cancelled for now."""

    block: int
    account: int
    kind: Kind
    detail: str
    who: str
    at_ms: Ms
    lifted_ms: Ms | None

    @classmethod
    def of(cls, row: BlockRow) -> Self:
        return cls(
            block=row.block_id, **fields_of(row, "account", "kind", "detail", "who", "at_ms", "lifted_ms")
        )
