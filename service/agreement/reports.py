"""What a payment gateway reports by itself, later: outcomes of payments, set-ups of methods, disputes.

A report says how something stands, and takes the way of an answer: the same transaction, by the same tables of what may
follow (`retention.payments`). So it may come twice, before the answer, after it, or in another order than it was sent.
Nothing is asked of the gateway here.
"""

from __future__ import annotations

from enum import StrEnum

from service.agreement import methods
from service.agreement.charging import close_refund, fail, note_page, settle_charge, void_refusal
from service.agreement.desk import Desk
from service.agreement.details import Refusal, purpose_of
from service.agreement.disputes import Dispute
from service.agreement.disputes import hear as hear_dispute
from service.agreement.gateway.told import DisputeTold, MethodTold, PaymentTold
from service.agreement.payments import PaymentDeclined, Receipt
from service.agreement.settling import PURPOSES
from storage.errors import CallerError
from storage.rows.accounts import PaymentKind, PaymentRow, PaymentState


class Heard(StrEnum):
    """What became of a report, for the log. Whoever sent it is not told."""

    TAKEN = "taken"
    UNKNOWN = "unknown"  # of nothing that is here, or an amount that was not asked for
    CONTRADICTS = "contradicts"  # the gateway said otherwise, for ever, before


def hear(desk: Desk, told: PaymentTold | MethodTold | DisputeTold) -> Heard:
    """Take in a report. Safe to repeat.

    Raises:
        PaymentPending: of a dispute whose charge is not settled yet: to be sent again.
        WorldError: the books can't be written: to be sent again.
    """
    if isinstance(told, DisputeTold):
        state = PaymentState(told.outcome)
        dispute = Dispute(told.reference, told.dispute, state, told.amount_minor, told.currency, told.detail)
        known = desk.change(lambda books: hear_dispute(desk, books, dispute))
        return Heard.TAKEN if known else Heard.UNKNOWN
    if isinstance(told, MethodTold):
        return Heard.TAKEN if methods.hear(desk, told) else Heard.UNKNOWN
    with desk.reading() as books:
        row = books.payment(told.reference)
    if row is None or row.kind not in (PaymentKind.CHARGE, PaymentKind.REFUND):
        return Heard.UNKNOWN
    if row.kind is PaymentKind.CHARGE and purpose_of(row) not in PURPOSES:
        return Heard.UNKNOWN
    return _hear_payment(desk, row, told)


def _hear_payment(desk: Desk, row: PaymentRow, told: PaymentTold) -> Heard:
    reference = row.reference
    moved = told.outcome == "done"
    if moved and (told.amount_minor, told.currency) != (row.minor, row.currency):
        return Heard.UNKNOWN
    if row.state is not PaymentState.PENDING:
        settled = row.state is PaymentState.DONE
        contradicts = told.outcome in ("done", "declined", "void") and moved is not settled
        return Heard.CONTRADICTS if contradicts else Heard.TAKEN
    if told.outcome == "needs_customer" and row.kind is PaymentKind.CHARGE:
        url, until_ms = told.url, told.expires_ms or 0
        desk.write(lambda books: note_page(desk, books, reference, url, until_ms))
    elif told.outcome in ("done", "declined", "void"):
        if row.kind is PaymentKind.REFUND:
            why = "" if moved else told.detail or PaymentDeclined.code
            desk.write(lambda books: close_refund(desk, books, reference, told.gateway_id, why))
        else:
            _settle(desk, row, told)
    return Heard.TAKEN


def _settle(desk: Desk, row: PaymentRow, told: PaymentTold) -> None:
    purpose, reference = PURPOSES[purpose_of(row)], row.reference
    if told.money is not None and told.outcome == "done":
        try:
            settle_charge(desk, Receipt(reference, "charge", told.money, told.gateway_id), purpose)
        except CallerError:
            return  # its account was erased meanwhile, and the charge given back
        return
    if told.outcome == "void":
        refusal = void_refusal(row)
        follow = purpose.voided
    else:
        refusal = Refusal(PaymentDeclined.code, told.detail or "the payment was declined")
        follow = purpose.declined
    desk.write(lambda books: fail(desk, books, reference, refusal, follow))
