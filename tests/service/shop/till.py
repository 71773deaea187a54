"""The reference payment gateway with a bank behind it that has moods, as a process of its own.

What becomes of a charge or a refund is drawn from its reference and the seed, so that it is the same whenever it is
asked for: some are declined, wait for a page or for later; some answers are lost, or are not signed right. Everything
that it decides for ever is a line of its journal, by its own clock, which `/rehearse/clock` sets: what the shop's money
is held against.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from service.demo.payment_gateway import Asked, Gateway, Json

DECLINED, ON_A_PAGE, LATER = 0.05, 0.02, 0.02
"""Of charges."""
REFUND_REFUSED = 0.08
LOST, FAILING, FORGED = 0.03, 0.01, 0.01
"""Of first requests."""
PAGE_MS = 20 * 3_600_000


class Till(Gateway):
    """See the module docstring."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.RequestHandlerClass = AskedAtTheTill
        self.seed, self.clock_ms, self.is_shut = args.seed, 0, False
        self.journal: list[Json] = []
        self.declining: set[str] = set()
        self.waiting: list[str] = []
        self.deciding = threading.RLock()

    def drawn(self, what: str, reference: str) -> float:
        """0..1, the same for the same reference."""
        digest = sha256(f"{self.seed} {what} {reference}".encode()).digest()
        return int.from_bytes(digest[:6], "big") / (1 << 48)

    def note(self, what: str, reference: str) -> None:
        asked = self.asked[reference]
        kept = {
            name: asked.get(name, "") for name in ("kind", "amount_minor", "currency", "of", "why", "method")
        }
        line = {"n": len(self.journal), "at_ms": self.clock_ms, "what": what, "reference": reference}
        self.journal.append(line | kept)

    def settle(self, reference: str, outcome: str, *, tell: bool = False, **more: Any) -> Json:
        """As the reference gateway does, with a line for what is decided for ever. Nobody is told by itself."""
        with self.deciding:
            before = self.told.get(reference, {}).get("outcome")
            told = super().settle(reference, outcome, **more)
            if told["outcome"] != before and told["outcome"] in ("done", "declined", "void"):
                later = told["outcome"] == "done" and before in ("pending", "needs_customer")
                self.note("done_later" if later else told["outcome"], reference)
            return told

    def charge(self, asked: Json) -> Json:
        reference = asked["reference"]
        with self.deciding:
            if reference not in self.told:
                self.asked[reference] = asked | {"kind": "charge"}  # also after it failed
                self.note("asked", reference)
            if reference in self.told:
                return self.told[reference]
            drawn = self.drawn("charge", reference)
            if asked["method"] in self.declining or drawn < DECLINED:
                return self.settle(reference, "declined", detail="the bank said no")
            if drawn < DECLINED + ON_A_PAGE:
                return self.settle(reference, **self.page("confirm", reference))
            if drawn < DECLINED + ON_A_PAGE + LATER:
                self.waiting.append(reference)
                return self.settle(reference, "pending")
            return self.settle(reference, "done")

    def refund(self, asked: Json) -> Json:
        reference = asked["reference"]
        with self.deciding:
            self.asked.setdefault(reference, asked | {"kind": "refund"})
            if reference not in self.told and self.drawn("refund", reference) < REFUND_REFUSED:
                return self.settle(reference, "declined", detail="this card takes nothing back")
            return super().refund(asked)

    def page(self, what: str, reference: str) -> Json:
        return super().page(what, reference) | {"expires_ms": self.clock_ms + PAGE_MS}

    def goes_wrong(self, asked: Json) -> str:
        reference = asked.get("reference", "")
        if not reference or "amount_minor" not in asked or reference in self.seen:
            return ""
        self.seen.add(reference)
        drawn = self.drawn("answer", reference)
        for what, share in (("lost", LOST), ("failing", FAILING), ("forged", FORGED)):
            if drawn < share:
                with self.deciding:
                    kind = "refund" if "of" in asked else "charge"
                    self.asked.setdefault(reference, asked | {"kind": kind})
                    # What fails is asked for, and nothing is done; the others do as they are asked.
                    self.note("asked" if what == "failing" else "unheard", reference)
                return what
            drawn -= share
        return ""

    def set_clock(self, ms: int) -> Json:
        """What was to be decided later is decided now."""
        with self.deciding:
            self.clock_ms = ms
            waiting, self.waiting = self.waiting, []
            for reference in waiting:
                self.settle(reference, "done")
        return {}

    def rehearse(self, what: str, query: dict[str, str]) -> Json:
        with self.deciding:
            if what == "clock":
                return self.set_clock(int(query["ms"]))
            if what == "shut":
                self.is_shut = query["is_so"] == "1"
                return {}
            if what == "decline":
                (self.declining.add if query["is_so"] == "1" else self.declining.discard)(query["method"])
                return {}
            if what == "journal":
                return {"lines": self.journal[int(query["after"]) :]}
            if what == "pages":
                shown = [told for told in self.told.values() if told["outcome"] == "needs_customer"]
                return {"pages": [told["reference"] for told in shown if told["expires_ms"] > self.clock_ms]}
            if what == "signed":  # a report, for whoever delivers it
                told = json.loads(query["told"]) if "told" in query else self.told[query["reference"]]
                body, timestamp = json.dumps(told), str(int(time.time()))
                made = self.sign("report", timestamp, "report", body.encode())
                return {"body": body, "timestamp": timestamp, "signature": made}
        raise KeyError(what)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked was killed: nothing to be said of."""


class AskedAtTheTill(Asked):
    server: Till

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        place, _, name = url.path.strip("/").partition("/")
        if place == "rehearse":
            return self._say(self.server.rehearse(name, dict(parse_qsl(url.query))))
        return super().do_GET()

    def _answer(self, act: Any) -> None:
        if not self.server.is_shut:  # else the connection ends without an answer
            super()._answer(act)


def _end_with_the_test() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--seed", required=True)
    args = parser.parse_args(namespace=argparse.Namespace(report_to="", enter_methods=False))
    threading.Thread(target=_end_with_the_test, daemon=True).start()
    with Till(args) as server:
        print(f"listening on {server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
