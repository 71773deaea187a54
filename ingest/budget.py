"""The byte budget of a process: what bounds its memory (invariant 15).

A byte is charged with its receive and given back when its chunk has been answered, `REQUEST_BYTES` of each chunk when
that answer has been sent. Past the budget clients wait; when they have waited long enough, the slowest is let go. What
the pool of buffers keeps besides fits into what is left of the budget: a charge has it give back what is too much.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from ingest.buffers import BufferPool

STEP_BYTES = 64 * 1024
"""The budget is charged in these steps: one charge per receive, not per byte."""

REQUEST_BYTES = 1024
"""Charged for a chunk besides its bytes, from its head until its answer has been sent: what it takes to remember it."""
SHARE_SLACK_BYTES = 2 * STEP_BYTES
"""What a connection may have beyond its share: one receive of what surrounds a largest chunk, such as the end of a
chunked body. Without it, a share of exactly one chunk could never see that chunk's end."""


class Budget:
    """Counts bytes in flight.

    Args:
        total_bytes: most bytes in flight in this process.
        share_bytes: most bytes of one connection, those waiting for their acknowledgement included, but for
            SHARE_SLACK_BYTES. At least the largest chunk.
        patience_s: how long a client waits before the slowest one is let go in its favour.
        wait_s: how long a client waits in all.
        let_go: called to let the slowest client go; returns whether there was one.
    """

    def __init__(
        self,
        total_bytes: int,
        share_bytes: int,
        *,
        patience_s: float = 2.0,
        wait_s: float = 10.0,
        let_go: Callable[[], bool] = lambda: False,
    ) -> None:
        self.total_bytes = total_bytes
        self.share_bytes = share_bytes
        self.patience_s = patience_s
        self.wait_s = wait_s
        self.pool = BufferPool(total_bytes)
        self.in_use_bytes = 0
        self.packed_bytes = 0
        """Of these, bytes of chunks that are in a segment by now: its buffer is memory of its own."""
        self.peak_bytes = 0
        self.let_go = let_go
        self.waiting = 0
        """How many wait in `refunded`."""
        self.refunded = trio.lowlevel.ParkingLot()
        """Where those wait who could not be charged."""

    def grant(self, account: Account, wanted: int) -> int:
        """How many of `wanted` bytes `charge` would charge now. Changes nothing."""
        room = self.total_bytes - self.in_use_bytes
        share_left = self.share_bytes + SHARE_SLACK_BYTES - account.charged_bytes
        if share_left < room:
            room = share_left
        return wanted if wanted <= room else max(0, room // STEP_BYTES * STEP_BYTES)

    def has_room(self, account: Account, size: int) -> bool:
        """Whether `charge` would charge so many bytes now."""
        return self.grant(account, size) == size

    def charge(self, account: Account, wanted: int) -> int:
        """Charge up to `wanted` bytes, in whole steps but for a last, smaller one.

        Returns:
            The bytes granted; 0 when there is nothing left now.
        """
        granted = self.grant(account, wanted)
        self.charge_anyway(account, granted)
        return granted

    def charge_anyway(self, account: Account, size: int) -> None:
        """Charge what has come already, past the budget if need be: of a connection with TLS, less than
        `tls.SCRATCH_BYTES` that could not be decrypted yet. Its next receive waits for room."""
        self.in_use_bytes += size
        if self.in_use_bytes > self.peak_bytes:
            self.peak_bytes = self.in_use_bytes
        account.charged_bytes += size
        room = max(0, self.total_bytes - self.in_use_bytes + self.packed_bytes)
        if self.pool.spare_bytes > room:
            self.pool.shrink(room)

    def refund(self, account: Account, size: int) -> None:
        """Give `size` bytes back and wake those who wait."""
        self.in_use_bytes -= size
        account.charged_bytes -= size
        assert self.in_use_bytes >= 0, "refunded more than was charged"
        assert account.charged_bytes >= 0, "refunded more than this connection was charged"
        if self.waiting:
            self.refunded.unpark_all()

    def is_full(self) -> bool:
        """No step of it is free."""
        return self.in_use_bytes + STEP_BYTES > self.total_bytes


class Account:
    """What one connection has charged."""

    __slots__ = ("charged_bytes",)

    def __init__(self) -> None:
        self.charged_bytes = 0
