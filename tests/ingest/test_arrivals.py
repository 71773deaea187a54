"""When a chunk that is timed by its arrival was recorded."""

from __future__ import annotations

import random

from ingest.arrivals import EARLY_MS, LATE_MS, Arrivals
from storage.media_facts import CLOCK_TICKS, Codec, MediaFacts, Times

NOW = 1_780_000_000_000
LENGTH = 4000


def facts(number: int, *, origin: int = 126_000, codec: Codec = Codec.H264) -> bytes:
    """Of the chunk of that number from an encoder that began at `origin`: 4 s at 25 frames a second."""
    first = (origin + number * LENGTH * 90) % CLOCK_TICKS
    return MediaFacts(Times(first, (LENGTH - 40) * 90), None, codec).pack()


def test_a_chunk_began_its_length_before_its_body_ended() -> None:
    assert Arrivals().start_ms(1, NOW, NOW, LENGTH, facts(0)) == NOW - LENGTH
    streamed = Arrivals().start_ms(1, NOW - LENGTH, NOW, LENGTH, facts(0))
    assert streamed == NOW - LENGTH, "sent while it was recorded"


def test_a_body_that_the_network_held_up_began_no_later_than_its_head() -> None:
    assert Arrivals().start_ms(1, NOW, NOW + 20_000, LENGTH, facts(0)) == NOW


def test_a_frame_without_a_length_is_dated_by_its_head() -> None:
    assert Arrivals().start_ms(1, NOW - 30, NOW, 0, b"") == NOW - 30


def test_the_next_chunks_follow_whatever_the_network_adds() -> None:
    """Jitter of up to a second and a stall: dates are those of the recording, to what the fastest chunk took."""
    rng = random.Random(7)
    arrivals, errors = Arrivals(), []
    for number in range(50):
        end = NOW + (number + 1) * LENGTH
        delay = 9000 if number == 20 else 5000 if number == 21 else 20 + rng.randrange(900) * (number % 3 > 0)
        start = arrivals.start_ms(1, end - LENGTH + delay, end + delay, LENGTH, facts(number))
        errors.append(start - (NOW + number * LENGTH))
    assert max(errors[1:]) <= 60, errors
    assert min(errors) >= 0
    assert errors[0] == 20


def test_a_drifting_camera_clock_is_followed() -> None:
    for per_mille in (0.999, 1.001):
        arrivals = Arrivals()
        for number in range(3000):
            end = NOW + round((number + 1) * LENGTH * per_mille)
            start = arrivals.start_ms(1, end, end, LENGTH, facts(number))
        assert abs(start - (end - LENGTH)) <= 10


def test_an_encoder_that_started_again_is_dated_by_its_own_arrival() -> None:
    arrivals = Arrivals()
    assert arrivals.start_ms(1, NOW, NOW, LENGTH, facts(0)) == NOW - LENGTH
    assert arrivals.start_ms(1, NOW + 4300, NOW + 4300, LENGTH, facts(0)) == NOW + 300


def test_a_pause_is_a_gap() -> None:
    arrivals = Arrivals()
    arrivals.start_ms(1, NOW, NOW, LENGTH, facts(0))
    end = NOW + LENGTH + LATE_MS + 1
    assert arrivals.start_ms(1, end, end, LENGTH, facts(1)) == end - LENGTH


def test_a_burst_of_older_chunks_keeps_its_order_and_is_not_dated_ahead() -> None:
    arrivals = Arrivals()
    starts = [arrivals.start_ms(1, NOW, NOW, LENGTH, facts(number)) for number in range(20)]
    assert starts == [NOW - LENGTH + number for number in range(20)]
    assert EARLY_MS < LENGTH


def test_a_server_clock_that_was_set_back_is_followed() -> None:
    arrivals = Arrivals()
    arrivals.start_ms(1, NOW, NOW, LENGTH, facts(0))
    back = NOW - 3_600_000
    assert arrivals.start_ms(1, back, back, LENGTH, facts(1)) == back - LENGTH


def test_devices_that_share_a_connection_do_not_continue_each_other() -> None:
    arrivals = Arrivals()
    arrivals.start_ms(1, NOW, NOW, LENGTH, facts(0))
    assert arrivals.start_ms(2, NOW + 3500, NOW + 3500, LENGTH, facts(1)) == NOW - 500


def test_without_timestamps_lengths_are_added_up() -> None:
    arrivals = Arrivals()
    arrivals.start_ms(1, NOW, NOW, LENGTH, b"")
    assert arrivals.start_ms(1, NOW + 4003, NOW + 4003, LENGTH, b"") == NOW + 3
    assert arrivals.start_ms(1, NOW + 8503, NOW + 8503, LENGTH, b"") == NOW + 4007
