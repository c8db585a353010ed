"""The demo as a newcomer runs it: its report, and that nothing is left running."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.live


def start_demo(out, *options):
    command = [sys.executable, "-m", "ddnn", "demo", "--out", str(out), *options]
    # Tests that a shell has put into the background ignore SIGINT, and so would the demo.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def processes_of(folder):
    """Pids of processes whose command line names `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in command:
                found.append(int(entry.name))
    return found


def test_demo_of_the_reference_bundle_reports_what_the_issue_of_it_needs(tmp_path):
    demo = start_demo(tmp_path, "--limit", "60", "--period-s", "0.05")
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, output
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["matches_reference"] == 1.0
    assert report["frames_sent"] == report["decided"] + report["degraded"] + report["expired"] == 60
    assert report["degraded"] == report["expired"] == 0
    assert set(report["exits"]) >= {"local", "edge", "cloud"}
    assert sum(report["exits"].values()) == pytest.approx(1)
    assert set(report["latency_ms"]) == {"p50", "p99"}
    assert report["wire_bytes_per_camera_frame"] > report["payload_bytes_per_camera_frame"] > 10
    assert report["accuracy"] == report["accuracy_reference"]
    assert "ledger" in output
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_all_processes_end_when_the_demo_is_stopped(tmp_path, number):
    demo = start_demo(tmp_path)
    for line in demo.stdout:
        if "local" in line:  # the first decisions are there
            break
    assert len(processes_of(tmp_path)) >= 10
    demo.send_signal(number)
    output, _ = demo.communicate(timeout=30)
    if number != signal.SIGKILL:
        assert demo.returncode == 130
        assert "interrupted" in output
        assert "Traceback" not in output
    deadline = time.monotonic() + 5
    while (left := processes_of(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def test_data_of_another_layout_is_an_error_that_shows_the_layouts(tmp_path):
    np.savez(tmp_path / "odd.npz", pictures=np.zeros((3, 4)))
    demo = start_demo(tmp_path / "out", "--data", str(tmp_path / "odd.npz"))
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "pictures" in output
    assert "Traceback" not in output
