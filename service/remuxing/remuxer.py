"""The API process's side of media jobs: children, one job each at a time, replaced when they fail.

A child may crash, hang or run out of memory over a chunk. That job fails with `RemuxFailed`, its child is ended and the
next job gets a fresh one; other jobs go on in theirs.
"""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import structlog
import trio

from ingest.media import Media
from service.remuxing.limits import RemuxLimits
from service.remuxing.messages import HEAD, MAX_JSON_BYTES, Message, head_of, read_message, split
from service.spawning import python_module
from storage.errors import CallerError, WorldError

REWRAPPING_VERSION = 1
"""Of the bytes that the same chunk becomes; a part of the tag of what can be continued. Raise it when they change, the
version of PyAV included."""
SLACK_BYTES = 64 * 1024
"""By which an answer may be longer than what was asked: headers of a small chunk, and an eighth."""
START_S = 30.0
"""For a child to start: PyAV takes 0.2 s to load, and a machine may be busy."""
KEPT_ENVIRONMENT = ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "LD_LIBRARY_PATH")
"""Of the service's environment, what Python needs to start. The rest may hold passwords."""

_log = structlog.get_logger("remuxing")


class RemuxFailed(CallerError):
    """A chunk that this can't be done with. `code`: `unplayable_media`; `no_parameters`, its pictures are set up by
    one before it; `no_picture`. `is_certain`: whether it was found out; else the child broke or took too long over it.
    """

    code = "unplayable_media"
    is_certain = True


class Source(NamedTuple):
    """What a chunk is: its container, and the init of a fragment of MP4; empty where it has its own header."""

    media: Media
    init: bytes = b""

    @property
    def kind(self) -> str:
        return "ts" if self.media is Media.MPEG_TS else "mp4"


@dataclass(frozen=True, slots=True)
class Fragment:
    """A chunk as fragmented MP4. `first_ticks` and `end_ticks`: when its earliest picture (sound, without pictures)
    begins, and its latest ends; 90 kHz."""

    init: bytes
    data: bytes
    first_ticks: int
    end_ticks: int


@dataclass(frozen=True, slots=True)
class Still:
    """A JPEG; `offset_ms`: when its picture is shown, from the chunk's earliest one on."""

    data: bytes
    offset_ms: int
    width: int
    height: int


@dataclass(slots=True)
class RemuxFigures:
    """Counted since the start."""

    jobs: int = 0
    failures: int = 0
    kills: int = 0
    """Children that were ended, or ended themselves, over a job."""


class Turns(Protocol):
    """Who may have a job now: `service.playback.sharing.Shares`."""

    def hold(self, who: Any, amount: int = 1, *, wait_s: float) -> AbstractAsyncContextManager[None]: ...


class Remuxer:
    """Media jobs of one process. `close` ends its children; there are none before the first job.

    Args:
        turns: of as many jobs as there are processes, shared out. What it raises leaves each method.
    """

    def __init__(self, limits: RemuxLimits, turns: Turns) -> None:
        self.figures = RemuxFigures()
        self._limits = limits
        self._turns = turns
        self._idle: list[_Child] = []
        self._closed = False

    async def fragment(
        self,
        who: Any,
        source: Source,
        data: bytes,
        *,
        decode_ms: int | None = None,
        sequence: int = 1,
        silence: bool = False,
    ) -> Fragment:
        """A chunk as a fragment to be played among others of its device.

        Args:
            who: on whose share.
            decode_ms: of MPEG-TS and fragments, whose clock runs on: times are kept, but for whole turns of the clock
                (2**33 ticks, 26.5 hours) that bring them as near to this as may be; so chunks of one session, asked for
                with any times that are right by 13 hours, fit together. A clip, whose clock begins with it, begins
                here. None: times are as they are.
            sequence: number of the fragment.
            silence: pictures without sound get a track of silence.

        Raises:
            RemuxFailed: it can't be played.
            WorldError: `remuxer_unavailable`, no child can be started.
        """
        ticks = None if decode_ms is None else decode_ms * 90
        # A clip tells its own beginning; a fragment of MP4 comes with its init apart.
        where = "at" if source.media is Media.MP4 and not source.init else "near"
        return await self._fragment(
            who, source, data, {where: ticks, "sequence": sequence, "silence": silence}
        )

    async def placed(
        self,
        who: Any,
        source: Source,
        data: bytes,
        *,
        at_ticks: int,
        of_ticks: int | None,
        until_ticks: int | None = None,
        begins: bool = False,
        sequence: int = 1,
    ) -> Fragment:
        """A chunk as a fragment of a file with a clock of its own: see `jobs.fragment`. The same bytes for the same
        chunk and arguments.

        Raises:
            As `fragment`.
        """
        where = {"at": at_ticks, "of": of_ticks, "until": until_ticks, "begins": begins}
        return await self._fragment(who, source, data, {**where, "sequence": sequence})

    async def _fragment(self, who: Any, source: Source, data: bytes, where: Message) -> Fragment:
        answer, parts = await self._job(who, "fragment", source, data, where)
        if len(parts) != 2:
            raise RemuxFailed("this recording can't be put into MP4")
        return Fragment(bytes(parts[0]), bytes(parts[1]), int(answer["first"]), int(answer["end"]))

    async def still(self, who: Any, source: Source, data: bytes, *, at_ms: int, width: int) -> Still:
        """The key frame at or before a time of a chunk, else its first one, as JPEG.

        Args:
            at_ms: from the chunk's earliest picture on.
            width: most pixels across.

        Raises:
            As `fragment`.
        """
        answer, parts = await self._job(who, "still", source, data, {"at_ms": at_ms, "width": width})
        if len(parts) != 1:
            raise RemuxFailed("there is no picture in this recording", code="no_picture")
        return Still(bytes(parts[0]), int(answer["offset_ms"]), int(answer["width"]), int(answer["height"]))

    async def strip(self, who: Any, pictures: list[bytes], *, columns: int, width: int, height: int) -> bytes:
        """JPEGs in rows of `columns`, each of `width` × `height` pixels, as one; empty ones stay grey.

        Raises:
            As `fragment`.
        """
        grid = {"columns": columns, "width": width, "height": height}
        answer, parts = await self._run(who, {"job": "strip", **grid}, pictures)
        del answer
        if len(parts) != 1:
            raise RemuxFailed("there is no picture in this recording", code="no_picture")
        return bytes(parts[0])

    async def _job(
        self, who: Any, job: str, source: Source, data: bytes, more: Message
    ) -> tuple[Message, list[memoryview]]:
        parts = [source.init, data] if source.init else [data]
        return await self._run(who, {"job": job, "kind": source.kind, **more}, parts)

    async def _run(self, who: Any, message: Message, parts: list[bytes]) -> tuple[Message, list[memoryview]]:
        size = sum(len(part) for part in parts)
        if size > self._limits.max_input_bytes:
            raise RemuxFailed("this recording is too large for it")
        async with self._turns.hold(who, 1, wait_s=self._limits.wait_s):
            # Not to be cancelled half-way: a child is lost with it, and this takes a bounded time.
            with trio.CancelScope(shield=True):
                self.figures.jobs += 1
                try:
                    done = await self._in_child(message, parts, most_bytes=size + size // 8 + SLACK_BYTES)
                except RemuxFailed:
                    self.figures.failures += 1
                    raise
        return done

    async def _in_child(
        self, message: Message, parts: list[bytes], *, most_bytes: int
    ) -> tuple[Message, list[memoryview]]:
        child = await self._child()
        answer: Message | None = None
        with trio.move_on_after(self._limits.job_s):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError, ValueError, OSError):
                answer, body = await child.ask(message, parts, most_bytes=most_bytes)
        if answer is None:
            self.figures.kills += 1
            code = await child.end()
            _log.warning("remuxer_ended", job=message["job"], exit=code, jobs=child.jobs)
            failed = RemuxFailed("this recording can't be played: what reads it broke, or took too long")
            failed.is_certain = False
            raise failed
        child.jobs += 1
        if child.jobs >= self._limits.max_jobs or self._closed:
            await child.end()
        else:
            self._idle.append(child)
        if answer["error"]:
            raise RemuxFailed("this recording can't be played that way", code=str(answer["error"]))
        return answer, split(answer, body)

    async def _child(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if child.is_alive():
                return child
            await child.end()
        return await _started(self._limits)

    async def close(self) -> None:
        """End the children; those with a job when it is done."""
        self._closed = True
        while self._idle:
            await self._idle.pop().end()


class _Child:
    """One process and the socket to it."""

    def __init__(self, process: trio.Process, stream: trio.SocketStream) -> None:
        self.jobs = 0
        self._process = process
        self._stream = stream

    def is_alive(self) -> bool:
        return self._process.poll() is None

    async def ask(
        self, message: Message, parts: list[bytes], *, most_bytes: int
    ) -> tuple[Message, memoryview]:
        """Its answer.

        Raises:
            trio.BrokenResourceError, ValueError: it ended, or says what it must not.
        """
        await self._stream.send_all(head_of(message, parts))
        for part in parts:
            await self._stream.send_all(part)
        text_bytes, body_bytes = HEAD.unpack(await self.receive(HEAD.size))
        if text_bytes > MAX_JSON_BYTES or body_bytes > most_bytes:
            raise ValueError("an answer out of bounds")
        answer = read_message(bytes(await self.receive(text_bytes)), body_bytes)
        if not isinstance(answer.get("error"), str):
            raise ValueError("an answer without an outcome")
        return answer, await self.receive(body_bytes)

    async def receive(self, length: int) -> memoryview:
        data = memoryview(bytearray(length))
        begin = 0
        while begin < length:
            count = await self._stream.socket.recv_into(data[begin:])
            if not count:
                raise trio.BrokenResourceError("the child has ended")
            begin += count
        return data

    async def end(self) -> int | None:
        """Kill it, and wait for it. Returns its exit code: below 0 the signal that ended it."""
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._stream)
            code = self._process.poll()
            if code is None:
                # Its end of the socket closes before it has exited: what it died of is worth a moment.
                with trio.move_on_after(0.1):
                    code = await self._process.wait()
            if code is None:
                self._process.kill()
            code = await self._process.wait()
        return code


async def _started(limits: RemuxLimits) -> _Child:
    """A child that is ready.

    Raises:
        WorldError: `remuxer_unavailable`.
    """
    ours, theirs = socket.socketpair()
    arguments = (theirs.fileno(), limits.job_s, limits.memory_bytes, limits.max_input_bytes)
    command = python_module("service.remuxing.child", *map(str, arguments))
    environment = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    try:
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env=environment,
        )
    except OSError as error:
        await trio.aclose_forcefully(stream)
        raise _unavailable() from error
    finally:
        theirs.close()
    child = _Child(process, stream)
    try:
        with trio.fail_after(START_S):
            await child.receive(1)
    except (trio.BrokenResourceError, trio.TooSlowError, OSError) as error:
        code = await child.end()
        _log.error("remuxer_did_not_start", exit=code)
        raise _unavailable() from error
    return child


def _unavailable() -> WorldError:
    return WorldError("what reads media can't be started", code="remuxer_unavailable")
