"""What the report on bytes says of targets."""

import pytest

from benchmarks.wire_report import least


def row(name, wire_bytes):
    return {"name": name, "cameras": {"wire_bytes": wire_bytes}}


def results(*, jpeg, empty, ours):
    by_run = dict(zip(("plain", "slots_2", "slots_5", "delayed"), ours, strict=True))
    found = {}
    for end in ("", "_tls"):
        for run, cost in by_run.items():
            name = "tls" if run == "plain" and end else run + end
            found[name] = [row("JPEG", jpeg), row("nothing", empty), row("ours", cost)]
    return found


@pytest.mark.parametrize(
    ("jpeg", "ours", "said"),
    [
        (600.0, (140.0, 80.0, 40.0, 30.0), "cannot be six times less"),
        (600.0, (140.0, 80.0, 40.0, 30.0), "at least 6 from 2 slots"),
        (600.0, (140.0, 101.0, 40.0, 30.0), "at least 6 from 5 slots"),
        (600.0, (140.0, 80.0, 101.0, 30.0), "at least 6 from 10 slots"),
        (600.0, (140.0, 130.0, 120.0, 101.0), "with none of them"),
        (6000.0, (140.0, 80.0, 40.0, 30.0), "may be six times less"),
        (6000.0, (140.0, 80.0, 40.0, 30.0), "at least 6 from 1 slots"),
    ],
)
def test_report_says_from_how_many_slots_on_the_target_holds(jpeg, ours, said):
    plain, tls = least(results(jpeg=jpeg, empty=115.0, ours=ours))
    assert said in plain
    assert said in tls
