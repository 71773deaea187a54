"""A payment gateway to rehearse with, and to read beside docs/payments.md: the other side of `gateway = "http"`, in
Python's own library alone. It keeps everything in memory, and moves no money.

What becomes of a charge is said by its method's name: `card…` is charged; `declined…`; `confirm…`, whoever pays opens a
page; `later…`, reported after a second; `early…`, reported twice before it is answered; `kept…` is charged, and the
first refund of it is declined. What goes wrong with the first request of a reference: `lost…` is charged and not
answered, `failing…` 500, `slow…` and `silent…` answered late or never, `forged…` not signed with the key. With
--enter-methods a new method has a page; opened with `?as=declined` at its end, say, it makes one of that name.
GET /rehearse/receipts tells what was charged and given back, and
/rehearse/dispute?reference=…&dispute=…&outcome=open|lost|won&currency=USD&minor=… makes a dispute.
"""

from __future__ import annotations

import argparse
import hmac
import json
import threading
import time
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Json = dict[str, Any]


class Gateway(ThreadingHTTPServer):
    """All that is known, by reference, and who is told of it."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(("127.0.0.1", args.port), Asked)
        self.report_to, self.enter_methods = args.report_to, args.enter_methods
        self.keys = [key.encode() for key in args.key_file.read_text().split()]
        self.lock = threading.Lock()
        self.asked: dict[str, Json] = {}
        self.told: dict[str, Json] = {}
        self.methods: dict[str, Json] = {}
        self.seen: set[str] = set()

    def sign(self, kind: str, timestamp: str, subject: str, body: bytes) -> str:
        head = f"v1\n{kind}\n{timestamp}\n{subject}\n".encode()
        return ", ".join("v1=" + hmac.new(key, head + body, "sha256").hexdigest() for key in self.keys)

    def report(self, what: Json) -> int:
        """Tell Clipkeep, three times at most: what was not taken is to be sent again. Its status, 0 without one."""
        body, timestamp = json.dumps(what).encode(), str(int(time.time()))
        headers = {"Content-Type": "application/json", "Clipkeep-Timestamp": timestamp}
        headers["Clipkeep-Signature"] = self.sign("report", timestamp, "report", body)
        for pause_s in (0.2, 1.0, 0.0):
            try:
                request = urllib.request.Request(self.report_to, body, headers)
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return int(answer.status)
            except OSError:
                time.sleep(pause_s)
        return 0

    def settle(self, reference: str, outcome: str, *, tell: bool = False, **more: Any) -> Json:
        """Decide a payment; what was decided for ever stays."""
        with self.lock:
            asked, told = self.asked[reference], self.told.get(reference, {})
            if told.get("outcome") not in ("done", "declined", "void"):
                about = {name: asked[name] for name in ("reference", "amount_minor", "currency")}
                told = {"about": "payment", "outcome": outcome, "gateway_id": "demo", **about, **more}
                self.told[reference] = told
        if tell and self.report_to:
            self.report(told)
        return told

    def goes_wrong(self, asked: Json) -> str:
        """How this request does: as the method's name says, the first time."""
        is_first = asked.get("reference") not in self.seen
        self.seen.add(asked.get("reference", ""))
        return str(asked.get("method", "")) if is_first else ""

    def page(self, what: str, reference: str) -> Json:
        url = f"http://127.0.0.1:{self.server_port}/{what}/{reference}"
        return {"outcome": "needs_customer", "url": url, "expires_ms": int(time.time() * 1000) + 600_000}

    def charge(self, asked: Json) -> Json:
        reference, method = asked["reference"], asked["method"]
        with self.lock:
            self.asked.setdefault(reference, asked | {"kind": "charge"})
            told = self.told.get(reference)
        if told is not None:  # an answer that disagrees with what is asked is not believed
            return told
        if method.startswith("declined"):
            return self.settle(reference, "declined", detail="the bank said no")
        if method.startswith("confirm"):
            return self.settle(reference, **self.page("confirm", reference))
        if method.startswith("later"):
            threading.Timer(1, self.settle, (reference, "done"), {"tell": True}).start()
            return self.settle(reference, "pending")
        for _ in range(2):
            told = self.settle(reference, "done", tell=method.startswith("early"))
        return told or {}

    def refund(self, asked: Json) -> Json:
        with self.lock:
            this = self.asked.setdefault(asked["reference"], asked | {"kind": "refund"})
            charged = self.told.get(asked["of"], {"outcome": "unknown"})
            method = self.asked.get(asked["of"], {}).get("method", "")
            earlier = any(each.get("of") == asked["of"] for each in self.asked.values() if each is not this)
        if charged["outcome"] != "done" or charged["amount_minor"] < asked["amount_minor"]:
            return self.settle(asked["reference"], "declined", detail="no such charge, or a smaller one")
        if method.startswith("kept") and not earlier:
            return self.settle(asked["reference"], "declined", detail="the card was closed")
        return self.settle(asked["reference"], "done")

    def void(self, asked: Json) -> Json:
        with self.lock:
            self.asked.setdefault(asked["reference"], asked | {"kind": "charge"})
        return self.settle(asked["reference"], "void")

    def set_up(self, asked: Json) -> Json:
        reference = asked["reference"]
        usable = {"about": "method", "reference": reference, "outcome": "usable"}
        usable |= {"method": f"card-{reference}", "label": "Demo 4242"}
        page = self.page("enter", reference) if self.enter_methods else {}
        with self.lock:
            return self.methods.setdefault(reference, usable | page)

    def remove(self, asked: Json) -> Json:
        self.methods[asked["reference"]] = told = {"reference": asked["reference"], "outcome": "removed"}
        return told


class Asked(BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        acts = {"/charges": self.server.charge, "/refunds": self.server.refund, "/voids": self.server.void}
        acts |= {"/methods": self.server.set_up, "/methods/removals": self.server.remove}
        self._answer(acts.get(self.path))

    def do_GET(self) -> None:
        url, gateway = urlsplit(self.path), self.server
        place, _, name = url.path.strip("/").partition("/")
        query = dict(parse_qsl(url.query))
        if place in ("payments", "methods"):
            there = gateway.told if place == "payments" else gateway.methods
            self._answer(lambda asked: there.get(name, {"reference": name, "outcome": "unknown"}))
        elif place == "confirm":
            self._say(gateway.settle(name, "done", tell=True, url=""))
        elif place == "enter":
            method = f"{query.get('as', 'card')}-{name}"
            gateway.methods[name] |= {"outcome": "usable", "url": "", "expires_ms": None, "method": method}
            self._say({"status": gateway.report(gateway.methods[name])})
        elif name == "dispute":
            what: Json = {"about": "dispute", "amount_minor": int(query.pop("minor")), **query}
            self._say({"status": gateway.report(what)})
        else:
            done = [told for told in gateway.told.values() if told["outcome"] == "done"]
            self._say({"receipts": [told | {"asked": gateway.asked[told["reference"]]} for told in done]})

    def _say(self, document: Json, status: int = 200) -> None:
        self._send(json.dumps(document).encode(), status, {})

    def _send(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, act: Callable[[Json], Json] | None) -> None:
        timestamp, subject = self.headers.get("Clipkeep-Timestamp", ""), f"{self.command} {self.path}"
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 65536))
        given = [each.strip() for each in self.headers.get("Clipkeep-Signature", "").split(",")]
        wanted = self.server.sign("request", timestamp, subject, body).split(", ")
        signed = any(hmac.compare_digest(one, each) for one in wanted for each in given)
        fresh = timestamp.isdigit() and abs(int(timestamp) - time.time()) <= 300
        if act is None or not (signed and fresh):
            return self._say({}, 401 if act else 404)
        asked = json.loads(body or b"{}")
        wrong = self.server.goes_wrong(asked)
        if wrong.startswith("failing"):
            return self._say({}, 500)
        told = json.dumps(act(asked)).encode()
        if wrong.startswith("lost"):
            return None
        if wrong.startswith(("slow", "silent")):
            time.sleep(3 if wrong.startswith("slow") else 3600)
        made = self.server.sign("answer", timestamp, subject, told)
        if wrong.startswith("forged"):
            made = "v1=" + "0" * 64
        return self._send(told, 200, {"Clipkeep-Timestamp": timestamp, "Clipkeep-Signature": made})

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: references and amounts are nobody else's."""


def main() -> None:
    parser = argparse.ArgumentParser(description="a payment gateway to rehearse with")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--key-file", type=Path, required=True, help="one key, or two, as Clipkeep has them")
    parser.add_argument("--report-to", default="", help="Clipkeep's /v1/payments/reports")
    parser.add_argument("--enter-methods", action="store_true", help="new methods are entered on a page")
    with Gateway(parser.parse_args()) as server:
        print(f"listening on {server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
