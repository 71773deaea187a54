"""Connections to PostgreSQL that are cut at random below a service with cameras, viewers, owners, operator and sweeps.

Catalog and vault are behind one relay. Nobody may notice more than refusals with a code: what was acknowledged is there
afterwards, and nothing was done twice.
"""

from __future__ import annotations

import hashlib
import random
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from retention.bitmap import EntitlementBitmap
from retention.subscriptions import Subscription
from retention.tokens import mint_viewer_token
from service.agreement.desk import Desk
from service.agreement.holdings import held
from service.agreement.idempotency import TAKE_OVER_MS
from service.folder import DataFolder, OffsetClock, Opened, open_folder
from storage.days import MS_PER_DAY, day_of_ms
from storage.rows.accounts import PaymentRow
from tests.e2e.customers import METHOD, Camera, Customer, Said, Town, asked
from tests.e2e.load import Acknowledged, Load, Uploader, assert_all_kept
from tests.e2e.service import COMMAND_S, Service, until
from tests.servers.postgres import PostgresServer
from tests.servers.relay import Fault, Relay
from tests.service.agreement import balance

CAMERAS, MAYFLIES, OWNERS = 6, 2, 3
KEPT_DAYS = 200
"""Of what the cameras record: none of it expires, however far the clock is moved."""
WEIGHTS = {
    Fault.RESET: 4,
    Fault.SERVER_ENDS: 2,
    Fault.CLIENT_ENDS: 2,
    Fault.SWALLOW: 2,
    Fault.SWALLOW_ANSWERS: 2,
}
CAMERA_WAITS_S = 60.0
HEAL_S = 120.0
"""Longest from the last cut until everybody is served, on a machine that does other things too."""
OWNER_WAITS_S = 300.0
"""Longest that something is asked again and again until it is done: a claim of an idempotency key that a cut left
behind is taken over after 2 minutes."""
COMMANDS_FAIL_BY = frozenset({"catalog_unavailable", "key_store_unavailable", "busy", "lease_lost"})


@dataclass(frozen=True)
class Weather:
    """How hard it is.

    Args:
        lasts_s: of all of it, at least.
        bout_s: for so long connections are cut again and again, then there is calm until everybody is served.
        calm_s: longest pause between two cuts.
        down_s: how long the network is cut in two at most, in every third bout; 0: never.
        day_s: how long a day of the service's clock takes.
    """

    lasts_s: float
    bout_s: float
    calm_s: float
    down_s: float
    day_s: float


@dataclass
class Told:
    """What came of it, shared by threads."""

    seed: int
    surprises: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    commands: Counter[str] = field(default_factory=Counter)
    cuts: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    """Of the API port."""
    healed_s: list[float] = field(default_factory=list)
    mayflies: dict[tuple[int, int], bytes] = field(default_factory=dict)
    """sha256 of what expires, by device and capture time."""
    plans: list[int] = field(default_factory=list)
    """Bought, by number."""
    cancelled: list[int] = field(default_factory=list)

    def tell(self, text: str) -> None:
        print(f"[seed {self.seed}] {text}", file=sys.stderr, flush=True)


class CutTown(Town):
    """A town whose API port may refuse for a while: everybody asks again until it is done."""

    def __init__(self, service: Service, told: Told) -> None:
        self.service = service
        self.told = told
        self._clock = OffsetClock(DataFolder(service.data).clock_offset)
        noon = (datetime.now(UTC) + timedelta(days=1)).replace(hour=12, minute=0, second=0)
        self._clock.set_offset_ms(round((noon.timestamp() - time.time()) * 1000))

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def pass_ms(self, passed_ms: int) -> None:
        self._clock.set_offset_ms(self._clock.offset_ms + passed_ms)

    def close(self) -> None:
        self._clock.close()

    def ask_once(
        self,
        method: str,
        path: str,
        body: object = None,
        token: str | None = None,
        key: str = "",
        reason: str = "",
    ) -> Said:
        began_s = time.monotonic()
        said = asked(self.service.api, OWNER_WAITS_S, method, path, body, token, key, reason)
        self.told.slowest_s = max(self.told.slowest_s, time.monotonic() - began_s)
        code = said.json["error"] if said.status >= 400 else ""
        self.told.answers[f"{said.status} {code}".strip()] += 1
        return said

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        token: str | None = None,
        key: str = "",
        reason: str = "",
    ) -> Said:
        deadline_s = time.monotonic() + OWNER_WAITS_S
        while True:
            said = self.ask_once(method, path, body, token, key, reason)
            is_over = said.status < 500 and not (said.status == 409 and said.json["error"] == "in_progress")
            if is_over:
                return said
            assert said.status in (409, 503), said
            assert "retry-after" in said.headers or said.status == 409, said
            assert time.monotonic() < deadline_s, f"{method} {path}: {said}"
            time.sleep(0.3)


class Crowd:
    """Everybody who uses the service at once: threads, for the time of a `with` block."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self.stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def add(self, name: str, turn: Callable[[], object], pause_s: float) -> None:
        """Do `turn` again and again."""

        def run() -> None:
            while not self.stop.is_set():
                try:
                    turn()
                except Exception as error:
                    self._told.surprises.append(f"{name}: {type(error).__name__}: {error}")
                    return
                self.stop.wait(pause_s)

        self._threads.append(threading.Thread(target=run, name=name, daemon=True))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(OWNER_WAITS_S + COMMAND_S)
            assert not thread.is_alive(), f"{thread.name} hangs"


class Cuts:
    """A service, who uses it, and what happens to its connections."""

    def __init__(self, service: Service, relay: Relay, weather: Weather, seed: int) -> None:
        self._service = service
        self._relay = relay
        self._weather = weather
        self._random = random.Random(seed)
        self.told = Told(seed)
        self.kept = Acknowledged()
        self.town = CutTown(service, self.told)

    def run(self) -> None:
        """All of it, and then a calm in which everybody is served."""
        self._move_in()
        crowd = self._crowd()
        with Load(self._uploaders()), crowd:
            self._everybody_is_served()
            self._cut()
            self.town.pass_ms(
                TAKE_OVER_MS + 60_000
            )  # whoever left a key of idempotency claimed lets go of it
        self._require_no_surprises()

    # --- who is there -----------------------------------------------------------------------------------------

    def _move_in(self) -> None:
        began = (
            (datetime.fromtimestamp(self.town.now_ms() / 1000, UTC) - timedelta(days=2)).date().isoformat()
        )
        plan = ("annual", "--starts-on", began, "--retention-days")
        self._cameras = self._service.add_devices(CAMERAS, *plan, str(KEPT_DAYS))
        self._mayflies = self._service.add_devices(MAYFLIES, *plan, "1")
        [self._suspended] = self._service.add_devices(1, *plan, "7")
        self._service.configure(
            agreement_housekeeping_s=0.5, agreement_max_devices_per_account=10_000, retention_lease_s=3
        )
        self._service.start(workers=2)
        self._owners = [self.town.move_in(_address(n)) for n in range(OWNERS)]
        with open_folder(self._service.data, environ=self._service.environ) as opened:
            secret, expires_s = opened.vault.token_secret, self.town.now_ms() // 1000 + 300 * 86_400
            self._viewer_tokens = {
                device.number: mint_viewer_token(
                    secret, device.number, opened.catalog.device(device.number).token_generation, expires_s
                )
                for device in (*self._cameras, *self._mayflies)
            }

    def _uploaders(self) -> Sequence[Uploader]:
        return [
            Uploader(
                self._service,
                device,
                self.kept,
                packets=(20, 100),
                first_ms=self.town.now_ms() - 3_600_000,
                pause_s=0.05,
                retry_s=0.2,
                patience_s=CAMERA_WAITS_S,
            )
            for device in self._cameras
        ]

    def _crowd(self) -> Crowd:
        crowd = Crowd(self.told)
        for number, device in enumerate(self._mayflies):
            crowd.add(f"mayfly {number}", Mayfly(self, Camera(self.town, device)), 0.1)
        for number, owner in enumerate(self._owners):
            crowd.add(f"owner {number}", Shopper(self, owner, number), 0.2)
        crowd.add("viewer", self._watch, 0.05)
        crowd.add("operator", self._suspend_and_resume, 0.5)
        crowd.add("sweeps", lambda: (self.command("sweep"), self.command("renew")), 1.0)
        crowd.add(
            "calendar", lambda: crowd.stop.wait(self._weather.day_s) or self.town.pass_ms(MS_PER_DAY), 0.0
        )
        return crowd

    def _watch(self) -> None:
        """What was acknowledged is played, byte for byte, or refused for the moment."""
        if not self.kept.chunks:
            return
        device, capture_ms = self._random.choice(list(self.kept.chunks))
        token = self._viewer_tokens[device]
        said = self.town.ask_once("GET", f"/v1/devices/{device}/chunks/{capture_ms}", token=token)
        if said.status != 503:
            assert said.status == 200, said
            assert hashlib.sha256(said.body).digest() == self.kept.chunks[device, capture_ms]
        for page in (f"recordings?from={capture_ms}&to={capture_ms + 1}", "playlist.m3u8"):
            said = self.town.ask_once("GET", f"/v1/devices/{device}/{page}", token=token)
            assert said.status in (200, 503), said

    def _suspend_and_resume(self) -> None:
        """Each is in force when its command has succeeded."""
        camera = Camera(self.town, self._suspended)
        for command, refused in (("suspend", {(403, "suspended")}), ("resume", {(201, ""), (503, "")})):
            while self.command("device", command, "--device", str(camera.number), "--reason", "cuts"):
                pass
            capture_ms = self.town.now_ms()
            reply = self._service.put(camera.device, capture_ms, camera.body(capture_ms))
            assert (reply.status, reply.code if reply.status == 403 else "") in refused, reply

    def command(self, *words: str) -> int:
        """Run one that may fail for the moment. Returns its exit code."""
        done = self._service.run(*words, "--json", timeout_s=OWNER_WAITS_S)
        code = ""
        if done.returncode:
            with_code = [code for code in COMMANDS_FAIL_BY if code in done.stdout + done.stderr]
            assert with_code, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
            code = with_code[0]
        self.told.commands[f"{words[0]} {code}".strip()] += 1
        return done.returncode

    # --- what happens -----------------------------------------------------------------------------------------

    def _cut(self) -> None:
        end_s = time.monotonic() + self._weather.lasts_s
        bouts = 0
        while time.monotonic() < end_s:
            if bouts % 3 == 2 and self._weather.down_s:
                self._relay.take_down()
                self.told.cuts["network down"] += 1
                time.sleep(self._random.uniform(0.3, 1) * self._weather.down_s)
                self._relay.bring_up()
            bout_end_s = time.monotonic() + self._weather.bout_s
            while time.monotonic() < bout_end_s:
                [fault] = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))
                share = self._random.choice([0.0, 0.0, 0.0, 0.3, 1.0])
                self.told.cuts[fault.value[0]] += self._relay.hurt(fault, share, self._random)
                time.sleep(self._random.uniform(0, self._weather.calm_s))
                self._require_no_surprises()
            bouts += 1
            began_s = time.monotonic()
            self._everybody_is_served()
            self.told.healed_s.append(time.monotonic() - began_s)
            self.told.tell(f"bout {bouts}, healed in {self.told.healed_s[-1]:.1f} s: {self._so_far()}")

    def _everybody_is_served(self) -> None:
        seen = set(self.kept.chunks)

        def served() -> bool:
            self._require_no_surprises()
            return len({device for device, _ in set(self.kept.chunks) - seen}) == CAMERAS

        until(served, "every camera is served", HEAL_S)
        until(lambda: not self._service.problems(), "it says that it is ready", HEAL_S)

    def _require_no_surprises(self) -> None:
        surprises = self.kept.surprises + self.told.surprises
        assert not surprises, surprises[:10]

    def _so_far(self) -> str:
        return (
            f"cuts {dict(self.told.cuts)}; {len(self.kept.chunks)} chunks acknowledged, and {len(self.told.mayflies)}"
            f" that expire; cameras {dict(self.kept.answers)} {dict(self.kept.codes)}, slowest"
            f" {self.kept.slowest_s:.1f} s; API {dict(self.told.answers)}, slowest {self.told.slowest_s:.1f} s;"
            f" {len(self.told.plans)} plans bought, {len(self.told.cancelled)} cancelled; commands"
            f" {dict(self.told.commands)}"
        )

    # --- what is left -----------------------------------------------------------------------------------------

    def require_sound(self, postgres: PostgresServer, database: str) -> None:
        """Nothing was lost, nothing was done twice."""
        service = self._service
        until(lambda: service.command("renew")["complete"], "nothing is pending", HEAL_S, every_s=1)
        service.command("sweep")
        assert_all_kept(service, self.kept)
        self._require_mayflies()
        assert service.command("check", "--deep")["broken"] == []
        with open_folder(service.data, environ=service.environ) as opened:
            opened.entitlements.roll()
            balance.check(Ledger(opened))  # type: ignore[arg-type]
        assert len(set(self.told.plans)) == len(self.told.plans)
        _require_no_gaps(postgres.url(database))
        self.told.tell(f"all kept, all sound: {self._so_far()}")
        self.town.close()

    def _require_mayflies(self) -> None:
        today = day_of_ms(self.town.now_ms())
        left = 0
        for (device, capture_ms), digest in self.told.mayflies.items():
            path = f"/v1/devices/{device}/chunks/{capture_ms}"
            said = self.town.ask("GET", path, token=self._viewer_tokens[device])
            if day_of_ms(capture_ms) + 2 <= today:
                assert said.is_refusal(410, "expired")
            else:
                left += 1
                assert said.status == 200, said
                assert hashlib.sha256(said.body).digest() == digest
        assert left or not self.told.mayflies or self._weather.day_s < 60


class Mayfly:
    """A camera whose recordings are kept for a day."""

    def __init__(self, cuts: Cuts, camera: Camera) -> None:
        self._cuts, self._camera = cuts, camera
        self._owed: int | None = None

    def __call__(self) -> None:
        capture_ms = self._owed or self._cuts.town.now_ms()
        body = self._camera.body(capture_ms)
        reply = self._cuts.town.service.put(self._camera.device, capture_ms, body)
        self._owed = None
        if reply.status in (200, 201):
            self._cuts.told.mayflies[self._camera.number, capture_ms] = hashlib.sha256(body).digest()
        elif reply.status == 503:
            self._owed = capture_ms
        else:  # it waited while the clock was moved
            assert (reply.status, reply.code) == (410, "expired"), reply


class Shopper:
    """An owner who adds a camera, buys a plan for it, records, and cancels some of the plans."""

    def __init__(self, cuts: Cuts, owner: Customer, number: int) -> None:
        self._cuts, self._owner, self._number = cuts, owner, number
        self._random = random.Random(number)

    def __call__(self) -> None:
        town, told = self._cuts.town, self._cuts.told
        if self._owner.ask("GET", self._owner.home).status == 401:  # a log-in lasts a month
            self._owner = town.log_in(_address(self._number))
        camera = self._owner.add_camera()
        said = self._owner.ask(
            "POST",
            f"/v1/devices/{camera.number}/subscriptions",
            {"plan": self._random.choice(["monthly", "annual"]), "method": METHOD},
            uuid.uuid4().hex,
        )
        if said.status in (402, 409):  # a day passed meanwhile: nothing was charged, or it was given back
            assert said.is_refusal(said.status, "payment_expired")
            return
        assert said.status == 201, said
        bought = said.json["subscription"]
        told.plans.append(bought["subscription"])
        status, capture_ms = camera.upload()
        assert status in (201, 503), "a plan that was bought is in force"
        if status == 201:
            said = self._owner.watch(camera, capture_ms)
            assert said.body == camera.body(capture_ms), said
        if self._random.random() < 0.5:
            self._owner.once(f"/v1/subscriptions/{bought['subscription']}/cancellation", {})
            told.cancelled.append(bought["subscription"])


def _address(number: int) -> str:
    return f"owner{number}@example.org"


class Ledger:
    """A data folder as `balance` looks at one."""

    def __init__(self, opened: Opened) -> None:
        self.desk: Desk = opened.desk
        self.bitmap: EntitlementBitmap = opened.bitmap
        self.gateway = opened.desk.gateway

    def plans(self, device: int) -> list[Subscription]:
        with self.desk.reading() as books:
            return list(held(books, books.device(device)))

    def payments(self, account: int) -> list[PaymentRow]:
        with self.desk.reading() as books:
            return books.payments_of(account, limit=100_000)


GAPLESS = {
    "plans": "plan_id",
    "payments": "payment_id",
    "events": "event_id",
    "changes": "number",
    "sweeps": "sweep_id",
}
"""Tables of which no row was removed here, and the column with their number."""


def _require_no_gaps(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        last = dict(connection.execute("SELECT name, last FROM numbers").fetchall())
        for table, column in GAPLESS.items():
            query = f"SELECT count(*), coalesce(max({column}), 0) FROM {table}"
            found = connection.execute(query.encode()).fetchone()
            assert found == (last[table], last[table]), f"{table}: {found}, numbered up to {last[table]}"


@contextmanager
def cut_off(
    root: Path, postgres: PostgresServer, database: str, **settings: object
) -> Iterator[tuple[Service, Relay]]:
    """A service whose catalog and vault are on this server behind a relay, initialised and not started."""
    with ExitStack() as stack:
        operator = stack.enter_context(psycopg.connect(postgres.url(), autocommit=True))
        for name in (database, f"{database}_vault"):
            operator.execute(f"DROP DATABASE IF EXISTS {name} (FORCE)".encode())
            operator.execute(f"CREATE DATABASE {name}".encode())
        relay = Relay(postgres.port)
        stack.callback(relay.close)
        service = stack.enter_context(Service(root))

        def through(name: str) -> str:
            return postgres.url(name).replace(f":{postgres.port}/", f":{relay.port}/")

        vault = through(f"{database}_vault")
        service.command("init", "--test-clock", "--catalog", through(database), "--vault", vault)
        service.configure(**settings)
        yield service, relay
