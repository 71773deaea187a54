"""The API process, before it serves."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from service.api_process import ApiProcess
from service.folder import create_folder, open_folder
from storage.errors import CallerError


@pytest.mark.parametrize("name", ["MAIL", "MOBILE"])
def test_senders_that_are_none_are_told_and_nothing_is_served(tmp_path: Path, name: str) -> None:
    create_folder(tmp_path / "data", store_url=None, test_clock=False, environ={})
    with open_folder(tmp_path / "data", environ={f"CLIPKEEP_NOTICES_{name}": "carrier pigeon"}) as opened:
        with pytest.raises(CallerError) as caught:
            trio.run(ApiProcess(opened).run, "127.0.0.1", 0)
        assert caught.value.code == "bad_config"
