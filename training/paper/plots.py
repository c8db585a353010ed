"""PNG plots of the tables: ours as lines or dots, the paper's figures as crosses."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

from training.paper.table import Cell, Table, mean_of, spread_of

#: Colour of each exit, the same in every plot (Okabe and Ito, told apart by colour-blind eyes).
COLOURS = {"local": "#E69F00", "edge": "#009E73", "cloud": "#0072B2", "overall": "#000000"}
#: All exits together often lie on one of them.
STYLES = {"overall": "--"}
BLANKED, RETRAINED = "#D55E00", "#56B4E9"
#: (column key, colour, name, column key of the paper's numbers)
Series = tuple[str, str, str, str | None]
PAPER = {"marker": "x", "linestyle": "none", "markersize": 7, "markeredgewidth": 1.8}
DPI = 110


def draw(tables: list[Table], folder: Path) -> dict[str, str]:
    """Draw every table that has a plot.

    Returns:
        Table name -> file name in `folder`.
    """
    import matplotlib  # slow to import

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update(
        {"axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False}
    )
    files = {}
    for table in tables:
        painter = PAINTERS.get(table.name)
        if painter is None:
            continue
        figure = painter(table, pyplot)
        files[table.name] = f"{table.name}.png"
        figure.savefig(folder / files[table.name], dpi=DPI)
        pyplot.close(figure)
    return files


def _percent(cell: Cell) -> float | None:
    value = mean_of(cell)
    return None if value is None else 100 * value


def _line(axes: Any, table: Table, x: str, y: str, *, percent: bool = True, **style: Any) -> None:
    """Mean over x with the spread as a band; nothing where there are no values."""
    scale = 100 if percent else 1
    rows = [r for r in table.rows if mean_of(r.get(x)) is not None and r.get(y) is not None]
    if not rows:
        return
    xs = [mean_of(row[x]) for row in rows]
    ys = [scale * (mean_of(row[y]) or 0.0) for row in rows]
    spread = [scale * spread_of(row[y]) for row in rows]
    (line,) = axes.plot(xs, ys, **style)
    if any(spread):
        low = [y_ - s for y_, s in zip(ys, spread, strict=True)]
        high = [y_ + s for y_, s in zip(ys, spread, strict=True)]
        axes.fill_between(xs, low, high, color=line.get_color(), alpha=0.15, linewidth=0)


def _paper(axes: Any, table: Table, x: str, y: str, *, percent: bool = True, **style: Any) -> None:
    scale = 100 if percent else 1
    pairs = [
        (mean_of(row.get(x)), scale * value)
        for row in table.rows
        if (value := mean_of(row.get(y))) is not None
    ]
    if pairs:
        axes.plot(*zip(*pairs, strict=True), **PAPER | style)


def _sweep(table: Table, pyplot: Any) -> Any:
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    _line(left, table, "threshold", "overall", color=COLOURS["overall"], label="ours")
    _paper(left, table, "threshold", "paper_overall", color="#777777", label="paper")
    left.set(xlabel="threshold T of the local exit", ylabel="accuracy, all exits (%)")
    _line(middle, table, "threshold", "local_share", color=COLOURS["local"], label="local")
    _line(middle, table, "threshold", "edge_share", color=COLOURS["edge"], label="edge")
    _line(middle, table, "threshold", "cloud_share", color=COLOURS["cloud"], label="cloud")
    _paper(
        middle,
        table,
        "threshold",
        "paper_local_share",
        color=COLOURS["local"],
        label="paper: local",
    )
    middle.set(xlabel="threshold T of the local exit", ylabel="samples answered there (%)")
    _line(right, table, "formula_bytes", "overall", color="#CC79A7", marker=".", label="formula")
    _line(
        right, table, "camera_bytes", "overall", color=COLOURS["overall"], marker=".",
        label="our wire format",
    )  # fmt: skip
    _paper(right, table, "paper_paper_bytes", "paper_overall", color="#777777", label="paper")
    right.set(xlabel="bytes per camera and frame", ylabel="accuracy, all exits (%)", xscale="log")
    _plain_ticks(right, [10, 15, 20, 30, 50, 80, 120, 160])
    for axes in (left, middle, right):
        axes.legend()
    return figure


def _filters(table: Table, pyplot: Any) -> Any:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for name in ("local", "cloud", "overall"):
        style = {"color": COLOURS[name], "label": name, "marker": "."}
        _line(left, table, "filters", name, linestyle=STYLES.get(name, "-"), **style)
        _paper(left, table, "filters", f"paper_{name}", color=COLOURS[name])
    left.set(xlabel="filters f", ylabel="accuracy (%)", xscale="log")
    for key, colour, label in (
        ("camera_bytes", COLOURS["overall"], "our wire format"),
        ("formula_bytes", "#CC79A7", "the paper's formula"),
    ):
        style = {"color": colour, "label": label, "marker": "."}
        _line(right, table, "filters", key, percent=False, **style)
    _paper(right, table, "filters", "paper_paper_bytes", percent=False, color="#777777")
    right.set(xlabel="filters f", ylabel="bytes per camera and frame", xscale="log", ylim=(0, None))
    for axes in (left, right):
        _plain_ticks(axes, [1, 2, 4, 8])
    right.legend()
    _legend(figure, left, table)
    return figure


def _dots(
    label: str, axis: str, series: list[Series], *, also: tuple[str, str] | None = None
) -> Callable[[Table, Any], Any]:
    """Painter of one line of dots for each row and series, the paper's cross on the same line.

    Args:
        label: column that names the rows; `axis` is the title of that axis.
        also: column and name of a tick mark on each row, such as what could be reached at all.
    """

    def paint(table: Table, pyplot: Any) -> Any:
        shown = [s for s in series if any(row.get(s[0]) is not None for row in table.rows)]
        step = 0.8 / max(1, len(shown))
        height = 1.6 + (0.14 * len(shown) + 0.14) * len(table.rows)
        figure, axes = pyplot.subplots(figsize=(8, height), layout="constrained")
        for number, (key, colour, name, paper) in enumerate(shown):
            places = [i + (number + 0.5) * step - 0.4 for i in range(len(table.rows))]
            rows = list(zip(places, table.rows, strict=True))
            ours = [(p, row[key]) for p, row in rows if row.get(key) is not None]
            axes.errorbar(
                [_percent(cell) for _, cell in ours],
                [p for p, _ in ours],
                xerr=[100 * spread_of(cell) for _, cell in ours],
                fmt="o", markersize=5, color=colour, label=name,
            )  # fmt: skip
            theirs = [(p, row[paper]) for p, row in rows if paper and row.get(paper) is not None]
            axes.plot(
                [_percent(cell) for _, cell in theirs],
                [p for p, _ in theirs],
                **PAPER | {"color": colour},
            )
        if also is not None:
            bounds = [(_percent(row.get(also[0])), i) for i, row in enumerate(table.rows)]
            known = [(x, i) for x, i in bounds if x is not None]
            axes.vlines(
                [x for x, _ in known],
                [i - 0.45 for _, i in known],
                [i + 0.45 for _, i in known],
                color="#999999", label=also[1],
            )  # fmt: skip
        for edge in range(len(table.rows) + 1):
            axes.axhline(edge - 0.5, color="#DDDDDD", linewidth=0.8)
        axes.set_yticks(range(len(table.rows)), [str(row[label]) for row in table.rows])
        axes.set(xlabel="accuracy (%)", ylabel=axis, ylim=(len(table.rows) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")
        axes.set_xlim(axes.get_xlim()[0], min(100.8, axes.get_xlim()[1]))
        _legend(figure, axes, table)
        return figure

    return paint


def _adding(table: Table, pyplot: Any) -> Any:
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    _line(
        axes, table, "cameras", "individual", color="#999999", marker=".", label="the added camera"
    )
    for name in ("local", "cloud", "overall"):
        style = {"color": COLOURS[name], "label": name, "marker": "."}
        _line(axes, table, "cameras", name, linestyle=STYLES.get(name, "-"), **style)
        _paper(axes, table, "cameras", f"paper_{name}", color=COLOURS[name])
    axes.set(xlabel="cameras, added from the worst to the best", ylabel="accuracy (%)")
    _plain_ticks(axes, [int(mean_of(row["cameras"]) or 0) for row in table.rows])
    _legend(figure, axes, table)
    return figure


def _missing_many(table: Table, pyplot: Any) -> Any:
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    lines = [
        ("seen", "#999999", "seen by another camera", ":"),
        ("mean", BLANKED, "blanked, mean of all sets", "-"),
        ("worst", BLANKED, "blanked, worst set", ":"),
        ("best_missing", COLOURS["overall"], "best cameras blanked", "-"),
        ("retrained", RETRAINED, "best cameras missing, retrained", "--"),
    ]
    for key, colour, name, style in lines:
        _line(axes, table, "missing", key, color=colour, label=name, linestyle=style, marker=".")
    axes.set(xlabel="cameras missing", ylabel="accuracy, all exits (%)", ylim=(0, 102))
    _plain_ticks(axes, [int(mean_of(row["missing"]) or 0) for row in table.rows])
    axes.legend()
    return figure


def _local(table: Table, pyplot: Any) -> Any:
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for column, marker in zip(table.columns[1:], cycle("ovs^DP"), strict=False):
        _line(axes, table, "missing", column.key, label=column.title, marker=marker, markersize=4)
    axes.set(xlabel="cameras missing", ylabel="accuracy, local exit alone (%)")
    _plain_ticks(axes, [int(mean_of(row["missing"]) or 0) for row in table.rows])
    axes.legend()
    return figure


def _plain_ticks(axes: Any, ticks: list[int]) -> None:
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()


def _legend(figure: Any, axes: Any, table: Table) -> None:
    """A legend above the plot, with one cross for the paper's points where there are any."""
    handles, _ = axes.get_legend_handles_labels()
    if any(key.startswith("paper_") and v is not None for r in table.rows for key, v in r.items()):
        from matplotlib.lines import Line2D

        handles.append(Line2D([], [], color="#222222", label="paper", **PAPER))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)


_EXIT_DOTS: list[Series] = [
    ("local", COLOURS["local"], "local exit alone", "paper_local"),
    ("cloud", COLOURS["cloud"], "cloud exit alone", "paper_cloud"),
    ("overall", COLOURS["overall"], "all exits together", None),
    ("one_missing", BLANKED, "one camera blanked, mean of those seen", None),
]
PAINTERS: dict[str, Callable[[Table, Any], Any]] = {
    "sweep": _sweep,
    "filters": _filters,
    "layout": _filters,
    "aggregation": _dots("pair", "local exit - features", _EXIT_DOTS),
    "shapes": _dots("shape", "", _EXIT_DOTS),
    "cameras": _dots(
        "camera",
        "camera, worst to best",
        [
            ("individual", COLOURS["local"], "of all samples", "paper_individual"),
            ("where_seen", COLOURS["edge"], "where it sees the object", None),
        ],
    ),
    "adding": _adding,
    "missing_one": _dots(
        "camera",
        "missing camera, worst to best",
        [
            ("blanked_local", COLOURS["local"], "blanked: local exit", None),
            ("blanked", BLANKED, "blanked: all exits", None),
            ("retrained", RETRAINED, "retrained: all exits", "paper_overall"),
        ],
        also=("seen", "seen by another camera"),
    ),
    "missing_many": _missing_many,
    "local": _local,
}
