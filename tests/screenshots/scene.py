"""What is there when the pictures are taken: two owners, a month of recordings, and a day with gaps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from uuid import uuid4

from tests.e2e import ffmpeg
from tests.e2e.customers import Camera, Customer, Town
from tests.e2e.service import Service, until

CHUNK_S = 60
EARLIER = (31, 30, 12, 5, 2)
"""Days ago on which something was recorded, too; the oldest ones have expired, and are not swept yet."""
NOW_HOUR = 14.0
SPANS = ((6, 50, 8, 40), (9, 5, 11, 20), (12, 10, 13, 58))
"""When the camera recorded today: from hour and minute to hour and minute."""
SENDERS = 8


class Scene:
    """Everything by name; the clock stands at NOW_HOUR of a day a month after the first one."""

    def __init__(self, service: Service, folder: Path) -> None:
        service.init("--test-clock")
        first = datetime.now(UTC).date()
        self.today = first + timedelta(days=EARLIER[0])
        self.town = Town(service, first)
        self.service = service
        self.ada, self.bob = self._owner("ada"), self._owner("bob")
        self.door, self.garden = self._camera(self.ada, "Front door"), self._camera(self.ada, "Garden")
        self.garage = self._camera(self.bob, "Garage")
        self.ada.buy(self.door, "annual")
        self.ada.buy(self.garden, "monthly")
        self.bob.once(f"/v1/devices/{self.garage.number}/trial")
        self.chunk = _chunk(folder)
        for ago in EARLIER:
            self._record(self.today - timedelta(days=ago), ((11, 0, 11, 10),))
        self.town.renew()
        self._record(self.today, SPANS)
        self.town.move_to(self.today, NOW_HOUR)
        self.ada, self.bob = (self.town.log_in(f"{name}@example.org") for name in ("ada", "bob"))
        door = f"/v1/devices/{self.door.number}"
        kept = {"from": self.at_ms(12, 30), "to": self.at_ms(12, 50), "name": "The fox"}
        said = self.ada.ask("POST", f"{door}/clips", kept, uuid4().hex)
        assert said.status == 201, said
        said = self.ada.ask("DELETE", f"{door}/recordings?from={self.at_ms(7, 30)}&to={self.at_ms(7, 50)}")
        assert said.status == 200, said
        until(
            lambda: (self.ada.get(door)["seen_ms"] or 0) >= self.at_ms(0, 0),
            "it is known when it was seen",
        )
        asked = self.bob.ask("POST", f"{self.bob.home}/cancellation", {"reason": "moving away"})
        assert asked.status == 202, asked

    def at_ms(self, hour: int, minute: int) -> int:
        """Of today."""
        return _at_ms(self.today, hour, minute)

    def operator_token(self) -> str:
        self.service.command("operator", "add", "--name", "ann", "--role", "admin")
        return str(self.service.command("operator", "token", "--name", "ann")["token"])

    def _owner(self, name: str) -> Customer:
        return self.town.move_in(f"{name}@example.org")

    def _camera(self, owner: Customer, name: str) -> Camera:
        camera = owner.add_camera()
        said = owner.ask("PATCH", f"/v1/devices/{camera.number}", {"name": name})
        assert said.status == 200, said
        return camera

    def _record(self, day: date, spans: tuple[tuple[int, int, int, int], ...]) -> None:
        self.town.move_to(day, NOW_HOUR)
        times = [
            at_ms
            for hour, minute, end_hour, end_minute in spans
            for at_ms in range(_at_ms(day, hour, minute), _at_ms(day, end_hour, end_minute), CHUNK_S * 1000)
        ]
        first = self.today - timedelta(days=EARLIER[0])  # the trial of the garage runs then
        cameras = [self.door, self.garage] if day == first else [self.door]

        def send(at_ms: int) -> None:
            for camera in cameras:
                reply = self.service.put(camera.device, at_ms, self.chunk)
                assert reply.status == 201, reply

        with ThreadPoolExecutor(SENDERS) as pool:
            list(pool.map(send, times))


def _at_ms(day: date, hour: int, minute: int) -> int:
    return int(datetime.combine(day, time(hour, minute), UTC).timestamp() * 1000)


def _chunk(folder: Path) -> bytes:
    """A minute of pictures and sound."""
    path = folder / "minute.ts"
    ffmpeg.run(
        *("-f", "lavfi", "-i", f"testsrc2=size=640x360:rate=15:duration={CHUNK_S}"),
        *("-f", "lavfi", "-i", f"sine=frequency=330:sample_rate=48000:duration={CHUNK_S}"),
        *("-c:v", "libx264", "-preset", "veryfast", "-crf", "36", "-g", "60", "-pix_fmt", "yuv420p"),
        *("-c:a", "aac", "-b:a", "32k", "-f", "mpegts", str(path)),
    )
    return path.read_bytes()
