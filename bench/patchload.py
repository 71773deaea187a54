"""The load of tus clients as they are by default: for each chunk a POST that creates an upload, and a PATCH with all of
its bytes. A closed loop, as `bench.load`; an ack is the PATCH's, and counts from the POST on.
"""

from __future__ import annotations

from bench.load import Connection, Load
from bench.wire import CREATED, patch_head

_NO_BODY = memoryview(b"")


class PatchLoad(Load):
    """See the module docstring."""

    def _start(self, conn: Connection, started_s: float) -> None:
        conn.body = _NO_BODY
        super()._start(conn, started_s)

    def _goes_on(self, conn: Connection, status: int, answer: bytes) -> bool:
        if status != CREATED or len(conn.body):
            return False
        conn.head = patch_head(conn.head, answer, len(self._body))
        conn.body = self._body
        conn.sent = 0
        self._send(conn)
        return True
