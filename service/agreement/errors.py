"""Why the desk refuses, by the kind of answer that it deserves. The API turns the class into a status, the command
line prints the detail; the code is stable in both.

409 `Conflict` and 422 `Unprocessable` are of `storage.errors`, for the books and the pure rules of `retention` raise
them too. A refusal is always one of these classes: a plain CallerError that comes as far as the API is our fault."""

from __future__ import annotations

from storage.errors import CallerError, Conflict, NotFound, Unprocessable

__all__ = [
    "ERRORS",
    "Conflict",
    "Forbidden",
    "NotFound",
    "PaymentRefused",
    "TooMany",
    "Unauthorized",
    "Unprocessable",
]


class Unauthorized(CallerError):
    """401: who asks is not known. `bad_credentials`, `session_ended`."""

    code = "bad_credentials"


class PaymentRefused(CallerError):
    """402: the payment gateway said no, for good."""

    code = "payment_declined"


class Forbidden(CallerError):
    """403: known, and not allowed. `account_suspended`, `not_activated`, `operators_only`."""

    code = "forbidden"


class TooMany(CallerError):
    """429: too often; the same may be tried again in `retry_after_s`, at least 1."""

    code = "slow_down"

    def __init__(self, detail: str, *, retry_after_s: int, subject: str = "") -> None:
        super().__init__(detail, subject=subject)
        self.retry_after_s = max(1, retry_after_s)


ERRORS = (Unauthorized, PaymentRefused, Forbidden, NotFound, Conflict, Unprocessable, TooMany)
