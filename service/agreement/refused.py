"""Why a device's uploads were refused, for its owner: a sentence for each code of the ingest port."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

WHY: Mapping[str, str] = MappingProxyType(
    {
        "suspended": "the operator has suspended this device",
        "terminated": "this device was terminated, for good",
        "plan_lapsed": "no plan of this device covers the day; buy one to go on",
        "not_entitled_at_capture": "no plan covered the day on which it was recorded; look at the camera's clock",
        "clock_ahead": "the camera's clock is more than 10 minutes ahead; set it",
        "clock_behind": "the camera's clock is far behind; set it",
        "time_digits": "the time in the name of the upload is in a unit that is not taken; send milliseconds",
        "expired": "it was recorded so long ago that it would have expired already; look at the camera's clock",
        "deleted": "it lies in a range of recordings that was deleted",
        "conflict": "another recording is stored for that moment; the camera used a time twice",
        "partial": "the camera sent a part of a recording; it has to send each one whole",
        "empty": "the camera sent nothing",
        "too_large": "one upload was too large; let the camera make shorter ones",
        "malformed": "the camera's request could not be understood; look at its settings or its firmware",
        "unsupported_name": "the camera sends a format that is not taken; look at its settings",
        "unknown_media": "what it sent is no video that is taken; look at the camera's format",
        "no_header": "its MP4 files lack their header; let the camera send whole files",
        "no_init": "the beginning that its fragments need did not come; restart the camera",
        "encrypted": "it is encrypted with a key that the service has not; switch that off",
        "unknown_codec": "its codec is none that is taken: H.264 or H.265, with AAC, MP3, Opus, AC-3 or no sound",
        "no_frames": "there was no picture and no sound in it; look at the camera",
        "digest_mismatch": "it was damaged on the way; the camera has to send it again",
        "package_bytes": "the package's bytes of the day were used up; the camera may send it tomorrow",
        "package_chunks": "it sends more uploads a second than the package takes; let it make longer ones",
        "rate_limited": "it sends more uploads a second than this service takes; let it make longer ones",
        "too_slow": "its connection was too slow",
        "head_timeout": "its connection was too slow",
        "overloaded": "the service had too much to do; the camera has to send it again",
        "not_stored": "the service could not store it; the camera has to send it again",
        "store_unavailable": "the service could not store anything then; the camera has to send it again",
        "stopping": "the service was restarted; the camera has to send it again",
        "host_stale": "a host of the service was cut off; the camera has to send it again",
    }
)
"""By code; for a code that is not here nothing more is known than its name."""
