"""A service that nobody has used yet: its pages say how to get to the first picture, and each command that they give
runs as it stands there."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path

import pytest

from tests.e2e import ffmpeg
from tests.e2e.customers import Town
from tests.e2e.plain_browser import Browser
from tests.e2e.service import Service, until
from tests.e2e.test_log_ins import Today

pytestmark = pytest.mark.e2e

OWNER = "ada@example.org"
CODE = re.compile(r"\b[0-9A-Z]{4}(?:-[0-9A-Z]{4}){2}\b")


def commands(page: str) -> list[str]:
    """Each line of the page's commands."""
    found = re.findall(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL)
    return [html.unescape(line) for text in found for line in text.splitlines()]


def ran(service: Service, line: str, **known: str) -> str:
    """What a command prints, with what is known in the place of words in capitals."""
    for name, value in known.items():
        line = line.replace(name.replace("_", "-"), value)
    words = shlex.split(line)
    assert words[0] == "clipkeep"
    done = service.run(*words[1:])
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


def test_from_an_empty_service_to_the_first_picture(service: Service, tmp_path: Path) -> None:
    service.init()
    town: Town = Today(service)
    browser = Browser(service.api)
    front = browser.get("/")
    assert "This service is new" in front
    add, make = commands(front)
    assert (add, make) == tuple(commands(browser.get("/log-in/operator")))
    ran(service, add, YOUR_NAME="eve")
    token = re.findall(r"cko_[A-Za-z0-9_-]+", ran(service, make, YOUR_NAME="eve"))[0]
    assert browser.send("/log-in/operator", token=token) == 303

    account, activate, reset, camera, line = commands(browser.get("/operator"))
    printed = ran(service, account, **{"OWNER@EXAMPLE.ORG": OWNER, "NAME": "Ada"})
    number = re.findall(r"\d+", printed)[0]
    code = CODE.search(town.read_mail(OWNER, "activation code"))
    assert code is not None
    ran(service, activate, ACCOUNT=number, CODE=code[0])
    ran(service, reset, ACCOUNT=number)
    town.read_mail(OWNER, "password")
    added = service.command(*shlex.split(camera.replace("ACCOUNT", number))[1:])
    until(lambda: "A camera is there" in browser.get("/operator"), "the page knows of it")
    assert "This service is new" not in Browser(service.api).get("/")

    host, port = service.ingest
    line = re.sub(r"\bCAMERA\b(?!-)", str(added["device"]), line).replace("TOKEN", added["token"])
    line = line.replace("127.0.0.1:8080", f"{host}:{port}")
    film = ffmpeg.film(tmp_path / "film.ts", seconds=8, keyframe_s=2)
    assert "-rtsp_transport tcp -i rtsp://CAMERA-ADDRESS/" in line
    words = shlex.split(line.replace("-rtsp_transport tcp -i rtsp://CAMERA-ADDRESS/", f"-re -i {film}"))
    ffmpeg.run(*words[1:])
    until(lambda: "Three steps" not in browser.get("/operator"), "the first picture is there")
