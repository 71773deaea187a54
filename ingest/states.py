"""What a connection's reading is doing, as one state, and what may follow it: states, events and a table. Pure.

The model is h11's. Whoever reads moves the state by events alone (`after`), and an event that the table does not know
in a state is a bug, which ends that connection. What belongs to a state and is no state of its own (the body that is
received, what is waited for) is data of the connection. Its other half, which sends, has a state of its own: `outbox`.
"""

from __future__ import annotations

from typing import Final

# --- states. Up to DRAIN it is the peer who is waited for ---------------------------------------------------------

IDLE: Final = 0
"""A next request."""
HEAD: Final = 1
"""The rest of a head."""
BODY: Final = 2
"""The rest of a body that was admitted."""
DRAIN: Final = 3
"""The rest of a body that was refused and is thrown away. Its answer is given."""
TAKING: Final = 4
"""A body that is whole is checked and packed; perhaps its data key, an init segment or room is waited for."""
HEAD_WAITS: Final = 5
"""A request has begun, and is not read on: no budget, or too many answers owed."""
BODY_WAITS: Final = 6
"""A body has begun, and there is no budget for its rest."""
DRAIN_WAITS: Final = 7
"""The same, of a body that is thrown away."""
NO_MORE: Final = 8
"""The peer has sent its last byte. Nothing is read any more, from here on; answers that are owed are sent."""
ENDING: Final = 9
"""We read no further request; answers that are owed are sent, and then we say that we end."""
CUT_OFF: Final = 10
"""It ends at once, whatever is owed."""
FAILED: Final = 11
"""A bug."""

NAMES: Final = (
    "IDLE",
    "HEAD",
    "BODY",
    "DRAIN",
    "TAKING",
    "HEAD_WAITS",
    "BODY_WAITS",
    "DRAIN_WAITS",
    "NO_MORE",
    "ENDING",
    "CUT_OFF",
    "FAILED",
)

# --- events -------------------------------------------------------------------------------------------------------

BEGINS: Final = 0
"""Some of a head has come, and not all."""
ADMITTED: Final = 1
"""A head has come whose body may come."""
REFUSED: Final = 2
"""A head has come that is answered, and the connection lives on. Also one that needs no body."""
WHOLE: Final = 3
"""An admitted body has come."""
DONE: Final = 4
"""With a request: its body was taken, or thrown away."""
WAITS: Final = 5
"""From now on it is us who are waited for."""
GOES_ON: Final = 6
"""No longer."""
EOF: Final = 7
"""The peer sends no more."""
LAST: Final = 8
"""No further request is read: it was the last one, it was wrong, or we let the peer go."""
CUT: Final = 9
"""End at once."""
FAILS: Final = 10
"""A bug showed."""

EVENT_NAMES: Final = (
    "BEGINS",
    "ADMITTED",
    "REFUSED",
    "WHOLE",
    "DONE",
    "WAITS",
    "GOES_ON",
    "EOF",
    "LAST",
    "CUT",
    "FAILS",
)
_EVENTS: Final = 11

# What may follow. From every state in which something is read it may also end: see `_ENDS`.
MAY_FOLLOW: Final[dict[int, dict[int, int]]] = {
    IDLE: {BEGINS: HEAD, ADMITTED: BODY, REFUSED: DRAIN, WAITS: HEAD_WAITS},
    HEAD: {ADMITTED: BODY, REFUSED: DRAIN, WAITS: HEAD_WAITS},
    BODY: {WHOLE: TAKING, WAITS: BODY_WAITS},
    DRAIN: {DONE: IDLE, WAITS: DRAIN_WAITS},
    TAKING: {DONE: IDLE, WAITS: TAKING, GOES_ON: TAKING},
    HEAD_WAITS: {GOES_ON: HEAD},
    BODY_WAITS: {GOES_ON: BODY},
    DRAIN_WAITS: {GOES_ON: DRAIN},
    # Reading has ended. The connection's task may be in the middle of a wait, and goes on with that to its end.
    NO_MORE: {CUT: CUT_OFF, FAILS: FAILED},
    ENDING: {
        DONE: ENDING,
        WAITS: ENDING,
        GOES_ON: ENDING,
        EOF: ENDING,
        LAST: ENDING,
        CUT: CUT_OFF,
        FAILS: FAILED,
    },
    CUT_OFF: {
        DONE: CUT_OFF,
        WAITS: CUT_OFF,
        GOES_ON: CUT_OFF,
        EOF: CUT_OFF,
        LAST: CUT_OFF,
        CUT: CUT_OFF,
        FAILS: FAILED,
    },
    FAILED: {CUT: FAILED, FAILS: FAILED},
}
_ENDS: Final = {EOF: NO_MORE, LAST: ENDING, CUT: CUT_OFF, FAILS: FAILED}
for _state in range(NO_MORE):
    MAY_FOLLOW[_state].update(_ENDS)

_NOTHING: Final = 255
_NEXT: Final = bytes(
    MAY_FOLLOW[state].get(event, _NOTHING) for state in range(len(NAMES)) for event in range(_EVENTS)
)
"""The same, for a look-up of some nanoseconds."""


class ImpossibleEvent(Exception):
    """A bug: what happened cannot happen in this state."""


def after(state: int, event: int) -> int:
    """The state that follows.

    Raises:
        ImpossibleEvent: the table knows no such event in this state.
    """
    following = _NEXT[state * _EVENTS + event]
    if following == _NOTHING:
        raise ImpossibleEvent(f"{EVENT_NAMES[event]} while {NAMES[state]}")
    return following
