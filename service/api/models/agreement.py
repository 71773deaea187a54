"""The text of the service agreement."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel

from service.api.models.base import Ms, fields_of
from storage.rows.accounts import AgreementRow


class AgreementText(BaseModel):
    version: int
    published_ms: Ms
    sha256: str
    text: str

    @classmethod
    def of(cls, row: AgreementRow) -> Self:
        return cls(**fields_of(row, "version", "published_ms", "sha256", "text"))
