"""Cameras of an account: the list with stills, adding one, what its encoder needs, a new token, its end."""

from __future__ import annotations

import re
from dataclasses import dataclass

import segno
from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from retention.tokens import mint_viewer_token
from service.agreement import devices, naming, serials
from service.agreement.devices import Standing
from service.agreement.errors import Unprocessable
from service.agreement.refused import WHY
from service.api.door import Device
from service.pages.door import Owner
from service.pages.forms import Form
from service.pages.site import Part, Person, Site
from storage.days import ms_of_day
from storage.errors import CallerError
from storage.rows.devices import DeviceFacts
from storage.rows.sightings import Refused

PAGE_CAMERAS = 24
"""In one page: each has a still."""
VIEW_MS = 6 * 3_600_000
"""How long the addresses of media in a page are good; a page that stays open asks for new ones."""
SHOWN_MS = 600_000
"""After which the address that shows a new camera's token shows it no more."""
INGEST_PORT = 8080
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
_NOTHING = Form({})


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera as a list shows it."""

    standing: Standing
    newest_ms: int | None
    token: str

    @property
    def number(self) -> int:
        return self.standing.facts.device

    @property
    def name(self) -> str:
        return self.standing.name.name or f"Camera {self.number}"

    @property
    def refused(self) -> Refused | None:
        """The newest refusal, where nothing was taken since."""
        seen = self.standing.seen
        newest = seen.refused[0] if seen.refused else None
        return None if newest is None or newest.last_ms <= (seen.seen_ms or 0) else newest

    @property
    def may_be_watched(self) -> bool:
        return self.standing.state == "recording"


class Cameras(Part):
    """The handlers."""

    def routes(self) -> APIRouter:
        site, router = self._site, self._site.router()
        site.get(router, "/cameras", self.listed)
        site.get(router, "/cameras/new", self.ask)
        site.post(router, "/cameras/new", self.add)
        site.get(router, "/cameras/{n}/set-up", self.set_up)
        site.get(router, "/cameras/{n}/settings", self.settings)
        site.post(router, "/cameras/{n}/name", self.rename)
        site.post(router, "/cameras/{n}/token", self.new_token)
        site.post(router, "/cameras/{n}/end", self.end)
        return router

    async def listed(self, request: Request, person: Owner) -> Response:
        after = request.query_params.get("after", "")
        first = int(after) if re.fullmatch("[0-9]{1,18}", after) else 0
        found = await self._run(self._cameras, person, first)
        more = found[PAGE_CAMERAS - 1].number if len(found) > PAGE_CAMERAS else None
        cameras = found[:PAGE_CAMERAS]
        return self._site.page(request, "cameras", cameras=cameras, more=more, why=WHY)

    def _cameras(self, person: Person, after: int) -> list[Camera]:
        found = devices.devices_of(
            self._desk, person.actor, person.account, after=after, limit=PAGE_CAMERAS + 1
        )
        return [self._camera(standing) for standing in found]

    def _camera(self, standing: Standing) -> Camera:
        """Of what may not be watched nothing is told, not even when it was recorded."""
        if standing.state != "recording":
            return Camera(standing, None, "")
        rows = self._site.api.services.catalog.latest_chunks(standing.facts.device, limit=1)
        facts, today = standing.facts, self._desk.today()
        newest = [row.capture_ms for row in rows if row.epoch == facts.erase_epoch and row.expires_on > today]
        return Camera(standing, newest[0] if newest else None, view_token(self._site, facts))

    # --- a new one --------------------------------------------------------------------------------------------

    async def ask(self, request: Request, person: Owner) -> Response:
        return self._site.page(request, "camera_new", serial="", wants_serial=self._wants_serial())

    async def add(self, request: Request, person: Owner) -> Response:
        site, form = self._site, _NOTHING
        try:
            form = await site.form(request)
            facts = await self._run(
                devices.add_device, self._desk, person.actor, person.account, form.text("serial") or None
            )
        except CallerError as error:
            shown = {"serial": form["serial"], "wants_serial": self._wants_serial()}
            return await site.again(request, error, "camera_new", **shown)
        return site.to(self._showing(person, facts.device), "camera_added")

    def _wants_serial(self) -> bool:
        return serials.is_required(self._desk.settings)

    def _showing(self, person: Person, device: int) -> str:
        """The address at which the token is shown, for a while, to this log-in."""
        at = self._desk.now_ms()
        seal = self._site.forgery.sealed(f"token {device} {at}", person.token)
        return f"/cameras/{device}/set-up?at={at}&shown={seal}"

    def _may_show(self, request: Request, person: Person, device: int) -> bool:
        at, seal = request.query_params.get("at", ""), request.query_params.get("shown", "")
        if not re.fullmatch("[0-9]{1,15}", at) or not 0 <= self._desk.now_ms() - int(at) < SHOWN_MS:
            return False
        return self._site.forgery.is_sealed(f"token {device} {at}", person.token, seal)

    async def set_up(self, request: Request, n: Device, person: Owner) -> Response:
        """What the encoder of a camera needs. The token is in it once, right after it was made."""
        standing = await self._run(devices.show, self._desk, person.actor, n)
        shown = self._may_show(request, person, n)
        token = await self._run(devices.token, self._desk, person.actor, n) if shown else ""
        place = ingest_place(self._site, request)
        address = address_of(place, n, token) if token else ""
        return self._site.page(
            request,
            "camera_set_up",
            camera=Camera(standing, None, ""),
            token=token,
            place=place,
            in_clear=place.startswith("http://"),
            line=ffmpeg_line(address) if address else "",
            code=qr(address) if address else "",
        )

    # --- one that is there ------------------------------------------------------------------------------------

    async def settings(self, request: Request, n: Device, person: Owner) -> Response:
        return await self._settings(request, n, person)

    async def _settings(
        self, request: Request, n: int, person: Person, error: Exception | None = None
    ) -> Response:
        standing = await self._run(devices.show, self._desk, person.actor, n)
        shown = {"camera": Camera(standing, None, ""), "why": WHY}
        if error is not None:
            return await self._site.again(request, error, "camera_settings", **shown)
        return self._site.page(request, "camera_settings", **shown)

    async def rename(self, request: Request, n: Device, person: Owner) -> Response:
        try:
            form = await self._site.form(request)
            name, label = form.text("name"), form.text("label")
            await self._run(naming.rename, self._desk, person.actor, n, name=name, label=label)
        except CallerError as error:
            return await self._settings(request, n, person, error)
        return self._site.to(f"/cameras/{n}/settings", "saved")

    async def new_token(self, request: Request, n: Device, person: Owner) -> Response:
        try:
            form = await self._site.form(request)
            why = form.text("reason") or "by its owner"
            await self._run(devices.new_token, self._desk, person.actor, n, why=why)
        except CallerError as error:
            return await self._settings(request, n, person, error)
        return self._site.to(self._showing(person, n), "token_made")

    async def end(self, request: Request, n: Device, person: Owner) -> Response:
        """For good; its recordings are erased at once when that was ticked."""
        try:
            form = await self._site.form(request)
            why = form.text("reason") or "by its owner"
            if not form.ticked("sure"):
                raise Unprocessable("tick the box that says that you mean it", code="not_sure")
            erase = form.ticked("erase")
            await self._run(devices.terminate, self._desk, person.actor, n, why=why, erase=erase)
        except CallerError as error:
            return await self._settings(request, n, person, error)
        return self._site.to("/cameras", "camera_ended")


def view_token(site: Site, facts: DeviceFacts) -> str:
    """A viewer token for the media of a page. It changes once an hour, so that addresses stay the same for a while."""
    now_ms = max(site.desk.now_ms(), ms_of_day(site.desk.today()))
    until_s = (now_ms + VIEW_MS) // 3_600_000 * 3600
    secret = site.desk.vault.token_secret
    return mint_viewer_token(secret, facts.device, facts.token_generation, until_s, facts.viewer_generation)


def ingest_place(site: Site, request: Request) -> str:
    """Where cameras send to: as configured, else this host's usual port."""
    said = site.api.services.ingest_url
    if said:
        return said.rstrip("/")
    host = request.headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    scheme = "https" if site.api.services.ingest_tls else "http"
    return f"{scheme}://{name if _HOST.fullmatch(name) else 'this-server'}:{INGEST_PORT}"


def address_of(place: str, device: int | str, token: str) -> str:
    """Where one camera sends to, with its token."""
    return place.replace("://", f"://{device}:{token}@", 1) + f"/v1/devices/{device}/live"


def ffmpeg_line(address: str) -> str:
    """The line of README.md that sends what a camera shows, for a shell."""
    return (
        "ffmpeg -rtsp_transport tcp -i rtsp://CAMERA-ADDRESS/ -map 0:v -map '0:a?' -c copy -f fifo -fifo_format hls"
        ' -format_opts "method=PUT:http_persistent=1:timeout=10:hls_time=4:strftime=1:'
        f"hls_segment_filename='{address}/%s.ts'\" -attempt_recovery 1 -recover_any_error 1 -recovery_wait_time 1"
        f' -restart_with_keyframe 1 -drop_pkts_on_overflow 1 -queue_size 600 "{address}/cam.m3u8"'
    )


def qr(text: str) -> Markup:
    """A QR code, as SVG without colours of its own but black."""
    svg: str = segno.make(text, error="m", micro=False).svg_inline(border=2, omitsize=True)
    return Markup(svg)
