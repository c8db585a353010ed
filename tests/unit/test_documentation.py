"""What the documents say of commands, settings, topics and targets is what the program has."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ddnn import topics

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("script", ["commands_doc", "metrics_doc"])
def test_document_made_from_the_program_is_current(script):
    check = [sys.executable, f"scripts/{script}.py", "--check"]
    result = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_topic_is_in_the_protocol():
    text = (ROOT / "docs" / "protocol.md").read_text()
    for topic in (
        topics.summary("<site>", 0),
        topics.features("<site>", 0),
        topics.request("<site>", 0),
        topics.escalation("<site>"),
        topics.answer("<site>"),
        topics.decision("<site>"),
        topics.audit("<site>"),
        topics.audit_estimate("<site>"),
        topics.ledger("<site>"),
        topics.manifest("<site>"),
        topics.active("<site>"),
        topics.replay("<site>"),
    ):
        assert f"`{re.sub('/0$', '/<n>', topic)}`" in text


def test_every_make_target_named_in_a_document_exists():
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.M))
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        named = set(re.findall(r"`make ([a-z][a-z0-9-]*)", document.read_text()))
        assert named <= targets, document.name


def test_links_between_documents_lead_somewhere():
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_services_decode_with_decoders_made_at_import():
    """msgspec 0.22 crashes where two threads meet a type for the first time at once."""
    for folder in ("ddnn", "device_agent", "edge_gateway", "cloud_service"):
        for source in (ROOT / folder).glob("*.py"):
            assert not re.search(r"(json|msgpack)\.decode\(.*type=", source.read_text()), source
