"""The fixed slice that CI runs: a few worlds of each kind of trouble, and of all at once."""

from __future__ import annotations

from tests.simulation.world import Options

SCENARIOS = {
    "everything": Options(faults=8),
    "cameras": Options(
        episodes=3,
        faults=3,
        kinds=("device_crash", "device_dead", "device_hang", "device_partition"),
    ),
    "gateway": Options(
        episodes=2,
        faults=9,
        kinds=(
            "gateway_crash",
            "gateway_crash_in_the_middle",
            "gateway_partition",
            "broker_killed",
            "replays",
        ),
    ),
    "network": Options(
        episodes=2,
        faults=6,
        kinds=(
            "partition",
            "device_partition",
            "bad_network",
            "broker_killed_and_forgetful",
            "device_replaced",
        ),
    ),
    "cloud": Options(
        episodes=2,
        faults=6,
        shares=(0.05, 0.05),
        kinds=("no_worker", "all_workers_hang", "worker_crash", "gateway_crash", "bad_network"),
    ),
    "clocks": Options(
        episodes=2,
        faults=8,
        kinds=("clock_step_device", "clock_step_gateway", "clock_at_1970", "device_crash"),
    ),
    "bundles": Options(
        episodes=2,
        faults=12,
        kinds=(
            "roll_out",
            "roll_back",
            "replays",
            "other_bundle",
            "device_crash",
            "gateway_crash",
            "device_partition",
        ),
    ),
    "roll-outs alone": Options(
        episodes=3, faults=4, lossless=True, kinds=("roll_out", "roll_out_refused_by_one")
    ),
    "trials": Options(
        episodes=3,
        faults=2,
        canary_every=2,
        lossless=True,
        shares=(0.7, 0.2),
        quiet_s=120.0,
        kinds=("roll_out",),
    ),
    "audits": Options(
        episodes=2,
        faults=8,
        audit_share=1.0,
        shares=(0.6, 0.35),
        kinds=(
            "device_hang",
            "all_workers_hang",
            "gateway_crash",
            "bad_network",
            "roll_out",
            "replays",
        ),
    ),
    "audits alone": Options(
        episodes=2, faults=4, audit_share=1.0, lossless=True, kinds=("roll_out",)
    ),
    "overload": Options(
        episodes=2,
        faults=6,
        max_open_slots=2,
        shares=(0.2, 0.1),
        kinds=("all_workers_hang", "bad_network", "device_hang", "garbage", "replays", "disk_full"),
    ),
}
