"""What benchmarks count by: packets, made messages, places in the docs."""

import struct

import numpy as np
import pytest

from benchmarks import pages
from benchmarks.offload import Offload
from benchmarks.packets import Packet, read
from benchmarks.scale import is_broken
from benchmarks.syscalls import counted
from benchmarks.traffic import publish_packet


def ip_packet(source, destination, data, *, protocol=6, options=12):
    """Headers of an IPv4 packet with so many bytes in TCP."""
    length = 20 + 20 + options + data
    ip = struct.pack("!BBHHHBBHII", 0x45, 0, length, 0, 0, 64, protocol, 0, 0, 0)
    words = (20 + options) // 4
    return ip + struct.pack("!HHIIBBHHH", source, destination, 0, 0, words << 4, 0, 0, 0, 0)


def test_message_and_its_acknowledgement_are_the_clients():
    up = read(ip_packet(40000, 1883, 24), 1883, 1.0)
    down = read(ip_packet(1883, 40000, 0), 1883, 2.0)
    assert up == Packet(1.0, 40000, 76, 24)
    assert down == Packet(2.0, 40000, 52, 0)


def test_what_a_network_card_would_cut_is_counted_as_cut():
    whole = read(ip_packet(40000, 1883, 3094), 1883, 0.0)
    assert (whole.data_bytes, whole.ip_bytes) == (3094, 3094 + 3 * 52)


@pytest.mark.parametrize(
    "head", [ip_packet(40000, 1884, 10), ip_packet(40000, 1883, 10, protocol=17)]
)
def test_packets_of_others_are_not_counted(head):
    assert read(head, 1883, 0.0) is None


def test_made_publish_is_mqtt_5():
    assert publish_packet("s/s/1", b"abc").hex() == "300b0005732f732f3100616263"
    with pytest.raises(ValueError, match="short"):
        publish_packet("s/s/1", bytes(200))


@pytest.mark.parametrize(
    ("name", "quality", "off"), [("raw", None, 0), ("JPEG", 90, 40), ("WebP", 90, 40)]
)
def test_picture_arrives_as_well_as_its_coding_allows(name, quality, off):
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    image = np.stack(
        [np.tile(ramp, (32, 1)), np.tile(ramp[:, None], (1, 32)), np.full((32, 32), 90)], 2
    )
    image = image.astype(np.uint8)
    offload = Offload(name, quality)
    arrived = offload.decode(offload.encode(image), image.shape)
    assert np.abs(arrived.astype(int) - image).max() <= off


def test_table_without_a_place_in_the_page_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before <!-- made by benchmarks.a: begin -->old<!-- a: end --> after")
    pages.write_block("a", "new", page)
    new = "before <!-- made by benchmarks.a: begin -->\n\nnew\n\n<!-- a: end --> after"
    assert page.read_text() == new
    with pytest.raises(SystemExit, match="no place"):
        pages.write_block("b", "new", page)


@pytest.mark.parametrize(
    ("p99_ms", "lost", "broken"), [(999.0, 0.0, False), (1001.0, 0.0, True), (5.0, 0.01, True)]
)
def test_break_point_is_a_late_or_a_lost_decision(p99_ms, lost, broken):
    assert is_broken({"p99_ms": p99_ms, "lost": lost}) is broken


def test_report_of_strace_is_read_with_and_without_errors():
    report = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.01    0.120000          12        10           poll
 39.99    0.080000           4        20         3 recvfrom
------ ----------- ----------- --------- --------- ----------------
100.00    0.200000           6        30         3 total
"""
    assert list(counted(report).items()) == [("recvfrom", 20), ("poll", 10)]
