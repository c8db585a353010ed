"""Write docs/metrics.md from the table of metrics, so that the two cannot disagree."""

import sys
from pathlib import Path

from ddnn.metrics import BATCH, ENTROPY, SECONDS, TABLE, Metric

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
HEAD = """# Metrics

Made by `make docs` from `ddnn/metrics.py`; do not edit. How to switch them on, and what Grafana and
Prometheus do with them: [dashboard](dashboard.md#metrics).

Every metric has the labels `site` (`_cloud` for a worker or dashboard) and `node`. Beside these
there are prometheus_client's `process_...`: processor time, memory, open files of the process.
"""
TITLES = {
    "device": "Of a camera's agent",
    "gateway": "Of a gateway",
    "worker": "Of a cloud worker",
    "dashboard": "Of the dashboard",
}


def render() -> str:
    """The whole document."""
    everywhere = [metric for metric in TABLE.values() if set(metric.who) == set(TITLES)]
    parts = [HEAD, "## Of every process\n", _table(everywhere)]
    for who, title in TITLES.items():
        own = [m for m in TABLE.values() if who in m.who and m not in everywhere]
        parts += [f"## {title}\n", _table(own)]
    parts.append("Bounds of histograms:\n")
    for what, bounds in (
        ("`..._seconds`", SECONDS), ("`..._ratio`", ENTROPY), ("`..._size`", BATCH)
    ):  # fmt: skip
        parts.append(f"- {what}: {', '.join(f'{bound:g}' for bound in bounds)}")
    return "\n".join(parts) + "\n"


def _table(metrics: list[Metric]) -> str:
    lines = ["| metric | type | labels | what |", "|---|---|---|---|"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(DOCUMENT.read_text() != render() and "docs/metrics.md is old: run make docs")
    DOCUMENT.write_text(render())
