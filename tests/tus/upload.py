"""One upload by tuspy: `upload.py ENDPOINT TOKEN FILE CAPTURE_MS`. Says how it went as a line of JSON.

Its client that blocks, which sends with requests, holds the whole rest of the file in each PATCH and asks by HEAD where
to go on. (The other one asks so with requests, too.)
"""

from __future__ import annotations

import json
import sys

from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed
from tusclient.uploader import Uploader

RETRIES = 300
RETRY_S = 0.2


class Counting(Uploader):  # type: ignore[misc]
    """Notes each offset that it is told."""

    offsets: list[int]

    def get_offset(self) -> int:
        found = int(super().get_offset())
        self.offsets.append(found)
        return found


def main() -> int:
    endpoint, token, file, capture_ms = sys.argv[1:]
    client = TusClient(endpoint, headers={"Authorization": f"Bearer {token}"})
    uploader = Counting(
        file,
        client=client,
        metadata={"capture_ms": capture_ms, "filename": "clip.ts"},
        retries=RETRIES,
        retry_delay=RETRY_S,
    )
    uploader.offsets = []
    said: dict[str, object] = {"offsets": uploader.offsets}
    try:
        uploader.upload()
    except (TusCommunicationError, TusUploadFailed) as error:
        said["error"] = f"{error} {error.status_code} {error.response_content!r}"
    print(json.dumps(said | {"url": uploader.url}))
    return "error" in said


if __name__ == "__main__":
    raise SystemExit(main())
