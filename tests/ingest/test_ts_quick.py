"""The quick reading of ordinary transport streams says what the thorough one says, or leaves it to that one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.media import transport_stream
from ingest import mpegts, ts_edges, ts_quick
from tests.ingest.test_inspect import H264, H265, PACKET, SOUND, VIDEO, film

WRAP_S = 2**33 / 90_000 - 3
"""Presentation times wrap their 33 bits in the midst of the film."""
RECIPES = {
    "picture and sound": f"{VIDEO} {SOUND} -t 6 {H264} -bf 0 -c:a aac",
    "picture alone": f"{VIDEO} -t 6 {H264} -bf 0 -x264-params sliced-threads=0:repeat-headers=1",
    "h265": f"{VIDEO} {SOUND} -t 6 {H265}:bframes=0 -c:a mp2",
    "out of order": f"{VIDEO} {SOUND} -t 6 {H264} -preset veryfast -bf 3 -c:a aac",
    "out of order, picture alone": f"{VIDEO} -t 6 {H264} -preset veryfast -bf 3",
    "out of order, h265": f"{VIDEO} {SOUND} -t 6 {H265}:bframes=4 -c:a aac",
    "out of order, wraps": f"{VIDEO} {SOUND} -t 6 {H264} -preset veryfast -bf 3 -c:a aac -output_ts_offset {WRAP_S}",
    "opus": f"{VIDEO} {SOUND} -t 6 {H264} -bf 0 -c:a libopus",
    "ac3": f"{VIDEO} {SOUND} -t 6 {H264} -bf 0 -c:a ac3",
    "a frame a second": f"{VIDEO} {SOUND} -t 6 {H264} -bf 0 -r 1 -g 2 -c:a aac",
    "sound alone": f"{SOUND} -t 6 -c:a aac",
    "wraps": f"{VIDEO} {SOUND} -t 6 {H264} -bf 0 -c:a aac -output_ts_offset {WRAP_S}",
}
ORDINARY = sorted(set(RECIPES) - {"sound alone"})


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    return {name: film(tmp_path_factory.mktemp("film"), recipe) for name, recipe in RECIPES.items()}


def same(data: bytes) -> bool:
    """Whether the quick reading answered; then it has to be the thorough one's answer."""
    quick = ts_quick.read(data)
    if quick is None:
        return False
    thorough = ts_edges.read(mpegts.aligned(data, 0))
    assert thorough is not None
    assert (quick.duration_ticks, quick.facts) == (thorough.duration_ticks, thorough.facts.pack())
    return True


@pytest.mark.parametrize("kind", ORDINARY)
def test_what_cameras_send_is_read_quickly(films: dict[str, list[bytes]], kind: str) -> None:
    for _ in range(2):  # the second time from what is remembered
        assert all(same(data) for data in films[kind])


@pytest.mark.parametrize("size", [32_768, 65_536, 262_144, 1_048_576])
def test_what_the_bench_sends_is_read_quickly(size: int) -> None:
    assert same(bytes(transport_stream(size)))


@pytest.mark.parametrize("kind", sorted(set(RECIPES) - set(ORDINARY)))
def test_what_is_not_ordinary_is_left_to_the_thorough_reading(
    films: dict[str, list[bytes]], kind: str
) -> None:
    assert not any(same(data) for data in films[kind])


def test_another_parameter_set_behind_the_same_beginning_is_seen(films: dict[str, list[bytes]]) -> None:
    """Two cameras whose sets differ behind the bytes by which they are looked up."""
    data = films["picture alone"][0]
    at = data.index(b"\0\0\1\x68") + 4  # the picture parameter set
    other = data[:at] + bytes([data[at] ^ 0x11]) + data[at + 1 :]
    first, second, again = (ts_quick.read(chunk) for chunk in (data, other, data))
    assert first is not None
    assert second is not None
    assert again is not None
    assert first.facts == again.facts != second.facts
    assert same(data)
    assert same(other)


PLACES = st.integers(0, 200) | st.integers(-200, -1) | st.integers(-3000, 3000)


@settings(max_examples=400, deadline=None)
@given(
    kind=st.sampled_from(sorted(RECIPES)),
    part=st.tuples(PLACES, PLACES),
    changes=st.lists(
        st.tuples(PLACES, st.integers(0, PACKET - 1) | st.integers(0, 30), st.integers(0, 255)), max_size=8
    ),
    moves=st.lists(st.tuples(PLACES, PLACES), max_size=3),
)
def test_any_damage_is_read_alike(
    films: dict[str, list[bytes]],
    kind: str,
    part: tuple[int, int],
    changes: list[tuple[int, int, int]],
    moves: list[tuple[int, int]],
) -> None:
    data = films[kind][0]
    packets = [data[at : at + PACKET] for at in range(0, len(data) - PACKET + 1, PACKET)]
    for source, target in moves:
        packets.insert(target % len(packets), packets.pop(source % len(packets)))
    for place, offset, value in changes:
        packet = bytearray(packets[place % len(packets)])
        packet[offset] = value
        packets[place % len(packets)] = bytes(packet)
    same(b"".join(packets))
    start, end = sorted(place % len(packets) for place in part)
    same(b"".join(packets[start:end]))
    same(b"".join(packets[:3] + packets[start:end]))
