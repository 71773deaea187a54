"""Listings and playlists over HTTP."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from ingest.media import Media
from tests.service.api.server import ALL, AT, Server, refused
from tests.service.world import CHUNK_MS, HOUR_MS, NOON_MS, World, clips


def test_recordings_in_pages(world: World, server: Server) -> None:
    kept = [*clips(3), replace(clips(1, start_ms=NOON_MS - HOUR_MS // 2)[0], media=Media.MP4)]
    world.keep(*kept)
    reply = server.get("/v1/devices/1/recordings")
    assert reply.headers["cache-control"] == "no-store"
    whole = json.loads(reply.body)
    assert (whole["device"], whole["next"]) == (1, None)
    assert [(s["from_ms"], s["to_ms"], len(s["chunks"])) for s in whole["spans"]] == [
        (AT, AT + 3 * CHUNK_MS, 3),
        (kept[3].capture_ms, kept[3].capture_ms + CHUNK_MS, 1),
    ]
    assert whole["spans"][0]["length_bytes"] == sum(len(clip.data) for clip in kept[:3])
    listed = [chunk for span in whole["spans"] for chunk in span["chunks"]]
    assert listed[0] == {
        "capture_ms": AT,
        "duration_ms": CHUNK_MS,
        "length_bytes": len(kept[0].data),
        "content_type": "video/mp2t",
        "expires_on": "2026-07-14",
        "url": f"chunks/{AT}.ts",
    }
    assert (listed[3]["content_type"], listed[3]["url"]) == ("video/mp4", f"chunks/{kept[3].capture_ms}")
    for clip, chunk in zip(kept, listed, strict=True):
        assert server.get(f"/v1/devices/1/{chunk['url']}").body == clip.data
    paged, query = [], "limit=1"
    while query:
        page = json.loads(server.get(f"/v1/devices/1/recordings?{query}").body)
        paged += [chunk for span in page["spans"] for chunk in span["chunks"]]
        query = f"limit=1&from={page['next']}" if page["next"] else ""
    assert paged == listed


@pytest.mark.parametrize("page", ["recordings", f"playlist.m3u8?{ALL}", "playlist.m3u8"])
def test_compressed_when_the_client_takes_it(world: World, server: Server, page: str) -> None:
    world.keep(*clips(50, start_ms=NOON_MS - 60 * CHUNK_MS))
    path, token = f"/v1/devices/1/{page}", world.token()
    plain = server.get(path, token=token)
    assert "content-encoding" not in plain.headers
    for accepted, wanted in (
        ("gzip", True),
        ("br;q=1.0, GZIP; q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("identity", False),
        ("br", False),
    ):
        reply = server.get(path, token=token, Accept_Encoding=accepted)
        assert (reply.headers.get("content-encoding") == "gzip") is wanted, accepted
        assert int(reply.headers["content-length"]) == len(reply.body)
        assert reply.headers["vary"] == "Accept-Encoding"
        assert (gzip.decompress(reply.body) if wanted else reply.body) == plain.body
    assert (
        "content-encoding"
        not in server.get("/v1/devices/1/playlist.m3u8?to=1", Accept_Encoding="gzip").headers
    )


def test_a_playlist_has_an_end_exactly_when_it_was_given_one(world: World, server: Server) -> None:
    world.keep(*clips(20, start_ms=NOON_MS - 20 * CHUNK_MS))
    token = world.token()
    ended = server.get(f"/v1/devices/1/playlist.m3u8?from=0&to={NOON_MS + HOUR_MS}", token=token)
    assert ended.headers["content-type"] == "application/vnd.apple.mpegurl"
    assert ended.body.endswith(b"#EXT-X-ENDLIST\n")
    assert ended.body.count(b"#EXTINF") == 20
    for query in ("", f"?from={NOON_MS - HOUR_MS}"):
        live = server.get(f"/v1/devices/1/playlist.m3u8{query}", token=token).body
        assert b"ENDLIST" not in live
        assert live.count(b"#EXTINF") == 15
    uris = [line for line in ended.body.decode().splitlines() if not line.startswith("#")]
    for uri in uris[:3]:
        assert parse_qs(urlsplit(uri).query) == {"token": [token]}
        assert server.get(f"/v1/devices/1/{uri}", token=None).status == 200


@pytest.mark.parametrize("page", ["recordings", "playlist.m3u8", "clip.ts"])
def test_times_in_ms_or_as_people_write_them(world: World, server: Server, page: str) -> None:
    world.keep(*clips(10))
    path = f"/v1/devices/1/{page}"
    wanted = server.get(f"{path}?from={AT + 8000}&to={AT + 16_000}", token=(token := world.token()))
    assert wanted.status == 200
    for text in (
        "from=2026-07-06T11:00:08Z&to=2026-07-06T11:00:16Z",
        "from=2026-07-06T13:00:08.000%2B02:00&to=2026-07-06T11:00:16%2B00:00",
        "from=2026-07-06T13:00:08+02:00&to=2026-07-06T04:00:16-07:00",
        f"from=2026-07-06%2011:00:08Z&to={AT + 16_000}",
        "from=20260706T110008Z&to=20260706T110016Z",
    ):
        reply = server.get(f"{path}?{text}", token=token)
        assert (reply.status, reply.body) == (200, wanted.body), text
    day = server.get(f"{path}?from=2026-07-06&to=2026-07-07", token=token)
    assert day.body == server.get(f"{path}?from=0&to={NOON_MS}", token=token).body


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-07-06T11:00:08", "offset"),
        ("2026-13-06T11:00:08Z", "moment"),
        ("2026-07-06T25:00:08Z", "moment"),
        ("1969-12-31T23:59:59Z", "greater than or equal to 0"),
        ("yesterday", "query.from: write a moment as Unix ms, in digits, or like 2026-07-01T12:00:00Z"),
        ("1_0", "digits"),
        ("0001-01-01T00:00:00+14:00", ""),
    ],
)
def test_times_that_are_none_are_malformed(server: Server, text: str, said: str) -> None:
    for page in ("recordings", "playlist.m3u8", "clip.ts"):
        reply = server.get(f"/v1/devices/1/{page}?from={text}&to={NOON_MS}")
        refused(reply, 400, "malformed")
        assert said in reply.json["detail"], reply.json


def test_seconds_in_the_place_of_milliseconds_are_said(server: Server) -> None:
    for page in ("recordings", "playlist.m3u8", "clip.ts"):
        reply = server.get(f"/v1/devices/1/{page}?from={AT // 1000}&to={AT // 1000 + 60}")
        refused(reply, 400, "malformed")
        assert "looks like seconds" in reply.json["detail"], reply.json


def test_a_device_that_sends_mp4_only_is_in_playlists_and_in_no_stream(world: World, server: Server) -> None:
    world.keep(*[replace(clip, media=Media.MP4) for clip in clips(3)])
    for page in (f"playlist.m3u8?{ALL}", "playlist.m3u8"):
        assert server.get(f"/v1/devices/1/{page}").body.count(b".m4s?") == 3
    refused(server.get(f"/v1/devices/1/clip.ts?{ALL}"), 404, "only_mp4")
    assert server.get(f"/v1/devices/1/recordings?{ALL}").status == 200


def test_a_live_playlist_with_nothing_new_says_where_the_recordings_are(world: World, server: Server) -> None:
    world.keep(*clips(20))
    reply = server.get("/v1/devices/1/playlist.m3u8")
    place, _, rest = reply.headers["link"].partition(">; ")
    assert 'rel="alternate"' in rest
    found = server.get(place.removeprefix("<"))
    assert (found.status, found.body.count(b"#EXTINF")) == (200, 20)
    assert b"# nothing new since 2026-07-06T11:01:20.000Z" in reply.body
    world.keep(*clips(3, start_ms=NOON_MS - 3 * CHUNK_MS))
    world.clock.ms += 1000
    assert "link" not in server.get("/v1/devices/1/playlist.m3u8").headers
