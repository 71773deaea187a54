"""What a connection's task is to wait for before reading goes on."""

from __future__ import annotations

from ingest.body import Body
from ingest.outbox import Slot
from ingest.packing import Chunk
from ingest.protocols.base import Admission


class ForBudget:
    """Room in the byte budget for a next receive."""


class ForRoom:
    """Room in the byte budget for a next request."""


class UntilRead:
    """The peer has read its answers, and no more are owed than may be."""


class ForInit:
    """What taking this body takes, which is an init segment, or fragments for which the connection knows none."""

    def __init__(self, admission: Admission, body: Body, slot: Slot) -> None:
        self.admission = admission
        self.body = body
        self.slot = slot


class ForPacking:
    """What packing this chunk takes: its data key, or room in a segment."""

    def __init__(self, chunk: Chunk, body: Body, slot: Slot) -> None:
        self.chunk = chunk
        self.body = body
        self.slot = slot


class ForPiece:
    """Storing what has come of a part of a resumable upload. More of it is to come, and is not read before."""

    def __init__(self, admission: Admission, body: Body) -> None:
        self.admission = admission
        self.body = body


class ForUpload:
    """What a request about a resumable upload asks for, and its answer."""

    def __init__(self, admission: Admission, body: Body, slot: Slot) -> None:
        self.admission = admission
        self.body = body
        self.slot = slot


Wait = ForBudget | ForRoom | UntilRead | ForPacking | ForInit | ForPiece | ForUpload
