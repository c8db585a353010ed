"""Table, targets and plot of `benchmarks.wire`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.pages import machine_line, table

#: Slots in a message, between one and those of a second.
FEW_SLOTS = (2, 5)
#: Targets: so many times less than raw, the same with a second of delay, than JPEG; payload.
TARGETS = {"raw": 20.0, "raw_delayed": 60.0, "JPEG": 6.0, "payload": 18.0}


def render(results: dict[str, Any]) -> str:
    """The tables for docs/benchmarks.md."""
    raw = {row["name"]: row for row in results["plain"]}["raw"]["cameras"]["wire_bytes"]
    lines = []
    for title, rows in results.items():
        for row in rows if title in TITLES else ():
            name = row["name"] + (f" (quality {row['quality']})" if row.get("quality") else "")
            wire_bytes = row["cameras"]["wire_bytes"]
            right = "" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f} %"
            gateway = row.get("gateway", {}).get("wire_bytes", "")
            lines.append(
                [
                    f"{name}{TITLES[title]}", f"**{raw / wire_bytes:.1f}**", str(wire_bytes),
                    str(row["cameras"]["stream_bytes"]), str(row["payload_bytes"]), right,
                    str(gateway),
                ]
            )  # fmt: skip
    head = ["per camera and frame", "times less than raw", "on the wire", "MQTT (TLS)", "payload"]
    head += ["accuracy", "gateway's link"]
    return "\n\n".join(
        [
            table(head, lines),
            f"Raw: {raw} bytes on the wire. The paper's formula for ours: "
            f"{results['paper_bytes']:.1f} bytes of payload.",
            f"Feature bits coded by their probabilities on the training part would take "
            f"{100 * results['coded_features']:.0f} % of their bytes, scores "
            f"{100 * results['coded_scores']:.0f} %: not done, see below.",
            "\n".join(judge(results)),
            "\n".join(least(results)),
            machine_line(),
        ]
    )


def least(results: dict[str, Any]) -> list[str]:
    """Why one message per frame cannot be so much less than JPEG, and from how many slots on."""

    def cost(title: str, name: str) -> float:
        rows = {row["name"]: row for row in results[title]}
        return float(rows[name]["cameras"]["wire_bytes"])

    said = []
    for end, what in (("", "plain"), ("_tls", "TLS")):
        first = "tls" if end else "plain"
        jpeg, empty = cost(first, "JPEG"), cost(first, "nothing")
        may = jpeg / TARGETS["JPEG"]
        verb = "may" if empty <= may else "cannot"
        times = {1: jpeg / cost(first, "ours")}
        times |= {n: jpeg / cost(f"slots_{n}{end}", "ours") for n in FEW_SLOTS}
        times[10] = jpeg / cost("delayed" + end, "ours")
        reached = [n for n in times if all(times[m] >= TARGETS["JPEG"] for m in times if m >= n)]
        since = f"from {reached[0]} slots in a message on" if reached else "with none of them"
        said.append(
            f"- {what}: a message of no bytes costs {empty:.1f} on the wire, a sixth of JPEG's "
            f"{jpeg:.1f} is {may:.1f}: one message per frame {verb} be six times less. JPEG / ours "
            f"by slots in a message: {', '.join(f'{n}: {x:.1f}' for n, x in times.items())}; "
            f"at least {TARGETS['JPEG']:g} {since}"
        )
    return said


def judge(results: dict[str, Any]) -> list[str]:
    """Each target and what was reached."""
    rows = {row["name"]: row for row in results["plain"]}
    delayed = {row["name"]: row for row in results["delayed"]}
    ours, raw = rows["ours"], rows["raw"]["cameras"]["wire_bytes"]
    wire_bytes = ours["cameras"]["wire_bytes"]
    said = [("raw / ours, one message per frame", raw / wire_bytes, TARGETS["raw"], True)]
    second = delayed["ours"]["cameras"]["wire_bytes"]
    said.append(("raw / ours, one second of delay", raw / second, TARGETS["raw_delayed"], True))
    jpeg = rows["JPEG"]["cameras"]["wire_bytes"]
    said.append(("JPEG / ours, one message per frame", jpeg / wire_bytes, TARGETS["JPEG"], True))
    said.append(("JPEG / ours, one second of delay", jpeg / second, TARGETS["JPEG"], True))
    said.append(("payload, bytes", ours["payload_bytes"], TARGETS["payload"], False))
    return [
        f"- {what}: {value:.1f} (target {'at least' if more else 'at most'} {target:g}) "
        f"{'reached' if (value >= target) == more or value == target else 'not reached'}"
        for what, value, target, more in said
    ]


TITLES = {"plain": "", "tls": ", TLS", "delayed": ", 1 s of delay", "delayed_tls": ", 1 s, TLS"}
TITLES |= {f"slots_{n}": f", {n} slots in a message" for n in FEW_SLOTS}
TITLES |= {f"slots_{n}_tls": f", {n} slots in a message, TLS" for n in FEW_SLOTS}


def plot(results: dict[str, Any], path: Path) -> None:
    """Accuracy against bytes on the wire."""
    import matplotlib  # slow to import

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 4.5))
    plain = [row for row in results["plain"] if row["accuracy"] is not None]
    line = sorted(
        (row["cameras"]["wire_bytes"], 100 * row["accuracy"])
        for row in plain
        if "quality" not in row and "gate" not in row["name"]
    )
    axes.plot(*zip(*line, strict=True), "o-", color="#0072B2", label="ours, by threshold")
    marks = {"ours, gate": "v", "raw": "s", "JPEG": "D", "WebP": "^"}
    for row in plain:
        if marker := marks.get(row["name"]):
            at = row["cameras"]["wire_bytes"], 100 * row["accuracy"]
            colour = "#0072B2" if row["name"].startswith("ours") else "#D55E00"
            axes.plot(*at, marker, color=colour, label=row["name"])
    for row in results["delayed"][:1]:
        at = row["cameras"]["wire_bytes"], 100 * row["accuracy"]
        axes.plot(*at, "*", markersize=13, color="#009E73", label="ours, 1 s of delay")
    axes.set(xscale="log", xlabel="bytes on the wire per camera and frame", ylabel="accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
