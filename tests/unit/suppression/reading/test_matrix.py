"""Every spelling in every kind of file at every place where lists come in: each line is an entry or a told reject."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.proof.lists import workbook
from tests.spellings import READ, REFUSED
from tests.unit.baton.cli.test_main import BOOK, Run, config, run
from tests.unit.portal.lists.api import Api
from tests.unit.portal.lists.conftest import api, empty

__all__ = ["api", "config", "empty", "run"]

NUMBERS = {number for _, number in READ}
REPEATS = 90  # of what can be read, so that what cannot be stays below 2 %
ROWS = [text for text, _ in READ] * REPEATS + list(REFUSED)
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Written:
    """A file, and where in it the cells are that cannot be read."""

    data: bytes
    lines: int
    rejects: frozenset[tuple[str, int]]  # member, line
    column: str = "phone"


def _text(
    texts: list[str], mark: str = ",", end: str = "\n", quoting: int = csv.QUOTE_MINIMAL
) -> tuple[str, list[int]]:
    """A table of two columns, and the lines with what cannot be read."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=mark, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(("phone", "note"))
    lines, line = [], 2
    for text in texts:
        before = out.tell()
        writer.writerow((text, "x"))
        if text in REFUSED:
            lines.append(line)
        out.seek(before)
        line += len(_LINE_END.findall(out.read()))
    return out.getvalue(), lines


def _csv(
    mark: str = ",", end: str = "\n", coding: str = "utf-8", first: str = "", quoting: int = csv.QUOTE_MINIMAL
) -> Written:
    text, lines = _text(ROWS, mark, end, quoting)
    places = frozenset(("", one + bool(first)) for one in lines)
    return Written((first + text).encode(coding), len(ROWS), places)


def _zip(**members: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return data.getvalue()


def _zipped() -> Written:
    half = len(ROWS) - len(REFUSED) // 2
    (one, lines_1), (two, lines_2) = _text(ROWS[:half]), _text(ROWS[half:])
    data = _zip(a_csv=one.encode(), b_csv_gz=gzip.compress(two.encode()))
    places = {("a.csv", line) for line in lines_1} | {("b.csv.gz", line) for line in lines_2}
    return Written(data, len(ROWS), frozenset(places))


def _sheets(name: str = "", split: int = 0) -> Written:
    """A workbook, or one inside of an archive; cells that XML cannot have are left out."""
    texts = [one for one in ROWS if "\x00" not in one]
    parts = [texts[:split], texts[split:]] if split else [texts]
    data = workbook([[["phone", "note"], *([one, "x"] for one in part)] for part in parts])
    places = set()
    for at, part in enumerate(parts, start=1):
        sheet = f"sheet 'S{at}'" if split else ""
        member = ": ".join(filter(None, (name if split else "", sheet)))
        places |= {(member, line) for line, text in enumerate(part, start=2) if text in REFUSED}
    return Written(_zip(**{name.replace(".", "_"): data}) if name else data, len(texts), frozenset(places))


def _txt() -> Written:
    """A line for each, without a header and without quotes."""
    texts = [one for one in ROWS if one.strip() and not set(one) & set(',;\t|\n"') and one.strip() != "-"]
    data = "\n".join(texts).encode()
    return Written(
        data, len(texts), frozenset(("", at) for at, one in enumerate(texts, start=1) if one in REFUSED), "#1"
    )


def _packed(made: Written) -> Written:
    return Written(gzip.compress(made.data), made.lines, made.rejects, made.column)


KINDS = {
    "csv": _csv(),
    "csv, CRLF": _csv(end="\r\n"),
    "csv, CR": _csv(end="\r", quoting=csv.QUOTE_ALL),
    "csv, all quoted": _csv(quoting=csv.QUOTE_ALL),
    "csv, semicolons": _csv(";"),
    "csv, tabs": _csv("\t"),
    "csv, bars": _csv("|"),
    "csv, sep=": _csv(";", first="sep=;\n"),
    "csv, BOM": _csv(coding="utf-8-sig"),
    "csv, UTF-16": _csv(coding="utf-16"),
    "txt": _txt(),
    "gz": _packed(_csv(end="\r\n")),
    "gz of UTF-16": _packed(_csv(coding="utf-16")),
    "zip": _zipped(),
    "xlsx": _sheets(),
    "xlsx, two sheets": _sheets(split=len(ROWS) - 60),
    "zip of xlsx": _sheets("w.xlsx", split=len(ROWS) - 60),
}


@pytest.fixture(params=KINDS)
def written(request: pytest.FixtureRequest) -> Written:
    return KINDS[request.param]


def _told(file: Path) -> set[tuple[str, int]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return {(one["member"], int(one["line"])) for one in csv.DictReader(opened)}


def _listed(run: Run, name: str, folder: Path) -> set[str]:
    out = folder / "export.csv"
    assert run("suppression", "export", name, "--out", out, "--config", folder / "baton.toml")[0] == 0
    return {line.partition(",")[0] for line in out.read_text().splitlines()[1:]}


def test_by_the_command(run: Run, config: Path, tmp_path: Path, written: Written) -> None:
    (tmp_path / "list").write_bytes(written.data)
    words = ("--name", "own", "--global", "--column", written.column, "--rejects", tmp_path / "rejects.csv")
    code, out, _ = run("suppression", "import", tmp_path / "list", *words, "--config", config, "--json")
    assert code == 0
    report = json.loads(out)["report"]
    assert (report["lines"], report["rejected"]) == (written.lines, len(written.rejects))
    assert _told(tmp_path / "rejects.csv") == written.rejects
    assert _listed(run, "own", tmp_path) == NUMBERS


def test_by_the_configuration(run: Run, config: Path, tmp_path: Path, written: Written) -> None:
    (tmp_path / "list").write_bytes(written.data)
    entry = f'\n[[suppression_lists]]\nname = "own"\nfile = "list"\ncolumn = ["{written.column}"]\n'
    config.write_text(BOOK + entry, encoding="utf-8")
    code, _, err = run("import", config)
    assert code == 0, err
    rejects = list(tmp_path.rglob("rejects/own-*.csv"))
    assert len(rejects) == 1
    assert _told(rejects[0]) == written.rejects
    assert _listed(run, "own", tmp_path) == NUMBERS


def test_by_scrub(run: Run, config: Path, tmp_path: Path, written: Written) -> None:
    (tmp_path / "own.csv").write_text("phone\n" + "".join(f"{one}\n" for one in NUMBERS), encoding="utf-8")
    assert run("import", config)[0] == 0
    assert run("suppression", "import", tmp_path / "own.csv", "--name", "own", "--global", "--config", config)[0] == 0
    (tmp_path / "list").write_bytes(written.data)
    words = ("--buyer", "acme", "--column", written.column, "--out", tmp_path / "out", "--config", config, "--json")
    code, out, err = run("scrub", tmp_path / "list", *words)
    assert code == 0, err
    done = json.loads(out)
    bad = len(written.rejects)
    assert (done["lines"], done["suppressed"], done["unreadable"], done["clean"]) == (
        *(written.lines, written.lines - bad, bad, 0),
    )
    assert done["columns"] == [written.column]


async def test_by_http(api: Api, written: Written) -> None:
    api.lists.max_import_bytes = 1 << 24
    answer = await api.load("own", content=written.data, column=written.column)
    assert answer.status_code == 200, answer.text
    done = answer.json()
    assert (done["lines"], done["rejected"]) == (written.lines, len(written.rejects))
    assert {(one["member"], one["line"]) for one in done["rejects"]} == written.rejects
    assert set(await api.numbers("own")) == NUMBERS


HOMES = [f"+1212555{one:04}" for one in range(30)]
CELLS = [f"+1313555{one:04}" for one in range(30)]
TWO_PHONES = "home,cell\n" + "".join(
    f"{home},{cell if not at % 3 else ''}\n" for at, (home, cell) in enumerate(zip(HOMES, CELLS, strict=True))
)
LISTED = {*HOMES, *CELLS[::3]}
NAMED = (
    "the columns 'home' (30 of 30 lines), 'cell' (10 of 30 lines) may all hold numbers; name those that do, each by"
    " `column`"
)


def test_a_second_telephone_is_refused_or_read_by_the_command(run: Run, config: Path, tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_text(TWO_PHONES, encoding="utf-8")
    words = ("suppression", "import", file, "--name", "own", "--global", "--config", config)
    code, _, err = run(*words)
    assert (code, NAMED in err) == (1, True)
    assert run(*words, "--column", "home", "--column", "cell")[0] == 0
    assert _listed(run, "own", tmp_path) == LISTED
    out = run(*words, "--column", "home")[1]
    assert "  read: 'home'\n  not read: column 'cell' (10 of its cells hold numbers, the first on line 2)\n" in out
    assert run(*words, "--yes")[0] == 0  # all that may hold numbers
    assert _listed(run, "own", tmp_path) == LISTED
    code, _, err = run(*words, "--yes", "--mode", "remove")
    assert (code, NAMED in err) == (1, True)
    detail = json.loads(run("suppression", "log", "own", "--config", config, "--json")[1])
    assert any("column 'cell' (10 of its cells" in str(one["detail"].get("not_used")) for one in detail)
    assert any(one["detail"].get("columns") == ["home", "cell"] for one in detail)


def test_a_second_telephone_is_refused_or_read_by_the_configuration(run: Run, config: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(TWO_PHONES, encoding="utf-8")
    entry = '\n[[suppression_lists]]\nname = "own"\nfile = "list"\n'
    config.write_text(BOOK + entry, encoding="utf-8")
    code, _, err = run("import", config)
    assert (code, NAMED in err) == (1, True)
    config.write_text(BOOK + entry + 'column = ["home", "cell"]\n', encoding="utf-8")
    assert run("import", config)[0] == 0
    assert _listed(run, "own", tmp_path) == LISTED


def test_a_second_telephone_is_refused_or_scrubbed(run: Run, config: Path, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("phone\n" + "".join(f"{one}\n" for one in CELLS[:6]), encoding="utf-8")
    assert run("import", config)[0] == 0
    assert run("suppression", "import", tmp_path / "own.csv", "--name", "own", "--global", "--config", config)[0] == 0
    (tmp_path / "leads").write_text(TWO_PHONES + "none,+13135550003\nnone,+13135559999\n", encoding="utf-8")
    words = ("scrub", tmp_path / "leads", "--buyer", "acme", "--config", config)
    code, _, err = run(*words)
    assert (code, "may all hold numbers" in err) == (1, True)
    code, out, err = run(*words, "--column", "home", "--column", "cell", "--json")
    assert code == 0, err
    done = json.loads(out)
    assert (done["suppressed"], done["unreadable"], done["clean"]) == (
        3,
        1,
        28,
    )  # lines 2, 5 and the first that is added
    assert "+13135550003,own" in (tmp_path / "leads.suppressed.csv").read_text()
    claims = json.loads(run("suppression", "verify-receipt", done["receipt"], "--config", config, "--json")[1])["said"]
    assert claims["columns"] == ["home", "cell"]
    assert claims["not_used"] == ["line 1, the header: 'home', 'cell'"]
    alone = json.loads(run(*words, "--column", "home", "--json")[1])
    assert alone["columns"] == ["home"]
    assert alone["unused"][0] == "column 'cell' (12 of its cells hold numbers, the first on line 2)"


async def test_a_second_telephone_is_refused_or_read_by_http(api: Api) -> None:
    answer = await api.load("own", content=TWO_PHONES.encode())
    assert answer.status_code == 422
    assert [one["field"] for one in answer.json()["errors"]] == ["column"]
    assert NAMED in answer.json()["detail"]
    done = (await api.load("own", content=TWO_PHONES.encode(), column=["home", "cell"])).json()
    assert (done["columns"], set(await api.numbers("own"))) == (["home", "cell"], LISTED)
    told = (await api.load("own", content=TWO_PHONES.encode(), column="home")).json()["unused"]
    assert told[0] == {"what": "column", "name": "cell", "member": "", "numbers": 10, "line": 2}
    titled = await api.load("own", content=b"Do not call\nunknown\n2125550100\n", header="true", skip_rows=1)
    assert (titled.json()["entries"], titled.json()["rejected"]) == (1, 0)


@pytest.mark.parametrize(
    ("zone", "hour"), [("America/New_York", 5), ("America/Los_Angeles", 8), ("Asia/Kolkata", -5.5)]
)
def test_a_day_ends_in_the_zone_of_the_buyers_terms(run: Run, tmp_path: Path, zone: str, hour: float) -> None:
    terms = f'[[terms]]\nname = "theirs"\nbase = "westlake-fulfillment"\ntime_zone = "{zone}"\n'
    entry = '[[suppression_lists]]\nname = "mine"\nfile = "mine"\nbuyer = "acme"\nexpires_column = "until"\n'
    (tmp_path / "mine").write_text("phone,until\n+12125550123,2099-01-31\n+12125550124,01/31/2099\n", encoding="utf-8")
    (tmp_path / "dnc.csv").write_text("phone\n(212) 555-0100\n", encoding="utf-8")
    config = tmp_path / "baton.toml"
    config.write_text(BOOK.replace('"westlake-fulfillment"', '"theirs"') + entry + terms, encoding="utf-8")
    code, out, err = run("import", config)
    assert code == 0, err
    assert "line 3: expiry: not a date such as 2026-01-31, nor an ISO time; kept for ever" in out
    said = ("--config", config)
    assert run("suppression", "add", "mine", "2125550125", "--expires", "2099-01-31", *said)[0] == 0
    assert run("suppression", "add", "dnc", "2125550125", "--expires", "2099-01-31", *said)[0] == 0
    end = datetime(2099, 2, 1, tzinfo=UTC) + timedelta(hours=hour)
    shown = end.isoformat().replace("+00:00", "Z")
    rows = run("suppression", "export", "mine", *said)[1].splitlines()[1:]
    assert rows == [f"+12125550123,{shown}", "+12125550124,", f"+12125550125,{shown}"]
    assert "+12125550125,2099-02-01T05:00:00Z" in run("suppression", "export", "dnc", *said)[1]
    assert run("suppression", "expire", "mine", "2099-01-31", *said)[0] == 0
    row = next(one for one in json.loads(run("suppression", "list", *said, "--json")[1]) if one["name"] == "mine")
    assert row["expires_utc_us"] == int(end.timestamp() * 1_000_000)
