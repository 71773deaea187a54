"""What holds for all pages: cookies, forms that are ours, the policy, files, refusals."""

from __future__ import annotations

import gzip
import re

import pytest

from service.pages.cookies import LOG_IN, VISITOR
from service.pages.forgery import TOKEN_CHARS, Forgery
from service.pages.forms import own_path
from service.pages.static import TYPES
from tests.service.api.office import PASSWORD, add_owner
from tests.service.api.server import Server
from tests.service.pages import people
from tests.service.pages.visitor import Visitor
from tests.service.world import World

STRANGERS = ("/", "/log-in", "/log-in/operator", "/agreement", "/agreement/1", "/privacy", "/nowhere-at-all")


@pytest.mark.parametrize("path", STRANGERS)
def test_a_page_keeps_to_its_policy_and_loads_nothing_from_elsewhere(visitor: Visitor, path: str) -> None:
    shown = visitor.get(path, Accept="text/html")
    headers = shown.reply.headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self'" in policy
    assert "unsafe" not in policy
    assert not shown.html.inline, "the policy would stop it"
    assert shown.html.loaded
    for address in shown.html.loaded:
        assert address.startswith("/static/")
        assert visitor.get(address).status == 200
    assert not re.search(r'(?:src|href|action)="?(?:https?:)?//', shown.source)


def test_files_are_kept_for_ever_by_their_content(server: Server) -> None:
    from service.pages.static import file

    for name in TYPES:
        found = file(name)
        reply = server.get(found.address, token=None, Accept_Encoding="gzip")
        assert gzip.decompress(reply.body) == found.data
        assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert server.get(found.address, token=None).body == found.data
        assert server.get(f"/static/0000000000000000/{name}", token=None).status == 404
    assert server.get(f"/static/{found.digest}/../pages.css", token=None).status == 404


def test_own_files_name_no_foreign_address() -> None:
    from service.pages.static import file

    for name in ("pages.css", "pages.mjs"):
        assert not re.search(rb"https?:|@import|url\(", file(name).data), name


def test_a_log_in_is_a_cookie_that_scripts_and_other_sites_do_not_get(server: Server) -> None:
    visitor, _ = people.owner(server)
    [made] = [cookie for cookie in visitor.set_cookies if cookie.startswith(f"{LOG_IN}=")]
    assert made.startswith(f"{LOG_IN}=cka_")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(made.split("; "))
    assert "Secure" not in made, "a browser would not send it back without TLS"
    assert VISITOR not in visitor.cookies
    assert visitor.get("/").goes_to == "/cameras"


def test_behind_tls_cookies_are_of_this_host_alone(world: World) -> None:
    with Server(world, trusted_proxies="127.0.0.1") as server:
        said = {"X_Forwarded_For": "203.0.113.9", "X_Forwarded_Proto": "https"}
        visitor = Visitor(server, **said)
        visitor.get("/log-in")
        [made] = visitor.set_cookies
        assert made.startswith(f"__Host-{VISITOR}=")
        assert "Secure" in made.split("; ")
        assert "Domain" not in made
        person = add_owner(server)
        done = visitor.fill(visitor.get("/log-in"), "/log-in", login=str(person.account), password=PASSWORD)
        assert done.goes_to == "/cameras"
        assert f"__Host-{LOG_IN}" in visitor.cookies
        # One that another host of the domain may have set is not looked at.
        stolen = Visitor(server, **said)
        stolen.cookies[LOG_IN] = visitor.cookies[f"__Host-{LOG_IN}"]
        assert stolen.get("/cameras").goes_to.startswith("/log-in")


def test_nobody_but_a_named_proxy_says_that_there_was_tls(server: Server) -> None:
    visitor = Visitor(server, X_Forwarded_Proto="https")
    visitor.get("/log-in")
    assert all("Secure" not in cookie for cookie in visitor.set_cookies)
    assert VISITOR in visitor.cookies


def test_a_form_without_its_token_does_nothing(server: Server) -> None:
    person = add_owner(server)
    fields = {"login": str(person.account), "password": PASSWORD}
    visitor = Visitor(server)
    page = visitor.get("/log-in")
    for token in ("", "x" * TOKEN_CHARS, page.form("/log-in").fields["form"][:-1] + "~"):
        refused = visitor.post("/log-in", {**fields, "form": token})
        assert refused.status == 403
        assert "nothing was done" in refused.html.text
        assert LOG_IN not in visitor.cookies
    # Another stranger's token is bound to another cookie: nobody is logged in by a form that is not his own.
    other = Visitor(server)
    other.get("/log-in")
    assert other.post("/log-in", fields | {"form": page.form("/log-in").fields["form"]}).status == 403
    assert (
        Visitor(server).post("/log-in", fields | {"form": page.form("/log-in").fields["form"]}).status == 403
    )
    assert visitor.fill(page, "/log-in", **fields).status == 303


def test_a_form_that_another_site_sent_does_nothing(server: Server) -> None:
    visitor, _ = people.owner(server)
    form = visitor.get("/agreement").form("/log-out")
    for site in ("cross-site", "same-site"):
        assert visitor.post("/log-out", form.fields, Sec_Fetch_Site=site).status == 403
    assert visitor.post("/log-out", form.fields, Sec_Fetch_Site="same-origin").goes_to == "/?said=logged_out"


def test_logging_out_ends_the_log_in_everywhere(server: Server) -> None:
    visitor, _ = people.owner(server)
    token = visitor.cookies[LOG_IN]
    page = visitor.get("/agreement")
    done = visitor.fill(page, "/log-out")
    assert LOG_IN not in visitor.cookies
    assert "You are logged out" in visitor.follow(done).html.text
    visitor.cookies[LOG_IN] = token
    assert visitor.get("/cameras").goes_to == "/log-in?said=session_ended&next=/cameras"
    assert LOG_IN not in visitor.cookies


def test_a_token_in_a_form_looks_different_each_time() -> None:
    calls = iter(range(1, 100))
    forgery = Forgery(b"secret", lambda count: bytes([next(calls)]) * count)
    one, other = forgery.token("cookie"), forgery.token("cookie")
    assert one != other
    assert len(one) == TOKEN_CHARS
    assert forgery.is_good("cookie", one)
    assert forgery.is_good("cookie", other)
    assert not forgery.is_good("cookies", one)
    assert not forgery.is_good("", forgery.token(""))
    assert not forgery.is_good("cookie", "é" * TOKEN_CHARS)
    assert forgery.is_sealed("camera 1", "cookie", forgery.sealed("camera 1", "cookie"))
    assert not forgery.is_sealed("camera 2", "cookie", forgery.sealed("camera 1", "cookie"))


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "\\evil",
        "evil",
        "/a\nb",
        "/" + "a" * 600,
        "",
    ],
)
def test_nobody_is_sent_elsewhere_after_a_log_in(path: str) -> None:
    assert own_path(path) == ""


def test_a_log_in_goes_on_to_the_page_that_was_asked_for(server: Server) -> None:
    person = add_owner(server)
    visitor = Visitor(server)
    asked = visitor.get("/cameras/7/settings?day=2026-07-01")
    assert asked.goes_to == "/log-in?said=log_in_first&next=/cameras/7/settings%3Fday%3D2026-07-01"
    page = visitor.get(asked.goes_to)
    done = visitor.fill(page, "/log-in", login=str(person.account), password=PASSWORD)
    assert done.goes_to == "/cameras/7/settings?day=2026-07-01"
    page = visitor.get("/log-in?next=//evil.example")
    assert page.form("/log-in").fields["next"] == ""


def test_what_was_entered_is_shown_again_and_never_as_markup(visitor: Visitor) -> None:
    hostile = "\"><script>alert(1)</script>'"
    page = visitor.get("/log-in")
    refused = visitor.fill(page, "/log-in", login=hostile, password="x")
    assert refused.status == 401
    assert "<script>alert" not in refused.source
    assert refused.form("/log-in").fields["login"] == hostile
    assert "password" in refused.form("/log-in").fields
    assert refused.form("/log-in").fields["password"] == ""


def test_a_page_says_only_what_it_knows_by_code(visitor: Visitor) -> None:
    assert "You are logged out" in visitor.get("/?said=logged_out").html.text
    assert "Send money" not in visitor.get("/?said=Send+money").source


def test_what_is_no_form_is_refused(visitor: Visitor) -> None:
    page = visitor.get("/log-in")
    token = page.form("/log-in").fields["form"]
    assert visitor.post("/log-in", b'{"login": "1"}', Content_Type="application/json").status == 415
    assert visitor.post("/log-in", f"form={token}&login=1&login=2&password=x".encode()).status == 400
    assert visitor.post("/log-in", b"login=%ff").status == 400
    assert visitor.post("/log-in", b"login=%00").status == 400
    assert visitor.post("/log-in", b"login=" + b"a" * 70_000).status == 413


def test_an_operator_logs_in_with_a_token(server: Server) -> None:
    visitor, person = people.operator(server)
    assert visitor.cookies[LOG_IN] == person.token
    assert visitor.get("/").goes_to == "/operator"
    stranger = Visitor(server)
    page = stranger.get("/log-in/operator")
    for token in ("cko_" + "A" * 43, "cka_" + "A" * 43, "x"):
        refused = stranger.fill(page, "/log-in/operator", token=token)
        assert refused.status == 401
        assert LOG_IN not in stranger.cookies
    assert visitor.get("/cameras").goes_to.startswith("/log-in"), "it is no owner's"


def test_a_refusal_is_a_page_with_what_to_do(visitor: Visitor) -> None:
    missing = visitor.get("/agreement/99")
    assert missing.status == 404
    assert "not yours" in missing.html.text
    assert visitor.get("/agreement/0").status == 400
    assert visitor.get("/nowhere", Accept="text/html").reply.headers["content-type"].startswith("text/html")
    assert visitor.get("/v1/nowhere", Accept="text/html").reply.error == "not_found"
