"""Structured logs: one JSON object a line on stderr, each as docs/log.schema.json says. Numbers and codes only, never
tokens or addresses."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, TextIO, cast

import structlog


class _Stderr:
    """stderr, for as long as it can be written: a log on a full disk, or whose reader has gone, ends nothing.

    A line is given to it whole: several processes write to one stderr, and two writes of one line could have a line of
    another between them.
    """

    def write(self, text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


def configure_logs(process: str) -> None:
    """Called once by each process's main.

    Args:
        process: its name in every line.
    """

    def name_process(
        logger: object, method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event["process"] = process
        return event

    structlog.configure(
        processors=[
            name_process,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Stderr())),
    )
    _log_what_ends_a_process()


def _log_what_ends_a_process() -> None:
    """A fault that nobody caught is a line of the log like all else, and not a traceback of many."""

    def bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            return
        structlog.get_logger().error("bug", detail=kind.__name__, exc_info=(kind, error, trace))

    sys.excepthook = bug


SAMPLE_EVERY_S = 10.0


class Sampled:
    """What clients can cause as often as they like, in the log: the first of each kind at once, then one each
    `SAMPLE_EVERY_S`, which says how many `more` there were since. Kinds are events and codes: few, so this is bounded.

    Args:
        log: where it is written.
        now_s: monotonic.
    """

    def __init__(self, log: Any, now_s: Callable[[], float]) -> None:
        self._log = log
        self._now_s = now_s
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}
        """When one was written last, and how many were not written since."""

    def warning(self, event: str, code: str = "", **facts: object) -> None:
        self._note(self._log.warning, event, code, facts)

    def error(self, event: str, code: str = "", **facts: object) -> None:
        self._note(self._log.error, event, code, facts)

    def _note(self, write: Callable[..., object], event: str, code: str, facts: dict[str, object]) -> None:
        now_s = self._now_s()
        written_s, since = self._kinds.get((event, code), (-SAMPLE_EVERY_S, 0))
        if now_s - written_s < SAMPLE_EVERY_S:
            self._kinds[event, code] = written_s, since + 1
            return
        self._kinds[event, code] = now_s, 0
        write(event, **({"code": code} if code else {}), **facts, **({"more": since} if since else {}))
