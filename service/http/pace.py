"""How long a client may be waited for. Pure: the time is told, not asked."""

from __future__ import annotations


class Patience:
    """What is left of the patience with a reader.

    It runs down while the reader keeps us waiting, and what he takes gives some of it back: who takes
    `min_bytes_per_s` is waited for without an end, who takes less is not waited for longer than `grace_s`, however fast
    he was before.
    """

    def __init__(self, *, min_bytes_per_s: float, grace_s: float) -> None:
        self._min_bytes_per_s = min_bytes_per_s
        self._grace_s = grace_s
        self.left_s = grace_s

    def waited(self, seconds: float) -> None:
        """He took nothing for so long."""
        self.left_s -= seconds

    def took(self, size: int) -> None:
        """He took so many bytes."""
        self.left_s = min(self.left_s + size / self._min_bytes_per_s, self._grace_s)
