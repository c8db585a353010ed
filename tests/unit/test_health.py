"""Health: what matters, when it is told, and what is read off a machine."""

import subprocess
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn import machine, status
from ddnn.health import SOONEST_S, Health, Telling, matters
from device_agent.gate import Gate, GateRules
from device_agent.health import CLOCK_EVERY_S, READ_EVERY_S, MachineWatch, with_camera
from device_agent.sources import SourceHealth

WELL = Health(
    source="running",
    fps=20.0,
    frame_age_s=0.03,
    gate="absent",
    temperature_c=50.0,
    memory_mb=400,
    own_memory_mb=60,
    disk_mb=8000,
    clock_synchronised=True,
    clock_offset_s=0.001,
    versions={"ddnn": "1"},
)


def changed(**fields):
    return msgspec.structs.replace(WELL, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "waiting"},
        {"problem": "no new picture for 5 s"},
        {"restarts": 1},
        {"gate": "learning"},
        {"temperature_c": 55.1},
        {"temperature_c": None},
        {"throttled": ("under-voltage",)},
        {"memory_mb": 199},
        {"own_memory_mb": 121},
        {"disk_mb": 3999},
        {"clock_synchronised": False},
        {"clock_offset_s": -0.02},
        {"fps": 14.0},
        {"versions": {"ddnn": "2"}},
    ],
)
def test_what_a_person_would_act_on_matters(fields):
    assert matters(WELL, changed(**fields))
    assert matters(changed(**fields), WELL)


@pytest.mark.parametrize(
    "fields",
    [
        {"frame_age_s": 0.2},
        {"gate": "present"},
        {"temperature_c": 54.9},
        {"memory_mb": 210},
        {"own_memory_mb": 65},
        {"clock_offset_s": 0.009},
        {"fps": 18.0},
    ],
)
def test_noise_is_no_news(fields):
    assert not matters(WELL, changed(**fields))


def test_status_is_told_on_a_change_but_not_at_every_one_and_else_at_long_intervals():
    telling = Telling(60.0)
    assert telling.due(WELL, 0.0)
    telling.told(WELL, 0.0)
    hot = changed(temperature_c=80.0)
    assert not telling.due(hot, SOONEST_S - 0.1)
    assert telling.due(hot, SOONEST_S)
    assert not telling.due(WELL, 59.9)
    assert telling.due(WELL, 60.0)


@given(st.lists(st.floats(0.1, 5.0), min_size=1, max_size=200), st.data())
def test_whatever_flaps_no_more_than_one_status_in_ten_seconds(steps, data):
    telling = Telling(3600.0)
    now, told = 0.0, []
    for step in steps:
        now += step
        health = changed(source=data.draw(st.sampled_from(["running", "waiting"])))
        if telling.due(health, now):
            telling.told(health, now)
            told.append(now)
    assert all(b - a >= SOONEST_S for a, b in pairwise(told))


def test_status_with_health_goes_through_json_and_leaves_out_what_is_not_known():
    report = status.Status(node="device-0", state="online", boot=1, since_s=1.5, health=WELL)
    assert status.decode(status.encode(report)) == report
    bare = status.encode(status.Status(node="device-0", state="online", boot=1, health=Health()))
    assert bare == b'{"node":"device-0","state":"online","boot":1,"health":{}}'


def test_camera_and_gate_are_part_of_the_health():
    health = with_camera(
        Health(temperature_c=40.0),
        SourceHealth("waiting", 19.96, 0.12345, 2, "cable"),
        Gate(GateRules()),
    )
    assert health == Health(
        temperature_c=40.0, source="waiting", fps=20.0, frame_age_s=0.123, restarts=2,
        problem="cable", gate="learning",
    )  # fmt: skip
    assert with_camera(Health(), None, None) == Health()


# -- reading a machine -------------------------------------------------------------------------


def write(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def pi(tmp_path):
    write(tmp_path, "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "48312\n")
    write(tmp_path, "sys/class/thermal/thermal_zone1/type", "other\n")
    write(tmp_path, "sys/class/thermal/thermal_zone1/temp", "91000\n")
    write(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n")
    write(tmp_path, "proc/meminfo", "MemTotal: 948304 kB\nMemAvailable:  512000 kB\n")
    write(tmp_path, "proc/self/status", "Name: python\nVmRSS:\t   61440 kB\n")
    write(tmp_path, "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    write(tmp_path, "etc/os-release", 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    return tmp_path


def no_command(args):
    return None


def test_pi_is_read(pi):
    health = MachineWatch(pi, pi, no_command).read(0.0)
    assert health.temperature_c == 48.3
    assert health.throttled == ("under-voltage", "throttled")
    assert (health.memory_mb, health.own_memory_mb) == (524, 62)
    assert health.disk_mb > 0
    assert health.versions["model"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert health.versions["system"] == "Debian GNU/Linux 12 (bookworm)"
    assert health.versions["numpy"]


@pytest.mark.parametrize(
    ("bits", "said"),
    [
        ("0", ()),
        ("1", ("under-voltage",)),
        ("50000", ("under-voltage before", "throttled before")),
        ("80008", ("temperature limit",)),
        ("f000f", machine.THROTTLED),
        ("0x2", ("frequency capped",)),
    ],
)
def test_throttling_is_told_in_words(pi, bits, said):
    write(pi, "sys/devices/platform/soc/soc:firmware/get_throttled", bits)
    assert machine.throttled(pi) == said


def test_machine_that_tells_nothing_gives_nothing_and_raises_nothing(tmp_path):
    health = MachineWatch(tmp_path, tmp_path, no_command).read(0.0)
    assert health.temperature_c is health.memory_mb is health.clock_synchronised is None
    assert health.throttled == ()
    assert machine.throttled(tmp_path) is None


@pytest.mark.parametrize("text", ["", "x", "-"])
def test_garbage_in_sys_is_passed_over(pi, text):
    for zone in (0, 1):
        write(pi, f"sys/class/thermal/thermal_zone{zone}/temp", text)
    write(pi, "sys/devices/platform/soc/soc:firmware/get_throttled", text)
    assert machine.temperature_c(pi) is None
    assert machine.throttled(pi) is None


def says(**answers):
    return lambda args: answers.get(args[0])


def test_timesyncds_file_is_enough_to_know_the_clock_is_set(pi):
    write(pi, "run/systemd/timesync/synchronized", "")
    assert machine.clock_synchronised(pi, no_command) is True


@pytest.mark.parametrize(("said", "known"), [("yes\n", True), ("no\n", False), ("?", None)])
def test_for_other_time_services_timedatectl_is_asked(pi, said, known):
    assert machine.clock_synchronised(pi, says(timedatectl=said)) is known


NTP = (
    '{"type":"(uuuuittayttttbtt)","data":[0,4,4,2,-24,1000,500,[192,0,2,1],'
    "%d,%d,%d,%d,false,%d,900]}"
)
T = 1_750_000_000_000_000


def test_timesyncds_offset_is_that_of_its_last_exchange():
    # The server's clock is 30 ms ahead; 10 ms there, 10 ms back.
    text = NTP % (T, T + 40_000, T + 41_000, T + 21_000, 5)
    assert machine.clock_offset_s(says(busctl=text)) == pytest.approx(0.030)


def test_chronys_offset_is_taken_where_there_is_no_timesyncd():
    tracking = "C0000201,192.0.2.1,3,1750000000.1,-0.000250,0.0001,0.0002,1,0,0,0,0,64,Normal\n"
    assert machine.clock_offset_s(says(chronyc=tracking)) == pytest.approx(0.00025)
    never = NTP % (0, 0, 0, 0, 0)
    assert machine.clock_offset_s(says(busctl=never, chronyc=tracking)) is not None


@pytest.mark.parametrize("text", ["", "{}", '{"data":[1]}', "a,b", "[]"])
def test_offset_that_is_not_understood_is_not_known(text):
    assert machine.clock_offset_s(says(busctl=text, chronyc=text)) is None


def test_program_that_is_missing_or_fails_or_hangs_is_no_answer(monkeypatch):
    assert machine.run_command(["/no/such/program"]) is None
    assert machine.run_command(["false"]) is None
    monkeypatch.setattr(machine, "COMMAND_TIMEOUT_S", 0.05)
    assert machine.run_command(["sleep", "5"]) is None
    assert machine.run_command(["echo", "yes"]) == "yes\n"


def test_time_service_is_asked_seldom_once_the_clock_is_set(pi):
    asked = []

    def run(args):
        asked.append(args[0])
        return "yes" if args[0] == "timedatectl" else None

    watch = MachineWatch(pi, pi, run)
    for number in range(int(CLOCK_EVERY_S / READ_EVERY_S)):
        watch.read(1000.0 + number * READ_EVERY_S)
    assert asked.count("timedatectl") == 1
    watch.read(1000.0 + CLOCK_EVERY_S)
    assert asked.count("timedatectl") == 2


def test_this_machine_can_be_read():
    health = MachineWatch(Path("/")).read(0.0)
    assert health.memory_mb > 0
    assert health.own_memory_mb > 0
    uname = subprocess.run(["uname", "-r"], capture_output=True, text=True, check=True)
    assert health.versions["kernel"] == uname.stdout.strip()
