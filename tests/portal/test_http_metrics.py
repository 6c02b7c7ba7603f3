"""What is counted of requests: the route as it is described, the status, the time to the head, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from portal.app import describe
from portal.http.rate_limit import RateLimit
from telemetry import metrics
from tests.portal.house import House, open_house


def _requests(method: str, route: str, status: int) -> float:
    return float(metrics.HTTP_REQUESTS.labels(method, route, str(status))._value.get())


def _limited(why: str) -> float:
    return float(metrics.HTTP_LIMITED.labels(why)._value.get())


def _grown(read: Callable[[], float]) -> Callable[[], float]:
    before = read()
    return lambda: read() - before


async def test_a_request_is_counted_under_its_route_and_never_under_what_stands_in_it(house: House) -> None:
    cases = [
        ("noc", "GET", "/buyers/acme", "/v1/buyers/{buyer}", 200),
        ("acme", "GET", "/buyers/best", "/v1/buyers/{buyer}", 404),
        ("", "GET", "/buyers/acme", "/v1/buyers/{buyer}", 401),
        ("noc", "GET", "/nothing/at/all", "other", 404),
        ("noc", "GET", "/health", "/v1/health", 200),
        ("noc", "HEAD", "/transfers/t-2/recording", "/v1/transfers/{transfer}/recording", 200),
        ("noc", "GET", "/openapi.json", "other", 200),
    ]
    seconds = _grown(lambda: float(metrics.HTTP_SECONDS._sum.get()))
    for who, method, path, route, status in cases:
        count = _grown(lambda method=method, route=route, status=status: _requests(method, route, status))
        assert (await house.ask(who, method, path)).status_code == status
        assert count() == 1, path
    other = _grown(lambda: _requests("other", "other", 404))
    assert (await house.ask("noc", "BREW", "/nothing")).status_code == 404
    assert other() == 1
    assert seconds() > 0
    counted = {labels[1] for labels in metrics.HTTP_REQUESTS._metrics}
    assert counted <= {*describe()["paths"], "other"}


async def test_a_fault_of_ours_is_counted_as_500(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(house.buyers, "find", broken)
    count = _grown(lambda: _requests("GET", "/v1/buyers/{buyer}", 500))
    assert (await house.ask("noc", "GET", "/buyers/acme")).status_code == 500
    assert count() == 1


async def test_what_a_limit_refuses_is_counted_by_why(tmp_path: Path) -> None:
    async with open_house(tmp_path, rates=RateLimit(3, 1)) as strict:
        requests, failures = _grown(lambda: _limited("requests")), _grown(lambda: _limited("failures"))
        for _ in range(5):
            await strict.ask("acme", "GET", "/buyers")
        assert (requests(), failures()) == (2, 0)
        for _ in range(3):
            await strict.ask("", "GET", "/buyers")
        assert (requests(), failures()) == (2, 2)


@pytest.mark.parametrize(
    ("counter", "labels"),
    [
        (metrics.HTTP_LIMITED, ("streams",)),
        (metrics.HTTP_LIMITED, ("tests",)),
        (metrics.COMMANDS, ("none", "unauthorized")),
        (metrics.COMMANDS, ("suppress", "refused")),
        (metrics.EVENTS_PUBLISHED, ("outcome",)),
    ],
)
def test_a_closed_label_is_there_from_the_start(counter: object, labels: tuple[str, ...]) -> None:
    assert labels in counter._metrics  # type: ignore[attr-defined]
