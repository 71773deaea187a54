"""What a payment's row keeps beside its columns: `PaymentRow.detail`, read and written by these records alone.

The books store it as JSON and know nothing of it. Rows of earlier releases may lack what has a default here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from retention.plans import PlanKind
from retention.subscriptions import Note
from service.agreement.desk import Actor, Role
from storage.rows.accounts import PaymentRow, PaymentState

PURCHASE = "purchase"
RENEWAL = "renewal"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing is had for a charge, or why the gateway moved no money."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class PurchaseDetail:
    """What a purchase needs to be finished by whoever finds its row.

    Args:
        package, version: that was bought. Rows of earlier releases name none: theirs is named as the kind.
        notes: of the plan, once it was made.
        operator, reason: of an operator who bought it for the owner.
    """

    role: Role
    method: str
    plan: PlanKind
    retention_days: int | None
    monthly_fee_minor: int
    agreement_version: int
    package: str
    version: int
    notes: tuple[Note, ...] | None = None
    operator: str = ""
    reason: str = ""

    def stored(self) -> dict[str, Any]:
        """The JSON object."""
        stored = {
            "for": PURCHASE,
            "who": self.role,
            "method": self.method,
            "plan": str(self.plan),
            "retention_days": self.retention_days,
            "monthly_fee_minor": self.monthly_fee_minor,
            "agreement_version": self.agreement_version,
            "package": self.package,
            "package_version": self.version,
        }
        notes = {} if self.notes is None else {"notes": [[note.code, note.text] for note in self.notes]}
        operator = {"operator": self.operator, "reason": self.reason} if self.operator else {}
        return stored | notes | operator


@dataclass(frozen=True, slots=True)
class RenewalDetail:
    """Of which period a charge is: its first day, and the last paid day before it."""

    role: Role
    method: str
    first: date
    expected_ends_on: date

    def stored(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "for": RENEWAL,
            "who": self.role,
            "method": self.method,
            "first": self.first.isoformat(),
            "expected_ends_on": self.expected_ends_on.isoformat(),
        }


def purpose_of(row: PaymentRow) -> str:
    """PURCHASE or RENEWAL of a charge; "" of a refund or a credit."""
    return str(row.detail.get("for", ""))


def purchase_of(row: PaymentRow) -> PurchaseDetail:
    detail = row.detail
    assert purpose_of(row) == PURCHASE, row
    notes = detail.get("notes")
    return PurchaseDetail(
        detail["who"],
        detail["method"],
        PlanKind(detail["plan"]),
        detail["retention_days"],
        detail["monthly_fee_minor"],
        detail["agreement_version"],
        detail.get("package", detail["plan"]),
        detail.get("package_version", 1),
        None if notes is None else tuple(Note(code, text) for code, text in notes),
        detail.get("operator", ""),
        detail.get("reason", ""),
    )


def renewal_of(row: PaymentRow) -> RenewalDetail:
    detail = row.detail
    assert purpose_of(row) == RENEWAL, row
    return RenewalDetail(
        detail["who"],
        detail["method"],
        date.fromisoformat(detail["first"]),
        date.fromisoformat(detail["expected_ends_on"]),
    )


def method_of(row: PaymentRow) -> str:
    """What a charge is charged to."""
    return str(row.detail["method"])


def actor_of(row: PaymentRow) -> Actor:
    """Who asked for a charge."""
    role: Role = row.detail["who"]
    if role == "owner":
        return Actor("owner", row.account)
    return Actor(role, operator=row.detail.get("operator", ""), reason=row.detail.get("reason", ""))


def refund_detail(charge: PaymentRow, hand: ByHand | None = None) -> dict[str, Any]:
    """Of a new refund of a charge."""
    return {"of": charge.reference} | ({} if hand is None else {"by_hand": hand.stored()})


def counter_detail(entry: PaymentRow, role: Role) -> dict[str, Any]:
    """Of the counter-entry that takes back a credit or a note."""
    return {"of": entry.reference, "given_by": role}


def asked_again(row: PaymentRow) -> PaymentRow:
    """A refund that was refused, to be asked for under another reference: under the old one it always will be."""
    again = int(row.detail.get("again", 0)) + 1
    first = row.detail.get("first_reference", row.reference)
    detail = {name: value for name, value in row.detail.items() if name != "refused"}
    return replace(
        row,
        reference=f"{first}.a{again}",
        state=PaymentState.PENDING,
        settled_ms=None,
        attempts=0,
        next_ms=0,
        detail={**detail, "again": again, "first_reference": first},
    )


def was_refused(row: PaymentRow) -> bool:
    """Whether it is a refund that was refused before, and asked for again."""
    return "again" in row.detail


def references_again(reference: str) -> Iterator[str]:
    """References that a refund of this one may have since it was asked for again, 100 times at most."""
    first, again, number = reference.rpartition(".a")
    if not again or not number.isdecimal():
        first = reference
    return (f"{first}.a{number}" for number in range(1, 101))


def charge_reference(row: PaymentRow) -> str:
    """The reference of the charge that a refund is of; "" of what is no refund."""
    return str(row.detail.get("of", ""))


@dataclass(frozen=True, slots=True)
class ByHand:
    """Of a refund that an operator gave: which of one gift it is a part of, and what a repetition is told by.

    Args:
        name: the reference that the operator's request had; all its parts have it.
        total_minor: of all parts.
        otherwise: it was noted, and paid by other means.
        after_cancellation: the plan was cancelled before, so nothing was counted with it.
        given_by: the role of who gave it.
    """

    name: str
    total_minor: int
    otherwise: bool
    after_cancellation: bool
    given_by: Role

    def stored(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "name": self.name,
            "total_minor": self.total_minor,
            "otherwise": self.otherwise,
            "after_cancellation": self.after_cancellation,
            "given_by": self.given_by,
        }


def by_hand(row: PaymentRow) -> ByHand | None:
    """None of what the rules gave: by a cancellation, or for a charge of which nothing was had."""
    hand = row.detail.get("by_hand")
    return None if hand is None else ByHand(**hand)


def abandoned(row: PaymentRow, role: Role, now_ms: int) -> PaymentRow:
    """The purchase, never to be charged any more."""
    return replace(row, detail={**row.detail, "abandoned": {"by": role, "at_ms": now_ms}})


def is_abandoned(row: PaymentRow) -> bool:
    return "abandoned" in row.detail


@dataclass(frozen=True, slots=True)
class Page:
    """Of the gateway's: where whoever pays has to do something first, and until when (Unix ms) it is there."""

    url: str
    until_ms: int


def page_of(row: PaymentRow) -> Page | None:
    page = row.detail.get("page")
    return None if page is None else Page(page["url"], page["until_ms"])


def with_page(row: PaymentRow, url: str, until_ms: int) -> PaymentRow:
    return replace(row, detail={**row.detail, "page": {"url": url, "until_ms": until_ms}})


def refusal_of(row: PaymentRow) -> Refusal | None:
    refused = row.detail.get("refused")
    return None if refused is None else Refusal(refused["code"], refused["detail"])


def refused(row: PaymentRow, refusal: Refusal) -> PaymentRow:
    """The row with why."""
    return replace(row, detail={**row.detail, "refused": {"code": refusal.code, "detail": refusal.detail}})
