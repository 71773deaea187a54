"""The program of a child: reads a job from its socket, does it, answers, until the socket ends.

It has no other open file, nothing of the service's environment, and no way to open anything (`hardening`). It dies with
the API process: the socket ends with it, and a job that hangs is ended by an alarm of the kernel.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from service.remuxing import jobs, pictures
from service.remuxing.hardening import keep_freed_memory, lock_down
from service.remuxing.messages import HEAD, MAX_JSON_BYTES, head_of, read_message, split

ALARM_AFTER_S = 2.0
"""After the API process would have killed this one, were it still there."""
JOBS = {"fragment": jobs.fragment, "still": pictures.still, "strip": pictures.strip}


def serve(channel: socket.socket, *, job_s: float, max_input_bytes: int) -> None:
    """Answer jobs until the other side has gone."""
    while (head := _received(channel, HEAD.size)) is not None:
        text_bytes, body_bytes = HEAD.unpack(head)
        if text_bytes > MAX_JSON_BYTES or body_bytes > max_input_bytes:
            raise ValueError("a message out of bounds")
        text, body = _received(channel, text_bytes), _received(channel, body_bytes)
        if text is None or body is None:
            return
        signal.setitimer(signal.ITIMER_REAL, job_s + ALARM_AFTER_S)  # its default action ends the process
        message = read_message(bytes(text), body_bytes)
        answer, parts = _answer(message.pop("job"), message, split(message, body))
        del body
        channel.sendall(head_of(answer, parts))
        for part in parts:
            channel.sendall(part)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(
    job: str, message: dict[str, object], parts: list[memoryview]
) -> tuple[dict[str, object], list[bytes | memoryview]]:
    message.pop("parts")
    try:
        answer, made = JOBS[job](parts, **message)  # type: ignore[operator]
    except jobs.Unplayable as error:
        return {"error": error.code, "detail": str(error)[:200]}, []
    except MemoryError:
        os._exit(1)  # who knows what is broken: the next job has a fresh process
    except Exception as error:  # whatever PyAV raises of hostile media
        return {"error": "unplayable_media", "detail": f"{type(error).__name__}"}, []
    return {"error": "", **answer}, made


def _received(channel: socket.socket, length: int) -> bytearray | None:
    """So many bytes; None when the other side has gone."""
    data = bytearray(length)
    view, begin = memoryview(data), 0
    while begin < length:
        count = channel.recv_into(view[begin:])
        if not count:
            return None
        begin += count
    return data


def main() -> None:
    fd, job_s, memory_bytes, max_input_bytes = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it ends when the API process has
    channel = socket.socket(fileno=int(fd))
    keep_freed_memory()
    pictures.warm_up()
    lock_down(int(memory_bytes))
    channel.sendall(b"!")
    serve(channel, job_s=float(job_s), max_input_bytes=int(max_input_bytes))


if __name__ == "__main__":
    main()
