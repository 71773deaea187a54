"""What a gateway is asked."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.agreement.gateway.told import Currency, Minor, Reference
from service.agreement.payments import MAX_METHOD_CHARS

MethodName = Annotated[
    str, Field(max_length=MAX_METHOD_CHARS, description="the gateway's name for what is charged")
]
ReturnUrl = Annotated[str, Field(description="where the customer is to be sent back to; empty: as you like")]


class _Asked(BaseModel):
    model_config = ConfigDict(strict=True)

    def body(self) -> bytes:
        return self.model_dump_json().encode()


class ChargeAsked(_Asked):
    """Charge an amount to a method, once for each reference."""

    reference: Reference
    amount_minor: Minor
    currency: Currency
    method: MethodName
    why: Annotated[str, Field(description="for a statement: kind of plan, number of the device, period")]
    return_url: ReturnUrl = ""


class RefundAsked(_Asked):
    """Give back a part or all of a charge."""

    reference: Reference
    of: Annotated[Reference, Field(description="the charge")]
    amount_minor: Minor
    currency: Currency


class VoidAsked(_Asked):
    """See to it that nothing is charged under this reference any more."""

    reference: Reference
    amount_minor: Minor
    currency: Currency


class MethodAsked(_Asked):
    """Set up a payment method."""

    reference: Reference
    return_url: ReturnUrl = ""


class RemovalAsked(_Asked):
    """Keep a payment method no longer."""

    reference: Reference
    method: MethodName
