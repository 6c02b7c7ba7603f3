"""What holds for all routes of lists: no number in the logs, a store that fails, turns, ends of days."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy.exc import OperationalError

from portal.lists import service as lists_service
from portal.lists.models import until_s
from tests.unit.portal.lists.api import (
    ONE,
    SECRETS,
    THREE,
    TWO,
    Api,
    done_of,
    problem_of,
)


async def test_no_number_is_in_the_logs(api: Api, tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        await api.load("dnc", "phone", ONE, TWO)
        await api.load("dnc", "phone", ONE, "2125550", column="phone", filename="people.csv")
        await api.load("dnc", ONE, token="acme")
        await api.load("dnc", ONE, token="")
        await api.post("/lists/dnc/entries", {"add": [THREE], "remove": [ONE]})
        await api.post("/lists/dnc/entries", {"add": ["+1212555010"]})
        await api.post("/check", {"number": TWO, "buyer": "acme"})
        await api.post("/check", {"number": TWO}, "west")
        await api.post("/receipts/verify", {"receipt": TWO, "number": TWO})
    events = [one["event"] for one in logs]
    assert {"list_imported", "list_refused", "list_edited", "number_checked", "forbidden", "unauthorized"} <= {*events}
    text = repr(logs) + repr([one.detail for one in await api.store.log("dnc")])
    assert "5550" not in text
    assert not any(secret in text for secret in SECRETS.values())


async def test_a_store_that_fails_is_503_and_leaves_nothing_behind(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise OperationalError("select", {}, Exception("the disk"))

    monkeypatch.setattr(lists_service, "import_file", broken)
    assert problem_of(await api.load("dnc", ONE), 503)["detail"] == "the store cannot be reached"
    assert not api.left_behind()
    monkeypatch.undo()
    assert done_of(await api.load("dnc", ONE))["changed"] is True


async def test_look_ups_wait_for_each_other_and_not_for_ever(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists_service, "LOOKING_S", 0.05)
    async with api.lists.looking(), api.lists.looking():
        late = await api.post("/check", {"number": ONE})
    assert problem_of(late, 503)["detail"] == "other requests read lists from disk"
    done_of(await api.post("/check", {"number": ONE}))


def test_a_day_ends_with_its_last_second_in_its_zone() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for zone, hour in (("UTC", 0), ("America/New_York", 5), ("America/Los_Angeles", 8)):
        assert until_s("2026-01-31", now, zone) == int(datetime(2026, 2, 1, hour, tzinfo=UTC).timestamp())
    assert until_s("2026-01-31T13:00", now, "UTC") == until_s("2026-01-31T14:00+01:00", now, "America/New_York")
    for text in ("", "x", "2026-02-30", "9999-12-31", "0001-01-01T00:00+14:00", "2026-01-31T12:00Z", "2026-01-30",
                 "2106-02-08"):  # fmt: skip
        with pytest.raises(ValueError, match=r"is (no date|in the past|later than)"):
            until_s(text, now, "UTC")
