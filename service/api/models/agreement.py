"""What anybody may read: the service agreement, the privacy policy, and what is planned."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, Field

from service.api.models.base import Ms, fields_of
from storage.rows.accounts import AgreementRow
from storage.rows.people import AnnouncementRow


class AgreementText(BaseModel):
    version: int
    published_ms: Ms
    sha256: str
    text: str

    @classmethod
    def of(cls, row: AgreementRow) -> Self:
        return cls(**fields_of(row, "version", "published_ms", "sha256", "text"))


class PolicyText(AgreementText):
    """The privacy policy, which the agreement refers to (5)."""


class Planned(BaseModel):
    """A change or an interruption of the service, announced until it is over (3.1, 3.2)."""

    reference: str
    subject: str
    body: str
    from_ms: Annotated[Ms, Field(description="when it is to begin, Unix ms")]
    until_ms: Annotated[Ms, Field(description="when it is to be over, Unix ms")]

    @classmethod
    def of(cls, row: AnnouncementRow) -> Self:
        return cls(**fields_of(row, "reference", "subject", "body", "from_ms", "until_ms"))
