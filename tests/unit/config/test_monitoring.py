"""Dashboards, rules, runbooks and compose.yaml hold together: names exist, alerts are tested and explained."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import boards
from telemetry.metrics import CATALOGUE

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "config/prometheus"
RULES = sorted((CONFIG / "rules").glob("*.yml"))
RULE_TESTS = sorted((CONFIG / "tests").glob("*.yml"))
RUNBOOKS = ROOT / "docs/runbooks"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "config/dashboards").glob("*.json"))}

SERIES = {name: metric for metric in CATALOGUE for name in metric.series}
FOREIGN = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate", "severity", "job", "instance"}}
TARGET = {"job", "instance"}  # Prometheus adds them to every series
MADE = {"le", "buyer", "severity", "kind"}  # of histograms, and by label_replace
# Metrics of the catalogue that need no place on a dashboard: none so far.
UNSHOWN: set[str] = set()

_NAME = re.compile(r"(?<![\w:$\"{])([a-z]\w*:baton_\w+:\w+|baton_\w+|ALERTS|up)(?![\w:])")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring) ?\(([^)]*)\)")
_MATCHERS = re.compile(r"([\w:]+)\{([^}]*)\}")


def _rules(kind: str) -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


ALERTS = _rules("alert")
RECORDED = {rule["record"]: rule["expr"] for rule in _rules("record")}
ALERT_NAMES = sorted({rule["alert"] for rule in ALERTS})


def _panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def _variables(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in board["templating"]["list"] if one["type"] == "query"]


def _named(expression: str) -> set[str]:
    """Names of series in an expression; what is in quotation marks is none."""
    return set(_NAME.findall(_STRING.sub('""', expression)))


def _labels(name: str) -> set[str]:
    """Labels that a series can have."""
    if name in RECORDED:
        return {label for one in _named(RECORDED[name]) for label in _labels(one)} | TARGET
    return set(SERIES[name].labels) | TARGET if name in SERIES else FOREIGN[name]


def _promql() -> Iterator[tuple[str, str]]:
    """(where, expression) of everything that is put to Prometheus."""
    for name, board in DASHBOARDS.items():
        for panel in _panels(board):
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"]
    for rule in ALERTS:
        yield rule["alert"], rule["expr"]
    for name, expression in RECORDED.items():
        yield name, expression
    for page in sorted(RUNBOOKS.glob("*.md")):
        for block in re.findall(r"```promql\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                yield page.name, line


@pytest.mark.parametrize(("where", "expression"), list(_promql()))
def test_a_query_names_series_and_labels_that_exist(where: str, expression: str) -> None:
    named = _named(expression)
    assert named or "vector(" in expression, where
    unknown = {name for name in named if name not in SERIES and name not in RECORDED and name not in FOREIGN}
    assert not unknown, where
    bare = _STRING.sub('""', expression)
    known = {label for name in named for label in _labels(name)} | MADE
    for grouping in _GROUPING.findall(bare):
        assert {label.strip() for label in grouping.split(",") if label.strip()} <= known, where
    for name, matchers in _MATCHERS.findall(bare):
        asked = {label.strip() for label in re.findall(r"([\w ]+?) *(?:=~|!~|!=|=)", matchers)}
        assert asked <= _labels(name) | ({"le"} if name.endswith("_bucket") else set()), where


def test_the_names_of_a_query_are_found() -> None:
    expression = 'sum by (le) (rate(baton_setup_seconds_bucket{instance=~"baton_x"}[5m])) or up or a:baton_b:c > 0'
    assert _named(expression) == {"baton_setup_seconds_bucket", "up", "a:baton_b:c"}


def test_every_metric_stands_on_a_dashboard_or_in_a_rule() -> None:
    named = {name for where, expression in _promql() if not where.endswith(".md") for name in _named(expression)}
    missing = {metric.name for metric in CATALOGUE if not named & set(metric.series)}
    assert missing == UNSHOWN


def test_every_recorded_series_is_used() -> None:
    used = {name for where, expression in _promql() if where not in RECORDED for name in _named(expression)}
    within = {name for expression in RECORDED.values() for name in _named(expression)}
    assert set(RECORDED) <= used | within


def test_there_are_the_five_dashboards() -> None:
    assert set(DASHBOARDS) == {"noc", "trunk", "buyer", "billing", "engine"}
    assert len({board["uid"] for board in DASHBOARDS.values()}) == 5
    assert {board["schemaVersion"] for board in DASHBOARDS.values()} == {39}


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_a_panel_is_described_and_has_unit_source_and_place(name: str) -> None:
    board = DASHBOARDS[name]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert grid["x"] + grid["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in _panels(board):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        for one in (panel, *panel["targets"]):
            assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
    variables = {one["name"] for one in board["templating"]["list"]}
    for panel in _panels(board):
        for target in panel["targets"]:
            asked = set(re.findall(r"\$\{?(\w+)", re.sub(r'"\$\d"', "", target["expr"])))
            assert asked <= variables | {"__rate_interval"}, panel["title"]


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_a_variable_asks_for_a_label_that_exists(name: str) -> None:
    for variable in _variables(DASHBOARDS[name]):
        found = re.fullmatch(r"label_values\((\w+)(?:\{[^}]*\})?, (\w+)\)", variable["definition"])
        assert found is not None, variable["name"]
        assert found[2] in _labels(found[1])


def test_links_of_panels_lead_to_runbooks_and_dashboards_that_exist() -> None:
    uids = {board["uid"] for board in DASHBOARDS.values()}
    linked: set[str] = set()
    for board in DASHBOARDS.values():
        for panel in _panels(board):
            for link in panel.get("links", []):
                url = link["url"]
                if url.startswith("${runbooks}/"):
                    linked.add(url.removeprefix("${runbooks}/"))
                else:
                    assert url.split("?")[0].removeprefix("/d/") in uids, panel["title"]
    assert linked <= {page.name for page in RUNBOOKS.glob("*.md")}
    assert linked


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket", "info"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
    assert rule["annotations"]["description"].endswith(".")
    known = {label for name in _named(rule["expr"]) for label in _labels(name)} | MADE
    for text in rule["annotations"].values():
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= known


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    pages = {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == set(ALERT_NAMES)
    index = (RUNBOOKS / "README.md").read_text()
    assert {name for name in ALERT_NAMES if f"({name}.md)" in index} == set(ALERT_NAMES)
    for rule in ALERTS:
        kind = (RUNBOOKS / f"{rule['alert']}.md").read_text().splitlines()[2]
        assert kind.strip("*").lower().startswith(rule["labels"]["severity"]), rule["alert"]


def test_commands_of_runbooks_exist() -> None:
    known = set(re.findall(r"^## (baton .+)$", (ROOT / "docs/reference/cli.md").read_text(), re.MULTILINE))
    for page in sorted(RUNBOOKS.glob("*.md")):
        text = re.sub(r"```promql\n.*?```", "", page.read_text(), flags=re.DOTALL)
        said = [line for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
        said += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL).replace("\n  ", " "))
        for command in (one for one in said if one.startswith("baton ")):
            words = command.split()
            assert " ".join(words[:2]) in known or " ".join(words[:3]) in known, f"{page.name}: {command}"


def test_every_alert_fires_in_one_case_and_is_silent_in_another() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for path in RULE_TESTS:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for one in case["alert_rule_test"]:
                (fires if one["exp_alerts"] else silent).add(one["alertname"])
    assert fires == set(ALERT_NAMES)
    assert silent == set(ALERT_NAMES)


def _promtool(*arguments: str) -> None:
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, check=False, cwd=CONFIG, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_configuration_and_rules() -> None:
    _promtool("check", "config", "prometheus.yml")
    _promtool("check", "rules", *map(str, RULES))


@pytest.mark.slow
@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_the_rules_do_what_their_cases_say(path: Path) -> None:
    _promtool("test", "rules", str(path))


def test_promtool_parses_every_query_of_the_dashboards(tmp_path: Path) -> None:
    filled = [
        re.sub(r"\$\{?(\w+)\}?", lambda found: "1m" if found[1] == "__rate_interval" else "x", target["expr"])
        for board in DASHBOARDS.values()
        for panel in _panels(board)
        for target in panel["targets"]
    ]
    rules = [{"record": f"query:baton:{number}", "expr": expression} for number, expression in enumerate(filled)]
    page = tmp_path / "queries.yml"
    page.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    _promtool("check", "rules", str(page))


COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


def test_compose_brings_everything_and_mounts_what_exists() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"baton", "postgres", "mosquitto", "prometheus", "grafana"}
    volumes = set(COMPOSE["volumes"])
    for name, service in services.items():
        assert ("build" in service) or ("/" not in service["image"].split(":")[0].replace("/", "", 1)), name
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            there = source in volumes or (ROOT / source).exists()
            assert there or source in ("./baton.toml", "./mosquitto-passwd"), f"{name}: {mount}"  # the operator's own
        for needed in service.get("depends_on", []):
            assert needed in services


def test_compose_holds_no_secret_and_no_default_for_one() -> None:
    for service in COMPOSE["services"].values():
        for key, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|URL", key):
                assert value is None or re.search(r"\$\{\w+:\?[^}]*\}", value), key


def test_what_grafana_is_provisioned_with_fits_compose() -> None:
    provisioning = ROOT / "config/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    command = " ".join(COMPOSE["services"]["prometheus"]["command"])
    assert source["url"].removeprefix("http://") in command
    (provider,) = yaml.safe_load((provisioning / "dashboards/baton.yml").read_text())["providers"]
    mounts = [mount.split(":") for mount in COMPOSE["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in {target for _, target, *_ in mounts}
    config = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]


def test_the_bench_reads_every_panel_and_fills_its_variables() -> None:
    for path in (ROOT / "config/dashboards").glob("*.json"):
        board = boards.read(path)
        assert len(board.panels) == len(DASHBOARDS[path.stem]["panels"])
        values = {"__rate_interval": "1m"} | dict.fromkeys(board.variables, "x")
        for panel in board.panels:
            assert all("$" not in boards.fill(one, values).replace('"$1"', "") for one, _ in panel.queries)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "s", "0 s"),
        (0.0042, "s", "4.2 ms"),
        (7_200.0, "s", "2 h"),
        (0.256, "percentunit", "25.6 %"),
        (3_300.0, "short", "3.3 k"),
        (300 * 2**20, "bytes", "300 MiB"),
        (0.5, "reqps", "0.5 /s"),
    ],
)
def test_a_value_is_shown_in_its_unit(value: float, unit: str, text: str) -> None:
    assert boards.shown(value, unit) == text
