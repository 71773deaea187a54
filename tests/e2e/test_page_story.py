"""An owner's way through the pages, from registration to the end: a real browser and camera, a clock that is moved."""

from __future__ import annotations

import re
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import ffmpeg
from tests.e2e.browser import asked_elsewhere, chromium, needs_players
from tests.e2e.customers import PASSWORD, Town
from tests.e2e.service import Service, until

pytestmark = [pytest.mark.e2e, pytest.mark.long, *needs_players[:1]]

ADA = "ada@example.org"
FILM_S = 20
PICTURE_S = 15.0
"""From the start of a camera until its picture can be seen."""


def submit(page: Any, name: str) -> None:
    """Press a button that sends a form, and wait for what comes."""
    with page.expect_navigation():
        page.get_by_role("button", name=name, exact=True).click()


def text_of(page: Any) -> str:
    return str(page.locator("main").inner_text())


def register(page: Any, town: Town, home: str) -> None:
    page.goto(f"{home}/register")
    page.fill("[name=name]", "Ada")
    page.fill("[name=email]", ADA)
    page.fill("[name=password]", PASSWORD)
    page.check("[name=accepts]")
    submit(page, "Register")
    code = re.search(r"\b[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}\b", town.read_mail(ADA, "activation code"))
    assert code is not None
    page.fill("[name=code]", code[0])
    submit(page, "Activate")
    log_in(page, home)


def log_in(page: Any, home: str) -> None:
    page.goto(f"{home}/log-in")
    page.fill("[name=login]", ADA)
    page.fill("[name=password]", PASSWORD)
    submit(page, "Log in")


def add_camera(page: Any, home: str) -> tuple[int, str]:
    """Its number and its token, which the page shows once."""
    page.goto(f"{home}/cameras/new")
    submit(page, "Add it")
    number = int(re.search(r"/cameras/(\d+)/", page.url)[1])  # type: ignore[index]
    token = str(page.locator("#token").inner_text()).strip()
    assert token in page.locator("#line").inner_text()
    assert page.locator("figure.qr svg").count() == 1
    page.goto(f"{home}/cameras/{number}/set-up")
    assert token not in page.content(), "only the address that was opened by adding it shows it"
    return number, token


def buy_annual(page: Any, home: str, number: int) -> None:
    page.goto(f"{home}/cameras/{number}/plan")
    offers = text_of(page)
    assert "a month" in offers, offers
    assert "for 12 months" in offers, offers
    page.get_by_role("link", name="Choose annual").click()
    page.check("[name=accepts]")
    page.locator("main button").last.click()
    page.wait_for_url(re.compile(rf"/cameras/{number}/plan"))
    assert "Paid until" in text_of(page)


def spans(page: Any) -> int:
    return int(page.locator("[data-spans] rect").count())


def frames(page: Any) -> int:
    return int(page.evaluate("document.querySelector('video').getVideoPlaybackQuality().totalVideoFrames"))


def video_time(page: Any) -> float:
    return float(page.evaluate("document.querySelector('video').currentTime"))


def mark_all(page: Any) -> None:
    """A range from the first recording of the day to a minute after it."""
    page.evaluate(
        "document.querySelector('video').pause()"
    )  # at eight times its pace it is elsewhere in no time
    page.locator("[data-timeline]").focus()
    page.keyboard.press("Home")
    page.get_by_role("button", name="Begins here").click()
    begin = page.locator("[data-from]").input_value()
    end = page.evaluate(
        "text => { const d = new Date(Date.parse(text) + 60000 - new Date().getTimezoneOffset() * 60000);"
        " return d.toISOString().slice(0, 19) }",
        begin,
    )
    page.locator("[data-to]").fill(end)
    with page.expect_navigation():
        page.get_by_role("button", name="Go on").click()


def share(page: Any) -> str:
    """A link for the range that is marked, which the page shows once."""
    page.locator("[name=hours]").select_option("24")
    submit(page, "Make a link")
    link = str(page.locator("#link").inner_text()).strip()
    page.goto(page.url.partition("?")[0])
    assert page.locator("#link").count() == 0
    assert "Can be used" in text_of(page)
    return link


def watch_as_a_stranger(browser: Any, page: Any, home: str, number: int, link: str) -> None:
    """A link in a browser that knows nothing of its owner: it plays, shows nothing else, and its end is told.

    Args:
        page: the owner's, at the links.
    """
    context = browser.new_context(timezone_id="UTC")
    stranger = context.new_page()
    answer = stranger.goto(link)
    assert answer.status == 200
    assert context.cookies() == []
    until(lambda: spans(stranger) > 0, "the shared range is drawn")
    stranger.get_by_role("button", name="Play").click()
    until(lambda: frames(stranger) > 50 and video_time(stranger) > 1, "the shared range plays")

    shown = text_of(stranger)
    assert f"Camera {number}" not in shown, "a link tells no name"
    assert "Ada" not in stranger.content()
    assert stranger.locator("[data-do=live], [data-days], [data-range]").count() == 0
    inside = [
        url for url in stranger.eval_on_selector_all("a", "all => all.map(a => a.href)") if "/cameras" in url
    ]
    assert inside == []
    token = link.rpartition("/")[2]
    device = f"{home}/v1/devices/{number}"
    assert "#EXT-X-ENDLIST" in context.request.get(f"{device}/playlist.m3u8?token={token}").text(), (
        "nothing live"
    )
    outside = context.request.get(f"{device}/playlist.m3u8?from=1000&to=2000&token={token}")
    assert "chunks/" not in outside.text()
    for path in ("clip.mp4?from=1000&to=2000", "still.jpg?at=1000&width=240", "clip.ts?from=1000&to=2000"):
        refused = context.request.get(f"{device}/{path}&token={token}")
        assert not refused.ok, (path, refused.status)
    for path in (f"/cameras/{number}", "/cameras", "/account"):
        stranger.goto(home + path)
        assert "/log-in" in stranger.url, path

    page.reload()
    assert "1 times" in text_of(page) or "0 times" in text_of(page)
    submit(page, "End this link")
    assert "It shows nothing any more" in text_of(page)
    until(lambda: stranger.goto(link).status != 200, "the link has ended")
    assert "This link has ended" in stranger.get_by_role("alert").inner_text()
    assert stranger.locator("video").count() == 0
    context.close()


def test_from_registration_to_the_end(service: Service, tmp_path: Path) -> None:
    film = ffmpeg.film(tmp_path / "film.ts", seconds=FILM_S)
    now = time.gmtime()
    today = date(now.tm_year, now.tm_mon, now.tm_mday)
    service.init("--test-clock")
    town = Town(service, today)
    town.move_to(today, 12.0)
    home = f"http://{service.api[0]}:{service.api[1]}"
    with chromium() as browser:
        context = browser.new_context(timezone_id="UTC", accept_downloads=True)
        page = context.new_page()
        said: list[str] = []
        page.on("pageerror", lambda error: said.append(str(error)))
        elsewhere = asked_elsewhere(context, home)

        register(page, town, home)
        number, token = add_camera(page, home)
        buy_annual(page, home, number)

        host, port = service.ingest
        base = f"http://{number}:{token}@{host}:{port}/v1/devices/{number}/live"
        hls = ("-f", "hls", "-method", "PUT", "-hls_time", "2", "-http_persistent", "1")
        begun_s = time.monotonic()
        camera = ffmpeg.camera(film, [*hls, "-hls_segment_filename", f"{base}/a%05d.ts", f"{base}/a.m3u8"])
        try:
            page.goto(f"{home}/cameras/{number}")
            while not spans(page):
                assert time.monotonic() < begun_s + PICTURE_S, text_of(page)
                time.sleep(1)
                page.reload()
            page.get_by_role("button", name="Live").click()
            until(lambda: frames(page) > 25, "live pictures are shown")
            assert time.monotonic() < begun_s + PICTURE_S
        finally:
            camera.communicate(timeout=ffmpeg.FFMPEG_S)

        page.goto(f"{home}/cameras/{number}")
        until(lambda: spans(page) > 0, "the timeline is drawn")
        page.locator("[data-timeline]").focus()
        page.keyboard.press("Home")
        page.get_by_role("button", name="Play", exact=True).click()
        until(lambda: frames(page) > 50 and video_time(page) > 1, "the recording plays")
        page.locator("[data-do=speed]").select_option("8")
        until(lambda: video_time(page) > 10, "it plays at eight times its pace")

        box = page.locator("[data-timeline]").bounding_box()
        bar = page.locator("[data-spans] rect").first.bounding_box()
        page.mouse.move(bar["x"] + bar["width"] / 2, box["y"] + box["height"] / 2)
        shown = "document.querySelector('[data-preview] img').naturalWidth"
        until(lambda: page.evaluate(shown) > 0, "the still under the pointer is shown")

        mark_all(page)
        with page.expect_download() as download:
            page.get_by_role("link", name="MP4", exact=True).click()
        path = tmp_path / "clip.mp4"
        download.value.save_as(path)
        # The page's range begins at a whole second, so with the chunk before it or without.
        assert len(ffmpeg.picture_hashes("-i", str(path))) >= 25 * (FILM_S - 4)

        watch_as_a_stranger(browser, page, home, number, share(page))

        page.goto(f"{home}/cameras/{number}/plan")
        page.get_by_role("link", name=re.compile("Cancel this plan")).click()
        both = text_of(page)
        assert "If you keep it" in both
        assert "If you cancel it now" in both
        assert both.count("You get back") == 2
        page.check("[name=sure]")
        submit(page, "Cancel the plan")
        assert "cancelled" in text_of(page).lower()
        assert "UTC" in town.read_mail(ADA, "cancelled")

        later = date(today.year + 1, today.month, min(today.day, 28))
        town.move_to(later)
        log_in(page, home)  # a log-in ends before a year has passed
        page.goto(f"{home}/cameras/{number}")
        assert "Nothing plays" in text_of(page)
        assert page.locator("[data-player]").count() == 0

        page.goto(f"{home}/account/close")
        page.check("[name=sure]")
        submit(page, "Ask for the end of the account")
        operator = town.operator()
        account = int(operator.get(f"/v1/accounts?address={ADA}")["items"][0]["account"])
        said_yes = operator.ask("POST", f"/v1/accounts/{account}/cancellation/approval", {})
        assert said_yes.status in (200, 201), said_yes
        until(
            lambda: operator.get(f"/v1/accounts/{account}")["state"] == "cancelled", "the account has ended"
        )
        log_in(page, home)
        assert "/log-in" in page.url
        assert page.get_by_role("alert").count() == 1

        assert (said, elsewhere) == ([], [])
        context.close()
