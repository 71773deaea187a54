"""Payments of all accounts."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field

from service.agreement.details import refusal_of
from service.api.models.subscriptions import Payment
from storage.rows.accounts import PaymentRow


class PaymentOfAccount(Payment):
    account: int
    age_s: Annotated[int, Field(description="seconds since it was made")]
    refused: Annotated[
        str, Field(description="why the gateway moved no money, or nothing was had for it; empty: it was not")
    ]

    @classmethod
    def seen(cls, row: PaymentRow, now_ms: int) -> Self:
        refusal = refusal_of(row)
        return cls(
            account=row.account,
            age_s=max(0, (now_ms - row.at_ms) // 1000),
            refused="" if refusal is None else refusal.detail,
            **Payment.of(row).model_dump(),
        )
