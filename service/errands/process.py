"""The process of one errand: opens the data folder, does it, says how far it is and what it came to, a line of JSON
each. SIGINT stops it as it stops `clipkeep sweep`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from service.child import die_with_supervisor
from service.errands.running import Errand, Kind
from service.errands.work import carried_out
from service.folder import open_folder
from service.logs import configure_logs
from storage.errors import ClipkeepError

NICE = 10
SAY_EVERY_S = 0.5
"""How far it is, at most so often."""
STOPPED = 130


class _Saying:
    """What is written for the process that waits."""

    def __init__(self) -> None:
        self._said_s = 0.0
        self._phase = ""

    def progress(self, phase: str, done: int, of: int) -> None:
        now_s = time.monotonic()
        if phase == self._phase and done < of and now_s - self._said_s < SAY_EVERY_S:
            return
        self._said_s, self._phase = now_s, phase
        self.say(progress=[phase, done, of])

    @staticmethod
    def say(**what: object) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description="The process of an errand; started by the API process.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--store")
    parser.add_argument("--errand", required=True)
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where all of us began with it ignored
    configure_logs("errand")
    die_with_supervisor()
    os.nice(NICE)
    asked = json.loads(args.errand)
    errand, saying = Errand(**asked | {"kind": Kind(asked["kind"])}), _Saying()
    try:
        with open_folder(args.data, store_url=args.store) as opened:
            answer = carried_out(opened, errand, saying.progress)
    except ClipkeepError as error:
        saying.say(refused=error.code, detail=str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    saying.say(answer=answer)


if __name__ == "__main__":
    main()
