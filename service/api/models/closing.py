"""The cancellation of an account, and what stands in its way (6.2 to 6.4)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from service.agreement.texts import MAX_REASON_CHARS
from service.api.models.accounts import Closing
from service.api.models.base import Asked, Ms, fields_of
from service.api.models.problems import Reason
from storage.books import BlockRow

Kind = Literal["dispute", "linked_account", "balance", "transaction", "other"]


class ClosingView(BaseModel):
    """How far a cancellation has come, and all that stands in its way now."""

    account: int
    closing: Closing
    reasons: list[Reason]


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
        return cls(block=row.block_id, **fields_of(row, "account", "kind", "detail", "who", "at_ms", "lifted_ms"))
