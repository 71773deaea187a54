"""What a protocol says about a request, and what it has to say it in. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

from ingest.answers import Answer
from ingest.heads import Head
from ingest.packing import Outcome
from ingest.protocols.upload_call import UploadCall
from storage.days import day_of_ms, expiry_day
from storage.segment import MAX_CHUNK_BYTES

MIB: Final = 1024 * 1024
MAX_UPLOAD_BYTES: Final = 256 * MIB
PIECE_BYTES: Final = 8 * MIB
"""Of the body of a part of a resumable upload that are held at once, but for a receive of a chunked one; then they are
stored, and only then more is read. One put and one commit for so much cost a tenth of receiving it."""


class Bounds:
    """What protocols take at most, as configured. `max_chunk_bytes`: of one chunk. `max_upload_bytes`: of one resumable
    upload, at least as much."""

    __slots__ = ("max_chunk_bytes", "max_upload_bytes")

    def __init__(
        self, max_chunk_bytes: int = MAX_CHUNK_BYTES, max_upload_bytes: int = MAX_UPLOAD_BYTES
    ) -> None:
        self.max_chunk_bytes = max_chunk_bytes
        self.max_upload_bytes = max(max_upload_bytes, max_chunk_bytes)


@dataclass(slots=True, init=False)
class Route:
    """Where a request goes."""

    protocol: Protocol
    device: int
    capture_ms: int | None
    """Unix milliseconds; None for what is timed by its arrival."""
    may_move: bool
    """The time is not the device's word to the millisecond, and gives way to another chunk that has it."""
    answer: Answer | None
    """Of what changes nothing, for whoever has the device's token; None: its body is looked at."""
    upload: UploadCall | None
    """What is asked about a resumable upload; None: the body is a whole chunk."""

    # Written out, as for all that is made once a chunk: what a dataclass makes is not compiled.
    def __init__(
        self,
        protocol: Protocol,
        device: int,
        capture_ms: int | None = None,
        may_move: bool = False,
        answer: Answer | None = None,
        upload: UploadCall | None = None,
    ) -> None:
        self.protocol = protocol
        self.device = device
        self.capture_ms = capture_ms
        self.may_move = may_move
        self.answer = answer
        self.upload = upload


@dataclass(slots=True, init=False)
class Rights:
    """What the bitmap grants a device whose token was good."""

    epoch: int
    class_days: int
    limit_class: int
    """Of its package's limits on uploads; 0: none."""
    generation: int
    """Of the token that was shown."""
    now_ms: int
    """When it was looked at, by the server's clock."""

    def __init__(self, epoch: int, class_days: int, limit_class: int, generation: int, now_ms: int) -> None:
        self.epoch = epoch
        self.class_days = class_days
        self.limit_class = limit_class
        self.generation = generation
        self.now_ms = now_ms


@dataclass(slots=True, init=False)
class Admission:
    """A body that may come."""

    protocol: Protocol
    device: int
    capture_ms: int | None
    """None: a live chunk, whose capture time is when its body is complete."""
    epoch: int
    class_days: int
    duration_ms: int | None
    """As the device said; None when it is to be read from the media."""
    digest: tuple[bytes, bytes] | None
    head_ms: int
    """When the head was admitted, by the server's clock."""
    generation: int
    """Of the token that it came with."""
    may_move: bool
    """Its time is not the device's word to the millisecond, and gives way to another chunk that has it."""
    limit_class: int
    """Of its package's limits on uploads; 0: none."""
    most_bytes: int
    """Of its body, when its head does not say how many."""
    piece_bytes: int
    """Of its body that are held at once, and stored before more is read; 0: all of it is held."""
    upload: UploadCall | None

    def __init__(
        self,
        route: Route,
        rights: Rights,
        duration_ms: int | None,
        digest: tuple[bytes, bytes] | None,
        most_bytes: int,
        piece_bytes: int = 0,
    ) -> None:
        self.protocol = route.protocol
        self.device = route.device
        self.capture_ms = route.capture_ms
        self.epoch = rights.epoch
        self.class_days = rights.class_days
        self.duration_ms = duration_ms
        self.digest = digest
        self.head_ms = rights.now_ms
        self.generation = rights.generation
        self.may_move = route.may_move
        self.limit_class = rights.limit_class
        self.most_bytes = most_bytes
        self.piece_bytes = piece_bytes
        self.upload = route.upload

    def expires_on(self, capture_ms: int, now_ms: int) -> int:
        """The day number of the first day on which the chunk may no longer be served, fixed at write."""
        return expiry_day(day_of_ms(min(capture_ms, now_ms)), self.class_days)


class Protocol(ABC):
    """See the package's docstring. Without state: one serves all connections of a worker.

    Args:
        name: what follows the device number in its targets: `/v1/devices/{n}/{name}/…`.
    """

    def __init__(self, name: bytes) -> None:
        self.name = name

    @abstractmethod
    def route(self, head: Head, device: int, rest: bytes, bounds: Bounds) -> Route | Answer:
        """What a target means, or what is answered whoever asks.

        Args:
            rest: of the target, behind the name and a slash, without a query. Empty when there is nothing.
        """

    @abstractmethod
    def admit(self, head: Head, route: Route, rights: Rights, bounds: Bounds) -> Admission | Answer:
        """Whether the body may come, of a device that may send today and at this capture time."""

    def besides(self, head: Head, origins: frozenset[bytes]) -> tuple[str, ...]:
        """Headers of each answer to a request, whatever it says; none of most protocols.

        Args:
            origins: whose pages may send.
        """
        return ()

    @abstractmethod
    def answer(self, outcome: Outcome) -> Answer:
        """What is answered to a chunk that was committed or lost."""
