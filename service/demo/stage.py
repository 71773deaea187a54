"""What the acts share: the cameras, the service, the show."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from service.demo.cameras import Ffmpeg, Footage, Picture
from service.demo.processes import Clipkeep
from service.demo.show import Show
from service.demo.simulator import Chunk, Denied, Simulator
from service.demo.viewer import Viewer
from service.demo.wire import Response
from storage.errors import WorldError


@dataclass(slots=True)
class Camera:
    """One camera of the demo. `footage` is what it encoded, None until it has."""

    picture: Picture
    device: int
    token: str = field(repr=False)
    viewer_token: str = field(default="", repr=False)
    footage: Footage | None = None

    @property
    def name(self) -> str:
        return f"{self.device} {self.picture.place}"

    def filmed(self) -> Footage:
        """What it encoded, once it has."""
        assert self.footage is not None, f"camera {self.name} has not filmed yet"
        return self.footage


@dataclass(slots=True)
class Stage:
    """The cameras by their parts in the story; times are Unix milliseconds of the test clock."""

    show: Show
    clipkeep: Clipkeep
    ffmpeg: Ffmpeg
    folder: Path
    seconds: int
    catalog: str = "sqlite"
    vault: str = "folder"
    """The addresses of its catalog and its vault."""
    live: list[Camera] = field(default_factory=list)
    """Stock ffmpegs that push."""
    simulated: list[Camera] = field(default_factory=list)
    """Device simulators with annual plans, which stay to the end."""
    ended: Camera | None = None
    """Annual plan, terminated by the operator."""
    trial: Camera | None = None
    """Its plan lapses."""
    first_from_ms: int = 0
    first_to_ms: int = 0
    """The time of the first recording, in which every camera filmed."""

    @property
    def staying(self) -> list[Camera]:
        return [*self.live, *self.simulated]

    @property
    def leaving(self) -> list[Camera]:
        return [camera for camera in (self.ended, self.trial) if camera is not None]

    @property
    def cameras(self) -> list[Camera]:
        return [*self.staying, *self.leaving]

    def viewer(self, camera: Camera) -> Viewer:
        return Viewer(self.clipkeep.api, camera.device, camera.viewer_token)

    def simulator(self, camera: Camera) -> Simulator:
        return Simulator(self.clipkeep.ingest, camera.device, camera.token)

    async def look(self, camera: Camera) -> Response:
        """Ask for the playlist of the first recording with the camera's viewer token."""
        return await self.viewer(camera).playlist(self.first_from_ms, self.first_to_ms)

    async def upload(self, camera: Camera, *, token: str | None = None) -> str:
        """Try to upload one chunk captured just now. Returns the answer, status and code."""
        duration_ms = 2000
        chunk = Chunk(self.clipkeep.now_ms() - duration_ms, duration_ms, camera.filmed().chunks[0])
        simulator = Simulator(self.clipkeep.ingest, camera.device, camera.token if token is None else token)
        try:
            return str(await simulator.send(chunk))
        except Denied as denied:
            return str(denied.response)

    async def play(self, cameras: Sequence[Camera], what: str) -> None:
        """Play the first recording of each camera through HLS, and compare every decoded frame."""
        same: dict[str, int] = {}
        wrong: list[str] = []
        cores = trio.CapacityLimiter(os.cpu_count() or 1)

        async def play_one(camera: Camera) -> None:
            async with cores:
                frames = camera.filmed().frames
                url = self.viewer(camera).playlist_url(self.first_from_ms, self.first_to_ms)
                try:
                    seen = await self.ffmpeg.frame_hashes(url)
                except WorldError as error:
                    self.show.say(f"camera {camera.name}: {error}")
                    seen = []
                same[camera.name] = sum(a == b for a, b in zip(frames, seen, strict=False))
                if seen != list(frames):
                    wrong.append(f"{camera.name}: {same[camera.name]} of {len(frames)}, {len(seen)} came")

        async with trio.open_nursery() as nursery:
            for camera in cameras:
                nursery.start_soon(play_one, camera)
        total = sum(len(camera.filmed().frames) for camera in cameras)
        seen_text = "; ".join(wrong) or f"{sum(same.values())} of {total} frames"
        self.show.check(what, f"{total} frames as encoded", seen_text, not wrong and total > 0)
