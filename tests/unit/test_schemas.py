"""The documented JSON Schemas take what is published, and nothing that is not so."""

import json

import msgspec
import pytest

from ddnn import audit, decisions
from ddnn.actions import Decision
from ddnn.errors import WireError
from tests.schemas import DOCS, problems

DECISION = Decision(
    slot=1_800_000_000, tag=7, label=1, probability=0.9, entropy=0.2, threshold=0.5, exit="local",
    used=(0, 2), absent=(1,), missing=(), degraded=None, stage_s={"summaries": 0.01},
    payload_bytes=49,
)  # fmt: skip
NOBODY = msgspec.structs.replace(
    DECISION, label=None, probability=None, entropy=None, threshold=None, exit=None, used=()
)
AUDIT = audit.Audit(
    site="s1", slot=3, time_s=0.3, bundle_tag=7, exit="local", label="bus", deepest="cloud",
    agrees=False, members="cameras", used=(0,), absent=(), missing=(1,), payload_bytes=100,
    exits={
        "local": audit.ExitSaid(label="bus", probability=0.9, entropy=0.1),
        "cloud": audit.ExitSaid(label="car", probability=0.8, entropy=0.4),
    },
)  # fmt: skip


def published(decision):
    return decisions.encode(decisions.describe(decision, "s1", ("car", "bus"), 0.1))


@pytest.mark.parametrize("decision", [DECISION, NOBODY], ids=["decided", "nobody saw anything"])
def test_decision_is_as_documented(decision):
    assert problems("decision", published(decision)) == []


def test_example_in_the_protocol_is_as_documented():
    text = (DOCS / "protocol.md").read_text()
    example = text.partition("## Decision\n\n```json\n")[2].partition("```")[0]
    assert problems("decision", example.encode()) == []
    decisions.decode(example.encode())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("site", "a/b"),
        ("slot", 1.5),
        ("probability", 1.01),
        ("entropy", -0.1),
        ("exit", "roof"),
        ("members", "people"),
        ("used", [32]),
        ("missing", list(range(33))),
        ("stage_ms", {"summaries": -1}),
        ("bundle_tag", 65536),
        ("payload_bytes", -1),
        ("degraded", 3),
    ],
)
def test_schema_and_decoder_refuse_the_same(field, value):
    wrong = json.dumps(json.loads(published(DECISION)) | {field: value}).encode()
    assert problems("decision", wrong)
    with pytest.raises(WireError):
        decisions.decode(wrong)


@pytest.mark.parametrize("field", list(json.loads(published(DECISION))))
def test_decision_without_one_of_its_fields_is_refused_by_both(field):
    wrong = json.loads(published(DECISION))
    del wrong[field]
    assert problems("decision", json.dumps(wrong).encode())
    with pytest.raises(WireError):
        decisions.decode(json.dumps(wrong).encode())


def test_every_field_is_described():
    for name in ("decision", "audit", "audit-estimate"):
        schema = json.loads((DOCS / f"{name}.schema.json").read_text())
        for kind in schema["$defs"].values():
            for field, described in kind.get("properties", {}).items():
                inner = described.get("anyOf", [{}])[0]
                where = "description" in described or "description" in inner
                assert where or "$ref" in described, f"{name}: {field}"


def test_audit_is_as_documented():
    assert problems("audit", audit.encode(AUDIT)) == []
    assert audit.decode(audit.encode(AUDIT)) == AUDIT


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b"[]", b"\xff", b"[" * 10_000, b'{"site": "s1", "slot": "x"}']
)
def test_what_is_no_audit_is_refused(payload):
    for decode in (audit.decode, audit.decode_estimate):
        with pytest.raises(WireError):
            decode(payload)
