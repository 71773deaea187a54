"""Players as people have them: hls.js in two versions and the browser's own, in a real Chromium without a window."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers.given_files import given_files

HLS_JS = {"hls.js": "hls-newest", "hls.js of 2023": "hls-older"}
"""The players of `tests/players/package.json`, by what tests call them."""
NATIVE = "Chromium's own"
PLAYERS = (*HLS_JS, NATIVE)
MODULES = Path(__file__).parents[1] / "players" / "node_modules"
CHROMIUM = os.environ.get("CLIPKEEP_TEST_CHROMIUM") or shutil.which("chromium") or ""
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required"),
    "--disable-background-timer-throttling",
    # The network is closed: no name is found, for pages have to do without anything from elsewhere.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)

needs_players = [
    pytest.mark.skipif(not CHROMIUM, reason="needs a browser: apt-get install chromium"),
    pytest.mark.skipif(
        not all((MODULES / name).is_dir() for name in HLS_JS.values()),
        reason="needs hls.js: npm ci --prefix tests/players",
    ),
]

AXE = MODULES / "axe-core" / "axe.min.js"
needs_axe = [
    needs_players[0],
    pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: npm ci --prefix tests/players"),
]
SCREENSHOTS = os.environ.get("CLIPKEEP_TEST_SCREENSHOTS", "")
"""Where pictures of pages are put; nowhere unless it is said."""
WIDTHS = {"phone": 390, "desk": 1280, "least": 320}

PAGE = """<!doctype html><video id=v muted playsinline crossorigin=anonymous></video>
<script src="/{module}.js"></script><script>
const v = document.getElementById('v'), said = [];
v.addEventListener('error', () => said.push('error ' + v.error.message));
v.addEventListener('ended', () => said.push('ended'));
function play(src, rate) {{
  if (!window.Hls) {{ v.src = src; }} else {{
    const hls = new Hls();
    hls.on(Hls.Events.ERROR, (_, d) => {{ if (d.fatal) said.push('error ' + d.details); }});
    hls.loadSource(src); hls.attachMedia(v);
  }}
  v.defaultPlaybackRate = v.playbackRate = rate; v.play().catch(() => {{}});
}}
const state = () => ({{ frames: v.getVideoPlaybackQuality().totalVideoFrames, at_s: v.currentTime, said,
  buffered: [...Array(v.buffered.length).keys()].map(i => [v.buffered.start(i), v.buffered.end(i)]) }});
</script>"""


@contextmanager
def pages() -> Iterator[str]:
    """A page for each player, at `/{player's place in PLAYERS}`; the origin of the server that gives them."""

    def of(path: str) -> tuple[bytes, str]:
        name = path.strip("/")
        if name.endswith(".js"):
            file = MODULES / name.removesuffix(".js") / "dist" / "hls.min.js"
            return file.read_bytes() if file.is_file() else b"", "text/javascript"
        module = HLS_JS.get(PLAYERS[int(name)], "none") if name.isdigit() else "none"
        return PAGE.format(module=module).encode(), "text/html"

    with given_files(of) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser, of playwright's synchronous kind."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def asked_elsewhere(context: Any, home: str) -> list[str]:
    """What pages of a context ask for that is not at `home`, from now on."""
    found: list[str] = []
    own = (f"{home}/", f"blob:{home}/", "data:")
    context.on("request", lambda request: request.url.startswith(own) or found.append(request.url))
    return found


def looked_at(page: Any, name: str, url: str) -> None:
    """Open a page at each of WIDTHS, with all that is folded away: none is wider than the screen, and axe finds nothing
    serious. The page's context bypasses the policy, for axe is a script of ours."""
    for where, width in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": 844})
        page.goto(url)
        for summary in page.locator("summary").all():
            summary.click()
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS, f"{name}-{where}.png"), full_page=True)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{url} is {wide} px wide at {width}"
        page.add_script_tag(path=str(AXE))
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        grave = [
            (each["id"], node["html"][:200])
            for each in found["violations"]
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]
        assert grave == [], (url, width)
