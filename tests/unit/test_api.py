"""The HTTP API: every answer fits its own OpenAPI schema, every mistake is a problem detail."""

import time

import jsonschema
import msgspec
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud_service import api
from cloud_service.overview import Overview
from cloud_service.records.ledgers import Ledger
from cloud_service.records.store import Records
from cloud_service.records.writer import Heard
from ddnn import activation, decisions, status, topics
from tests.bundles import random_bundle
from tests.records import decision

NOW = time.time()
SLOT = int(NOW * 10)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    opened = Records(f"{tmp_path_factory.mktemp('api')}/decisions.db")
    opened.migrate()
    opened.add(
        [decision(SLOT - n, degraded="overload" if n % 10 == 0 else None) for n in range(50)]
    )
    opened.add([decision(7, site="silent")])
    opened.write([Heard("s1", Ledger(opened=50, decided=50), NOW)])
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def overview():
    seen = Overview()
    bundle = random_bundle(cameras=4)
    record = activation.Activation(
        bundle=bundle.bundle_id, version=1, from_slot=0, manifest=bundle.payload
    )
    seen.hear(topics.active("s1"), activation.encode(record), True, NOW)
    seen.hear(topics.manifest("s1"), bundle.payload, True, NOW)
    said = status.Status(node="gateway", state="online", boot=1, at_s=NOW, every_s=30.0)
    seen.hear(topics.status("s1", "gateway"), status.encode(said), True, NOW)
    seen.hear(topics.ledger("s1"), b'{"opened":50,"decided":50}', False, NOW)
    seen.hear(topics.decision("s1"), decisions.encode(decision(SLOT)), False, NOW)
    return seen


@pytest.fixture(scope="module")
def client(records, overview):
    app = FastAPI()
    api.install(app, overview, records, {"broker": lambda: app.state.broker})
    app.state.broker = None
    with TestClient(app) as opened:
        yield opened


def fits(client, path, answer):
    """Check an answer against the schema that the OpenAPI document has for it."""
    document = client.get("/openapi.json").json()
    said = document["paths"][path]["get"]["responses"][str(answer.status_code)]["content"]
    [(media_type, content)] = said.items()
    assert answer.headers["content-type"] == media_type
    schema = {"components": document["components"], **content["schema"]}
    jsonschema.Draft202012Validator(schema).validate(answer.json())
    return answer.json()


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/api/v1/sites", ""),
        ("/api/v1/sites/{site}", ""),
        ("/api/v1/sites/{site}/nodes", ""),
        ("/api/v1/sites/{site}/decisions", ""),
        ("/api/v1/sites/{site}/decisions", "?degraded=true&limit=2&missing_camera=3&exit=local"),
        ("/api/v1/sites/{site}/buckets", "?from={begin}&to={now}&bucket_s=300"),
        ("/api/v1/sites/{site}/ledger", ""),
        ("/api/v1/sites/{site}/ledger/history", ""),
        ("/api/v1/sites/{site}/bundles", ""),
        ("/api/v1/sites/{site}/settings", ""),
        ("/api/v1/sites/{site}/missing", ""),
        ("/api/v1/database", ""),
        ("/healthz", ""),
        ("/readyz", ""),
    ],
)
def test_answer_is_as_documented(client, path, query):
    query = query.format(begin=NOW - 3600, now=NOW)
    answer = client.get(path.replace("{site}", "s1") + query)
    assert answer.status_code == 200, answer.text
    fits(client, path, answer)


def test_every_answer_of_the_api_has_a_documented_schema(client):
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        answers = operations["get"]["responses"]
        assert "422" not in answers, path
        for answer in answers.values():
            for content in answer["content"].values():
                name = content["schema"]["$ref"].rpartition("/")[2]
                assert name in document["components"]["schemas"], path


def test_sites_with_records_only_are_listed(client):
    found = client.get("/api/v1/sites").json()
    assert [each["site"] for each in found["sites"]] == ["s1"]
    assert found["recorded"] == ["silent"]


def test_pages_lead_to_every_decision_once(client):
    found, query = [], "?limit=7"
    while True:
        page = client.get(f"/api/v1/sites/s1/decisions{query}").json()
        found += [each["slot"] for each in page["decisions"]]
        if page["next"] is None:
            break
        query = f"?limit=7&before={page['next']}"
    assert found == [SLOT - n for n in range(50)]


def test_decision_is_what_the_gateway_has_published(client):
    answer = client.get(f"/api/v1/sites/s1/decisions/{SLOT - 1}")
    fits(client, "/api/v1/sites/{site}/decisions/{slot}", answer)
    assert decisions.decode(answer.content) == decision(SLOT - 1)


def test_buckets_know_what_the_raw_views_would_have_been(client, overview):
    found = client.get(f"/api/v1/sites/s1/buckets?from={NOW - 600}&to={NOW}&bucket_s=300").json()
    raw = sum(each["raw_bytes"] for each in found["buckets"])
    bundle = overview.site("s1").bundle
    assert raw == 50 * 3 * bundle.raw_bytes / bundle.cameras


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/sites/nowhere", 404),
        ("/api/v1/sites/nowhere/decisions", 404),
        ("/api/v1/sites/nowhere/buckets?from=0&to=1", 404),
        ("/api/v1/sites/s1/decisions/3", 404),
        ("/api/v1/sites/s1/decisions?limit=0", 400),
        ("/api/v1/sites/s1/decisions?limit=100000", 400),
        ("/api/v1/sites/s1/decisions?before=x", 400),
        ("/api/v1/sites/s1/decisions?before=99999999999999999999_1", 400),
        ("/api/v1/sites/s1/decisions?from=nan", 400),
        ("/api/v1/sites/s1/decisions?from=inf", 400),
        ("/api/v1/sites/s1/decisions?label=a%00b", 400),
        ("/api/v1/sites/s1/decisions?missing_camera=32", 400),
        ("/api/v1/sites/s1/decisions/99999999999999999999", 400),
        ("/api/v1/sites/s1/buckets", 400),
        ("/api/v1/sites/s1/buckets?from=5&to=5", 400),
        ("/api/v1/sites/s1/buckets?from=0&to=4000000000", 400),
        ("/api/v1/sites/a%00b/nodes", 400),
        ("/api/v1/sites/ddnn%20x/nodes", 400),
    ],
)
def test_mistake_is_a_problem_detail(client, path, status):
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = msgspec.json.decode(answer.content, type=api.Problem)
    assert problem.status == status
    assert problem.detail


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        st.sampled_from(
            ["before", "limit", "from", "to", "exit", "label", "degraded", "missing_camera"]
        ),
        st.text(max_size=30) | st.integers().map(str) | st.floats().map(str),
    )
)
def test_no_query_makes_the_api_fail(client, query):
    assert client.get("/api/v1/sites/s1/decisions", params=query).status_code in (200, 400)


def test_database_that_is_away_is_503_and_not_ready_while_the_process_is_healthy(tmp_path):
    records = Records("postgresql://u:secret@127.0.0.1:9/none")
    app = FastAPI()
    api.install(app, Overview(), records)
    with TestClient(app) as client:
        answer = client.get("/api/v1/sites")
        assert fits(client, "/api/v1/sites", answer)["status"] == 503
        assert answer.headers["retry-after"]
        assert "127.0.0.1" not in answer.text
        answer = client.get("/readyz")
        assert fits(client, "/readyz", answer)["reasons"][0].startswith("database: ")
        assert "secret" not in answer.text
        assert client.get("/api/v1/database").json()["ok"] is False
        assert client.get("/healthz").status_code == 200
    records.close()


def test_readiness_names_every_part_that_does_not_work(client):
    client.app.state.broker = "no connection"
    answer = client.get("/readyz")
    client.app.state.broker = None
    assert fits(client, "/readyz", answer)["reasons"] == ["broker: no connection"]
