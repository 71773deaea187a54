"""What one client may make the server hold, and how long it waits for one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """The limits of one server. A connection holds at most `max_head_bytes`, one receive and what its answer is."""

    max_connections: int = 2000
    """Open at once. Past it the longest idle one makes way, and where none is idle the new one gets 503."""
    client_share: float = 0.5
    """Of the connections that others leave, what one client address may have; 1: all."""
    requests_at_once: int = 32
    """That have begun and are not answered yet. Of these too a client has `client_share` of what others leave."""
    max_head_bytes: int = 16 * 1024
    """Request line and headers, as they come."""
    head_timeout_s: float = 10.0
    """For a head, from its first byte on."""
    body_timeout_s: float = 30.0
    """For the next piece of a body. The application bounds the whole of it."""
    idle_timeout_s: float = 75.0
    """Between two requests. Longer than what proxies and players keep a connection for (60 s): they close first."""
    min_send_bytes_per_s: int = 8000
    """A client that reads an answer slower is let go. Only the time counts in which its socket takes nothing."""
    send_grace_s: float = 30.0
    """So long it may read nothing at all, whatever it read before."""
    linger_close_s: float = 5.0
    """How long a client that was refused may go on sending before it reads its answer."""
    drain_bytes: int = 17 * 1024 * 1024
    """What it may send meanwhile: a whole chunk, sent to the wrong port, still gets its answer."""
