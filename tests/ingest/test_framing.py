"""HTTP framing: the same bytes give the same events however they are cut, and nothing ambiguous gets through."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.any_head import read_any
from ingest.framing import END, MAX_HEAD_BYTES, Event, Framer
from ingest.heads import Head, Malformed
from tests.malformed_heads import MALFORMED_HEADS

START = b"PUT /x HTTP/1.1\r\nHost: a\r\n"


def events_of(framer: Framer, data: bytes | memoryview) -> list[Event]:
    """Feed it, and ask for all that it tells."""
    framer.feed(data)
    events = []
    while (event := framer.next_event()) is not None:
        events.append(event)
    return events


Told = Event | bytes


def joined(events: list[Event]) -> list[Told]:
    """The events with neighbouring body pieces put together: where they were cut says nothing."""
    told: list[Told] = []
    for event in events:
        piece = bytes(event) if isinstance(event, memoryview) else event
        last = told[-1] if told else None
        if isinstance(piece, bytes) and isinstance(last, bytes):
            told[-1] = last + piece
        else:
            told.append(piece)
    return told


def fed(*pieces: bytes, max_head_bytes: int = MAX_HEAD_BYTES) -> list[Told]:
    """The events of these pieces: the same whether or not plain heads are read in one pass."""
    told = []
    for reads_plain in (True, False):
        framer = Framer(max_head_bytes, reads_plain)
        told.append(joined([event for piece in pieces for event in events_of(framer, piece)]))
    assert repr(told[0]) == repr(told[1])
    return told[0]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(bounds)]


def is_between(framer: Framer) -> bool:
    return (
        framer.between_messages
    )  # asked through a function, so that no type checker takes it for a constant


def direct_bytes(framer: Framer) -> int:
    return framer.direct_bytes


# --- what a head says ------------------------------------------------------------------------------------------


def test_a_head_tells_what_ingest_asks_for() -> None:
    (head, body, end) = fed(
        b"POST /v1/devices/7/chunks/12?a=b HTTP/1.1\r\nHost: a\r\nAUTHORIZATION: Bearer t\r\n"
        b"Expect: 100-Continue\r\n"
        b"content-digest: crc32=:AAAAAA==:\r\nClip-Duration-Ms:  4000 \r\nX-Other: y\r\nContent-Length: 3\r\n\r\nabc"
    )
    assert isinstance(head, Head)
    assert (head.method, head.target, head.keep_alive) == (b"POST", b"/v1/devices/7/chunks/12?a=b", True)
    assert (head.content_length, head.chunked, head.expect_continue) == (3, False, True)
    assert head.authorization == b"Bearer t"
    assert head.content_digest == b"crc32=:AAAAAA==:"
    assert head.clip_duration == b"4000"
    assert (body, end) == (b"abc", END)


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (START + b"\r\n", True),
        (START + b"Connection: close\r\n\r\n", False),
        (b"PUT /x HTTP/1.0\r\n\r\n", False),
        (b"PUT /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_keep_alive(data: bytes, kept: bool) -> None:
    head = fed(data)[0]
    assert isinstance(head, Head)
    assert head.keep_alive is kept


def test_only_the_word_100_continue_is_an_expectation() -> None:
    head = fed(START + b"Expect: something-else\r\nContent-Length: 0\r\n\r\n")[0]
    assert isinstance(head, Head)
    assert not head.expect_continue


def test_a_client_of_http_1_0_expects_no_100() -> None:
    """It would take the 100 for its answer (RFC 9110 §10.1.1)."""
    head = fed(b"PUT /x HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")[0]
    assert isinstance(head, Head)
    assert not head.expect_continue


@pytest.mark.parametrize(
    "offer",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\n",
        b"Upgrade: h2c\r\n",
    ],
)
@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"Content-Length: 3\r\n\r\nabc", [b"abc", END]),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", [b"abc", END]),
        (b"\r\n", [END]),
    ],
)
@pytest.mark.parametrize("step", [1, 100_000])
def test_an_offer_to_upgrade_is_ignored(offer: bytes, body: bytes, events: list[Told], step: int) -> None:
    """As Java's client and `curl --http2` make it with their first request (RFC 9110 §7.8); then the next request."""
    data = (START + offer + body) * 2
    told = fed(*(data[i : i + step] for i in range(0, len(data), step)))
    assert [event for event in told if not isinstance(event, Head)] == events * 2
    assert [head.keep_alive for head in told if isinstance(head, Head)] == [True, True]


def test_digests_in_two_headers_are_one_list() -> None:
    head = fed(START + b"Content-Digest: a=:AA==:\r\nContent-Digest: b=:AA==:\r\n\r\n")[0]
    assert isinstance(head, Head)
    assert head.content_digest == b"a=:AA==:,b=:AA==:"


def test_a_part_of_something_is_told() -> None:
    head = fed(START + b"Content-Range: bytes 0-9/20\r\nContent-Length: 1\r\n\r\n")[0]
    assert isinstance(head, Head)
    assert head.is_partial


def test_a_message_without_a_body_ends_at_once() -> None:
    for data in (START + b"\r\n", START + b"Content-Length: 0\r\n\r\n"):
        framer = Framer()
        assert [type(event).__name__ for event in events_of(framer, data)] == ["Head", "End"]
        assert direct_bytes(framer) == 0
        assert is_between(framer)


def test_between_messages_is_true_until_a_byte_of_the_next_one_came() -> None:
    framer = Framer()
    assert is_between(framer)
    events_of(framer, b"")
    assert is_between(framer)
    events_of(framer, b"\r\n")
    assert is_between(framer), "an empty line before a request is none (RFC 9112 §2.2)"
    events_of(framer, b"P")
    assert not is_between(framer)
    events_of(framer, b"UT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
    assert not is_between(framer)
    events_of(framer, b"b")
    assert is_between(framer)
    events_of(framer, b"P")
    assert not is_between(framer)


# --- any split -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """One request as bytes, and the events it stands for."""

    wire: bytes
    body: bytes
    chunked: bool

    def events(self) -> list[str | bytes]:
        return ["head", self.body, "end"] if self.body else ["head", "end"]


@st.composite
def messages(draw: st.DrawFn) -> Message:
    body = draw(st.binary(max_size=60))
    headers = draw(
        st.lists(
            st.sampled_from([b"X: y", b"Expect: 100-continue", b"Authorization: Bearer t", b"E:"]),
            unique_by=lambda line: line if line.startswith(b"A") else object(),
        )
    )
    lines = [
        draw(st.sampled_from([b"PUT /x HTTP/1.1", b"POST /longer/target HTTP/1.1"])),
        b"Host: a",
        *headers,
    ]
    if draw(st.booleans()):
        pieces, rest = [], body
        while rest:
            size = draw(st.integers(1, len(rest)))
            extension = draw(st.sampled_from([b"", b";a=b"]))
            pieces.append(b"%x%s\r\n%s\r\n" % (size, extension, rest[:size]))
            rest = rest[size:]
        trailer = draw(st.sampled_from([b"", b"Trailer: x\r\n", b"Authorization: z\r\nB: c\r\n"]))
        wire = b"\r\n".join([*lines, b"Transfer-Encoding: chunked"]) + b"\r\n\r\n" + b"".join(pieces)
        return Message(wire + b"0\r\n" + trailer + b"\r\n", body, True)
    return Message(
        b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n" + body, body, False
    )


@given(st.lists(messages(), min_size=1, max_size=4), st.lists(st.integers(0, 2000), max_size=40))
def test_any_split_gives_the_same_events(stream: list[Message], places: list[int]) -> None:
    """Sized and chunked, pipelined, with trailers and extensions; a trailer never changes the framing."""
    data = b"".join(message.wire for message in stream)
    whole = fed(data)
    assert fed(*cut(data, places)) == whole
    told = [event if isinstance(event, bytes) else type(event).__name__.lower() for event in whole]
    assert told == [event for message in stream for event in message.events()]
    assert [event.chunked for event in whole if isinstance(event, Head)] == [m.chunked for m in stream]


@given(messages(), st.lists(st.integers(0, 2000), max_size=20))
def test_byte_by_byte_is_a_split_too(message: Message, places: list[int]) -> None:
    assert fed(*(bytes([byte]) for byte in message.wire)) == fed(*cut(message.wire, places))


@given(messages(), messages(), st.integers(0, 2000))
def test_receiving_the_rest_directly_equals_feeding_it(first: Message, second: Message, place: int) -> None:
    """`direct_bytes` is exact, and after `received_directly` the next request parses as ever."""
    if first.chunked or not first.body:
        return
    head_bytes = len(first.wire) - len(first.body)
    upto = head_bytes + place % len(first.body)
    framer = Framer()
    events = events_of(framer, first.wire[:upto])
    assert direct_bytes(framer) == len(first.wire) - upto
    assert not is_between(framer)
    framer.received_directly(len(first.wire) - upto)
    events += [memoryview(first.wire[upto:]), *events_of(framer, b"")]
    assert is_between(framer)
    assert direct_bytes(framer) == 0
    events += events_of(framer, second.wire)
    assert joined(events) == fed(first.wire + second.wire)


def test_a_chunked_body_is_never_received_directly() -> None:
    framer = Framer()
    events_of(framer, START + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab")
    assert direct_bytes(framer) == 0


def test_only_parts_of_a_sized_body_look_into_the_callers_buffer() -> None:
    """The caller's buffer is everybody's: whoever keeps such a part copies it; nothing else may point there."""
    sized, chunked = (
        b"Content-Length: 3\r\n\r\nabc",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    )
    scratch = bytearray(START + sized + START + chunked)
    events = events_of(Framer(), memoryview(scratch))
    assert joined(events[1:3]) == [b"abc", END]
    assert joined(events[4:]) == [b"abc", END]
    scratch[:] = b"x" * len(scratch)
    assert joined(events[1:2] + events[4:5]) == [b"xxxxxx"]
    assert isinstance(events[0], Head)
    assert events[0].target == b"/x"


def test_what_is_kept_does_not_look_into_the_callers_buffer() -> None:
    scratch = bytearray(START + b"Content-Length: 3\r\n\r\nabc" + START + b"\r\n")
    framer = Framer()
    framer.feed(memoryview(scratch))
    assert isinstance(framer.next_event(), Head)
    framer.keep()
    scratch[:] = b"x" * len(scratch)
    piece, end, head, second = (framer.next_event() for _ in range(4))
    assert isinstance(piece, memoryview)
    assert (bytes(piece), end, second) == (b"abc", END, END)
    assert isinstance(head, Head)
    assert head.target == b"/x"


# --- what is held ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads_plain", [True, False])
def test_nothing_is_read_before_it_is_asked_for(reads_plain: bool) -> None:
    """Invariant 15: a receive may hold 58,000 requests, and their heads are a hundred times as large as their bytes."""
    data = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 10_000
    framer = Framer(MAX_HEAD_BYTES, reads_plain)
    framer.feed(data)
    assert framer.held_bytes == 0, "the caller's buffer is the caller's"
    assert isinstance(framer.next_event(), Head)
    framer.keep()
    assert framer.held_bytes == len(data) - len(data) // 10_000
    told = 1
    read_any(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    tracemalloc.start()
    while (event := framer.next_event()) is not None:
        told += isinstance(event, Head)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told == 10_000
    assert framer.held_bytes == 0
    assert peak_bytes < 50_000


@given(
    st.lists(messages(), min_size=1, max_size=3), st.lists(st.integers(0, 2000), max_size=8), st.booleans()
)
def test_what_is_held_is_never_more_than_was_fed_and_in_the_end_nothing(
    stream: list[Message], places: list[int], keeps: bool
) -> None:
    framer = Framer()
    fed_bytes = 0
    for piece in cut(b"".join(message.wire for message in stream), places):
        framer.feed(piece)
        fed_bytes += len(piece)
        while True:
            if keeps:
                framer.keep()
            assert 0 <= framer.held_bytes <= fed_bytes
            if framer.next_event() is None:
                break
    assert is_between(framer)
    assert framer.held_bytes == 0


def test_half_a_head_is_held_and_no_more_than_its_limit() -> None:
    framer = Framer(512)
    assert events_of(framer, START) == []
    assert framer.held_bytes == len(START)
    assert len(events_of(framer, b"A: " + b"v" * 600)) == 1
    assert framer.held_bytes == 0, "what was refused is forgotten"


def test_empty_lines_before_a_request_are_not_held() -> None:
    framer = Framer(512)
    for _ in range(3):
        assert events_of(framer, b"\r\n" * 10_000) == []
        assert framer.held_bytes == 0
    assert [type(event).__name__ for event in events_of(framer, START + b"\r\n")] == ["Head", "End"]


# --- the limit of a head -----------------------------------------------------------------------------------------


def head_of(size: int) -> bytes:
    """A request whose head has exactly so many bytes."""
    begin = b"PUT /x HTTP/1.1\r\nHost: a\r\nA: "
    return begin + b"v" * (size - len(begin) - 4) + b"\r\n\r\n"


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_the_head_limit_is_exact_however_the_head_is_cut(step: int) -> None:
    for size, status in ((511, None), (512, None), (513, 431)):
        data = head_of(size)
        events = fed(*(data[i : i + step] for i in range(0, len(data), step)), max_head_bytes=512)
        first = events[0]
        if status is None:
            assert [type(event).__name__ for event in events] == ["Head", "End"], size
        else:
            assert isinstance(first, Malformed)
            assert (first.status, len(events)) == (status, 1)


@pytest.mark.parametrize("step", [1, 100_000])
def test_the_target_counts_and_so_does_the_number_of_headers(step: int) -> None:
    for data in (
        b"PUT /" + b"x" * 600 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT /x HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    ):
        (event,) = fed(*(data[i : i + step] for i in range(0, len(data), step)), max_head_bytes=512)
        assert isinstance(event, Malformed)
        assert event.status == 431


def test_a_head_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    """Invariant 15: the parser keeps a header until it is whole, so an endless one is cut off."""
    framer = Framer(512)
    events = events_of(framer, b"PUT /x HTTP/1.1\r\nHost: a\r\nA: ")
    fed_bytes = 0
    while not events:
        events = events_of(framer, b"v" * 100)
        fed_bytes += 100
    assert isinstance(events[0], Malformed)
    assert events[0].status == 431
    assert fed_bytes < 512 + 2048


@pytest.mark.parametrize("tail", [b"0\r\nTrailer: ", b"5;extension="])
def test_an_endless_trailer_or_chunk_extension_is_refused(tail: bytes) -> None:
    """Invariant 15: as much as an endless header."""
    framer = Framer(512)
    events = events_of(framer, START + b"Transfer-Encoding: chunked\r\n\r\n" + tail)[1:]
    for _ in range(40):
        events += events_of(framer, b"v" * 100)
    assert [type(event).__name__ for event in events] == ["Malformed"]


def test_a_large_chunked_body_is_no_large_head() -> None:
    framer = Framer(512)
    events = events_of(framer, START + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(50):
        events += events_of(framer, b"400\r\n" + b"b" * 700)
        events += events_of(framer, b"b" * 324 + b"\r\n")
    events += events_of(framer, b"0\r\n\r\n")
    assert joined(events)[1:] == [b"b" * 51_200, END]


def test_each_message_has_the_limit_to_itself() -> None:
    assert [type(event).__name__ for event in fed(head_of(512) * 3, max_head_bytes=512)] == [
        "Head",
        "End",
    ] * 3


# --- what is refused -----------------------------------------------------------------------------------------------

CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"
AMBIGUOUS = {
    **MALFORMED_HEADS,
    "two durations": START + b"Clip-Duration-Ms: 1\r\nClip-Duration-Ms: 2\r\n\r\n",
}
"""What both ports refuse, and what only this one looks at."""
BAD_CHUNKS = {
    "no hexadecimal": b"zz\r\n\r\n",
    "0x": b"0x5\r\nabcde\r\n0\r\n\r\n",
    "negative": b"-5\r\nabcde\r\n0\r\n\r\n",
    "a space": b"5 \r\nabcde\r\n0\r\n\r\n",
    "a bare LF": b"5\nabcde\r\n0\r\n\r\n",
    "longer than it says": b"5\r\nabcdef\r\n0\r\n\r\n",
    "shorter than it says": b"5\r\nabc\r\n0\r\n\r\n",
    "beyond 64 bits": b"11111111111111111\r\nabcde\r\n0\r\n\r\n",
    "a length as its trailer": b"1\r\na\r\n0\r\nContent-Length: 7\r\n\r\n",
    "no size": b"\r\nabcde\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
@pytest.mark.parametrize("step", [1, 100_000])
def test_an_ambiguous_or_foreign_head_is_one_refusal_and_nothing_else(name: str, step: int) -> None:
    """No Head and no End beside it: a request is answered once."""
    data = AMBIGUOUS[name]
    framer = Framer()
    events = [event for i in range(0, len(data), step) for event in events_of(framer, data[i : i + step])]
    assert [type(event).__name__ for event in events] == ["Malformed"]
    assert isinstance(events[0], Malformed)
    assert events[0].status == 400
    assert events_of(framer, START + b"\r\n") == [], "nothing after it is parsed"


@pytest.mark.parametrize("name", BAD_CHUNKS)
@pytest.mark.parametrize("step", [1, 100_000])
def test_a_bad_chunk_never_completes_its_body(name: str, step: int) -> None:
    data = CHUNKED + BAD_CHUNKS[name] + START + b"\r\n"
    events = fed(*(data[i : i + step] for i in range(0, len(data), step)))
    assert isinstance(events[0], Head)
    assert isinstance(events[-1], Malformed)
    assert END not in events
    assert sum(isinstance(event, Head) for event in events) == 1


def test_what_follows_connection_close_is_not_a_request() -> None:
    events = fed(START + b"Connection: close\r\nContent-Length: 1\r\n\r\na" + START + b"\r\n")
    assert [type(event).__name__ for event in events] == ["Head", "bytes", "End", "Malformed"]


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=200), st.sampled_from([*AMBIGUOUS.values(), *BAD_CHUNKS.values(), CHUNKED])
        )
    )
)
def test_no_bytes_raise(pieces: list[bytes]) -> None:
    """Any content, any cut: events or a refusal, and at most one refusal."""
    framer = Framer(512)
    refusals = 0
    for piece in pieces:
        events = events_of(framer, piece)
        assert not refusals or not events
        refusals += sum(isinstance(event, Malformed) for event in events)
        assert framer.direct_bytes >= 0
    assert refusals <= 1


@given(messages(), st.integers(0, 2000), st.integers(0, 255), st.lists(st.integers(0, 2000), max_size=10))
def test_a_flipped_byte_gives_the_same_events_however_it_is_cut(
    message: Message, at: int, byte: int, places: list[int]
) -> None:
    damaged = bytearray(message.wire + message.wire)
    damaged[at % len(damaged)] = byte
    data = bytes(damaged)
    assert fed(*cut(data, places)) == fed(data)


fragments = st.sampled_from(
    [
        *(
            b"PUT",
            b"GET",
            b"CONNECT",
            b" ",
            b"/x",
            b"*",
            b"http://a/b",
            b" HTTP/1.1",
            b" HTTP/1.0",
            b" HTTP/2.0",
        ),
        *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b"\x16\x03\x01", b" folded", b"X:", b": y"),
        *(b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked"),
        *(b"Connection: close", b"Connection: keep-alive", b"Connection: Upgrade", b"Upgrade: h2c"),
        *(b"Authorization: a", b"Expect: 100-continue", b"A: " + b"v" * 100, b"A: " + b"v" * 400),
        *(b"5\r\nabcde\r\n", b"5;" + b"x" * 600, b"0\r\n", b"0\r\n\r\n", b"f" * 17 + b"\r\n", b"abcde"),
        *(START, START + b"\r\n", START + b"Content-Length: 5\r\n\r\nabcde", CHUNKED),
    ]
)


@settings(max_examples=1500, deadline=None)
@given(st.lists(fragments | st.binary(max_size=3), max_size=14), st.lists(st.integers(0, 2000), max_size=8))
def test_any_bytes_give_the_same_events_however_they_are_cut(parts: list[bytes], places: list[int]) -> None:
    """Half requests, two refusals at once, limits in the middle: whichever is told is told of any cut."""
    data = b"".join(parts)
    whole = repr(fed(data, max_head_bytes=512))
    assert repr(fed(*cut(data, places), max_head_bytes=512)) == whole
    assert repr(fed(*(bytes([byte]) for byte in data), max_head_bytes=512)) == whole
