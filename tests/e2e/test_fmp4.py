"""fMP4 and clips of a real ffmpeg, in and out: every picture that was encoded is shown, whatever came in."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import imageio_ffmpeg
import pytest

from tests.e2e import ffmpeg
from tests.e2e.browser import NATIVE, PLAYERS, chromium, needs_players, pages
from tests.e2e.service import Device, Service, until
from tests.e2e.test_browsers import SLACK, chunk_times, played, start, url

pytestmark = pytest.mark.e2e

FFMPEGS = {"wheel": imageio_ffmpeg.get_ffmpeg_exe(), "system": shutil.which("ffmpeg") or ""}
BARE_AAC = ("-bsf:a", "aac_adtstoasc")
"""What ffmpeg needs to copy the sound of a transport stream into MP4."""
needs_browser = pytest.mark.skipif(
    any(mark.args[0] for mark in needs_players), reason="needs a browser and hls.js"
)
FILM_S = 6
FRAMES = 25 * FILM_S
FMP4 = ("-f", "hls", "-hls_segment_type", "fmp4", "-method", "PUT", "-hls_time", "1", "-hls_list_size", "5")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ffmpeg.film(tmp_path_factory.mktemp("film") / "film.ts", seconds=FILM_S)


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with pages() as origin:
        yield origin


def camera(
    service: Service, device: Device, film: Path, *more: str, program: str = "", burst: bool = False
) -> subprocess.Popen[str]:
    """A camera that sends a film as fMP4, at its own pace or all at once."""
    host, port = service.ingest
    base = f"http://{device.number}:{device.token}@{host}:{port}/v1/devices/{device.number}/live"
    names = ("-hls_segment_filename", f"{base}/seg%05d.m4s", f"{base}/index.m3u8")
    return subprocess.Popen(
        [
            *(program or FFMPEGS["wheel"], "-nostdin", "-loglevel", "warning", *([] if burst else ["-re"])),
            *("-i", str(film), "-c", "copy", *BARE_AAC, *FMP4, *more, *names),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def sent(process: subprocess.Popen[str]) -> None:
    """Wait until a camera has sent all that it has."""
    _, said = process.communicate(timeout=ffmpeg.FFMPEG_S)
    assert process.returncode == 0, said


def send(service: Service, device: Device, film: Path, *more: str) -> None:
    """Send a film as fMP4, as a camera does."""
    sent(camera(service, device, film, *more))


def clips(
    service: Service, device: Device, folder: Path, recipe: list[str], *, at_ms: int, count: int
) -> None:
    """Send clips of a second, one after the other, as files."""
    for number in range(count):
        path = folder / f"clip{number}.mp4"
        source = (
            f"testsrc2=size=320x180:rate=25:duration=1,drawbox=x={number * 20}:w=20:h=20:color=red:t=fill"
        )
        sound = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=1", "-c:a", "aac")
        ffmpeg.run("-y", "-f", "lavfi", "-i", source, *sound, *recipe, str(path))
        reply = service.put(device, at_ms + 1000 * number, path.read_bytes())
        assert reply.status == 201, reply.body


def range_of(token: str) -> str:
    return f"from=0&to={int(time.time() * 1000) + 60_000}&token={token}"


def shown(service: Service, device: Device, token: str) -> list[str]:
    return ffmpeg.picture_hashes("-i", url(service, device, range_of(token)))


def test_fmp4_of_a_stock_ffmpeg_plays_whole(service: Service, film: Path) -> None:
    """Over connections of their own to any of three workers, or over one. A camera that was offline sends all that it
    has at once, and goes away without having read an answer."""
    if not all(FFMPEGS.values()):
        pytest.skip("needs the system's ffmpeg")
    ways = [(*way, burst) for way in product(FFMPEGS, "01") for burst in (False, True)]
    devices = dict(zip(ways, service.init().add_devices(len(ways)), strict=True))
    service.start(workers=3)
    for each in [
        camera(service, device, film, "-http_persistent", persistent, program=FFMPEGS[program], burst=burst)
        for (program, persistent, burst), device in devices.items()
    ]:
        sent(each)
    tokens = service.viewer_tokens(device.number for device in devices.values())
    pictures = ffmpeg.picture_hashes("-i", str(film))
    for way, device in devices.items():
        token = tokens[device.number]
        until(lambda: len(chunk_times(service, device, token)) == FILM_S, f"all is stored of {way}")  # noqa: B023
        text = service.get(f"/v1/devices/{device.number}/playlist.m3u8?{range_of(token)}").body.decode()
        assert "#EXT-X-VERSION:7\n" in text, way
        assert text.count("#EXT-X-MAP:") == 1, way
        if way[1:] == (
            "0",
            True,
        ):  # connections that come within milliseconds are dated as workers get to them
            continue
        assert "#EXT-X-DISCONTINUITY\n" not in text, way
        assert shown(service, device, token) == pictures, way
    first = chunk_times(service, device, token)[0]
    page = f"/v1/devices/{device.number}/chunks/{first}"
    init, raw = (service.get(f"{page}{end}", token=token) for end in (".init.mp4", ""))
    assert (init.status, raw.status) == (200, 200)
    assert init.body[4:8] == b"ftyp"
    assert b"moov" not in raw.body[:1000]
    assert service.stop() == 0


def test_a_service_that_is_started_anew_goes_on_with_the_fragments_that_come(
    service: Service, tmp_path: Path, film: Path
) -> None:
    (device,) = service.init().add_devices(1)
    service.start(workers=2)
    out = tmp_path / "hls"
    out.mkdir()
    ffmpeg.run(
        *("-i", str(film), "-c", "copy", *BARE_AAC, "-f", "hls", "-hls_segment_type", "fmp4"),
        *("-hls_time", "1"),
        *("-hls_list_size", "0", str(out / "x.m3u8")),
    )
    begin_ms = int(time.time() * 1000) - 10_000
    assert service.put(device, begin_ms, (out / "init.mp4").read_bytes()).status == 201
    for number in range(FILM_S):
        if number == FILM_S // 2:
            assert service.stop() == 0
            service.start(workers=2)
        reply = service.put(device, begin_ms + 1000 * number, (out / f"x{number}.m4s").read_bytes())
        assert reply.status == 201, reply.body
    token = service.viewer_token(device.number)
    assert shown(service, device, token) == ffmpeg.picture_hashes("-i", str(film))
    assert service.run("check", "--deep").returncode == 0


@needs_browser
def test_players_show_fmp4_clips_and_streams_in_one_playlist(tmp_path: Path, film: Path, origin: str) -> None:
    """An fMP4 camera, then clips of a camera that sends files, then MPEG-TS: each with its header, in one list."""
    with start(tmp_path, origin) as service:
        (device,) = service.add_devices(1)
        service.start()
        begin_ms = int(time.time() * 1000) - 60_000
        h264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-bf", "2", "-g", "25"]
        clips(service, device, tmp_path, h264, at_ms=begin_ms, count=3)
        send(service, device, film)
        host, port = service.ingest
        base = f"http://{device.number}:{device.token}@{host}:{port}/v1/devices/{device.number}/live"
        ts = [
            "-f",
            "hls",
            "-method",
            "PUT",
            "-hls_time",
            "1",
            "-http_persistent",
            "1",
            "-hls_segment_filename",
        ]
        sent(ffmpeg.camera(film, [*ts, f"{base}/seg%05d.ts", f"{base}/index.m3u8"]))
        token = service.viewer_token(device.number)
        until(lambda: len(chunk_times(service, device, token)) == 2 * FILM_S + 3, "all chunks are stored")
        frames = 2 * FRAMES + 75
        text = service.get(f"/v1/devices/{device.number}/playlist.m3u8?{range_of(token)}").body.decode()
        assert text.count("#EXT-X-MAP:") == 3, text
        with chromium() as browser:
            for number, player in enumerate(PLAYERS):
                page = browser.new_page()
                page.goto(f"{origin}/{number}")
                page.evaluate("([src, rate]) => play(src, rate)", [url(service, device, range_of(token)), 2])
                state = played(page, frames - SLACK)
                assert abs(state["frames"] - frames) <= SLACK, (player, state)
                assert state["said"] in ([], ["ended"]), (player, state)
                page.close()
        assert service.stop() == 0


@needs_browser
def test_players_show_pictures_without_sound_then_with_it_then_without(
    tmp_path: Path, film: Path, origin: str
) -> None:
    """A microphone that is switched on for a while: what a browser was set up for has to stay the same."""
    with start(tmp_path, origin) as service:
        (device,) = service.add_devices(1)
        service.start()
        token = service.viewer_token(device.number)
        for more in (["-an"], [], ["-an"]):
            send(service, device, film, "-http_persistent", "1", *more)
        until(lambda: len(chunk_times(service, device, token)) == 3 * FILM_S, "all chunks are stored")
        address = url(service, device, range_of(token))
        with chromium() as browser:
            for number, player in enumerate(PLAYERS):
                page = browser.new_page()
                for rate in (2, 1):
                    page.goto(f"{origin}/{number}")
                    page.evaluate("([src, rate]) => play(src, rate)", [address, rate])
                    state = played(page, 3 * FRAMES - SLACK)
                    if abs(state["frames"] - 3 * FRAMES) <= SLACK:
                        break
                print(player, state)
                assert abs(state["frames"] - 3 * FRAMES) <= SLACK, (player, state)
                assert state["said"] in ([], ["ended"]), (player, state)
                page.close()
        assert service.stop() == 0


@needs_browser
def test_players_follow_live_fmp4_through_a_restart(tmp_path: Path, film: Path, origin: str) -> None:
    with start(tmp_path, origin) as service:
        (device,) = service.add_devices(1)
        service.start()
        token = service.viewer_token(device.number)
        with chromium() as browser:
            shown = [browser.new_page() for _ in PLAYERS]
            for number, page in enumerate(shown):
                page.goto(f"{origin}/{number}")
                page.evaluate("src => { play(src, 1) }", url(service, device, f"token={token}"))
            send(service, device, film)
            send(service, device, film)
            for player, page in zip(PLAYERS, shown, strict=True):
                least = FRAMES if player == NATIVE else 2 * FRAMES - 25 - SLACK
                state = played(page, least)
                assert state["said"] == [], (player, state)
                assert state["frames"] >= least, (player, state)
        text = service.get(f"/v1/devices/{device.number}/playlist.m3u8", token=token).body.decode()
        assert text.count("#EXT-X-DISCONTINUITY\n") == 1, text
        assert service.stop() == 0


def test_h265_in_a_transport_stream_goes_out_as_hvc1(service: Service, tmp_path: Path) -> None:
    (device,) = service.init().add_devices(1)
    service.start()
    film = tmp_path / "film.ts"
    x265 = "log-level=error:keyint=25:min-keyint=25"
    ffmpeg.run(
        *(
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=320x180:rate=25:duration=4",
            "-c:v",
            "libx265",
            "-preset",
            "ultrafast",
        ),
        *("-pix_fmt", "yuv420p", "-x265-params", x265, "-f", "mpegts", str(film)),
    )
    out = tmp_path / "cut"
    out.mkdir()
    ffmpeg.run(
        "-i",
        str(film),
        "-c",
        "copy",
        "-f",
        "hls",
        "-hls_time",
        "1",
        "-hls_list_size",
        "0",
        str(out / "x.m3u8"),
    )
    begin_ms = int(time.time() * 1000) - 10_000
    for number in range(4):
        assert (
            service.put(device, begin_ms + 1000 * number, (out / f"x{number}.ts").read_bytes()).status == 201
        )
    token = service.viewer_token(device.number)
    assert shown(service, device, token) == ffmpeg.picture_hashes("-i", str(film))
    page = f"/v1/devices/{device.number}/chunks/{begin_ms}.map.mp4"
    assert b"hvc1" in service.get(page, token=token).body
