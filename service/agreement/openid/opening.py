"""The providers of a configuration, ready to be asked."""

from __future__ import annotations

from service.agreement.elsewhere import Providers
from service.agreement.openid.provider import Provider
from service.agreement.openid.settings import parse
from service.config import OpenIdSettings


def open_providers(settings: OpenIdSettings) -> Providers:
    """Nobody is asked before somebody logs in. Raises ValueError, see `parse`."""
    found = parse(settings)
    return Providers(
        {
            name: Provider(one, timeout_s=settings.timeout_s, skew_s=settings.skew_s)
            for name, one in found.providers.items()
        },
        found.redirect_uris,
        round(settings.log_in_minutes * 60_000),
        settings.log_ins_per_h,
    )
