"""What the server says by itself: one error, for requests that never reach the application."""

from __future__ import annotations


class Refused(Exception):
    """A request that is not answered by the application; the connection ends with this answer."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


def malformed(detail: str) -> Refused:
    return Refused(400, "malformed", detail)
