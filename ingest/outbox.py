"""Answers of one connection, in the order of its requests, whichever is known first.

They are written from whatever task finishes them; only when the socket is full does a task of its own
(`serving.send_rest`) take over.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ingest.answers import Answer
from ingest.packing import Outcome

if TYPE_CHECKING:
    from ingest.connection import Connection


class Slot:
    """The place of one answer in a connection's order. `data` is None until it is known.

    Args:
        device: the device number.
        charged: bytes of the budget that the answer gives back: all but `kept` when it is known, and that when it has
            been sent.
        complete_s: when the body was complete, monotonic.
    """

    __slots__ = ("charged", "complete_s", "connection", "data", "device", "kept", "packed_bytes")

    def __init__(self, connection: Connection, device: int, charged: int, complete_s: float) -> None:
        self.connection = connection
        self.device = device
        self.data: bytes | None = None
        self.charged = charged
        self.kept = 0
        """Bytes that are charged until the answer has been sent; known with it."""
        self.packed_bytes = 0
        """Of these, bytes that are in a segment by now."""
        self.complete_s = complete_s

    def done(self, outcome: Outcome, now_s: float) -> None:
        """The chunk was committed or lost."""
        self.connection.receiver.done(self, outcome, now_s)


class _Known:
    """A place whose answer is known from the start."""

    __slots__ = ("data", "kept")

    def __init__(self, data: bytes) -> None:
        self.data: bytes | None = data
        self.kept = 0


class Outbox(ABC):
    """The sending half of a connection.

    Args:
        sock: non-blocking; closed by the receiving half.
        send_rest: sees to it that `send_more` is called while there is more to send and the socket takes it.
    """

    def __init__(self, sock: socket.socket, send_rest: Callable[[Outbox], None]) -> None:
        self.sock = sock
        self._send_rest = send_rest
        self._slots: deque[Slot | _Known] = deque()
        self._unsent = bytearray()
        self._unsent_charge = 0
        """Of the budget, for answers of which some bytes are unsent."""
        self._corked = False
        """Answers are known and not sent, for more will follow in this very turn: one send for all of them."""
        self._gone = False
        """The peer does not read its answers: they are no longer sent."""
        self._progress = trio.Event()
        """Set when answers went out."""

    @property
    def owed(self) -> int:
        """Answers that are owed: of requests that came whole, known or not."""
        return len(self._slots)

    @property
    def unsent_bytes(self) -> int:
        """Of answers that the peer leaves unread."""
        return len(self._unsent)

    @abstractmethod
    def refund(self, size: int) -> None:
        """Give bytes of the budget back, for answers that have been sent or will never be."""

    def _refund_unsent(self) -> None:
        charge, self._unsent_charge = self._unsent_charge, 0
        self.refund(charge)

    @abstractmethod
    def evict(self, verdict: Answer | None) -> None:
        """End the reading: the peer is gone."""

    def more_sent(self) -> trio.Event:
        """Set when answers have gone out after this call."""
        self._progress = trio.Event()
        return self._progress

    def _push(self, data: bytes) -> None:
        """Queue bytes that are already known, in order."""
        self._slots.append(_Known(data))
        self.flush()

    def flush(self) -> None:
        """Send what is known, in order. Synchronous; never blocks."""
        if self._corked:
            return
        slots = self._slots
        out = b""
        while slots and (data := slots[0].data) is not None:
            self._unsent_charge += slots.popleft().kept
            out = out + data if out else data
        if not out:
            return
        self._progress.set()
        if self._gone:
            self._refund_unsent()
            return
        if self._unsent:
            self._unsent += out
            return
        try:
            sent = self.sock.send(out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._refund_unsent()
            return  # the peer is gone; the reader notices
        if sent < len(out):
            self._unsent += out[sent:]
            self._send_rest(self)
        else:
            self._refund_unsent()

    def send_more(self) -> bool:
        """Send what the socket takes of what it did not take before. Returns whether there is more.

        Raises:
            OSError: the peer is gone.
        """
        if self._unsent:
            with suppress(BlockingIOError):
                sent = self.sock.send(self._unsent)
                del self._unsent[:sent]
        if not self._unsent:
            self._refund_unsent()
            self._progress.set()
        return bool(self._unsent)

    def give_up(self) -> None:
        """The peer reads nothing: let it go, and send it no more."""
        self._gone = True
        self._unsent.clear()
        self._refund_unsent()
        self.evict(None)
        self._progress.set()
