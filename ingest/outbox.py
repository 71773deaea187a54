"""Answers of one connection, in the order of its requests, whichever is known first; and what those who give them know
of a connection.

They are written from whatever task finishes them; only when the socket is full does a task of its own
(`serving.send_rest`) take over.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from ingest.answers import Answer
from ingest.arrivals import Arrivals
from ingest.budget import Account
from ingest.inits import InitInUse
from ingest.packing import Outcome
from ingest.protocols.base import Protocol
from ingest.tls import Wire

# What the sending half does: see `Outbox.sending`.
OPEN: Final = 0
CORKED: Final = 1
GONE: Final = 2


class Slot:
    """The place of one answer in a connection's order. `data` is None until it is known.

    Args:
        device: the device number.
        protocol: says what is answered.
        charged: bytes of the budget that the answer gives back: all but `kept` when it is known, and that when it has
            been sent.
        complete_s: when the body was complete, monotonic.
        completion: called with what became of the chunk.
    """

    __slots__ = (
        "_completion",
        "charged",
        "complete_s",
        "connection",
        "data",
        "device",
        "kept",
        "packed_bytes",
        "protocol",
    )

    def __init__(
        self,
        connection: Outbox,
        device: int,
        protocol: Protocol,
        charged: int,
        complete_s: float,
        completion: Callable[[Slot, Outcome, float], None],
    ) -> None:
        self.connection = connection
        self.device = device
        self.protocol = protocol
        self._completion = completion
        self.data: bytes | None = None
        self.charged = charged
        self.kept = 0
        """Bytes that are charged until the answer has been sent; known with it."""
        self.packed_bytes = 0
        """Of these, bytes that are in a segment by now."""
        self.complete_s = complete_s

    def done(self, outcome: Outcome, now_s: float) -> None:
        """The chunk was committed or lost."""
        self._completion(self, outcome, now_s)


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
        wire: what bytes come and go by: the socket itself, or TLS over it.
        send_rest: sees to it that `send_more` is called while there is more to send and the socket takes it.
    """

    def __init__(self, sock: socket.socket, wire: Wire, send_rest: Callable[[Outbox], None]) -> None:
        self.sock = sock
        self.wire = wire
        self._send_rest = send_rest
        self._slots: deque[Slot | _Known] = deque()
        self._unsent = bytearray()
        self._unsent_charge = 0
        """Of the budget, for answers of which some bytes are unsent."""
        self.sending = OPEN
        """OPEN: answers are sent when they are known. CORKED: more will follow in this very turn, and one send is for
        all of them. GONE, for good: the peer does not read its answers, or the connection is closed."""
        self.account = Account()
        self.arrivals = Arrivals()
        self.init: InitInUse | None = None
        """What fragments on it are read by: sent on it, or found for the first of them."""
        self.gathered = 0
        """Chunks of it that wait for others of their day."""
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
        """End the reading now: with this answer to the current request, or without one."""

    @abstractmethod
    def cut_off(self) -> None:
        """End now, without waiting for the peer to read what it is owed. Only where no chunk waits for its answer."""

    @abstractmethod
    def ends_with(self, slot: Slot) -> bool:
        """Whether the answer in this slot is the last one, and says so. Asked when the answer becomes known."""

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
        if self.sending == CORKED:
            return
        slots = self._slots
        out = b""
        while slots and (data := slots[0].data) is not None:
            self._unsent_charge += slots.popleft().kept
            out = out + data if out else data
        if not out:
            return
        self._progress.set()
        if self.sending == GONE:
            self._refund_unsent()
            return
        if self._unsent:
            self._unsent += out
            return
        try:
            sent = self.wire.send(out)
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
                sent = self.wire.send(self._unsent)
                del self._unsent[:sent]
        if not self._unsent:
            self._refund_unsent()
            self._progress.set()
        return bool(self._unsent)

    def give_up(self) -> None:
        """The peer reads nothing: let it go, and send it no more."""
        self.sending = GONE
        self._unsent.clear()
        self._refund_unsent()
        self.evict(None)
        self._progress.set()
