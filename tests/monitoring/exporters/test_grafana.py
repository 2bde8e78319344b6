from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from predis.metrics import TABLE
from predis.monitoring.exporters.grafana import dashboards

DASHBOARDS = dashboards()
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


def panels(name: str) -> list[dict[str, Any]]:
    return list(DASHBOARDS[name]["panels"])


def expressions() -> Iterator[str]:
    for name in DASHBOARDS:
        for panel in panels(name):
            yield from (target["expr"] for target in panel["targets"])


def test_every_metric_of_the_table_is_shown() -> None:
    shown = " ".join(expressions())
    assert [name for name in TABLE if not re.search(rf"\b{name}(_bucket)?\b", shown)] == []


def test_only_metrics_of_the_table_are_shown() -> None:
    for expr in expressions():
        for name in re.findall(r"\bpredis_\w+", expr):
            assert name in TABLE or name.removesuffix("_bucket") in TABLE


@pytest.mark.parametrize("name", DASHBOARDS)
def test_structure(name: str) -> None:
    dashboard = json.loads(orjson.dumps(DASHBOARDS[name]))
    assert f"{dashboard['uid']}.json" == name
    assert dashboard["title"].startswith("Predis: ")
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard["panels"]:
        assert panel["type"] in ("timeseries", "stat")
        assert panel["title"]
        assert panel["targets"]
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            used = set(_VARIABLE.findall(target["expr"])) - {"__rate_interval"}
            assert used <= variables
    refs = [[target["refId"] for target in panel["targets"]] for panel in dashboard["panels"]]
    assert all(len(set(found)) == len(found) for found in refs)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_do_not_lie_over_each_other(name: str) -> None:
    places = [panel["gridPos"] for panel in panels(name)]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for a, b in itertools.combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (a, b)


def test_every_expression_is_promql(tmp_path: Path, program: Callable[[str], str]) -> None:
    """promtool parses rules: each expression is made one, with Grafana's variables filled in."""
    exprs = [_VARIABLE.sub("x", expr.replace("$__rate_interval", "5m")) for expr in expressions()]
    rules = [{"record": f"panel:{at}", "expr": expr} for at, expr in enumerate(exprs)]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    checked = subprocess.run(
        [program("promtool"), "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout
