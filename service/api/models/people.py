"""What is asked of owners, and what they say of what is not owed."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from service.agreement.consents import Consent as Said
from service.agreement.texts import MAX_REASON_CHARS
from service.api.models.base import Asked, Day, Ms, day, fields_of, maybe_day
from storage.rows.people import CorrectionRow, ExportRow, ExportState

DataField = Literal["name", "email", "mobile"]


class ConsentAsked(Asked):
    """A yes or a no."""

    given: bool


class Consent(BaseModel):
    """What is not owed, and what the owner has said of it."""

    subject: Annotated[str, Field(examples=["advertisements", "partner:weather"])]
    fields: Annotated[list[str], Field(description="of the account, that a partner is given")]
    given: Annotated[bool | None, Field(description="null: nothing was said")]
    how: Annotated[str, Field(description="owner, operator, or link (of an advertisement)")]
    at_ms: Ms | None

    @classmethod
    def of(cls, one: Said) -> Self:
        return cls(fields=list(one.fields), **fields_of(one, "subject", "given", "how", "at_ms"))


class DataExport(BaseModel):
    """A file of all that is kept about an account."""

    export: int
    state: Literal["queued", "ready", "failed"]
    asked_ms: Ms
    ready_ms: Ms | None
    expires_ms: Annotated[int, Field(description="Unix ms, from which it is gone")]
    length_bytes: int
    error: Annotated[str, Field(description="code of what went wrong")]
    file: Annotated[str | None, Field(description="where it is, once it is ready")]

    @classmethod
    def of(cls, row: ExportRow) -> Self:
        ready = row.state is ExportState.READY
        return cls(
            export=row.export_id,
            state=row.state.value,
            length_bytes=row.length,
            file=f"/v1/accounts/{row.account}/exports/{row.export_id}/file" if ready else None,
            **fields_of(row, "asked_ms", "ready_ms", "expires_ms", "error"),
        )


class CorrectionAsked(Asked):
    """Data of an account that are untrue or missing (6.1.1)."""

    fields: Annotated[list[DataField], Field(min_length=1, max_length=3)]
    detail: Annotated[
        str, Field(min_length=1, max_length=MAX_REASON_CHARS, description="what is wrong; the owner reads it")
    ]
    within_days: Annotated[
        int | None, Field(ge=1, le=3650, description="until the last day; default: as configured")
    ] = None


class Correction(BaseModel):
    """How far a request to correct data has come."""

    correction: int
    account: int
    state: Literal["notified", "reminded", "suspended", "cancelled", "corrected", "withdrawn"]
    fields: Annotated[list[DataField], Field(description="not corrected yet")]
    detail: str
    asked_ms: Ms
    due_on: Annotated[Day, Field(description="the last day for a correction")]
    next_on: Annotated[Day | None, Field(description="day of the next step; null when it is over")]
    ended_ms: Ms | None

    @classmethod
    def of(cls, row: CorrectionRow) -> Self:
        return cls(
            correction=row.correction_id,
            fields=row.fields.split(),  # type: ignore[arg-type]  # checked when it was asked for
            due_on=day(row.due_on),
            next_on=maybe_day(row.next_on),
            state=row.state.value,
            **fields_of(row, "account", "detail", "asked_ms", "ended_ms"),
        )
