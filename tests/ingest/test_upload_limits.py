"""Limits of packages on uploads: bytes a day, chunks a second, counted for all workers together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import upload_limits
from ingest.answers import Answer
from ingest.upload_limits import BURST_S, PARTS_OF_DAY, SPREAD_S, UploadCounts
from retention.entitlements import Entitlements
from retention.upload_limits import MIN_BYTES_PER_DAY, NO_LIMITS, UploadLimits, class_of
from storage.days import MS_PER_DAY
from storage.errors import CallerError
from storage.rows.devices import DeviceFacts
from storage.rows.packages import PackageRow
from tests.ingest.served import MIB, Worker
from tests.ingest.world import NOW_MS, TODAY, video

DAY_BYTES = MIN_BYTES_PER_DAY
NOON = TODAY * MS_PER_DAY + MS_PER_DAY // 2


def counting(limits: UploadLimits) -> UploadCounts:
    return UploadCounts(lambda limit_class: limits.word)


def send(
    counts: UploadCounts, length: int, *, device: int = 1, now_ms: int = NOON, now_s: float = 0.0
) -> str:
    """The code that a chunk is refused with, "" when it is taken."""
    refusal = counts.admit(device, 1, length, now_ms, now_s) or counts.take(device, 1, length, now_ms)
    return "" if refusal is None else refusal.code


class Home:
    """The catalog's sums, and the exchange of several workers with them."""

    def __init__(self) -> None:
        self.sums: dict[tuple[int, int], tuple[int, int]] = {}

    def exchange(self, counts: UploadCounts, *, now_ms: int = NOON, now_s: float = 0.0) -> int:
        sent = counts.due(now_ms, 1000)
        told = {}
        for device, (size, chunks) in sent.items():
            old = self.sums.get((now_ms // MS_PER_DAY, device), (0, 0))
            told[device] = self.sums[now_ms // MS_PER_DAY, device] = (old[0] + size, old[1] + chunks)
        counts.learn(now_ms // MS_PER_DAY, sent, told, now_s)
        return len(sent)


# --- limits and their classes -----------------------------------------------------------------------------------


@given(st.builds(UploadLimits, st.just(0) | st.integers(DAY_BYTES, (1 << 48) - 1), st.integers(0, 1000)))
def test_limits_fit_a_word_and_come_back(limits: UploadLimits) -> None:
    assert UploadLimits.of_word(limits.word) == limits
    assert 0 <= limits.word < 1 << 64
    assert bool(limits) == bool(limits.word)


@pytest.mark.parametrize(
    ("bytes_per_day", "chunks_per_s"), [(DAY_BYTES - 1, 0), (-1, 0), (1 << 48, 0), (0, -1), (0, 1001)]
)
def test_limits_out_of_bounds_are_refused(bytes_per_day: int, chunks_per_s: int) -> None:
    with pytest.raises(CallerError) as caught:
        UploadLimits(bytes_per_day, chunks_per_s)
    assert caught.value.code == "bad_package"


def test_packages_with_the_same_limits_share_a_class_and_classes_are_bounded() -> None:
    first, second = UploadLimits(DAY_BYTES), UploadLimits(0, 2)
    assert class_of([], NO_LIMITS) == 0
    assert class_of([(0, NO_LIMITS)], first) == 1
    known = [(0, NO_LIMITS), (1, first), (2, second), (1, first)]
    assert [class_of(known, limits) for limits in (first, second, UploadLimits(DAY_BYTES, 2))] == [1, 2, 3]
    full = [(number, UploadLimits(0, number)) for number in range(1, 128)]
    assert class_of(full, UploadLimits(0, 127)) == 127
    with pytest.raises(CallerError) as caught:
        class_of(full, UploadLimits(0, 500))
    assert caught.value.code == "too_many_limits"


# --- bytes a day ------------------------------------------------------------------------------------------------


def test_one_worker_is_exact_to_the_byte_and_the_next_day_begins_anew() -> None:
    counts = counting(UploadLimits(DAY_BYTES))
    assert send(counts, DAY_BYTES - 1) == ""
    assert send(counts, 2) == "package_bytes"
    assert send(counts, 1) == ""
    assert send(counts, 1) == "package_bytes"
    assert send(counts, 1, device=2) == "", "each device has a day of its own"
    assert send(counts, 1, now_ms=NOON + MS_PER_DAY) == ""


def test_a_refused_chunk_may_come_soon_after_midnight_and_not_with_all_others() -> None:
    counts = counting(UploadLimits(DAY_BYTES))
    told = []
    for device in range(1, 200):
        send(counts, DAY_BYTES, device=device)
        refusal = counts.admit(device, 1, 1, NOON, 0.0)
        assert isinstance(refusal, Answer)
        assert refusal.status == 429
        assert f"Retry-After: {refusal.retry_after_s}\r\n".encode() in refusal.render()
        told.append(refusal.retry_after_s - 43_200)
    assert min(told) > 0
    assert max(told) <= SPREAD_S + 1
    assert len(set(told)) > 100


def test_a_chunk_whose_length_is_told_late_is_refused_when_it_is_known() -> None:
    counts = counting(UploadLimits(DAY_BYTES))
    send(counts, DAY_BYTES - 10)
    assert counts.admit(1, 1, 0, NOON, 0.0) is None
    refusal = counts.take(1, 1, 11, NOON)
    assert refusal is not None
    assert refusal.code == "package_bytes"
    assert counts.take(1, 1, 10, NOON) is None


def test_what_was_not_stored_after_all_is_given_back() -> None:
    counts, home = counting(UploadLimits(DAY_BYTES)), Home()
    send(counts, DAY_BYTES)
    counts.give_back(1, 100, NOON)
    counts.give_back(7, 100, NOON)
    assert send(counts, 100) == ""
    home.exchange(counts)
    counts.give_back(1, DAY_BYTES, NOON)
    assert send(counts, DAY_BYTES) == ""
    counts.unreported(NOON)
    home.exchange(counts)
    assert home.sums[TODAY, 1] == (DAY_BYTES, 3)
    counts.give_back(1, DAY_BYTES, NOON + MS_PER_DAY)
    assert send(counts, 1) == "package_bytes", "yesterday's chunk says nothing about today"


def test_a_worker_learns_what_the_others_took() -> None:
    limits = UploadLimits(DAY_BYTES)
    one, other, home = counting(limits), counting(limits), Home()
    send(one, DAY_BYTES - 5)
    assert home.exchange(one) == 1
    assert send(other, 4) == "", "it has not asked yet"
    assert home.exchange(other) == 1
    assert send(other, 2) == "package_bytes"
    assert send(other, 1) == ""


def test_what_is_asked_of_the_catalog_is_little() -> None:
    """A camera that uses up its day in small chunks: a row each 1/256 of the day, not one per chunk."""
    counts, home = counting(UploadLimits(DAY_BYTES)), Home()
    exchanges = 0
    for _ in range(10_000):
        assert send(counts, DAY_BYTES // 10_000) == ""
        exchanges += home.exchange(counts)
    assert PARTS_OF_DAY * 0.9 < exchanges <= PARTS_OF_DAY + 1
    counts.unreported(NOON)
    home.exchange(counts)
    assert home.sums[TODAY, 1] == (DAY_BYTES // 10_000 * 10_000, 10_000)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 1 << 20)), max_size=400), st.integers(1, 20))
@settings(deadline=None)
def test_several_workers_stay_within_the_stated_slack(sent: list[tuple[int, int]], every: int) -> None:
    """design.md: two parts of the day for each worker, and what comes between two exchanges."""
    limits = UploadLimits(DAY_BYTES)
    workers, home = [counting(limits) for _ in range(4)], Home()
    taken = between = most_between = 0
    for number, (worker, size) in enumerate(sent * 3):
        if send(workers[worker], size) == "":
            taken += size
            between += size
        if number % every == 0:
            for counts in workers:
                home.exchange(counts)
            most_between, between = max(most_between, between), 0
    slack = 2 * len(workers) * DAY_BYTES // PARTS_OF_DAY
    assert taken <= DAY_BYTES + slack + 2 * max(most_between, between)


def test_a_day_that_begins_during_an_exchange_keeps_its_own_sums() -> None:
    counts = counting(UploadLimits(DAY_BYTES))
    send(counts, DAY_BYTES)
    sent = counts.due(NOON, 1000)
    tomorrow = NOON + MS_PER_DAY
    assert send(counts, 5, now_ms=tomorrow) == ""
    counts.learn(TODAY, sent, {1: (DAY_BYTES, 1)}, 0.0)
    assert counts.due(tomorrow, 1000) == {1: (5, 1)}
    assert send(counts, DAY_BYTES - 5, now_ms=tomorrow) == ""


# --- chunks a second --------------------------------------------------------------------------------------------


def test_a_burst_then_the_rate_and_how_long_to_wait() -> None:
    counts = counting(UploadLimits(0, 2))
    burst = round(2 * BURST_S)
    assert [send(counts, 1, now_s=100.0) for _ in range(burst + 1)] == [""] * burst + ["package_chunks"]
    refusal = counts.admit(1, 1, 1, NOON, 100.0)
    assert refusal is not None
    assert refusal.retry_after_s == 1
    assert send(counts, 1, now_s=100.5) == ""
    assert send(counts, 1, now_s=100.5) == "package_chunks"


def test_a_device_that_changes_workers_is_not_punished_for_what_it_sent_before() -> None:
    limits = UploadLimits(0, 1)
    one, other, home = counting(limits), counting(limits), Home()
    for second in range(200):
        assert send(one, 1, now_s=float(second)) == ""
        home.exchange(one, now_s=float(second))
    for second in range(200, 400):
        assert send(other, 1, now_s=float(second)) == ""
        home.exchange(other, now_s=float(second))


def test_a_device_that_uses_many_workers_at_once_comes_down_to_its_rate() -> None:
    limits = UploadLimits(0, 1)
    workers, home = [counting(limits) for _ in range(8)], Home()
    taken = 0
    for second in range(2000):
        for counts in workers:
            taken += send(counts, 1, now_s=float(second)) == ""
            if second % 5 == 0:
                home.exchange(counts, now_s=float(second))
    slack = len(workers) * 3 * BURST_S
    assert 1900 <= taken <= 2000 + slack


@given(st.lists(st.floats(0, 3), max_size=200))
@settings(deadline=None)
def test_exchanges_alone_refuse_nothing(gaps: list[float]) -> None:
    """A device on one worker: the sums that it is told are its own."""
    alone, told, home = counting(UploadLimits(0, 1)), counting(UploadLimits(0, 1)), Home()
    now_s = 0.0
    for gap in gaps:
        now_s += gap
        assert send(alone, 1, now_s=now_s) == send(told, 1, now_s=now_s)
        home.exchange(told, now_s=now_s)


def test_the_devices_counted_are_bounded_and_nothing_that_was_taken_is_lost() -> None:
    counts, home = counting(UploadLimits(DAY_BYTES)), Home()
    over = upload_limits.MAX_DEVICES + 3
    for device in range(1, over + 1):
        assert send(counts, 10, device=device) == ""
    assert len(counts._known) == upload_limits.MAX_DEVICES
    while home.exchange(counts):
        pass
    assert sum(size for size, _ in home.sums.values()) == 10 * over
    assert send(counts, DAY_BYTES, device=1) == "", "it was forgotten, and is asked about again"
    home.exchange(counts)
    assert send(counts, 1, device=1) == "package_bytes"


# --- over the wire ----------------------------------------------------------------------------------------------


@pytest.fixture
def limited(worker: Worker) -> Worker:
    """Device 1 has a package of 16 MiB a day, device 2 one of one chunk a second."""
    for device, limit_class, limits in ((1, 3, UploadLimits(DAY_BYTES)), (2, 4, UploadLimits(0, 1))):
        row = PackageRow(
            f"p{device}",
            1,
            "trial",
            0,
            14,
            30,
            0,
            TODAY,
            None,
            NOW_MS,
            max_bytes_per_day=limits.bytes_per_day,
            max_chunks_per_s=limits.chunks_per_s,
            limit_class=limit_class,
        )
        worker.catalog.transact(lambda books, row=row: books.add_package(row))

        def to_package(facts: DeviceFacts, limit_class: int = limit_class) -> DeviceFacts:
            return replace(facts, plans=tuple(replace(plan, limit_class=limit_class) for plan in facts.plans))

        worker.change(device, to_package)
    return worker


async def test_a_device_over_its_day_is_told_so_and_the_others_go_on(limited: Worker) -> None:
    client = await limited.connect()
    large = video(MIB)
    for number in range(16):
        assert (await client.ask(large, NOW_MS + number)).status == 201
    reply = await client.ask(large, NOW_MS + 100)
    assert (reply.status, reply.code) == (429, "package_bytes")
    assert int(reply.headers["retry-after"]) > 0
    assert not reply.closes, "it keeps its connection"
    assert (await client.ask(large, NOW_MS + 100, chunked=True)).code == "package_bytes"
    assert limited.stored(1, NOW_MS + 100) is None
    other = await limited.connect()
    assert (await other.ask(large, NOW_MS, device=3)).status == 201
    limited.clock.ms += MS_PER_DAY
    assert (await client.ask(large, NOW_MS + 100)).status == 201


async def test_chunks_that_were_there_already_or_lost_cost_nothing(limited: Worker) -> None:
    client = await limited.connect()
    large = video(4 * MIB)
    assert (await client.ask(large, NOW_MS)).status == 201
    for _ in range(5):
        assert (await client.ask(large, NOW_MS)).status == 200
    for number in range(1, 4):
        assert (await client.ask(large, NOW_MS + number)).status == 201
    assert (await client.ask(large, NOW_MS + 9)).code == "package_bytes"


async def test_chunks_a_second_are_refused_with_a_time_to_wait(limited: Worker) -> None:
    client = await limited.connect()
    said = [(await client.ask(video(2000), NOW_MS + number, device=2)).code for number in range(30)]
    assert said[:20] == [""] * 20
    assert "package_chunks" in said
    reply = await client.ask(video(2000), NOW_MS + 99, device=2)
    if reply.status == 429:  # unless a second has gone by just now
        assert reply.headers["retry-after"] in ("1", "2")


async def test_two_workers_count_together_in_the_catalog(limited: Worker) -> None:
    client = await limited.connect()
    assert (await client.ask(video(8 * MIB), NOW_MS)).status == 201
    limited.catalog.add_uploads(TODAY, {1: (8 * MIB, 9)})  # another host's
    counts = limited.receiver.counts
    sent = counts.due(NOW_MS, 100)
    assert sent == {1: (8 * MIB, 1)}
    counts.learn(TODAY, sent, limited.catalog.add_uploads(TODAY, sent), 0.0)
    assert (await client.ask(video(2000), NOW_MS + 1)).code == "package_bytes"


async def test_limits_are_seen_by_who_rebuilds_the_bitmap(limited: Worker) -> None:
    limited.bitmap._words[128 + 3] = 0  # as in a new file
    assert limited.bitmap.limits_word(3) == 0
    Entitlements(limited.catalog, limited.bitmap, limited.clock).rebuild()
    assert limited.bitmap.limits_word(3) == UploadLimits(DAY_BYTES).word
    assert limited.bitmap.limits_word(4) == UploadLimits(0, 1).word
    assert limited.bitmap.probe(1, TODAY, TODAY)[6] == 3
    assert limited.bitmap.probe(3, TODAY, TODAY)[6] == 0
