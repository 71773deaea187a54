"""What was answered to uploads that were complete and could not be taken, for a while. Pure.

To find that out costs as much as storing them: reading, cutting and putting up to 256 MiB. A client that asks again,
with the last byte, is to cost no more than its request.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from ingest.answers import Answer

REMEMBERED_S: Final = 600.0
REMEMBERED: Final = 1024
"""Uploads of a worker: each was sent whole."""

Upload = tuple[int, int]
"""Device, and number of the upload."""


class NotTaken:
    """See the module docstring. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._known: OrderedDict[Upload, tuple[Answer, float]] = OrderedDict()

    def note(self, upload: Upload, answer: Answer, now_s: float) -> None:
        self._known[upload] = answer, now_s + REMEMBERED_S
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def get(self, upload: Upload, now_s: float) -> Answer | None:
        """What was answered; None: nothing, or too long ago."""
        answer, until_s = self._known.get(upload, (None, 0.0))
        return answer if now_s < until_s else None
