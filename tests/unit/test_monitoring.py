"""The alert rules and the Grafana dashboard: they load, and ask only for metrics that there are."""

import json
import re
from pathlib import Path

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from ddnn.metrics import TABLE
from tests.promtool import promtool

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text())
#: What Grafana puts in the place of its variables.
VARIABLES = {"$site": ".*", "$__rate_interval": "1m"}


def expressions():
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def unknown(text):
    """Names of metrics of ours in an expression that the table does not have."""
    series = set()
    for metric in TABLE.values():
        endings = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        series |= {metric.name + ending for ending in endings}
    return set(re.findall(r"\bddnn_\w+", text)) - series


def labels_of(name):
    metric = TABLE.get(re.sub(r"_(bucket|sum|count)$", "", name)) or TABLE[name]
    return {"site", "node", "le", *metric.labels}


def test_alert_rules_load_and_do_what_their_cases_say():
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        outcome = promtool(*command, cwd=FOLDER)
        assert outcome.returncode == 0, outcome.stdout.decode() + outcome.stderr.decode()


def test_example_configuration_of_prometheus_loads():
    outcome = promtool("check", "config", "prometheus.yml", cwd=FOLDER)
    assert outcome.returncode == 0, outcome.stderr.decode()


@pytest.mark.parametrize("name", ["alerts.yml", "grafana.json"])
def test_only_metrics_that_there_are_are_asked_for(name):
    text = (FOLDER / name).read_text()
    assert unknown(text) == set()
    for metric, selected in re.findall(r"(ddnn_\w+)\{([^}]*)\}", text.replace('\\"', '"')):
        named = set(re.findall(r"(\w+)\s*[=!]", selected))
        assert named <= labels_of(metric), (metric, named)


def test_every_expression_of_the_dashboard_parses(tmp_path):
    rules = []
    for number, (_, expression) in enumerate(expressions()):
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)
        assert "$" not in expression, expression
        rules.append({"record": f"test:{number}", "expr": expression})
    path = tmp_path / "rules.yml"  # JSON is YAML
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    outcome = promtool("check", "rules", str(path))
    assert outcome.returncode == 0, outcome.stdout.decode() + outcome.stderr.decode()
    assert f"{len(rules)} rules found" in outcome.stdout.decode()


def test_dashboard_is_one_to_grafanas_own_models():
    """They are made from Grafana's schema; what they do not know they would leave out."""
    known = dashboard.Dashboard.from_json(DASHBOARD)
    again = json.loads(JSONEncoder().encode(known))
    assert list(lost(DASHBOARD, again)) == []


def lost(said, understood, path=""):
    """Paths of values that are not the same in `understood`, which may have more."""
    if isinstance(said, dict) and isinstance(understood, dict):
        for key, value in said.items():
            yield from lost(value, understood.get(key), f"{path}/{key}")
    elif isinstance(said, list) and isinstance(understood, list) and len(said) == len(understood):
        for number, value in enumerate(said):
            yield from lost(value, understood[number], f"{path}/{number}")
    elif said != understood:
        yield path


def test_dashboard_can_be_imported():
    assert DASHBOARD["uid"]
    assert DASHBOARD["title"]
    assert "id" not in DASHBOARD, "an id is the server's to give"
    variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource", "site"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another panel"
        assert all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells
