"""The table of what a connection's reading may do after what."""

from __future__ import annotations

import pytest

from ingest import states
from ingest.states import EVENT_NAMES, MAY_FOLLOW, NAMES, ImpossibleEvent, after

STATES = range(len(NAMES))
EVENTS = range(len(EVENT_NAMES))
ENDED = range(states.NO_MORE, len(NAMES))


def test_names_are_those_of_the_numbers() -> None:
    assert [getattr(states, name) for name in NAMES] == [*STATES]
    assert [getattr(states, name) for name in EVENT_NAMES] == [*EVENTS]


def test_what_is_looked_up_is_the_table() -> None:
    for state in STATES:
        for event in EVENTS:
            if event in MAY_FOLLOW[state]:
                assert after(state, event) == MAY_FOLLOW[state][event]
            else:
                with pytest.raises(ImpossibleEvent, match=f"{EVENT_NAMES[event]} while {NAMES[state]}"):
                    after(state, event)


def test_every_state_is_reached_from_the_first() -> None:
    reached, todo = {states.IDLE}, [states.IDLE]
    while todo:
        new = set(MAY_FOLLOW[todo.pop()].values()) - reached
        reached |= new
        todo += new
    assert reached == set(STATES)


@pytest.mark.parametrize("state", ENDED)
def test_what_has_ended_is_not_read_again(state: int) -> None:
    assert set(MAY_FOLLOW[state].values()) <= set(ENDED)


@pytest.mark.parametrize("state", STATES)
def test_whatever_it_does_it_can_be_cut_off_and_a_bug_ends_it(state: int) -> None:
    assert after(state, states.CUT) >= states.NO_MORE
    assert after(state, states.FAILS) == states.FAILED


def test_a_wait_of_ours_ends_where_it_began() -> None:
    for state in (states.HEAD, states.BODY, states.DRAIN, states.TAKING):
        assert after(after(state, states.WAITS), states.GOES_ON) == state
    assert after(after(states.IDLE, states.WAITS), states.GOES_ON) == states.HEAD
