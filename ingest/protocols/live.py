"""What encoders send by themselves: HLS over HTTP, as `ffmpeg -f hls -method PUT`. `/v1/devices/{n}/live/{name}`. Pure.

A live name may have folders, which say nothing. A last part of exactly 10 digits is the capture time in seconds, of 13
in milliseconds; of 16 or 19 it would be microseconds or nanoseconds, which are not taken. Others are timed by arrival.
Nothing is percent-decoded: a name that needs it is none.
"""

from __future__ import annotations

import re

from ingest import answers
from ingest.answers import Answer
from ingest.heads import Head
from ingest.protocols.base import Bounds, Route
from ingest.protocols.whole import WholeChunks

_NAME_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:+=,@~/-"
_MAX_NAME_BYTES = 200
_IGNORED = (b".m3u8",)
_CHUNKS = (b".ts", b".m4s", b".mp4", b".mov", b".m4v", b".m4a", b".cmfv", b".cmfa")
"""Endings of live chunks. What they are their bytes say."""
_DASH = re.compile(rb"(?:init|chunk)-?(?:stream|[0-9]+-).*|.*\.mpd", re.IGNORECASE | re.DOTALL)
"""What encoders of DASH send: a manifest, and ffmpeg's `init-stream0.m4s`, `chunk-stream0-00001.m4s`."""
_FINER_DIGITS = (16, 19)
"""Of microseconds and nanoseconds, from 2001 to 2286. Of 14 or 17 digits is a date and time as `strftime` writes it,
and of others a count: neither is an instant, and both are timed by arrival."""


class Live(WholeChunks):
    """See the module docstring. Playlists and deletions change nothing; parts of DASH are refused."""

    def __init__(self) -> None:
        super().__init__(b"live")

    def route(self, head: Head, device: int, rest: bytes, bounds: Bounds) -> Route | Answer:
        method = head.method
        name = rest.rpartition(b"/")[2]
        digits = _finer_digits(name)
        if digits and method != b"DELETE":
            return answers.time_digits(digits)
        if not 0 < len(rest) <= _MAX_NAME_BYTES or rest.translate(None, _NAME_BYTES) or not _is_plain(rest):
            return answers.time_digits(digits) if digits else answers.UNKNOWN_PATH
        if method == b"DELETE":
            return Route(self, device, answer=answers.NOTHING_TO_DO)
        if method != b"PUT" and method != b"POST":
            return answers.UNKNOWN_PATH
        if _DASH.fullmatch(name) is not None:
            return answers.DASH
        stem, dot, ending = name.rpartition(b".")
        ending = dot + ending.lower()
        if ending in _CHUNKS:
            if stem.isdigit() and len(stem) == 10:
                return Route(self, device, int(stem) * 1000, True)
            if stem.isdigit() and len(stem) == 13:
                return Route(self, device, int(stem))
            return Route(self, device, None, True)
        return (
            Route(self, device, answer=answers.NOTHING_TO_DO) if ending in _IGNORED else answers.UNKNOWN_PATH
        )


def _is_plain(path: bytes) -> bool:
    """Whether it has a last part, and no folders that would lead elsewhere."""
    if b"/" not in path:
        return True
    *folders, name = path.split(b"/")
    return bool(name) and all(folder not in (b"", b".", b"..") for folder in folders)


def _finer_digits(name: bytes) -> int:
    """How many digits a chunk's time has that is refused for having too many; 0: it has not.

    A live chunk named by microseconds could pass for one that is timed by its arrival, and would be dated wrongly as
    soon as it is sent late.
    """
    stem, dot, ending = name.rpartition(b".")
    is_finer = stem.isdigit() and len(stem) in _FINER_DIGITS and dot + ending.lower() in _CHUNKS
    return len(stem) if is_finer else 0
