"""How fast objects are deleted: as fast as the store bears, never faster than the operator allows. Pure.

Additive increase, multiplicative decrease, as in TCP: a store that asks for fewer requests halves the rate that it
was asked at, and every call that succeeds afterwards raises it by a step. Until the first such word there is no
rate but the operator's.
"""

from __future__ import annotations

from storage.objects import DELETE_BATCH_KEYS

LEAST_PER_S = 1.0
"""However slow a store is, a pass goes on, and a batch of one second's worth never waits for minutes."""
STEP_PER_S = 100.0
"""A guess: from 1 to S3's 3,500 a second in 35 calls."""
SLOW_DOWN_WORDS = {
    "slow_down",
    "SlowDown",
    "SlowDownWrite",
    "ServiceUnavailable",
    "Throttling",
    "TooManyRequests",
}
"""Words of a store, for a call or a key, that mean: not so fast."""


class DeletePace:
    """Keys per second.

    Args:
        max_per_s: the operator's limit, at least LEAST_PER_S; None is none.
    """

    def __init__(self, max_per_s: float | None = None) -> None:
        self._max_per_s = max_per_s
        self.rate_per_s = max_per_s
        """The rate now; None while nothing limits it."""

    @property
    def batch_keys(self) -> int:
        """Most keys in the next call: what a second allows, so that a slow pace is even and leases are renewed."""
        if self.rate_per_s is None:
            return DELETE_BATCH_KEYS
        return min(DELETE_BATCH_KEYS, max(1, int(self.rate_per_s)))

    def succeeded(self, keys: int, took_s: float) -> float:
        """A call of `keys` keys was answered after `took_s`. Returns how long to wait before the next one, in s."""
        if self.rate_per_s is None:
            return 0.0
        wait_s = max(0.0, keys / self.rate_per_s - took_s)
        faster = self.rate_per_s + STEP_PER_S
        self.rate_per_s = faster if self._max_per_s is None else min(self._max_per_s, faster)
        return wait_s

    def slowed(self, keys: int, took_s: float) -> float:
        """The store asked for fewer. Returns how long to wait, in s."""
        asked_per_s = keys / max(took_s, 1.0)
        if self.rate_per_s is not None:
            asked_per_s = min(asked_per_s, self.rate_per_s)
        self.rate_per_s = max(LEAST_PER_S, asked_per_s / 2)
        return 1.0
