"""The gateway that the configuration names."""

from __future__ import annotations

from pathlib import Path

from service.agreement.gateway.recording import PaymentRecords, RecordingGateway
from service.agreement.gateway.signing import Keys, keys_of
from service.agreement.payments import PaymentGateway
from service.config import PaymentSettings


def open_gateway(settings: PaymentSettings, root: Path, records: PaymentRecords) -> PaymentGateway:
    """Args:
        root: the data folder, which a relative `key_file` is in.
        records: where the recording gateway writes.

    Raises:
        CallerError: `bad_config`, `key_open`.
        WorldError: `no_payment_key`.
    """
    if settings.gateway == "record":
        return RecordingGateway(records)
    # What speaks HTTP takes a tenth of a second to load: not for commands of those who have no such gateway.
    from service.agreement.gateway.client import HttpGateway
    from service.agreement.gateway.wire import Bounds, Endpoint

    bounds = Bounds(settings.connect_s, settings.answer_s, settings.max_answer_bytes)
    endpoint = Endpoint(settings.url, bounds, ca_file=settings.ca_file)
    return HttpGateway(endpoint, open_keys(settings, root), return_url=settings.return_url)


def open_keys(settings: PaymentSettings, root: Path) -> Keys:
    """The keys of both sides. Raises as `open_gateway`."""
    return keys_of(settings.keys, settings.key_file, root)
