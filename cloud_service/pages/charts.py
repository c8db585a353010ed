"""Options of the charts (Apache ECharts). Pure.

Charts are drawn as SVG, whose colours are the page's CSS variables: so they follow the reader's
colour scheme without a word to the server.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cloud_service.prediction import Prediction
from cloud_service.records.counting import Bucket
from cloud_service.views import CameraScores
from cloud_service.words import share, size

Options = dict[str, Any]
EXIT_NAMES = {"local": "local", "edge": "edge", "cloud": "cloud", "nothing_seen": "nothing seen"}
_COLOURS = {
    "local": "var(--local)",
    "edge": "var(--edge)",
    "cloud": "var(--cloud)",
    "nothing_seen": "var(--none)",
}
#: Charts measure their labels themselves, and know nothing of the page's style sheet.
FONT = 'system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif'
#: More classes than this would be bars that nobody can tell apart.
MAX_CLASSES = 6


def scores(
    known: Sequence[CameraScores], cameras: Sequence[int], classes: Sequence[str]
) -> Options:
    """What each camera said last by itself, as bars around zero; `cameras`: in this order."""
    by_camera = {each.camera: each for each in known}
    shown = _clearest(known, len(classes))
    return _base(
        f"Last scores of {len(by_camera)} cameras",
        grid={"left": 78, "right": 12, "top": 30, "bottom": 20},
        xAxis=_value_axis(min=-1, max=1, splitNumber=2),
        yAxis={
            **_category_axis([f"camera {n}" for n in cameras]),
            "inverse": True,
            "axisLine": {"show": False},
        },
        series=[
            {
                "type": "bar",
                "name": classes[k],
                "color": f"var(--c{place})",
                "barGap": "10%",
                "barCategoryGap": "25%",
                "emphasis": {"disabled": True},
                "data": [_score(by_camera.get(n), k) for n in cameras],
            }
            for place, k in enumerate(shown)
        ],
    )


def exits(buckets: Sequence[Bucket], names: Sequence[str]) -> Options:
    """Where decisions left over time, as shares of each bucket."""
    series = []
    for name in [*names, "nothing_seen"]:
        if name == "nothing_seen" and not any(b.by_exit.get(name) for b in buckets):
            continue
        series.append(
            {
                "type": "line",
                "name": EXIT_NAMES[name],
                "stack": "all",
                "areaStyle": {"opacity": 0.75},
                "lineStyle": {"width": 0},
                "data": [
                    [b.start_s * 1000, _part(b.by_exit.get(name, 0), b.decided + b.degraded)]
                    for b in buckets
                ],
                **_line(_COLOURS[name]),
            }
        )
    return _over_time("Where decisions left, percent", _value_axis(min=0, max=100), series)


def traffic(buckets: Sequence[Bucket], raw_bytes: int) -> Options:
    """Payload per decision beside what every raw view would have been, bytes, logarithmic."""
    rows = [(b.start_s * 1000, b.payload_bytes, b.decided + b.degraded) for b in buckets]
    sent = [[at, round(total / count, 1) if count and total else None] for at, total, count in rows]
    raw = [[at, raw_bytes if count else None] for at, _, count in rows]
    return _over_time(
        "Bytes per frame",
        {**_value_axis(), "type": "log", "min": 10},
        [
            {"type": "line", "name": "sent", "data": sent, **_line("var(--local)")},
            {
                "type": "line",
                "name": "every raw view",
                "data": raw,
                **_line("var(--none)"),
                "lineStyle": {"type": "dashed", "width": 2, "color": "var(--none)"},
            },
        ],
    )


def latency(buckets: Sequence[Bucket]) -> Options:
    """From the first summary to the decision, milliseconds."""
    return _over_time(
        "Latency, ms",
        _value_axis(min=0),
        [
            {
                "type": "line",
                "name": name,
                "data": [[b.start_s * 1000, getattr(b, field)] for b in buckets],
                **_line(colour),
            }
            for name, field, colour in (
                ("p50", "latency_ms_p50", "var(--local)"),
                ("p99", "latency_ms_p99", "var(--edge)"),
            )
        ],
    )


def curve(
    points: Sequence[Prediction], chosen: Prediction | None, in_force: Prediction | None
) -> Options:
    """A bundle's calibrated curve: accuracy against payload, with two points marked."""

    def at(point: Prediction) -> list[float]:
        return [round(point.frame_bytes, 1), round(point.accuracy * 100, 2)]

    def mark(name: str, point: Prediction | None, colour: str, symbol: str) -> Options:
        return {
            "type": "scatter",
            "name": name,
            "symbol": symbol,
            "symbolSize": 13,
            "color": colour,
            "emphasis": {"disabled": True},
            "data": [at(point)] if point else [],
            "z": 5,
        }

    lowest = min((point.accuracy for point in points), default=0.0)
    return _base(
        "Accuracy against payload along the calibrated curve",
        grid={"left": 4, "right": 16, "top": 30, "bottom": 22, "containLabel": True},
        xAxis=_value_axis(
            name="bytes per frame, all cameras", nameLocation="middle", nameGap=22, scale=True
        ),
        yAxis=_value_axis(
            min=math.floor(lowest * 100) - 1,
            max=100,
            axisLabel={"color": "var(--soft)", "formatter": "{value} %"},
        ),
        series=[
            {
                "type": "line",
                "name": "calibrated",
                "data": [at(point) for point in points],
                **_line("var(--none)"),
                "showSymbol": True,
                "symbolSize": 4,
            },
            mark("in force", in_force, "var(--local)", "circle"),
            mark("chosen", chosen, "var(--edge)", "diamond"),
        ],
    )


def promises(rows: Sequence[tuple[str, float | None]], now: float | None) -> Options:
    """Accuracy that the bundle measured if one more camera went, percent; `now`: as it is."""
    return _base(
        "Accuracy if one more camera went",
        grid={"left": 78, "right": 44, "top": 6, "bottom": 20},
        legend={"show": False},
        xAxis=_value_axis(min=0, max=100, interval=25),
        yAxis={
            **_category_axis([name for name, _ in rows]),
            "inverse": True,
            "axisLine": {"show": False},
        },
        series=[
            {
                "type": "bar",
                "name": "accuracy",
                "color": "var(--local)",
                "barMaxWidth": 14,
                "emphasis": {"disabled": True},
                "label": {"show": True, "position": "right", "color": "var(--ink)"},
                "data": [None if value is None else round(value * 100, 1) for _, value in rows],
                "markLine": {
                    "silent": True,
                    "symbol": "none",
                    "label": {"show": False},
                    "lineStyle": {"color": "var(--soft)", "type": "dashed"},
                    "data": [] if now is None else [{"xAxis": round(now * 100, 1)}],
                },
            }
        ],
    )


def predicted(point: Prediction, raw_bytes: int) -> list[tuple[str, str, str]]:
    """A promise in words: name, number, and what is to be said with it."""
    first, *others = [f"{name} {share(part)}" for name, part in point.exit_shares.items()]
    less = f"{raw_bytes / point.frame_bytes:.0f}x less than raw views" if point.frame_bytes else ""
    return [
        ("Accuracy", share(point.accuracy), ""),
        ("Left at", first, ", ".join(others)),
        ("Cameras send", f"{size(point.frame_bytes)}/frame", less),
        ("To the cloud", f"{size(point.cloud_bytes)}/frame", ""),
    ]


def _score(known: CameraScores | None, k: int) -> float | None:
    return round(known.scores[k], 3) if known and k < len(known.scores) else None


def _clearest(known: Sequence[CameraScores], classes: int) -> list[int]:
    """The classes that any camera scores highest, in their own order."""
    best = {k: max((e.scores[k] for e in known if k < len(e.scores)), default=-1.0)
            for k in range(classes)}  # fmt: skip
    return sorted(sorted(best, key=lambda k: -best[k])[:MAX_CLASSES])


def _part(count: int, total: int) -> float | None:
    return round(100 * count / total, 2) if total else None


def _line(colour: str) -> Options:
    return {
        "color": colour,
        "showSymbol": False,
        "connectNulls": False,
        "emphasis": {"disabled": True},
    }


def _over_time(title: str, axis: Options, series: list[Options]) -> Options:
    return _base(
        title,
        grid={"left": 4, "right": 12, "top": 34, "bottom": 4, "containLabel": True},
        tooltip={
            "trigger": "axis",
            "backgroundColor": "var(--card)",
            "borderColor": "var(--line)",
            "textStyle": {"color": "var(--ink)"},
        },
        xAxis={
            "type": "time",
            "splitNumber": 3,
            "axisLine": {"lineStyle": {"color": "var(--line)"}},
            "axisLabel": {"color": "var(--soft)", "hideOverlap": True},
        },
        yAxis=axis,
        series=series,
    )


def _base(title: str, **parts: Any) -> Options:
    return {
        "animation": False,
        "aria": {"enabled": True, "label": {"description": title}},
        "textStyle": {"color": "var(--ink)", "fontFamily": FONT},
        "legend": {
            "top": 0,
            "left": 0,
            "itemWidth": 12,
            "itemHeight": 8,
            "icon": "roundRect",
            "textStyle": {"color": "var(--ink)"},
        },
        **parts,
    }


def _value_axis(**changes: Any) -> Options:
    return {
        "type": "value",
        "axisLabel": {"color": "var(--soft)"},
        "nameTextStyle": {"color": "var(--soft)"},
        "splitLine": {"lineStyle": {"color": "var(--line)"}},
        **changes,
    }


def _category_axis(names: list[str]) -> Options:
    return {
        "type": "category",
        "data": names,
        "axisTick": {"show": False},
        "axisLabel": {"color": "var(--ink)"},
    }
