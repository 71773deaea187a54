"""What a reader is told when nothing is given: one error, with the codes of the contract."""

from __future__ import annotations

from typing import Self

from ingest.answers import EXPIRED, Answer
from storage.errors import CallerError


class Refused(CallerError):
    """It is not given. `code` says why, one of `ingest.answers` where that is the same thing, else: `erased`,
    `not_found`, `only_mp4`, `range_only`, `range_too_large`."""

    code = "not_found"

    @classmethod
    def by(cls, answer: Answer) -> Self:
        """As a device would be refused for the same reason."""
        return cls(answer.detail, code=answer.code)


def not_found() -> Refused:
    return Refused("there is no such recording")


def expired() -> Refused:
    return Refused("this recording has expired", code=EXPIRED.code)


def range_only() -> Refused:
    return Refused("this link shows a recorded range, and nothing live: ask with `to`", code="range_only")


def only_mp4() -> Refused:
    detail = "there are only MP4 recordings here, and they can't be joined to a stream; clip.mp4 takes them"
    return Refused(detail, code="only_mp4")
