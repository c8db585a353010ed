"""Tables of networks with all cameras: threshold, filters, aggregation, shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from training.paper.bench import (
    EXIT_COLUMNS,
    Bench,
    Row,
    Tested,
    over,
    paper_columns,
    paper_memory_bits,
    sets_of,
    weight_bits,
)
from training.paper.run import Run
from training.paper.table import Column, Table

SWEEP = tuple(round(0.05 * step, 2) for step in range(21))
_FILTER_COLUMNS = [
    Column("filters", "f"),
    *EXIT_COLUMNS,
    Column("local_share", "at local", "%"),
    Column("camera_bytes", "payload per camera", "B"),
    Column("formula_bytes", "formula", "B"),
    Column("file_bytes", "file", "B"),
    Column("weight_bits", "weights", "bit"),
    Column("memory_bits", "memory", "bit"),
]


def summary(bench: Bench) -> Table:
    """The base network in numbers."""
    tested = bench.tested(bench.plan.base())
    cameras = range(bench.samples.cameras)
    lines: list[tuple[str, str, Any]] = [
        ("accuracy, all exits together", "%", lambda t: t.overall()),
        ("accuracy, local exit alone", "%", lambda t: t.alone("local")),
        ("accuracy, edge exit alone", "%", lambda t: t.alone("edge")),
        ("accuracy, cloud exit alone", "%", lambda t: t.alone("cloud")),
        ("answered at the local exit", "%", lambda t: t.at().exit_shares.get("local")),
        ("answered at the edge exit", "%", lambda t: t.at().exit_shares.get("edge")),
        ("answered by the cloud", "%", lambda t: t.at().exit_shares.get("cloud")),
        ("payload per camera and frame", "B", lambda t: t.at().camera_bytes),
        ("payload from edge to cloud per frame", "B", lambda t: t.at().cloud_bytes),
    ]
    for count, which in ((1, "one camera"), (2, "two cameras")):
        sets = sets_of(cameras, count) if len(cameras) > count else []
        for title, measure in (
            ("accuracy", Tested.overall),
            ("of what another camera sees", Tested.of_seen),
            ("local exit alone, of what another camera sees", _local_of_seen),
        ):
            lines += [
                (
                    f"{which} blanked: {title}, {name}",
                    "%",
                    lambda t, m=measure, o=over_sets, s=sets: _over_sets(t, m, o, s),
                )
                for name, over_sets in (("mean", np.mean), ("worst", np.min))
                if sets
            ]
    rows: list[Row] = []
    for title, unit, measure in lines:
        number = over(tested, measure)
        if number is not None:
            rows.append({"what": title, "%": None, "B": None, unit: number})
    return Table(
        "summary",
        "The network",
        f"Thresholds are chosen on validation samples for the goal `{bench.plan.goal}`.",
        [Column("what", ""), Column("%", "share", "%"), Column("B", "bytes", "B")],
        rows,
    )


def _local_of_seen(tested: Tested, missing: Iterable[int]) -> float | None:
    return tested.alone_of_seen("local", missing)


def _over_sets(
    tested: Tested,
    measure: Callable[[Tested, Iterable[int]], float | None],
    over_sets: Callable[[list[float]], np.floating],
    sets: list[tuple[int, ...]],
) -> float | None:
    values = [value for each in sets if (value := measure(tested, each)) is not None]
    return float(over_sets(values)) if values else None


def sweep(bench: Bench) -> Table:
    """The local exit's threshold from 0 to 1."""
    tested = bench.tested(bench.plan.base())
    paper = {row["threshold"]: row for row in bench.figure("threshold_sweep")}
    rows: list[Row] = []
    for t in SWEEP:
        at = {each: each.at(local=t) for each in tested}
        rows.append(
            {
                "threshold": t,
                "local_share": over(tested, lambda x, at=at: at[x].exit_shares["local"]),
                "edge_share": over(tested, lambda x, at=at: at[x].exit_shares.get("edge")),
                "cloud_share": over(tested, lambda x, at=at: at[x].exit_shares.get("cloud")),
                "overall": over(tested, lambda x, at=at: at[x].accuracy),
                "camera_bytes": over(tested, lambda x, at=at: at[x].camera_bytes),
                "cloud_bytes": over(tested, lambda x, at=at: at[x].cloud_bytes),
                "formula_bytes": over(
                    tested, lambda x, at=at: x.paper_bytes(at[x].exit_shares["local"])
                ),
                **paper_columns(paper.get(t), "local_share", "overall", "paper_bytes"),
            }
        )
    return Table(
        "sweep",
        "Threshold of the local exit",
        "A sample exits where its normalised entropy is below T. The edge exit keeps its "
        "calibrated threshold. `formula` is the paper's 4 |C| + (1 - l) f o / 8; `payload` is "
        "by our wire format, where a camera that sees nothing sends 10 bytes.",
        [
            Column("threshold", "T"),
            Column("local_share", "local", "%"),
            Column("edge_share", "edge", "%"),
            Column("cloud_share", "cloud", "%"),
            Column("overall", "accuracy", "%"),
            Column("camera_bytes", "payload per camera", "B"),
            Column("cloud_bytes", "edge to cloud", "B"),
            Column("formula_bytes", "formula", "B"),
            Column("paper_local_share", "paper: local", "%"),
            Column("paper_overall", "paper: accuracy", "%"),
            Column("paper_paper_bytes", "paper: formula", "B"),
        ],
        rows,
    )


def filters(bench: Bench) -> Table:
    """Filters of the only device block."""
    rows = [_filter_row(bench, f, runs) for f, runs in bench.plan.filters().items()]
    return Table(
        "filters",
        "Filters of a device section",
        "One block; calibrated thresholds. `file` is the ONNX section as it travels, "
        "`weights` its binary weights, `memory` the paper's count (a bit for each weight, 32 "
        "for each batch norm).",
        _FILTER_COLUMNS,
        rows,
    )


def layout(bench: Bench) -> Table:
    """The paper's own figure: two device blocks of 4 and f filters."""
    paper = {row["filters"]: row for row in bench.figure("filters")}
    keys = ("local", "cloud", "overall", "local_share", "paper_bytes", "memory_bits")
    rows = [
        _filter_row(bench, f, runs) | paper_columns(paper.get(f), *keys)
        for f, runs in bench.plan.layout().items()
    ]
    return Table(
        "layout",
        "Filters, in the paper's layout",
        "Two device blocks, the first of 4 filters and the second of f. The paper sets T for "
        "at least 70 % local exits.",
        [
            *_FILTER_COLUMNS,
            Column("paper_local", "paper: local", "%"),
            Column("paper_cloud", "paper: cloud", "%"),
            Column("paper_overall", "paper: overall", "%"),
            Column("paper_local_share", "paper: at local", "%"),
            Column("paper_paper_bytes", "paper: formula", "B"),
            Column("paper_memory_bits", "paper: memory", "bit"),
        ],
        rows,
    )


def aggregation(bench: Bench) -> Table:
    """Ways to join at the local exit and at the features."""
    paper = {row["pair"]: row for row in bench.figure("aggregation")}
    rows = [
        {
            "pair": pair,
            **bench.exits(runs),
            "one_missing_local": over(
                bench.tested(runs),
                lambda t: _over_sets(t, _local_of_seen, np.mean, sets_of(t.cameras, 1)),
            ),
            **paper_columns(paper.get(pair), "local", "cloud"),
        }
        for pair, runs in bench.plan.aggregation().items()
    ]
    return Table(
        "aggregation",
        "Aggregation",
        "Local exit - features: MP largest, AP mean, CC side by side; for the "
        "local exit GA, a mean in which each camera weighs as much as it is sure, GC, CC "
        "likewise, and HC, CC beside a layer of hidden units. The paper's numbers are "
        "those quoted of its Table I; its authors' files do not hold them.",
        [
            Column("pair", "pair"),
            *EXIT_COLUMNS,
            Column("one_missing", "one blanked: of those seen", "%"),
            Column("one_missing_local", "one blanked: local, of those seen", "%"),
            Column("paper_local", "paper: local", "%"),
            Column("paper_cloud", "paper: cloud", "%"),
        ],
        rows,
    )


def shapes(bench: Bench) -> Table:
    """The six shapes of the paper's Figure 2."""
    rows: list[Row] = []
    for name, runs in bench.plan.shapes(bench.order).items():
        tested = bench.tested(runs)
        rows.append(
            {
                "shape": name,
                **bench.exits(runs),
                "local_share": over(tested, lambda t: t.at().exit_shares.get("local")),
                "camera_bytes": over(tested, lambda t: t.at().camera_bytes),
                "edge_bytes": over(tested, lambda t: t.edge_bytes()),
                "cloud_bytes": over(tested, lambda t: t.at().cloud_bytes),
            }
        )
    return Table(
        "shapes",
        "Shapes",
        "Those of the paper's Figure 2 (`ddnn train --preset`). One device is the best camera "
        "alone. `payload per edge` is what one of two edges sends to the site's gateway.",
        [
            Column("shape", "shape"),
            *EXIT_COLUMNS,
            Column("one_missing", "one blanked: of those seen", "%"),
            Column("local_share", "at local", "%"),
            Column("camera_bytes", "payload per camera", "B"),
            Column("edge_bytes", "payload per edge", "B"),
            Column("cloud_bytes", "to cloud", "B"),
        ],
        rows,
    )


def _filter_row(bench: Bench, f: int, runs: list[Run]) -> Row:
    tested, network = bench.tested(runs), runs[0].network
    return {
        "filters": f,
        **bench.exits(runs),
        "local_share": over(tested, lambda t: t.at().exit_shares.get("local")),
        "camera_bytes": over(tested, lambda t: t.at().camera_bytes),
        "formula_bytes": over(
            tested, lambda t: t.paper_bytes(t.at().exit_shares.get("local", 0.0))
        ),
        "file_bytes": max(each.device_file_bytes() for each in tested),
        "weight_bits": weight_bits(network),
        "memory_bits": paper_memory_bits(network),
    }
