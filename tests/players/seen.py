"""Players, and how much of a playlist each has shown."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import imageio_ffmpeg

from tests.e2e.browser import PLAYERS as BROWSERS

WAIT_S = 60.0
"""Longest that one player may take over one playlist."""
STILL_S = 6.0
"""A player that shows nothing new for so long has ended, or is stuck."""


@dataclass(frozen=True)
class Seen:
    """What a player has shown: pictures that it decoded, seconds that it played, and what it said of errors."""

    frames: int
    played_s: float
    said: str = ""


def by_ffmpeg(executable: str, url: str) -> Seen:
    """Decode all of it. `played_s` is the end of what was decoded."""
    command = [executable, "-hide_banner", "-nostdin", "-i", url, "-map", "0", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    frames = re.findall(r"frame=\s*(\d+)", done.stderr)
    times = re.findall(r"time=(\d+):(\d+):([\d.]+)", done.stderr)
    hours, minutes, seconds = times[-1] if times else (0, 0, 0)
    errors = [line for line in done.stderr.splitlines() if "rror" in line]
    played_s = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    return Seen(int(frames[-1]) if frames else 0, played_s, errors[0] if errors else "")


def by_vlc(url: str) -> Seen:
    """Play it at its own pace, and ask for the counters. VLC refuses to run as root."""
    command = [
        *("cvlc", "-I", "oldrc", "--rc-fake-tty", "--no-color", "--vout", "vdummy", "--aout", "adummy"),
        *("--no-lua", "--no-video-title-show", url),
    ]
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o777)
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"HOME": home, "PATH": os.environ["PATH"], "LC_ALL": "C"},
        )
        assert process.stdin is not None
        begun_s = time.monotonic()
        try:
            while process.poll() is None and time.monotonic() < begun_s + WAIT_S / 2:
                for line in ("stats", "get_time"):
                    process.stdin.write(line + "\n")
                process.stdin.flush()
                time.sleep(0.2)
        except BrokenPipeError:
            pass
        finally:
            process.terminate()
        text, _ = process.communicate(timeout=WAIT_S)
    # It counts each picture twice, once as a whole packet. Those "displayed" lack the last second: the counters go
    # with the input, before these are shown.
    pictures = [int(number) // 2 for number in re.findall(r"video decoded\s*:\s*(\d+)", text)]
    sounds = [int(number) for number in re.findall(r"audio decoded\s*:\s*(\d+)", text)]
    clock = [int(number) for number in re.findall(r"^(?:> )*(\d+)\s*$", text, re.M)]
    said = next((line for line in text.splitlines() if "main error" in line or "cannot" in line), "")
    played_s = float(max(clock, default=0)) if sounds and max(sounds) else 0.0
    return Seen(max(pictures, default=0), played_s, said)


PICTURE_BYTES = 320 * 180 * 3 // 2
"""Of a decoded picture of `inputs.encoded`, in I420."""


def by_gstreamer(url: str) -> Seen:
    """Decode all of it into a file; `played_s` is from the first buffer of sound to the last."""
    with tempfile.NamedTemporaryFile(prefix="pictures-") as file:
        sinks = (
            f"video-sink=filesink location={file.name}",
            "audio-sink=fakesink name=sounds silent=false sync=false",
        )
        command = ["gst-launch-1.0", "-v", "playbin3", f"uri={url}", "flags=0x3", *sinks]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
        pictures = os.stat(file.name).st_size // PICTURE_BYTES
    sounds = [line for line in done.stdout.splitlines() if "chain" in line and "sounds:sink" in line]
    stamps = [re.search(r"pts: (\d+):(\d+):([\d.]+)", line) for line in sounds]
    ends = [3600 * int(m[1]) + 60 * int(m[2]) + float(m[3]) for m in stamps if m]
    said = next((line for line in (done.stdout + done.stderr).splitlines() if line.startswith("ERROR")), "")
    return Seen(pictures, max(ends, default=0.0) - min(ends, default=0.0), said)


def by_browser(browser: Any, origin: str, number: int, url: str) -> Seen:
    """Play it at twice its pace, until its end, or until nothing moves any more.

    Args:
        browser: of `tests.e2e.browser.chromium`.
        origin: of `tests.e2e.browser.pages`.
        number: the player's place in `tests.e2e.browser.PLAYERS`.
    """
    page = browser.new_page()
    page.goto(f"{origin}/{number}")
    page.evaluate("([src, rate]) => play(src, rate)", [url, 2])
    begun_s = moved_s = time.monotonic()
    state: dict[str, Any] = {}
    while time.monotonic() < min(begun_s + WAIT_S, moved_s + STILL_S):
        now = page.evaluate("state()")
        if (now["at_s"], now["frames"]) != (state.get("at_s"), state.get("frames")):
            moved_s = time.monotonic()
        state = now
        if state["said"]:
            break
        time.sleep(0.1)
    page.close()
    said = [text for text in state["said"] if text != "ended"]
    return Seen(state["frames"], state["at_s"], "; ".join(said))


def programs() -> Mapping[str, Callable[[str], Seen]]:
    """The players that are no browser, by what the table calls them: those that are installed."""
    newest = imageio_ffmpeg.get_ffmpeg_exe()
    found: dict[str, Callable[[str], Seen]] = {"ffmpeg": lambda url: by_ffmpeg(newest, url)}
    system = shutil.which("ffmpeg")
    if system:
        found["Debian's ffmpeg"] = lambda url: by_ffmpeg(system, url)
    if shutil.which("cvlc"):
        found["VLC"] = by_vlc
    if shutil.which("gst-launch-1.0"):
        found["GStreamer"] = by_gstreamer
    return found


COLUMNS = ("ffmpeg", "Debian's ffmpeg", "VLC", "GStreamer", *BROWSERS)
