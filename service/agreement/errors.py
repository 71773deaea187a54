"""Why the desk refuses, by the kind of answer that it deserves. The API turns the class into a status, the command
line prints the detail; the code is stable in both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from storage.errors import CallerError, NotFound


class Unauthorized(CallerError):
    """401: who asks is not known. `bad_credentials`, `session_ended`."""

    code = "bad_credentials"


class PaymentRefused(CallerError):
    """402: the payment gateway said no, for good."""

    code = "payment_declined"


class Forbidden(CallerError):
    """403: known, and not allowed. `account_suspended`, `not_activated`, `operators_only`."""

    code = "forbidden"


class Conflict(CallerError):
    """409: it does not go with what is there: `address_taken`, `trial_used`, `account_closing`, `reused_key`, …"""

    code = "conflict"


class Unprocessable(CallerError):
    """422: understood, and against a rule of the agreement or of the form of what was sent.

    Args:
        reasons: all of them at once, where there may be several (`cancellation_blocked`).
    """

    code = "unprocessable"

    def __init__(
        self, detail: str, *, subject: str = "", code: str | None = None, reasons: Sequence[Any] = ()
    ) -> None:
        super().__init__(detail, subject=subject, code=code)
        self.reasons = tuple(reasons)


class TooMany(CallerError):
    """429: too often; the same may be tried again in `retry_after_s`, at least 1."""

    code = "slow_down"

    def __init__(self, detail: str, *, retry_after_s: int, subject: str = "") -> None:
        super().__init__(detail, subject=subject)
        self.retry_after_s = max(1, retry_after_s)


ERRORS = (Unauthorized, PaymentRefused, Forbidden, NotFound, Conflict, Unprocessable, TooMany)

CONFLICTS = frozenset(
    {
        *("address_taken", "reference_taken", "trial_used", "plan_already_cancelled", "terminated"),
        *("account_closing", "account_cancelled", "not_suspended", "not_requested", "not_approved"),
    }
)
"""Codes of rules and books that say that the state of things, not the request, stands in the way."""


@contextmanager
def refusals() -> Iterator[None]:
    """Inside, what a pure rule or the books refuse becomes an error of this module, with the same code and detail.
    Errors of this module, and those of the world, pass as they are."""
    try:
        yield
    except ERRORS:
        raise
    except CallerError as error:
        kind: type[CallerError] = Unprocessable
        if error.code in CONFLICTS or error.code.startswith("already_"):
            kind = Conflict
        raise kind(error.detail, subject=error.subject, code=error.code) from error
