"""What a worker counts. Plain attributes: the service publishes them (service/metrics.py)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

ACK_BUCKETS_MS = (5, 10, 25, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10000)


@dataclass(slots=True)
class Stats:
    """Counters since the worker started, and gauges."""

    connections: int = 0
    chunks: int = 0
    chunk_bytes: int = 0
    segments: int = 0
    stored_bytes: int = 0
    failed_segments: int = 0
    budget_bytes: int = 0
    answers: Counter[tuple[int, str]] = field(default_factory=Counter)
    """By (status, code)."""
    handshakes: Counter[str] = field(default_factory=Counter)
    """Of TLS, by what became of them (`ingest.handshakes.Outcome`)."""
    ack_ms_buckets: list[int] = field(default_factory=lambda: [0] * (len(ACK_BUCKETS_MS) + 1))
    ack_ms_sum: float = 0.0

    def acked(self, latency_ms: float) -> None:
        """Count one acknowledgement, from the last byte of the body to the answer."""
        place = 0
        for bound in ACK_BUCKETS_MS:
            if latency_ms <= bound:
                break
            place += 1
        self.ack_ms_buckets[place] += 1
        self.ack_ms_sum += latency_ms
