"""SIGKILLs at random under load: of the service, of its PostgreSQL and of its S3 server, each of which stays away for a
while. What was acknowledged is there afterwards, and nobody had to do anything but start again what was killed.

The service is started again as systemd does (`Restart=on-failure`): until it serves, also while what it needs is away.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import pytest

from service.demo.ports import free_ports
from tests.e2e import ffmpeg
from tests.e2e.load import Acknowledged, Load, Uploader, assert_all_kept
from tests.e2e.service import COMMAND_S, CommandFailed, Service, resident_bytes, until
from tests.servers.postgres import PostgresServer
from tests.servers.seaweed import SeaweedServer

BUCKET = "violence"
CLIENTS = 12
SCENES, SCENE_MS = 40, 1000
"""Chunks of the film, each with other bytes."""
RESTART_S = 2.0
"""As `RestartSec` in deploy/systemd/clipkeep.service."""
HEAL_S = 90.0
"""Longest from the return of all that was killed until every client had a chunk acknowledged. The machine may do other
things too: it takes some seconds."""
MOST_WORKER_BYTES = 512 << 20
"""For a worker with a budget of `BUDGET_BYTES`: see *Memory of a worker* in docs/operations.md."""
BUDGET_BYTES = 64 << 20


@dataclass
class Wounds:
    """What a run was like."""

    seed: int
    kills: list[str] = field(default_factory=list)
    healed_s: list[float] = field(default_factory=list)
    most_worker_bytes: int = 0
    unready: set[str] = field(default_factory=set)
    """What `/readyz` named."""

    def tell(self, text: str) -> None:
        print(f"[seed {self.seed}] {text}", file=sys.stderr, flush=True)


def film_chunks(folder: Path) -> list[bytes]:
    """Chunks of a second, as ffmpeg's segmenter makes them."""
    whole = ffmpeg.film(folder / "film.ts", seconds=SCENES)
    ffmpeg.run(
        *("-i", str(whole), "-c", "copy", "-map", "0", "-f", "segment", "-segment_time", "1"),
        *("-segment_format", "mpegts", str(folder / "scene-%03d.ts")),
    )
    scenes = [path.read_bytes() for path in sorted(folder.glob("scene-*.ts"))]
    assert len(scenes) >= SCENES
    return scenes


class Watch:
    """Looks at readiness and memory twice a second for the time of a `with` block."""

    def __init__(self, service: Service, wounds: Wounds) -> None:
        self._service = service
        self._wounds = wounds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(COMMAND_S)

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            # Whatever is being killed at this moment is not there to be looked at.
            with suppress(OSError, AssertionError, ValueError, IndexError):
                for name, pid in self._service.children().items():
                    if name != "api":
                        self._wounds.most_worker_bytes = max(
                            self._wounds.most_worker_bytes, resident_bytes(pid)
                        )
                self._wounds.unready |= self._service.problems().keys()


class Keeper:
    """Starts the service again until it serves, as a service manager does."""

    def __init__(self, service: Service, workers: int, ports: tuple[int, int] | None = None) -> None:
        self._service = service
        self._workers = workers
        ingest, api = ports or free_ports(2)
        self._ports = ingest, api
        self.starts = 0

    def start(self) -> None:
        deadline_s = time.monotonic() + HEAL_S
        while True:
            self.starts += 1
            try:
                self._service.start(workers=self._workers, ports=self._ports)
            except CommandFailed:
                assert time.monotonic() < deadline_s, "the service does not start"
                self._service.kill()
                time.sleep(RESTART_S)
            else:
                return


class Violence:
    """A service with its servers, and clients that never give up.

    Args:
        away_s: how long what was killed stays away.
    """

    def __init__(
        self,
        service: Service,
        postgres: PostgresServer,
        store: SeaweedServer,
        scenes: list[bytes],
        *,
        seed: int,
        away_s: float,
        pause_s: float,
        workers: int = 2,
    ) -> None:
        self._service = service
        self._postgres = postgres
        self._store = store
        self._away_s = away_s
        self._pause_s = pause_s
        self._scenes = scenes
        self._random = random.Random(seed)
        self._keeper = Keeper(service, workers)
        self.kept = Acknowledged()
        self.wounds = Wounds(seed)

    def run(self, kills: int) -> None:
        """Kill so many times, and look at what is left."""
        began = (datetime.now(UTC) - timedelta(days=3)).date().isoformat()
        devices = self._service.add_devices(CLIENTS, "annual", "--starts-on", began)
        self._keeper.start()
        began_ms = int(time.time() * 1000) - 86_400_000  # far more seconds than will be sent
        uploaders = [
            Uploader(
                self._service,
                device,
                self.kept,
                bodies=self._scene,
                packets=(0, len(self._scenes) - 1),
                plays_ms=SCENE_MS,
                first_ms=began_ms,
                pause_s=self._pause_s,
                retry_s=max(0.2, self._pause_s),
                patience_s=COMMAND_S,
            )
            for device in devices
        ]
        with Watch(self._service, self.wounds), Load(uploaders):
            self._everybody_is_served()
            for number, victims in enumerate(self._victims(kills), 1):
                time.sleep(self._random.uniform(0, 2))
                self._kill(number, victims)
        assert_all_kept(self._service, self.kept)

    def _scene(self, device: int, capture_ms: int, number: int) -> bytes:
        return self._scenes[number % len(self._scenes)]

    def _victims(self, kills: int) -> Iterator[list[str]]:
        """Each kind as often as the others, in random order; of four kills one takes two at once."""
        kinds = ["service", "postgres", "store"]
        planned = [kinds[number % len(kinds)] for number in range(kills)]
        self._random.shuffle(planned)
        for first in planned:
            others = [kind for kind in (*kinds, "api", "w0") if kind != first]
            yield [first, self._random.choice(others)] if self._random.random() < 0.25 else [first]

    def _kill(self, number: int, victims: list[str]) -> None:
        before = len(self.kept.chunks)
        self.wounds.kills += victims
        self.wounds.tell(f"kill {number}: {' and '.join(victims)}, {before} chunks acknowledged")
        for victim in victims:
            self._end(victim)
        time.sleep(self._away_s)
        # In random order, so that each comes back while the other is still away.
        self._random.shuffle(victims)
        with ThreadPoolExecutor(len(victims)) as pool:
            for victim in victims:
                pool.submit(self._begin, victim)
                time.sleep(self._random.uniform(0, min(2.0, self._away_s)))
        began_s = time.monotonic()
        self._everybody_is_served()
        self.wounds.healed_s.append(time.monotonic() - began_s)
        self.wounds.tell(f"healed in {self.wounds.healed_s[-1]:.1f} s")

    def _end(self, victim: str) -> None:
        match victim:
            case "service":
                self._service.kill()
            case "postgres":
                self._postgres.kill()
            case "store":
                self._store.kill()
            case child:
                # It may be on its way back already, or gone with the supervisor.
                with suppress(AssertionError, KeyError, ProcessLookupError):
                    os.kill(self._service.children()[child], signal.SIGKILL)

    def _begin(self, victim: str) -> None:
        match victim:
            case "service":
                self._keeper.start()
            case "postgres":
                self._postgres.start()
            case "store":
                self._store.start()

    def _everybody_is_served(self) -> None:
        """Wait until every client had a chunk acknowledged, and the service says that it is ready."""
        seen = set(self.kept.chunks)

        def served() -> bool:
            assert not self.kept.surprises, self.kept.surprises[:10]
            return len({device for device, _ in set(self.kept.chunks) - seen}) == CLIENTS

        until(served, "every client is served", HEAL_S)
        until(self._is_ready, "it says that it is ready", HEAL_S)

    def _is_ready(self) -> bool:
        with suppress(OSError):
            return not self._service.problems()
        return False


@contextmanager
def served_from(root: Path, postgres: PostgresServer, store: SeaweedServer) -> Iterator[Service]:
    """A service whose catalog is on this PostgreSQL, and whose objects are in this store."""
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS violence (FORCE)")
        connection.execute("CREATE DATABASE violence")
    store.make_bucket(BUCKET)
    address = f"postgresql://{postgres.user}@127.0.0.1:{postgres.port}/violence"
    with pytest.MonkeyPatch.context() as patch, Service(root, environ=store.environ) as service:
        patch.setenv("PGPASSWORD", postgres.password)  # also for what this process opens by itself
        service.environ["PGPASSWORD"] = postgres.password
        service.command("init", "--catalog", address, "--store", f"s3://{BUCKET}/p")
        service.configure(ingest_budget_bytes=BUDGET_BYTES)
        yield service
    store.remove_bucket(BUCKET)


def assert_sound(service: Service, violence: Violence) -> dict[str, Any]:
    """Catalog and objects fit together, before and after a sweep. Returns what `check --deep` said."""
    wounds, kept = violence.wounds, violence.kept
    checked: dict[str, Any] = service.command("check", "--deep")
    assert checked["broken"] == [], checked["broken"][:10]
    assert checked["chunks"] >= len(kept.chunks)
    service.command("sweep")
    assert_all_kept(service, kept)
    assert service.command("check")["broken"] == []
    assert wounds.most_worker_bytes < MOST_WORKER_BYTES
    wounds.tell(
        f"{len(wounds.kills)} kills, {len(kept.chunks)} chunks acknowledged, none lost; answers"
        f" {dict(kept.answers)}, refusals {dict(kept.codes)}; the slowest answer took {kept.slowest_s:.1f} s, the"
        f" slowest healing {max(wounds.healed_s):.1f} s; a worker had {wounds.most_worker_bytes >> 20} MiB at most;"
        f" readiness named {sorted(wounds.unready)}"
    )
    return checked
