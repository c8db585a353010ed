"""Tables of single cameras: on their own, added one by one, missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.paper import figures
from training.paper.bench import EXIT_COLUMNS, Bench, Row, Tested, over, paper_columns, sets_of
from training.paper.table import Column, Table


def cameras(bench: Bench) -> Table:
    """Each camera on its own."""
    tested = bench.tested(bench.plan.base())
    paper = {row["cameras"]: row for row in bench.figure("adding_cameras")}
    authors = figures.authors_float(bench.samples.name)
    rows: list[Row] = []
    for rank, camera in enumerate(bench.order, 1):
        rows.append(
            {
                "camera": camera,
                "present": float(bench.samples.present[bench.samples.test, camera].mean()),
                "individual": over(tested, lambda t, c=camera: t.individual(c)[0]),
                "where_seen": over(tested, lambda t, c=camera: t.individual(c)[1]),
                "authors": authors["individual"][camera] if authors else None,
                **paper_columns(paper.get(rank), "individual"),
            }
        )
    return Table(
        "cameras",
        "Each camera on its own",
        "From the worst to the best on validation samples. What a camera does not see counts "
        "as wrong, as in the paper; its cameras stand next to ours by rank. `authors` is the "
        "authors' later float network on this data set.",
        [
            Column("camera", "camera"),
            Column("present", "sees something", "%"),
            Column("individual", "accuracy", "%"),
            Column("where_seen", "where it sees the object", "%"),
            Column("authors", "authors: accuracy", "%"),
            Column("paper_individual", "paper: accuracy", "%"),
        ],
        rows,
    )


def adding(bench: Bench) -> Table:
    """Networks of the n worst cameras."""
    paper = {row["cameras"]: row for row in bench.figure("adding_cameras")}
    base = bench.tested(bench.plan.base())
    rows: list[Row] = []
    for n, runs in bench.plan.adding(bench.order).items():
        added = bench.order[n - 1]
        rows.append(
            {
                "cameras": n,
                "added": added,
                "individual": over(base, lambda t, c=added: t.individual(c)[0]),
                **bench.exits(runs),
                **paper_columns(paper.get(n), "local", "cloud", "overall"),
            }
        )
    return Table(
        "adding",
        "Adding cameras, worst to best",
        "A network trained for each number of cameras. A sample that none of them sees "
        "counts as wrong.",
        [
            Column("cameras", "cameras"),
            Column("added", "camera added"),
            Column("individual", "its own accuracy", "%"),
            *EXIT_COLUMNS,
            Column("paper_local", "paper: local", "%"),
            Column("paper_cloud", "paper: cloud", "%"),
            Column("paper_overall", "paper: overall", "%"),
        ],
        rows,
    )


def missing_one(bench: Bench) -> Table:
    """Each camera missing: blanked at run time, and trained anew without it."""
    if len(bench.order) < 2:
        return Table("missing_one", "", "", [])
    base = bench.tested(bench.plan.base())
    paper = {row["rank"]: row for row in bench.figure("missing_camera")}
    authors = figures.authors_float(bench.samples.name)
    retrained = bench.plan.retrained(bench.order)
    rows: list[Row] = []
    for rank, camera in enumerate(bench.order, 1):
        anew = bench.tested(retrained[camera]) if camera in retrained else None
        rows.append(
            {
                "camera": camera,
                "seen": over(base, lambda t, c=camera: t.answered([c])),
                "blanked_local": over(base, lambda t, c=camera: t.alone("local", [c])),
                "blanked_cloud": over(base, lambda t, c=camera: t.alone("cloud", [c])),
                "blanked": over(base, lambda t, c=camera: t.overall([c])),
                "blanked_seen": over(base, lambda t, c=camera: t.of_seen([c])),
                "retrained_local": over(anew, lambda t: t.alone("local")) if anew else None,
                "retrained_cloud": over(anew, lambda t: t.alone("cloud")) if anew else None,
                "retrained": over(anew, lambda t: t.overall()) if anew else None,
                "authors": authors["one_missing"][camera] if authors else None,
                **paper_columns(paper.get(rank), "local", "cloud", "overall"),
            }
        )
    return Table(
        "missing_one",
        "One camera missing",
        "`blanked`: the network trained with all cameras loses one at run time, as happens in "
        "the field; a sample that no other camera sees gets no answer and counts as wrong. "
        "`retrained`: a network trained without it, as the paper did; its cameras stand next to "
        "ours by rank. `authors` is the cloud exit of the authors' later float network on this "
        "data set, blanked; it guesses where nobody sees anything.",
        [
            Column("camera", "missing"),
            Column("seen", "seen by another", "%"),
            Column("blanked_local", "blanked: local", "%"),
            Column("blanked_cloud", "blanked: cloud", "%"),
            Column("blanked", "blanked: overall", "%"),
            Column("blanked_seen", "blanked: of those seen", "%"),
            Column("retrained_local", "retrained: local", "%"),
            Column("retrained_cloud", "retrained: cloud", "%"),
            Column("retrained", "retrained: overall", "%"),
            Column("authors", "authors: blanked", "%"),
            Column("paper_local", "paper, retrained: local", "%"),
            Column("paper_cloud", "paper, retrained: cloud", "%"),
            Column("paper_overall", "paper, retrained: overall", "%"),
        ],
        rows,
    )


def missing_many(bench: Bench) -> Table:
    """1 to D - 1 cameras missing."""
    base = bench.tested(bench.plan.base())
    chain = bench.plan.adding(bench.order) if len(bench.order) > 1 else {}
    rows: list[Row] = []
    for count in range(1, len(bench.order)):
        sets = sets_of(bench.order, count)
        best = bench.order[-count:]
        runs = chain.get(len(bench.order) - count)
        anew = bench.tested(runs) if runs and bench.has(runs) else None
        rows.append(
            {
                "missing": count,
                "mean": over(base, lambda t, s=sets: _mean([t.overall(x) for x in s])),
                "worst": over(base, lambda t, s=sets: min(t.overall(x) for x in s)),
                "seen": over(base, lambda t, s=sets: _mean([t.answered(x) for x in s])),
                "best_missing": over(base, lambda t, b=best: t.overall(b)),
                "retrained": over(anew, lambda t: t.overall()) if anew else None,
            }
        )
    return Table(
        "missing_many",
        "Several cameras missing",
        "Blanked at run time, over every set of that size; a sample that no other camera sees "
        "counts as wrong (`seen` is the share that another one sees). The last two columns "
        "are the same set: the best cameras missing, blanked and trained anew.",
        [
            Column("missing", "missing"),
            Column("mean", "all sets, mean", "%"),
            Column("worst", "worst set", "%"),
            Column("seen", "seen", "%"),
            Column("best_missing", "best ones, blanked", "%"),
            Column("retrained", "best ones, retrained", "%"),
        ],
        rows,
    )


def local_exits(bench: Bench) -> Table:
    """Local exits by how they join scores, with cameras missing."""
    joins = {kind: bench.tested(runs) for kind, runs in bench.plan.local_exits().items()}
    rows: list[Row] = []
    for count in range(len(bench.order)):
        sets = sets_of(bench.order, count)
        row: Row = {"missing": count}
        for kind, tested in joins.items():
            row[kind] = over(tested, lambda t, s=sets: _local_mean(t, s))
        rows.append(row)
    return Table(
        "local",
        "Local exits with cameras missing",
        "Accuracy of the local exit alone by how it joins the cameras' scores, with cameras "
        "blanked at run time; mean over every set of that size, each over the samples that "
        "some other camera sees. Each join has networks of its own.",
        [Column("missing", "missing"), *(Column(kind, kind, "%") for kind in joins)],
        rows,
    )


def _local_mean(tested: Tested, sets: Sequence[tuple[int, ...]]) -> float | None:
    values = [tested.alone_of_seen("local", each) for each in sets]
    known = [value for value in values if value is not None]
    return _mean(known) if known else None


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
