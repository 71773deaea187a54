"""What is sold, over HTTP: for anybody, and for next to nothing."""

from __future__ import annotations

from typing import Any

import pytest

from retention.money import Money
from retention.packages import Package, PackageKind
from retention.terms import Terms
from retention.upload_limits import UploadLimits
from service.agreement import fees, packages
from service.agreement.desk import OPERATOR
from service.api import packages as pages
from service.api.models.subscriptions import PackageView
from tests.service.api.office import add_owner
from tests.service.api.server import Server, refused
from tests.service.world import World


def usd(minor: int) -> Terms:
    return Terms(Money(minor, "USD"), Money(minor, "USD"))


def names(server: Server, query: str = "") -> list[str]:
    reply = server.ask("GET", f"/v1/packages{query}")
    assert reply.status == 200, reply
    return [package["package"] for package in reply.json]


def test_a_thousand_requests_of_strangers_read_the_packages_once(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were read and decoded, up to 1000 versions, for each request."""
    reads: list[int] = []
    all_of = packages.all_of

    def counted(books: Any) -> list[Package]:
        reads.append(1)
        return all_of(books)

    monkeypatch.setattr(packages, "all_of", counted)
    for _ in range(50):
        assert names(server) == ["annual", "monthly", "trial"]
        assert server.ask("GET", "/v1/prices").json["monthly"] == {"minor": 599, "currency": "USD"}
    assert len(reads) == 1


def test_a_change_is_seen_with_the_next_look(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(server) == ["annual", "monthly", "trial"]
    monkeypatch.setattr(pages, "LOOK_EVERY_S", 0.0)
    limits = UploadLimits(1 << 30, 2)
    new = Package(
        "basic", 1, PackageKind.MONTHLY, 7, world.desk().date(), prices={"USD": usd(199)}, limits=limits
    )
    packages.add(world.desk(), OPERATOR, new)
    shown = server.ask("GET", "/v1/packages").json
    assert [package["package"] for package in shown] == ["annual", "basic", "monthly", "trial"]
    assert (shown[1]["max_bytes_per_day"], shown[1]["max_chunks_per_s"]) == (1 << 30, 2)
    assert (shown[0]["max_bytes_per_day"], shown[0]["max_chunks_per_s"]) == (None, None)
    packages.end(world.desk(), OPERATOR, "basic", last_day=world.desk().date() - packages.rules._DAY)
    assert names(server) == ["annual", "monthly", "trial"]


def test_a_long_list_comes_in_pages(world: World, server: Server) -> None:
    for number in range(120):
        new = Package(
            f"p{number:03}", 1, PackageKind.MONTHLY, 7, world.desk().date(), prices={"USD": usd(199)}
        )
        packages.add(world.desk(), OPERATOR, new)
    found: list[str] = []
    while page := names(server, f"?after={found[-1]}" if found else ""):
        assert len(page) <= pages.PAGE
        found += page
    assert found == sorted(found)
    assert len(found) == 123
    assert names(server, "?limit=2&after=p001") == ["p002", "p003"]
    refused(server.ask("GET", "/v1/packages?limit=51"), 400, "malformed")
    refused(server.ask("GET", "/v1/packages?after=NO"), 400, "malformed")


def test_an_owner_sees_the_fee_that_comes(world: World, server: Server) -> None:
    ada = add_owner(server)
    device = ada.add_device()
    ada.buy(device)
    [before] = ada.get(f"/v1/devices/{device}/subscriptions")
    assert (before["next_fee"], before["next_fee_from"]) == (None, None)
    packages.reprice(world.desk(), OPERATOR, "monthly", {"USD": usd(699)})
    fees.apply(world.desk(), OPERATOR, "monthly")
    [after] = ada.get(f"/v1/devices/{device}/subscriptions")
    assert after["next_fee"] == {"minor": 699, "currency": "USD"}
    assert after["next_fee_from"] > after["last_day"]
    assert after["fee"] == before["fee"]


def test_a_stranger_who_asks_for_odd_pages_has_nothing_made_anew_for_anybody(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 pages were kept for a day: as many odd ones left no place to the one that all ask for."""
    assert names(server) == ["annual", "monthly", "trial"]
    made: list[Package] = []
    of = PackageView.of

    def counted(found: Package) -> PackageView:
        made.append(found)
        return of(found)

    monkeypatch.setattr(PackageView, "of", counted)
    for number in range(70):
        assert names(server, f"?after=a{number}&limit=1") == ["annual"]
    assert names(server, "?limit=2") == ["annual", "monthly"]
    assert names(server, "?after=annual") == ["monthly", "trial"]
    assert names(server, "?after=zebra") == []
    assert made == []
