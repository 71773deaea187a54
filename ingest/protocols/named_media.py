"""What an upload's metadata says that its file is, where it is nothing that can be cut into chunks. Pure."""

from __future__ import annotations

from typing import Final

_TYPES: Final = frozenset(
    (
        b"video/x-matroska",
        b"video/webm",
        b"video/x-msvideo",
        b"video/avi",
        b"video/x-flv",
        b"video/x-ms-wmv",
        b"video/ogg",
        b"audio/ogg",
        b"audio/mpeg",
        b"audio/wav",
        b"audio/x-wav",
        b"application/zip",
    )
)
_ENDINGS: Final = (
    b".mkv",
    b".webm",
    b".avi",
    b".flv",
    b".wmv",
    b".ogv",
    b".ogg",
    b".mp3",
    b".wav",
    b".zip",
)
"""Of what names say too little: .ts may be anything, and .mp4 and .mov may be fragmented. Their bytes say it."""


def names_other_media(metadata: dict[bytes, bytes]) -> bool:
    """Whether `filetype` or `filename` (as tus clients and Uppy say them) names what is neither MPEG-TS nor MP4."""
    kind = metadata.get(b"filetype", metadata.get(b"type", b"")).partition(b";")[0].strip().lower()
    name = metadata.get(b"filename", metadata.get(b"name", b"")).strip().lower()
    return kind in _TYPES or name.endswith(_ENDINGS)
