"""The pages that owners and operators open: HTML made here, by the process that answers the API, at `/` of its port.

`site` is what all pages share: it renders templates, reads forms, words refusals. `cookies` and `forgery` keep a log-in
and the forms that belong to it, `static` the few files that pages load, `words` what is told in place of a code,
`filters` how times and money are written. Each other module is a group of pages. They call the desk and playback as the
API does, never over HTTP.

Nothing is stored for a stranger: his form is bound to a random cookie, and what a page says after a redirect is a code
in its address.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from service.pages.account import Account
from service.pages.cameras import Cameras
from service.pages.elsewhere import Elsewhere
from service.pages.entrance import Entrance
from service.pages.keeping import Keeping
from service.pages.leaving import Leaving
from service.pages.operators import OPERATOR_PARTS
from service.pages.plans import Plans
from service.pages.recordings import Recordings
from service.pages.registering import Registering
from service.pages.sharing import Sharing
from service.pages.site import Site
from service.pages.texts import Texts

PARTS = (
    Entrance,
    Elsewhere,
    Registering,
    Texts,
    Cameras,
    Recordings,
    Keeping,
    Plans,
    Account,
    Leaving,
    *OPERATOR_PARTS,
    Sharing,
)


def routers(site: Site) -> Sequence[APIRouter]:
    """The routes of all pages and their files. None is in the OpenAPI document."""
    return [site.static.routes(), *(part(site).routes() for part in PARTS)]
