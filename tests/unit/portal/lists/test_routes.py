"""Suppression lists over HTTP, on a real store with real files: scopes, imports, changes, look-ups, receipts."""

from __future__ import annotations

import asyncio
import errno
import gzip
import hashlib
import io
import os
import shutil
import threading
import time
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
import pytest
import structlog
from sqlalchemy.exc import OperationalError

from baton.suppression_lists import list_store
from book.lists import Actor
from meter.store.engine import open_store
from meter.suppression_rows.sql.lists import ListRows
from portal.app import create_app
from portal.health.service import HealthService
from portal.http import uploads
from portal.http.services import Services
from portal.http.tokens import Scope, Token, TokenBook
from portal.lists import service as desk_module
from portal.lists.models import until_s
from portal.lists.service import ListsService
from suppression.activating import ListRefusedError, look
from suppression.editing import edit
from suppression.importer import ImportResult, Task, import_file
from suppression.lookups import rows
from suppression.reading.shapes import ReadOptions
from suppression.receipt import Signer
from suppression.scrub import Scrub

SECRETS = {"west": "w" * 32, "acme": "a" * 32, "acme-2": "A" * 32, "bolt": "b" * 32, "noc": "n" * 32}
OWNERS = {
    "west": (Scope.DIALER, "west"),
    "acme": (Scope.BUYER, "acme"),
    "acme-2": (Scope.BUYER, "acme"),
    "bolt": (Scope.BUYER, "bolt"),
    "noc": (Scope.OPERATOR, ""),
}
ONE, TWO, THREE, FREE = "+12125550100", "+12125550101", "+12125550102", "+12125550199"
BASE = "/v1/suppression"
MOST = 1_000_000  # bytes of an upload
ANN = Actor("ann", "cli:noc-desk-7")


def _tokens() -> tuple[Token, ...]:
    return tuple(
        Token(name, hashlib.sha256(secret.encode()).hexdigest(), *OWNERS[name]) for name, secret in SECRETS.items()
    )


def _auth(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {SECRETS[token]}"} if token else {}


async def _well() -> bool:
    return True


class Api:
    """The app, its store, and a client."""

    def __init__(self, store: ListRows, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.signer = Signer(b"k" * 32)
        self.desk = ListsService(store, folder, self.signer, self._buyers, keep_versions=2, max_import_bytes=MOST)
        services = Services(TokenBook(_tokens()), HealthService(_well), self.desk)
        self.app = create_app(services)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=("192.0.2.7", 5000))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://portal.invalid")

    async def _buyers(self) -> tuple[str, ...]:
        return "acme", "bolt"

    async def load(
        self, name: str, *lines: str, token: str = "noc", content: Any = None, **said: Any
    ) -> httpx.Response:
        """Import these lines."""
        body = content if content is not None else ("\n".join(lines) + "\n").encode()
        return await self.client.post(f"{BASE}/lists/{name}/imports", content=body, params=said, headers=_auth(token))

    async def post(self, path: str, said: Any, token: str = "noc", **headers: str) -> httpx.Response:
        body = said if isinstance(said, bytes) else orjson.dumps(said)
        given = {"Content-Type": "application/json", **_auth(token), **headers}
        return await self.client.post(BASE + path, content=body, headers=given)

    async def get(self, path: str, token: str = "noc", **said: Any) -> httpx.Response:
        return await self.client.get(BASE + path, params=said, headers=_auth(token))

    async def numbers(self, name: str) -> list[str]:
        return [one for one, _ in rows(await look(self.store, self.folder, name, must_load=True))]

    def left_behind(self) -> list[Path]:
        """Uploads that were not deleted."""
        return list(self.desk.uploads.iterdir()) if self.desk.uploads.exists() else []


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with nothing in it, to be copied."""
    file = tmp_path_factory.mktemp("store") / "baton.db"

    async def make() -> None:
        await (await open_store(f"sqlite:///{file}")).dispose()

    asyncio.run(make())
    return file


@pytest.fixture
async def api(tmp_path: Path, empty: Path) -> AsyncIterator[Api]:
    structlog.reset_defaults()  # another test may have left logs that go to a stream which is closed
    shutil.copy(empty, tmp_path / "baton.db")
    engine = await open_store(f"sqlite:///{tmp_path / 'baton.db'}")
    one = Api(list_store(engine), tmp_path)
    yield one
    await one.desk.close()
    assert not one.left_behind()
    await one.client.aclose()
    await engine.dispose()


def _problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    found: dict[str, Any] = response.json()
    assert (response.status_code, found["status"]) == (status, status), response.text
    return found


def _done(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def _fields(problem: dict[str, Any]) -> list[str]:
    return [one["field"] for one in problem["errors"]]


# --- who may do what -------------------------------------------------------------------------------------------------

ROUTES = [
    ("GET", "/lists", None, {"acme", "noc"}),
    ("POST", "/lists/acme-own/imports", ONE, {"acme", "noc"}),
    ("POST", "/lists/acme-own/entries", {"add": [TWO]}, {"acme", "noc"}),
    ("POST", "/lists/acme-own/restore", {"version": 1}, {"acme", "noc"}),
    ("GET", "/lists/acme-own/log", None, {"acme", "noc"}),
    ("POST", "/check", {"number": ONE}, {"acme", "noc", "bolt"}),
    ("POST", "/receipts/verify", {"receipt": "x"}, {"west", "noc"}),
    ("DELETE", "/lists/acme-own", None, {"acme", "noc"}),
]


@pytest.mark.parametrize(("method", "path", "said", "allowed"), ROUTES, ids=[f"{one[0]} {one[1]}" for one in ROUTES])
async def test_a_route_is_for_its_scopes_alone(api: Api, method: str, path: str, said: Any, allowed: set[str]) -> None:
    await api.load("acme-own", THREE, token="acme")
    body = said.encode() if isinstance(said, str) else b"" if said is None else orjson.dumps(said)
    params = {"buyer": "acme"} if path.endswith("imports") else {}
    before = await api.store.stamp()

    async def ask(token: str, **headers: str) -> httpx.Response:
        given = {"Content-Type": "application/json", **_auth(token), **headers}
        return await api.client.request(method, BASE + path, content=body, params=params, headers=given)

    for wrong in ({}, {"Authorization": "Bearer " + "x" * 32}):
        _problem(await ask("", **wrong), 401)
    for token in sorted({"west", "acme", "bolt", "noc"} - allowed - ({"bolt"} if path == "/lists" else set())):
        expected = 404 if token == "bolt" and "entries restore log acme-own".find(path.rpartition("/")[2]) >= 0 else 403
        _problem(await ask(token), expected)
    assert await api.store.stamp() == before, "who was refused has changed nothing"
    for token in sorted(allowed):
        assert (await ask(token)).status_code not in (401, 403, 500), token
        if method == "DELETE":
            await api.load("acme-own", THREE, token="acme")


async def test_a_buyers_import_is_the_buyers_whatever_it_says(api: Api) -> None:
    assert _done(await api.load("mine", ONE, token="acme"))["entries"] == 1
    assert _done(await api.load("mine-too", ONE, token="acme-2", buyer="acme"))["entries"] == 1
    assert [(one.name, one.buyer) for one in await api.store.active()] == [("mine", "acme"), ("mine-too", "acme")]
    problem = _problem(await api.load("theirs", ONE, token="acme", buyer="bolt"), 403)
    assert _fields(problem) == ["buyer"]
    assert len(await api.store.active()) == 2


async def test_a_buyer_touches_no_list_but_its_own(api: Api) -> None:
    await api.load("dnc", ONE)
    await api.load("bolts", ONE, token="bolt")
    before = await api.store.active()
    for name, status in (("dnc", 403), ("bolts", 404), ("none", 404)):
        for response in (
            await api.post(f"/lists/{name}/entries", {"remove": [ONE]}, "acme"),
            await api.post(f"/lists/{name}/restore", {"version": 1}, "acme"),
            await api.client.delete(f"{BASE}/lists/{name}", headers=_auth("acme")),
            await api.get(f"/lists/{name}/log", "acme"),
        ):
            assert "bolt'" not in _problem(response, status)["detail"]
    assert await api.store.active() == before


@pytest.mark.parametrize("name", ["dnc", "bolts", "bolts-old"])
async def test_a_name_that_is_taken_stays_taken_and_whose_it_is_is_not_told(api: Api, name: str) -> None:
    await api.load("dnc", ONE)
    for taken in ("bolts", "bolts-old"):
        await api.load(taken, ONE, token="bolt")
    await api.client.delete(f"{BASE}/lists/bolts-old", headers=_auth("bolt"))
    before = await api.store.history(name)
    for mode in ("replace", "add", "remove"):
        problem = _problem(await api.load(name, TWO, token="acme", mode=mode), 403)
        assert "choose another name" in problem["detail"]
        assert "bolt'" not in problem["detail"]
        assert "global" not in problem["detail"]
    assert await api.store.history(name) == before


async def test_a_name_taken_while_the_file_came_is_refused_as_politely(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(store: Any, data_dir: Path, task: Task, who: Actor, **more: Any) -> ImportResult:
        faster = Task(task.file, task.name, "bolt", rejects_file=task.rejects_file)
        await import_file(store, data_dir, faster, ANN)
        return await import_file(store, data_dir, task, who, **more)

    monkeypatch.setattr(desk_module, "import_file", late)
    problem = _problem(await api.load("new", ONE, token="acme"), 403)
    assert "bolt" not in orjson.dumps(problem).decode()


async def test_the_operator_imports_for_buyers_of_the_book_and_for_everybody(api: Api) -> None:
    await api.load("dnc", ONE)
    await api.load("acme-own", ONE, buyer="acme")
    assert [(one.name, one.buyer) for one in await api.store.active()] == [("acme-own", "acme"), ("dnc", None)]
    problem = _problem(await api.load("nobodys", ONE, buyer="acne"), 422)
    assert _fields(problem) == ["buyer"]
    problem = _problem(await api.load("acme-own", ONE), 422)
    assert "is of buyer 'acme'; a list does not change hands" in problem["detail"]


async def test_everybody_sees_what_binds_him_and_no_more(api: Api) -> None:
    await api.load("dnc", ONE, TWO, filename="litigators-2026.csv")
    await api.load("acme-own", ONE, token="acme", filename="ours.csv")
    await api.load("bolts", ONE, token="bolt")
    whole = {one["name"]: one for one in _done(await api.get("/lists"))["lists"]}
    assert sorted(whole) == ["acme-own", "bolts", "dnc"]
    assert (whole["dnc"]["source"], whole["dnc"]["imported_by"]) == ("litigators-2026.csv", "noc")
    row = await api.store.find("dnc")
    assert row is not None
    assert (whole["dnc"]["entries"], whole["dnc"]["state"], whole["dnc"]["version"]) == (2, row.checksum, 1)
    own, shared = _done(await api.get("/lists", "acme"))["lists"]
    assert own == whole["acme-own"]
    assert (own["source"], own["buyer"]) == ("ours.csv", "acme")
    assert shared == {**whole["dnc"], "source": "", "imported_by": ""}


# --- imports ---------------------------------------------------------------------------------------------------------


async def test_a_file_is_in_force_when_it_is_answered_and_the_same_again_changes_nothing(api: Api) -> None:
    first = _done(await api.load("dnc", "name,phone", f"Ann,{ONE}", f"Bob,{TWO}", f"Ann,{ONE}", filename="dnc.csv"))
    assert first == {
        "name": "dnc",
        "version": 1,
        "revision": 0,
        "entries": 2,
        "before": 0,
        "changed": True,
        "dry_run": False,
        "kind": "number",
        "column": "phone",
        "columns": ["phone"],
        "lines": 3,
        "repeats": 1,
        "rejected": 0,
        "rejects": [],
        "kept_for_ever": 0,
        "ended": 0,
        "kept": [],
        "dropped": 0,
        "skipped": [],
        "unused": [
            {"what": "lines", "name": "1, the header: 'name', 'phone'", "member": "", "numbers": 0, "line": 0},
            {"what": "column", "name": "name", "member": "", "numbers": 0, "line": 0},
        ],
    }
    row = await api.store.find("dnc")
    assert row is not None
    assert (row.source, row.imported_by) == ("dnc.csv", "noc")
    again = _done(await api.load("dnc", "name,phone", f"Ann,{ONE}", f"Bob,{TWO}", f"Ann,{ONE}"))
    assert (again["changed"], again["version"], again["before"]) == (False, 1, 2)
    assert await api.store.find("dnc") == row


async def test_a_file_adds_removes_or_says_what_it_would_do(api: Api) -> None:
    await api.load("dnc", ONE)
    assert _done(await api.load("dnc", TWO, mode="add"))["entries"] == 2
    would = _done(await api.load("dnc", TWO, mode="remove", dry_run=True))
    assert (would["entries"], would["changed"], would["dry_run"]) == (1, False, True)
    assert await api.numbers("dnc") == [ONE, TWO]
    assert _done(await api.load("dnc", ONE, mode="remove"))["entries"] == 1
    assert await api.numbers("dnc") == [TWO]
    assert "no list called" in _problem(await api.load("none", ONE, mode="remove"), 422)["detail"]


async def test_columns_country_and_kind_are_as_they_are_said(api: Api) -> None:
    await api.load("npa", "area,line,until", "212,5550100,2099-01-31", column="line", area_column="area",
                   expires_column="until")  # fmt: skip
    assert await api.numbers("npa") == [ONE]
    base = await look(api.store, api.folder, "npa", must_load=True)
    assert [until for _, until in rows(base)] == [int(datetime(2099, 2, 1, 5, tzinfo=UTC).timestamp())]
    assert _done(await api.load("uk", "0113 496 0000", region="GB"))["column"] == "#1"
    assert await api.numbers("uk") == ["+441134960000"]
    digest = hashlib.md5(ONE.encode()).hexdigest()
    assert _done(await api.load("hashed", digest, hashed="md5"))["kind"] == "md5"
    await api.load("short", ONE, expires="2099-12-31")
    row = await api.store.find("short")
    assert row is not None
    assert row.expires_utc_us == int(datetime(2100, 1, 1, 5, tzinfo=UTC).timestamp()) * 1_000_000


async def test_packed_files_are_unpacked_and_an_empty_one_must_be_meant(api: Api) -> None:
    assert _done(await api.load("gz", content=gzip.compress(f"{ONE}\n".encode())))["entries"] == 1
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.csv", f"{ONE}\n")
        archive.writestr("readme.txt", "hello\n")
    done = _done(await api.load("zip", content=packed.getvalue(), member="*.csv"))
    assert (done["entries"], done["skipped"]) == (1, ["readme.txt"])
    assert "holds no number" in _problem(await api.load("gz", content=b""), 422)["detail"]
    assert _done(await api.load("gz", content=b"", allow_empty=True))["entries"] == 0


async def test_too_many_rejects_are_told_line_by_line_and_nothing_changes(api: Api) -> None:
    await api.load("dnc", ONE)
    problem = _problem(
        await api.load("dnc", "phone", TWO, "12", "", "no number", column="phone", filename="new.csv"), 422
    )
    assert problem["detail"].startswith("new.csv: 2 of 3 lines rejected, more than 2 %")
    assert _fields(problem) == ["line 3", "line 5"]
    assert "too short" in problem["errors"][0]["detail"]
    assert await api.numbers("dnc") == [ONE]
    done = _done(await api.load("dnc", "phone", TWO, "12", column="phone", reject_percent=50))
    assert (done["rejected"], done["lines"], done["entries"]) == (1, 2, 1)
    assert [(one["line"], one["member"]) for one in done["rejects"]] == [(3, "")]
    assert str(api.folder) not in orjson.dumps(problem).decode()


async def test_rejects_in_an_archive_name_the_member_and_are_told_up_to_a_thousand(api: Api) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.csv", f"phone\n{ONE}\n{TWO}\n{THREE}\n{FREE}\n12\n")
        archive.writestr("b.csv", "phone\n" + f"{ONE}\n" * 9_000 + "12\n" * 1_500)
    problem = _problem(await api.load("zip", content=packed.getvalue()), 422)
    assert _fields(problem)[:2] == ["a.csv, line 6", "b.csv, line 9002"]
    assert len(problem["errors"]) == 1000


@pytest.mark.parametrize("header", ["phone,mobile", "home,work"])
async def test_a_column_that_could_be_another_must_be_named(api: Api, header: str) -> None:
    lines = (header, *(f"+1212555{at:04},+1646555{at:04}" for at in range(100, 120)))
    problem = _problem(await api.load("dnc", *lines), 422)
    assert _fields(problem) == ["column"]
    assert problem["detail"].startswith("upload: ")
    assert "555" not in orjson.dumps(problem).decode()
    second = header.partition(",")[2]
    assert _done(await api.load("dnc", *lines, column=second))["column"] == second
    assert _fields(_problem(await api.load("dnc", *lines, column="cell"), 422)) == ["column"]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"mode": "append"}, "mode"),
        ({"hashed": "crc"}, "hashed"),
        ({"region": "XX"}, "region"),
        ({"region": "USA"}, "region"),
        ({"area_column": "a", "hashed": "md5"}, "area_column"),
        ({"reject_percent": "101"}, "reject_percent"),
        ({"reject_percent": "nan"}, "reject_percent"),
        ({"expires": "tomorrow"}, "expires"),
        ({"expires": "2020-01-01"}, "expires"),
        ({"expires": "9999-12-31"}, "expires"),
        ({"buyer": "../acme"}, "buyer"),
        ({"filename": "../../baton.db"}, "filename"),
        ({"filename": "a\\b"}, "filename"),
        ({"filename": ".rejects"}, "filename"),
        ({"filename": "a\nb"}, "filename"),
        ({"filename": "a\0b"}, "filename"),
        ({"filename": "\N{GRINNING FACE}" * 60}, "filename"),
        ({"filename": ""}, "filename"),
        ({"column": "x" * 201}, "column.0"),
        ({"keep_change": "true"}, "keep_change"),
    ],
)
async def test_a_parameter_that_is_wrong_is_named(api: Api, said: dict[str, str], field: str) -> None:
    assert _fields(_problem(await api.load("dnc", ONE, **said), 422)) == [field]
    assert not await api.store.active()


@pytest.mark.parametrize(
    ("name", "status"),
    [("Dnc", 422), ("..", 404), ("a%2Fb", 404), ("a/b", 404), ("%2e%2e", 422), ("-a", 422), ("a" * 65, 422)],
)
async def test_a_name_is_a_plain_word(api: Api, name: str, status: int) -> None:
    problem = _problem(await api.load(name, ONE), status)
    assert _fields(problem) == (["name"] if status == 422 else [])
    assert not await api.store.history(name)


# --- hostile bodies --------------------------------------------------------------------------------------------------


async def test_a_file_that_is_too_large_is_refused_by_its_length_or_when_it_is(api: Api) -> None:
    read = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            read.append(1)
            yield b"2125550100\n" * 1_000

    _problem(await api.load("dnc", content=endless()), 413)
    assert len(read) < 100, "nobody reads on when it is too much"
    for length in (str(MOST + 1), "9" * 30):
        headers = {**_auth("noc"), "Content-Length": length}
        request = api.client.build_request("POST", f"{BASE}/lists/dnc/imports", content=endless(), headers=headers)
        read.clear()
        _problem(await api.client.send(request), 413)
        assert not read, "what is declared too large is not read"
    just = f"{ONE}\n".encode() * (MOST // 13) + b"\n" * (MOST % 13)
    assert len(just) == MOST
    assert _done(await api.load("dnc", content=just))["lines"] == MOST // 13
    _problem(await api.load("dnc", content=just + b"\n"), 413)
    assert not api.left_behind()


async def test_a_file_may_take_its_time_but_not_stand_still(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "IDLE_S", 0.4)
    monkeypatch.setattr(uploads, "PACE", 100)

    async def paced(pieces: int, size: int, pause_s: float) -> AsyncIterator[bytes]:
        for _ in range(pieces):
            await asyncio.sleep(pause_s)
            yield f"{ONE}\n".encode() * size

    started = time.monotonic()
    assert _done(await api.load("dnc", content=paced(6, 10, 0.1)))["lines"] == 60
    assert time.monotonic() - started > 0.6, "longer in all than it may stand still"
    for content in (paced(2, 10, 5), paced(100, 1, 0.1)):
        problem = _problem(await api.load("slow", content=content), 408)
        assert "less than 100 bytes in 0.4 s" in problem["detail"]
        assert not api.left_behind()
    assert [one.name for one in await api.store.active()] == ["dnc"]


async def test_a_file_that_breaks_off_is_never_a_shorter_list(api: Api) -> None:
    await api.load("dnc", ONE, TWO)
    parts = [
        {"type": "http.request", "body": f"{ONE}\n".encode(), "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop(0) if len(parts) > 1 else parts[0]

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": f"{BASE}/lists/dnc/imports",
        "raw_path": b"",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {SECRETS['noc']}".encode())],
        "client": ("192.0.2.7", 5000),
        "server": ("portal.invalid", 80),
        "scheme": "http",
    }
    await api.app(scope, receive, send)
    assert [one["status"] for one in sent if one["type"] == "http.response.start"] in ([400], [])
    assert not api.left_behind()
    assert await api.numbers("dnc") == [ONE, TWO]


async def test_a_full_disk_is_507_before_the_store_feels_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=uploads.RESERVE))
        assert "room" in _problem(await api.load("dnc", ONE), 507)["detail"]

    async def broken(number: int) -> ImportResult:
        error = OSError(number, os.strerror(number), "/secret/place")
        raise ListRefusedError(str(error)) from error

    for number, status in ((errno.ENOSPC, 507), (errno.EIO, 500)):
        monkeypatch.setattr(desk_module, "import_file", lambda *_, number=number, **__: broken(number))
        assert "secret" not in orjson.dumps(_problem(await api.load("dnc", ONE), status)).decode()


async def test_an_import_that_takes_for_ever_or_rejects_millions_is_ended(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(desk_module, "IMPORT_S", -1.0)
        assert "took longer" in _problem(await api.load("dnc", ONE), 422)["detail"]
    monkeypatch.setattr(desk_module, "MAX_REJECTS_BYTES", 2_000)
    problem = _problem(await api.load("dnc", "phone", ONE, *["12"] * 4_000, column="phone", reject_percent=100), 422)
    assert "millions of lines were rejected" in problem["detail"]
    assert not await api.store.active()


async def test_bodies_of_json_are_checked_like_any_other(api: Api) -> None:
    await api.load("dnc", ONE)
    for path, good in (("/lists/dnc/entries", {"add": [TWO]}), ("/lists/dnc/restore", {"version": 1}),
                       ("/check", {"number": ONE}), ("/receipts/verify", {"receipt": "x"})):  # fmt: skip
        _problem(await api.post(path, b"{"), 400)
        _problem(await api.post(path, b"[" * 5_000), 400)
        _problem(await api.post(path, []), 422)
        _problem(await api.post(path, b" " * (1 << 18) + b"{}"), 413)
        _problem(await api.post(path, good, **{"Content-Type": "text/csv"}), 415)
        assert _fields(_problem(await api.post(path, {**good, "x": 1}), 422)) == ["x"]
        assert _fields(_problem(await api.post(path, {key: {"a": {}} for key in good}), 422)) == list(good)
    assert _fields(_problem(await api.post("/lists/dnc/restore", {"version": "1"}), 422)) == ["version"]
    assert await api.numbers("dnc") == [ONE]


# --- imports take turns ----------------------------------------------------------------------------------------------


class Gate:
    """Imports that wait until they are let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = asyncio.Event()
        self.inside = self.most = 0
        monkeypatch.setattr(desk_module, "import_file", self._import)

    async def _import(self, *given: Any, **more: Any) -> ImportResult:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.open.wait()
            return await import_file(*given, **more)
        finally:
            self.inside -= 1

    async def wait(self) -> None:
        async with asyncio.timeout(5):
            while not self.inside:
                await asyncio.sleep(0.01)


async def test_one_import_at_a_time_and_who_waits_too_long_is_told_to_come_back(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    first = asyncio.create_task(api.load("one", ONE))
    await gate.wait()
    waiting = asyncio.create_task(api.load("two", ONE))
    while len(api.left_behind()) < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    monkeypatch.setattr(desk_module, "TURN_S", 0.05)
    late = await api.load("three", ONE)
    assert _problem(late, 503)["detail"] == "another import is under way"
    assert late.headers["retry-after"] == "30"
    gate.open.set()
    assert _done(await first)["entries"] == _done(await waiting)["entries"] == 1
    assert gate.most == 1
    assert [one.name for one in await api.store.active()] == ["one", "two"]


async def test_there_is_room_for_so_many_uploads(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    monkeypatch.setattr(desk_module, "MAX_UPLOADS", 3)
    monkeypatch.setattr(desk_module, "MAX_UPLOADS_OF_ONE", 2)
    running = [asyncio.create_task(api.load(f"l{at}", ONE)) for at in range(2)]
    while len(api.left_behind()) < 2:
        await asyncio.sleep(0.01)
    assert (await api.load("l2", ONE)).status_code == 503, "one token has its share"
    running.append(asyncio.create_task(api.load("acme-own", ONE, token="acme")))
    while len(api.left_behind()) < 3:
        await asyncio.sleep(0.01)
    assert (await api.load("bolts", ONE, token="bolt")).status_code == 503
    gate.open.set()
    assert [one.status_code for one in await asyncio.gather(*running)] == [200] * 3
    assert (await api.load("bolts", ONE, token="bolt")).status_code == 200


async def test_files_are_read_beside_the_loop_and_stop_when_the_request_does(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, going_on = threading.Event(), threading.Event()
    threads = []
    progress = desk_module._Watch.progress

    def held(self: Any, *given: int) -> None:
        threads.append(threading.get_ident())
        reading.set()
        assert going_on.wait(5)
        progress(self, *given)

    monkeypatch.setattr(desk_module._Watch, "progress", held)
    task = asyncio.create_task(api.load("dnc", ONE))
    assert await asyncio.to_thread(reading.wait, 5)
    assert (await api.client.get("/v1/health")).status_code == 200, "others are served meanwhile"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    next_one = asyncio.create_task(api.load("later", ONE))
    await asyncio.sleep(0.05)
    assert len(threads) == 1, "the turn is not given back before the file is closed"
    going_on.set()
    assert _done(await next_one)["entries"] == 1
    assert threading.get_ident() not in threads
    (row,) = await api.store.log("dnc")
    assert (row.action, row.detail["why"]) == ("refused_replace", "the import was broken off")


async def test_rejects_written_after_the_request_is_gone_go_too(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def late(_store: Any, _folder: Path, task: Task, _who: Actor, **_: Any) -> ImportResult:
        inside.set()
        await gone.wait()
        assert task.rejects_file is not None
        task.rejects_file.parent.mkdir(parents=True)
        task.rejects_file.write_text("member,line,reason\n")
        raise ListRefusedError("the import was broken off")

    inside, gone = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(desk_module, "import_file", late)
    task = asyncio.create_task(api.load("dnc", ONE))
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while api.left_behind():
        await asyncio.sleep(0.01)
    gone.set()
    await api.desk.close()
    assert not api.left_behind()


async def test_at_the_end_imports_are_stopped_and_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, going_on = threading.Event(), threading.Event()
    progress = desk_module._Watch.progress

    def held(self: Any, *given: int) -> None:
        reading.set()
        assert going_on.wait(5)
        progress(self, *given)

    monkeypatch.setattr(desk_module._Watch, "progress", held)
    task = asyncio.create_task(api.load("dnc", ONE))
    assert await asyncio.to_thread(reading.wait, 5)
    closing = asyncio.create_task(api.desk.close())
    await asyncio.sleep(0.05)
    assert not closing.done()
    going_on.set()
    await closing
    assert "was broken off" in _problem(await task, 422)["detail"]
    assert not await api.store.active()


async def test_old_files_go_and_what_a_killed_process_left_behind(api: Api) -> None:
    for at in range(4):
        await api.load("dnc", f"+1212555010{at}")
    there = [(api.folder / one.file).is_file() for one in await api.store.history("dnc")]
    assert there == [False, False, True, True]
    old, young = api.desk.uploads / "old", api.desk.uploads / "young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "list.csv").write_text(ONE)
    past = time.time() - uploads.ORPHAN_S - 60
    os.utime(old / "list.csv", (past, past))
    os.utime(old, (past, past))
    os.utime(young, (past, past))
    await api.desk.sweep()
    assert api.left_behind() == [young], "one that is still being written to stays"
    shutil.rmtree(young)


# --- changes by hand -------------------------------------------------------------------------------------------------


async def test_entries_are_added_and_removed_and_again_changes_nothing(api: Api) -> None:
    await api.load("mine", ONE, TWO, token="acme")
    said = {"add": [{"entry": "(212) 555-0102", "expires": "2099-01-31"}, FREE], "remove": [ONE]}
    done = _done(await api.post("/lists/mine/entries", said, "acme"))
    assert done == {
        "name": "mine",
        "version": 1,
        "revision": 1,
        "added": 2,
        "removed": 1,
        "already": 0,
        "absent": 0,
        "entries": 3,
    }
    base = await look(api.store, api.folder, "mine", must_load=True)
    end = int(datetime(2099, 2, 1, 5, tzinfo=UTC).timestamp())
    assert dict(rows(base)) == {TWO: 0, THREE: end, FREE: 0}
    again = _done(await api.post("/lists/mine/entries", said, "acme"))
    assert (again["revision"], again["added"], again["already"], again["absent"]) == (1, 0, 2, 1)
    row = (await api.store.log("mine"))[0]
    assert (row.action, row.by, row.origin) == ("edit", "acme", "api:192.0.2.7")


async def test_every_entry_that_cannot_be_read_is_named_by_its_place(api: Api) -> None:
    await api.load("dnc", ONE)
    said = {
        "add": [TWO, TWO, "12", {"entry": THREE, "expires": "2020-01-01"}, {"entry": TWO, "expires": "2099-01-01"}],
        "remove": [ONE, "nobody"],
    }
    problem = _problem(await api.post("/lists/dnc/entries", said), 422)
    assert _fields(problem) == ["add[2].entry", "add[3].expires", "add[4].expires", "remove[1]"]
    details = [one["detail"] for one in problem["errors"]]
    assert details[0].startswith("entry 3 to be added: not a possible phone number")
    assert details[1] == "entry 4 to be added: expires is in the past"
    assert details[2] == "entry 5 to be added: is entry 1 with another end"
    assert details[3].startswith("entry 2 to be removed: ")
    assert await api.numbers("dnc") == [ONE]
    for said, field in (({"add": [{"expires": "2099-01-01"}]}, "add[0].entry"), ({"add": [1]}, "add[0]"),
                        ({"remove": [[]]}, "remove[0]"), ({"add": [ONE] * 1001}, "add")):  # fmt: skip
        assert _fields(_problem(await api.post("/lists/dnc/entries", said), 422)) == [field]
    many = [f"+1212555{at:04}" for at in range(501)]
    problem = _problem(await api.post("/lists/dnc/entries", {"add": many, "remove": many}), 422)
    assert "more than 1000" in problem["detail"]


async def test_an_end_that_no_file_can_hold_is_refused(api: Api) -> None:
    await api.load("dnc", ONE)
    problem = _problem(await api.post("/lists/dnc/entries", {"add": [{"entry": TWO, "expires": "2200-01-01"}]}), 422)
    assert "later than a list can say" in problem["errors"][0]["detail"]
    assert await api.numbers("dnc") == [ONE]


async def test_a_hashed_list_takes_digests_and_numbers(api: Api) -> None:
    one, two = (hashlib.sha256(number.encode()).hexdigest() for number in (ONE, TWO))
    await api.load("hashed", one)
    done = _done(await api.post("/lists/hashed/entries", {"add": [two, THREE], "remove": [ONE]}))
    assert (done["added"], done["removed"], done["entries"]) == (2, 1, 2)
    problem = _problem(await api.post("/lists/hashed/entries", {"add": [one[:-1]]}), 422)
    assert _fields(problem) == ["add[0].entry"]


async def test_a_list_is_retired_and_restored(api: Api) -> None:
    await api.load("mine", ONE, token="acme")
    await api.load("mine", TWO, token="acme")
    await api.post("/lists/mine/entries", {"add": [THREE]}, "acme")
    gone = await api.client.delete(f"{BASE}/lists/mine", headers=_auth("acme"))
    assert (gone.status_code, gone.content) == (204, b"")
    assert not await api.store.active()
    _problem(await api.client.delete(f"{BASE}/lists/mine", headers=_auth("acme")), 404)
    _problem(await api.post("/lists/mine/entries", {"add": [ONE]}, "acme"), 404)
    back = _done(await api.post("/lists/mine/restore", {"version": 1}, "acme"))
    assert (back["version"], back["entries"], back["buyer"]) == (3, 1, "acme")
    await api.post("/lists/mine/entries", {"add": [FREE]}, "acme")
    kept = _done(await api.post("/lists/mine/restore", {"version": 2}, "acme"))
    assert (kept["version"], await api.numbers("mine")) == (4, [TWO, THREE, FREE])
    _done(await api.post("/lists/mine/restore", {"version": 1, "drop_changes": True}, "acme"))
    assert await api.numbers("mine") == [ONE]
    for version, said in ((9, "has no version 9"), (5, "version 5 is in force")):
        assert said in _problem(await api.post("/lists/mine/restore", {"version": version}, "acme"), 422)["detail"]


async def test_a_version_whose_file_is_gone_cannot_be_restored(api: Api) -> None:
    await api.load("dnc", ONE)
    await api.load("dnc", TWO)
    (api.folder / (await api.store.history("dnc"))[0].file).unlink()
    problem = _problem(await api.post("/lists/dnc/restore", {"version": 1}), 422)
    assert "its file is gone or damaged" in problem["detail"]
    assert str(api.folder) not in problem["detail"]


async def test_the_log_says_who_did_what_from_where_and_a_buyer_no_more_than_its_own(api: Api, tmp_path: Path) -> None:
    await api.load("mine", ONE, token="acme")
    await api.load("mine", "12", token="acme-2", column="#1", filename="bad.csv")
    file = tmp_path / "by-hand.csv"
    file.write_text("12\n")
    with pytest.raises(ListRefusedError):
        await import_file(api.store, api.folder, Task(file, "mine", "acme", options=ReadOptions("#1")), ANN)
    await edit(api.store, api.folder, "mine", add={TWO: 0}, remove=[], actor=ANN)
    whole = _done(await api.get("/lists/mine/log"))["log"]
    assert [(one["action"], one["by"], one["origin"]) for one in whole] == [
        ("edit", "ann", "cli:noc-desk-7"),
        ("refused_replace", "ann", "cli:noc-desk-7"),
        ("refused_replace", "acme-2", "api:192.0.2.7"),
        ("replace", "acme", "api:192.0.2.7"),
    ]
    assert (whole[0]["before"], whole[0]["after"], whole[3]["before"]) == (1, 2, None)
    assert whole[2]["detail"]["why"].startswith("bad.csv: 1 of 1 lines rejected")
    seen = _done(await api.get("/lists/mine/log", "acme"))["log"]
    assert [one["origin"] for one in seen] == ["cli", "cli", "api:192.0.2.7", "api:192.0.2.7"]
    assert [one["detail"].get("why") for one in seen[:2]] == [None, None]
    assert seen[2] == whole[2]
    assert str(tmp_path) not in orjson.dumps([whole, seen]).decode()
    assert len(_done(await api.get("/lists/mine/log", limit=2))["log"]) == 2
    for limit in ("0", "1001", "x"):
        assert _fields(_problem(await api.get("/lists/mine/log", limit=limit), 422)) == ["limit"]
    _problem(await api.get("/lists/none/log"), 404)


# --- looking up ------------------------------------------------------------------------------------------------------


async def test_a_number_is_found_with_its_list_and_since_when(api: Api) -> None:
    await api.load("dnc", ONE)
    await api.load("dnc", ONE, TWO)
    await api.load("mine", THREE, token="acme")
    await api.post("/lists/mine/entries", {"add": [{"entry": ONE, "expires": "2099-01-31"}]}, "acme")
    found = _done(await api.post("/check", {"number": "(212) 555-0100", "buyer": "acme"}))
    assert (found["verdict"], found["hit"], found["unavailable"]) == ("suppressed", "dnc", [])
    first, second = found["on"]
    history = await api.store.history("dnc")
    since = datetime.fromtimestamp(history[0].imported_utc_us // 1_000_000, UTC)
    assert (first["name"], first["version"], first["exact"], first["by"]) == ("dnc", 2, True, "noc")
    assert datetime.fromisoformat(first["since"]) == since, "from the first version that had it"
    assert (second["name"], second["by"], second["expires_at"]) == ("mine", "acme", "2099-02-01T05:00:00Z")
    assert (second["version"], second["revision"]) == (1, 1)
    everywhere = _done(await api.post("/check", {"number": TWO}))
    assert ([one["name"] for one in everywhere["on"]], everywhere["verdict"]) == (["dnc"], "")
    free = _done(await api.post("/check", {"number": FREE, "buyer": "acme"}))
    assert (free["on"], free["verdict"], free["hit"]) == ([], "pass", "")
    await api.post("/lists/dnc/entries", {"remove": [TWO]})
    now = _done(await api.post("/check", {"number": TWO, "buyer": "acme"}))
    assert now["verdict"] == "pass", "a look-up asks what is new"


async def test_a_number_added_by_hand_to_an_older_version_is_on_the_list_since_then(api: Api) -> None:
    await api.load("mine", ONE, token="acme")
    await api.post("/lists/mine/entries", {"add": [TWO]}, "acme-2")
    await api.load("mine", ONE, TWO, token="acme")
    (on,) = _done(await api.post("/check", {"number": TWO}))["on"]
    assert (on["version"], on["by"], on["exact"]) == (2, "acme-2", True)


async def test_since_is_a_lower_bound_where_the_older_file_is_gone(api: Api) -> None:
    await api.load("dnc", ONE)
    await api.load("dnc", ONE, TWO)
    (api.folder / (await api.store.history("dnc"))[0].file).unlink()
    (on,) = _done(await api.post("/check", {"number": ONE}))["on"]
    assert on["exact"] is False


async def test_a_buyer_looks_into_its_own_lists_and_global_ones(api: Api) -> None:
    await api.load("dnc", ONE)
    await api.load("bolts", ONE, TWO, token="bolt")
    found = _done(await api.post("/check", {"number": ONE}, "acme"))
    assert ([one["name"] for one in found["on"]], found["verdict"]) == (["dnc"], "suppressed")
    assert found["on"][0]["by"] == "", "who made a global list is the operator's matter"
    assert _done(await api.post("/check", {"number": TWO}, "acme"))["verdict"] == "pass"
    assert _done(await api.post("/check", {"number": TWO}, "bolt"))["verdict"] == "suppressed"
    assert _fields(_problem(await api.post("/check", {"number": ONE, "buyer": "bolt"}, "acme"), 403)) == ["buyer"]
    assert _fields(_problem(await api.post("/check", {"number": ONE, "buyer": "acne"}), 422)) == ["buyer"]


async def test_a_list_that_cannot_be_read_clears_nobody(api: Api) -> None:
    await api.load("dnc", ONE)
    await api.load("bolts", TWO, token="bolt")
    row = await api.store.find("dnc")
    assert row is not None
    (api.folder / row.file).write_bytes(b"damaged")
    found = _done(await api.post("/check", {"number": FREE}, "acme"))
    assert (found["verdict"], found["unavailable"]) == ("suppression_unavailable", ["dnc"])
    assert _done(await api.post("/check", {"number": FREE}))["unavailable"] == ["dnc"]


async def test_an_exemption_is_told(api: Api) -> None:
    await api.load("dnc", ONE)
    end = int((time.time() + 3600) * 1_000_000)
    done = await api.store.exempt(
        "dnc", int(ONE), buyer=None, reason="consent on record", expires_utc_us=end, actor=ANN
    )
    found = _done(await api.post("/check", {"number": ONE, "buyer": "acme"}))
    assert (found["verdict"], found["exempt"], len(found["on"])) == ("pass", [done.id], 1)


@pytest.mark.parametrize("number", ["12", "anonymous", "1" * 65, "+1 212 555 01"])
async def test_what_is_no_number_is_not_repeated(api: Api, number: str) -> None:
    for path, more in (("/check", {}), ("/receipts/verify", {"receipt": "x"})):
        problem = _problem(await api.post(path, {"number": number, **more}), 422)
        assert _fields(problem) == ["number"]
        assert number not in orjson.dumps({**problem, "status": 0}).decode()


async def test_a_genuine_receipt_is_told_from_others(api: Api) -> None:
    await api.load("dnc", ONE)
    await api.load("mine", TWO, token="acme")
    scrub = Scrub(api.store, api.folder, api.signer)
    await scrub.reload()
    receipt = scrub.receipt(scrub.check(ONE, "acme"), "t-1", "acme", 1_800_000_000_000_000)
    for token in ("noc", "west"):
        found = _done(await api.post("/receipts/verify", {"receipt": receipt, "number": "212-555-0100"}, token))
        assert (found["claims"]["jti"], found["claims"]["verdict"]) == ("t-1", "suppressed")
        assert [(one["name"], one["version"]) for one in found["lists"]] == [("dnc", 1), ("mine", 1)]
        row = await api.store.find("dnc")
        assert row is not None
        assert found["lists"][0]["state"] == row.state
        assert found["number_matches"] is True
    other = _done(await api.post("/receipts/verify", {"receipt": receipt, "number": TWO}))
    assert other["number_matches"] is False
    assert _done(await api.post("/receipts/verify", {"receipt": receipt}))["number_matches"] is None
    foreign = Signer(b"x" * 32).sign_document({"jti": "t-1"})
    head, said, sign = receipt.split(".")
    for bad in ("nonsense", receipt[:-1], foreign, f"{head}.{said[:-2]}.{sign}", "a.b.c", "x" * 9_000):
        problem = _problem(await api.post("/receipts/verify", {"receipt": bad}), 422)
        assert _fields(problem) == ["receipt"]
    whole_file = api.signer.sign_document({"jti": "f-1", "lists": ["0" * 32, 7, None]})
    shown = _done(await api.post("/receipts/verify", {"receipt": whole_file}))
    assert (shown["lists"], shown["missing"], shown["changed"]) == ([], ["0" * 32, "7", "None"], [])
    _problem(await api.post("/receipts/verify", {"receipt": whole_file, "number": ONE}), 422)


# --- the rest --------------------------------------------------------------------------------------------------------


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

    monkeypatch.setattr(desk_module, "import_file", broken)
    assert _problem(await api.load("dnc", ONE), 503)["detail"] == "the store cannot be reached"
    assert not api.left_behind()
    monkeypatch.undo()
    assert _done(await api.load("dnc", ONE))["changed"] is True


async def test_look_ups_wait_for_each_other_and_not_for_ever(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "LOOKING_S", 0.05)
    async with api.desk.looking(), api.desk.looking():
        late = await api.post("/check", {"number": ONE})
    assert _problem(late, 503)["detail"] == "other requests read lists from disk"
    _done(await api.post("/check", {"number": ONE}))


def test_a_day_ends_with_its_last_second_in_its_zone() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for zone, hour in (("UTC", 0), ("America/New_York", 5), ("America/Los_Angeles", 8)):
        assert until_s("2026-01-31", now, zone) == int(datetime(2026, 2, 1, hour, tzinfo=UTC).timestamp())
    assert until_s("2026-01-31T13:00", now, "UTC") == until_s("2026-01-31T14:00+01:00", now, "America/New_York")
    for text in ("", "x", "2026-02-30", "9999-12-31", "0001-01-01T00:00+14:00", "2026-01-31T12:00Z", "2026-01-30",
                 "2106-02-08"):  # fmt: skip
        with pytest.raises(ValueError, match=r"is (no date|in the past|later than)"):
            until_s(text, now, "UTC")
