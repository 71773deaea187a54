"""Pages of other origins: which may call this port from a browser (Fetch standard, "CORS protocol")."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
ASKED_WITH = ("Authorization", "Clipkeep-Reason", "Content-Type", "Idempotency-Key", "If-Range", "Range")
"""Headers of requests, beside those that any page may send."""
ANSWERED_WITH = (
    "Accept-Ranges",
    "Clipkeep-Films",
    "Clipkeep-Grid",
    "Clipkeep-Time",
    "Clipkeep-Times",
    "Content-Disposition",
    "Content-Length",
    "Content-Range",
    "Date",
    "ETag",
    "Idempotency-Replayed",
    "Link",
    "Location",
    "Retry-After",
    "WWW-Authenticate",
)
"""Headers of answers that a page may read."""
MAX_AGE_S = 3600
"""How long a browser need not ask again: withdrawing an origin takes as long at most."""


def allow_origins(app: FastAPI, origins: Sequence[str]) -> None:
    """Let pages of these origins call `app`; of none, nothing is changed. Preflights are answered before anything else
    looks at them, for they carry no token. Cookies play no part: who asks says so with a token."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=ASKED_WITH,
            expose_headers=ANSWERED_WITH,
            max_age=MAX_AGE_S,
        )
