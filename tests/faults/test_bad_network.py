"""Packets delayed, overtaken and lost between the gateway and the rest: real TCP recovers."""

import time

import pytest

from tests.faults.delay_line import DelayLine, why_not
from tests.faults.site import Site

REASON = why_not()
pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(150),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]


@pytest.fixture(scope="module")
def line():
    with DelayLine() as made:
        yield made


@pytest.fixture(scope="module")
def site(line, tmp_path_factory):
    folder = tmp_path_factory.mktemp("netns")
    with Site(folder, samples=2000, far={"gateway": line, "device-0": line}) as made:
        yield made


def good(line):
    line.be()


def test_delay_jitter_and_loss_degrade_and_recover(site, line):
    line.be(delay_ms=40, jitter_ms=10, loss=0.03)
    time.sleep(2)
    first = site.now_slot
    time.sleep(8)
    decisions = site.consumer.since(first)
    assert len(decisions) >= 50
    assert sum(d.degraded is None for d in decisions) >= 0.6 * len(decisions)
    good(line)
    site.wait_full_service("loss and delay")
    site.wait_balanced()


def test_dead_line_of_fifteen_seconds(site, line):
    """Every packet is lost and nobody is told: both kernels retransmit ever more rarely."""
    line.be(loss=1.0)
    time.sleep(15)
    good(line)
    site.wait_full_service("a dead line")
    site.wait_balanced()


def test_short_interruptions(site, line):
    for _ in range(4):
        line.be(loss=1.0)
        time.sleep(1.5)
        good(line)
        time.sleep(1.5)
    site.wait_full_service("short interruptions")
    site.wait_balanced()
