"""Who may send what: every refusal of the contract, in its order (design §6), against a real bitmap."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from ingest import answers
from ingest.admission import Credentials, admit
from ingest.answers import Answer
from ingest.heads import Head
from ingest.protocols.base import Admission, Bounds, Rights, Route
from ingest.protocols.table import PUT
from ingest.protocols.whole import MAX_CLIP_DURATION_MS
from retention.bitmap import ERASED, PRESENT, SUSPENDED, TERMINATED, EntitlementBitmap, Row
from retention.compile import PAST_DAYS
from retention.row import RING_DAYS
from retention.tokens import mint_device_token
from storage.days import MS_PER_DAY, ms_of_day
from storage.rows.recordings import MAX_CLOCK_AHEAD_MS
from tests.ingest.world import NOW_MS, TODAY

SECRET = bytes(range(32))
DEVICE, OTHER, UNKNOWN = 7, 8, 9
MAX_BYTES = 1000
FIRST_DAY = TODAY - PAST_DAYS
ALWAYS = Row(PRESENT, 30, FIRST_DAY, 0, 5, (1 << RING_DAYS) - 1)


@pytest.fixture
def bitmap(tmp_path: Path) -> Iterator[EntitlementBitmap]:
    path = tmp_path / "bitmap"
    EntitlementBitmap.create(path, 100)
    with EntitlementBitmap.open(path, writable=True) as opened:
        write(opened, DEVICE, ALWAYS)
        write(opened, OTHER, ALWAYS)
        yield opened


def write(bitmap: EntitlementBitmap, device: int, row: Row) -> None:
    with bitmap.locked():
        bitmap.write(device, row)


def days(*those: int) -> int:
    return sum(1 << day - FIRST_DAY for day in those)


def head_for(
    capture_ms: int | str = NOW_MS - 5000, *, device: int = DEVICE, token: str | None = None, **fields: object
) -> Head:
    target = f"/v1/devices/{device}/" + (
        f"chunks/{capture_ms}" if isinstance(capture_ms, int) else f"live/{capture_ms}"
    )
    token = mint_device_token(SECRET, DEVICE, 0) if token is None else token
    head = Head(b"PUT", target.encode(), content_length=100, authorization=b"Bearer " + token.encode())
    return replace(head, **fields)  # type: ignore[arg-type]


def ask(bitmap: EntitlementBitmap, head: Head, *, now_ms: int = NOW_MS) -> Admission | Answer:
    return admit(
        head, credentials=Credentials(SECRET), bitmap=bitmap, now_ms=now_ms, bounds=Bounds(MAX_BYTES)
    )


def admitted(decided: Admission | Answer) -> Admission:
    assert isinstance(decided, Admission), decided
    return decided


# --- a host that does not hear home -----------------------------------------------------------------------------


def test_a_stale_host_says_neither_yes_nor_no(bitmap: EntitlementBitmap) -> None:
    """A refusal by an old row would be as wrong as an admission: a camera takes it for an answer."""

    def ask_stale(head: Head) -> Admission | Answer:
        return admit(
            head,
            credentials=Credentials(SECRET),
            bitmap=bitmap,
            now_ms=NOW_MS,
            bounds=Bounds(MAX_BYTES),
            stale=True,
        )

    write(bitmap, OTHER, replace(ALWAYS, flags=PRESENT | SUSPENDED))
    heads = (
        head_for(),
        head_for(token="wrong"),
        head_for(authorization=b""),
        head_for("a.m3u8"),
        head_for(device=OTHER, token=mint_device_token(SECRET, OTHER, 0)),
        head_for(device=UNKNOWN),
    )
    assert [ask_stale(head) for head in heads] == [answers.HOST_STALE] * len(heads)
    assert b"503" in answers.HOST_STALE.render()
    assert b"Retry-After" in answers.HOST_STALE.render()
    assert ask_stale(replace(head_for(), target=b"/nothing")) is answers.UNKNOWN_PATH


def test_a_plan_that_is_over_by_homes_clock_is_over(bitmap: EntitlementBitmap) -> None:
    write(bitmap, DEVICE, replace(ALWAYS, days=days(TODAY)))
    admitted(ask(bitmap, head_for()))
    bitmap.set_home_day(TODAY + 1)
    assert ask(bitmap, head_for()) is answers.PLAN_LAPSED
    bitmap.set_home_day(TODAY - 1)
    admitted(ask(bitmap, head_for()))


# --- who may ----------------------------------------------------------------------------------------------------


def test_an_entitled_chunk_is_admitted_with_all_that_its_commit_needs(bitmap: EntitlementBitmap) -> None:
    head = head_for(NOW_MS - 5000, clip_duration=b"2500", content_digest=b"crc32=:AAECAw==:")
    told = admitted(ask(bitmap, head))
    rights = Rights(epoch=5, class_days=30, limit_class=0, generation=told.generation, now_ms=NOW_MS)
    route = Route(PUT, DEVICE, NOW_MS - 5000)
    assert told == Admission(route, rights, 2500, (b"crc32", bytes(range(4))), MAX_BYTES)
    assert told.expires_on(NOW_MS - 5000, NOW_MS) == TODAY + 31


def test_a_clock_in_the_future_does_not_pin_a_segment(bitmap: EntitlementBitmap) -> None:
    """Design §4: expires_on counts from the earlier of capture and server clock."""
    midnight_ms = ms_of_day(TODAY + 1)
    told = admitted(ask(bitmap, head_for(midnight_ms + 1000), now_ms=midnight_ms - 1000))
    assert told.expires_on(midnight_ms + 1000, midnight_ms - 1000) == TODAY + 31


def test_a_live_chunk_has_no_capture_time_yet(bitmap: EntitlementBitmap) -> None:
    assert admitted(ask(bitmap, head_for("stream7.ts"))).capture_ms is None
    assert admitted(ask(bitmap, head_for(f"{NOW_MS // 1000}.ts"))).capture_ms == NOW_MS // 1000 * 1000
    assert admitted(ask(bitmap, head_for(f"{NOW_MS}.ts"))).capture_ms == NOW_MS
    for name, may_move in (("stream7", True), (f"{NOW_MS // 1000}", True), (f"{NOW_MS}", False)):
        assert admitted(ask(bitmap, head_for(f"{name}.ts"))).may_move is may_move


@pytest.mark.parametrize("name", ["stream.m3u8", "a/b:c.M3U8"])
def test_playlists_are_answered_204_to_whoever_has_the_token(bitmap: EntitlementBitmap, name: str) -> None:
    assert ask(bitmap, head_for(name)) is answers.NOTHING_TO_DO
    assert ask(bitmap, head_for("a.ts", method=b"DELETE", content_length=None)) is answers.NOTHING_TO_DO
    assert ask(bitmap, head_for(name, token="wrong")) is answers.BAD_TOKEN


def test_basic_credentials_name_the_device_they_are_for(bitmap: EntitlementBitmap) -> None:
    def basic(user: int, token_of: int) -> bytes:
        return b"Basic " + base64.b64encode(f"{user}:{mint_device_token(SECRET, token_of, 0)}".encode())

    admitted(ask(bitmap, head_for(authorization=basic(DEVICE, DEVICE))))
    assert ask(bitmap, head_for(authorization=basic(OTHER, OTHER))) is answers.BAD_TOKEN
    assert ask(bitmap, head_for(authorization=basic(OTHER, DEVICE))) is answers.BAD_TOKEN
    assert ask(bitmap, head_for(authorization=basic(DEVICE, OTHER))) is answers.BAD_TOKEN


def test_credentials_are_remembered_for_their_device_and_generation_only(bitmap: EntitlementBitmap) -> None:
    """What a connection has shown once is compared, not computed; a new generation voids it at once."""
    credentials = Credentials(SECRET)

    def with_the_same(head: Head) -> Admission | Answer:
        return admit(head, credentials=credentials, bitmap=bitmap, now_ms=NOW_MS, bounds=Bounds(MAX_BYTES))

    admitted(with_the_same(head_for()))
    admitted(with_the_same(head_for()))
    assert with_the_same(head_for(device=OTHER)) is answers.BAD_TOKEN
    assert with_the_same(head_for(token=mint_device_token(SECRET, DEVICE, 1))) is answers.BAD_TOKEN
    admitted(with_the_same(head_for()))
    write(bitmap, DEVICE, replace(ALWAYS, token_generation=1))
    assert with_the_same(head_for()) is answers.BAD_TOKEN
    admitted(with_the_same(head_for(token=mint_device_token(SECRET, DEVICE, 1))))


# --- each refusal, and its place in the order ----------------------------------------------------------------------

Spoil = Callable[[EntitlementBitmap, Head, Row], tuple[Head, Row]]


def _no_capture_day(bitmap: EntitlementBitmap, head: Head, row: Row) -> tuple[Head, Row]:
    day = int(head.target.rsplit(b"/", 1)[1]) // MS_PER_DAY
    return head, replace(row, days=row.days & ~days(day))


def _target(head: Head, capture_ms: int) -> Head:
    return replace(head, target=b"/v1/devices/%d/chunks/%d" % (DEVICE, capture_ms))


WAYS: list[tuple[str, int, Spoil]] = [
    ("not_found", 404, lambda b, h, r: (replace(h, target=h.target + b"/x"), r)),
    ("time_digits", 400, lambda b, h, r: (replace(h, target=h.target + b"000"), r)),
    ("no_token", 401, lambda b, h, r: (replace(h, authorization=b""), r)),
    ("bad_token", 401, lambda b, h, r: (replace(h, authorization=b"Bearer ckd_x"), r)),
    ("suspended", 403, lambda b, h, r: (h, replace(r, flags=r.flags | SUSPENDED))),
    ("terminated", 403, lambda b, h, r: (h, replace(r, flags=r.flags | TERMINATED))),
    ("plan_lapsed", 403, lambda b, h, r: (h, replace(r, days=r.days & ~days(TODAY)))),
    ("not_entitled_at_capture", 403, _no_capture_day),
    ("clock_ahead", 422, lambda b, h, r: (_target(h, NOW_MS + 2 * MS_PER_DAY), r)),
    ("expired", 410, lambda b, h, r: (_target(h, NOW_MS - 31 * MS_PER_DAY), r)),
    ("empty", 400, lambda b, h, r: (replace(h, content_length=0), r)),
    ("too_large", 413, lambda b, h, r: (replace(h, content_length=MAX_BYTES + 1), r)),
]


@pytest.mark.parametrize(("code", "status", "spoil"), WAYS, ids=[way[0] for way in WAYS])
def test_each_refusal(bitmap: EntitlementBitmap, code: str, status: int, spoil: Spoil) -> None:
    head, row = spoil(bitmap, head_for(NOW_MS - 2 * MS_PER_DAY), ALWAYS)
    write(bitmap, DEVICE, row)
    told = ask(bitmap, head)
    assert isinstance(told, Answer)
    assert (told.code, told.status) == (code, status)


EXCLUSIVE = [{"clock_ahead", "expired"}, {"empty", "too_large"}]
PAIRS = [pair for pair in combinations(WAYS, 2) if {pair[0][0], pair[1][0]} not in EXCLUSIVE]


@pytest.mark.parametrize(
    ("first", "second"), PAIRS, ids=[f"{first[0]}-before-{second[0]}" for first, second in PAIRS]
)
def test_the_first_match_wins(
    bitmap: EntitlementBitmap, first: tuple[str, int, Spoil], second: tuple[str, int, Spoil]
) -> None:
    """Every pair of faults at once, in the order of design §6."""
    head, row = second[2](bitmap, head_for(NOW_MS - 2 * MS_PER_DAY), ALWAYS)
    head, row = first[2](bitmap, head, row)
    write(bitmap, DEVICE, row)
    told = ask(bitmap, head)
    assert isinstance(told, Answer)
    assert (told.code, told.status) == first[:2]


# --- corners -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [0, UNKNOWN, 99, 100, 2**32 - 1])
def test_an_unknown_device_is_a_bad_token(bitmap: EntitlementBitmap, device: int) -> None:
    """Whether a device exists is nobody's business, whatever the token."""
    token = mint_device_token(SECRET, device, 0)
    assert ask(bitmap, head_for(device=device, token=token)) is answers.BAD_TOKEN


def test_no_credentials_at_all(bitmap: EntitlementBitmap) -> None:
    assert ask(bitmap, head_for(authorization=b"")) is answers.NO_TOKEN
    assert ask(bitmap, head_for(device=50, authorization=b"")) is answers.NO_TOKEN, "of no device either"


def test_an_erased_device_with_a_new_plan_may_send(bitmap: EntitlementBitmap) -> None:
    """A renewal after an erasure starts empty, under a new epoch; ERASED alone does not deny."""
    write(bitmap, DEVICE, replace(ALWAYS, flags=PRESENT | ERASED, erase_epoch=6))
    assert admitted(ask(bitmap, head_for())).epoch == 6
    write(bitmap, DEVICE, replace(ALWAYS, flags=PRESENT | ERASED, erase_epoch=6, days=0))
    assert ask(bitmap, head_for()) is answers.PLAN_LAPSED


def test_a_row_that_is_being_written_is_overload_not_a_denial(bitmap: EntitlementBitmap) -> None:
    """A device must not take a killed writer for the end of its plan: 503 is tried again, 401 is not."""
    seq = (4096 + DEVICE * 64) // 2
    bitmap._seqs[seq] |= 1
    assert ask(bitmap, head_for()) is answers.OVERLOADED


def test_capture_limits_are_exact(bitmap: EntitlementBitmap) -> None:
    admitted(ask(bitmap, head_for(NOW_MS + MAX_CLOCK_AHEAD_MS)))
    assert ask(bitmap, head_for(NOW_MS + MAX_CLOCK_AHEAD_MS + 1)).code == "clock_ahead"
    oldest_ms = ms_of_day(TODAY - 30)
    told = admitted(ask(bitmap, head_for(oldest_ms)))
    assert told.expires_on(oldest_ms, NOW_MS) == TODAY + 1, "it may be served today, and no longer"
    assert ask(bitmap, head_for(oldest_ms - 1)).code == "expired"


def test_older_than_any_row_reaches_is_a_wrong_clock_not_unentitled(bitmap: EntitlementBitmap) -> None:
    """Beyond PAST_DAYS nobody knows what was entitled; that nothing is kept so long is certain."""
    write(bitmap, DEVICE, replace(ALWAYS, class_days=255))
    edge_ms = ms_of_day(TODAY - PAST_DAYS)
    assert ask(bitmap, head_for(edge_ms - 1)).code == "clock_behind"
    assert ask(bitmap, head_for(0)).code == "clock_behind"
    write(bitmap, DEVICE, replace(ALWAYS, class_days=255, days=days(TODAY)))
    assert ask(bitmap, head_for(edge_ms)).code == "not_entitled_at_capture"
    assert ask(bitmap, head_for(edge_ms - 1)).code == "clock_behind"


def test_far_in_the_future_is_refused_without_overflow(bitmap: EntitlementBitmap) -> None:
    assert ask(bitmap, head_for(9_999_999_999_999)).code == "not_entitled_at_capture"


def test_lapse_is_at_midnight_utc_to_the_millisecond(bitmap: EntitlementBitmap) -> None:
    """Invariants 2 and 12."""
    write(bitmap, DEVICE, replace(ALWAYS, days=days(TODAY - 1, TODAY)))
    last_ms = ms_of_day(TODAY + 1) - 1
    admitted(ask(bitmap, head_for(last_ms), now_ms=last_ms))
    assert ask(bitmap, head_for(last_ms), now_ms=last_ms + 1) is answers.PLAN_LAPSED


def test_a_server_clock_set_back_resurrects_nothing(bitmap: EntitlementBitmap) -> None:
    """Invariant 12: today is never before the last day that was swept."""
    write(bitmap, DEVICE, replace(ALWAYS, days=days(TODAY - 40, TODAY - 2)))
    before_ms = ms_of_day(TODAY - 2)
    admitted(ask(bitmap, head_for(before_ms), now_ms=before_ms))
    with bitmap.locked():
        bitmap.raise_closed_through(TODAY)
    assert ask(bitmap, head_for(before_ms), now_ms=before_ms) is answers.PLAN_LAPSED
    write(bitmap, DEVICE, replace(ALWAYS, class_days=1))
    assert ask(bitmap, head_for(before_ms), now_ms=before_ms).code == "expired"


def test_sizes_are_exact(bitmap: EntitlementBitmap) -> None:
    admitted(ask(bitmap, head_for(content_length=1)))
    admitted(ask(bitmap, head_for(content_length=MAX_BYTES)))
    told = ask(bitmap, head_for(content_length=MAX_BYTES + 1))
    assert isinstance(told, Answer)
    assert (told.code, str(MAX_BYTES) in told.detail) == ("too_large", True)
    assert ask(bitmap, head_for(content_length=0)) is answers.EMPTY
    assert ask(bitmap, head_for(content_length=None)) is answers.EMPTY
    admitted(ask(bitmap, head_for(content_length=None, chunked=True)))


@pytest.mark.parametrize("value", [b"1", b"%d" % MAX_CLIP_DURATION_MS, b"0004000"])
def test_durations(bitmap: EntitlementBitmap, value: bytes) -> None:
    assert admitted(ask(bitmap, head_for(clip_duration=value))).duration_ms == int(value)


@pytest.mark.parametrize(
    "value", [b"", b"0", b"-1", b"+1", b"1.5", b"1_0", b"x", b"%d" % (MAX_CLIP_DURATION_MS + 1), b"9" * 5000]
)
def test_bad_durations(bitmap: EntitlementBitmap, value: bytes) -> None:
    told = ask(bitmap, head_for(clip_duration=value))
    assert isinstance(told, Answer)
    assert (told.code, told.status) == ("malformed", 400)
    assert "Clip-Duration-Ms" in told.detail


@pytest.mark.parametrize("value", [b"", b"sha-256=:AAAA:", b"crc32=:!!!!!!==:", b"crc32"])
def test_bad_digests(bitmap: EntitlementBitmap, value: bytes) -> None:
    told = ask(bitmap, head_for(content_digest=value))
    assert isinstance(told, Answer)
    assert (told.code, told.status) == ("malformed", 400)
    assert told.detail


def test_a_digest_by_an_algorithm_unknown_here_is_passed_over(bitmap: EntitlementBitmap) -> None:
    assert admitted(ask(bitmap, head_for(content_digest=b"sha-512=:AAAA:"))).digest is None
