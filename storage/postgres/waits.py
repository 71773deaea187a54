"""How long is waited for a PostgreSQL server: by commands, and by processes with users who wait."""

from __future__ import annotations

from dataclasses import dataclass

CONNECT_TIMEOUT_S = 10
LEAST_CONNECT_S = 2
"""libpq takes no shorter time, and whole seconds only."""
LOCK_TIMEOUT_MS = 10_000
"""Longest wait for another transaction, as SQLite's busy timeout."""
STATEMENT_TIMEOUT_MS = 60_000
"""Longest statement. A backstop: no statement of the service takes a tenth of it."""
INGEST_TIMEOUT_MS = 15_000
"""Longest statement of what a camera waits for. Longer than a lock is waited for."""
ANSWER_MARGIN_S = 5.0
"""How much longer than a statement may take its answer is waited for: a server that is frozen keeps no time-outs."""
PATIENCE_S = 8.0
"""A write that was taken back is not tried again after so long: who waits for it hears the failure instead."""
IDLE_IN_TRANSACTION_MS = 30_000
"""How long a transaction may wait for this process before the server ends it: what a host that vanished without a word
holds is free again then. Longer than any pause between two statements, a key's file written in it included."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long is waited for a server; the times above are those of commands, whose users can wait."""

    statement_ms: int = STATEMENT_TIMEOUT_MS
    ingest_ms: int = INGEST_TIMEOUT_MS
    margin_s: float = ANSWER_MARGIN_S
    connect_s: int = CONNECT_TIMEOUT_S
    lock_ms: int = LOCK_TIMEOUT_MS
    idle_ms: int = IDLE_IN_TRANSACTION_MS
    patience_s: float = PATIENCE_S

    @classmethod
    def at_most(cls, answer_s: float | None) -> Waits:
        """For processes that serve: no answer is waited for longer than `answer_s`, of whatever it is. The server
        gives a statement up at three quarters of it, a lock and a new connection at half, and ends a transaction whose
        process was cut off as soon: what that holds, others wait for. None: as commands wait."""
        if answer_s is None:
            return cls()
        statement_ms = round(answer_s * 750)
        return cls(
            statement_ms=statement_ms,
            ingest_ms=statement_ms,
            margin_s=answer_s / 4,
            connect_s=max(LEAST_CONNECT_S, round(answer_s / 2)),
            lock_ms=min(LOCK_TIMEOUT_MS, round(answer_s * 500)),
            idle_ms=min(IDLE_IN_TRANSACTION_MS, round(answer_s * 1000)),
            patience_s=min(PATIENCE_S, answer_s * 0.4),
        )
