"""The report: Markdown with plots, and the same numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.paper import figures
from training.paper.plots import draw
from training.paper.table import Table

HEAD = """# The paper's experiments on {data}

{mode}

Measured with the exported sections in onnxruntime on the test split ({test} samples; {train}
samples for training, of which {validation:.0%} chose model and thresholds). {seeds}

Command: `{command}`. How to read this: docs/paper.md of the project.
"""
FOOT = """
## The paper's numbers

{paper}
"""


def write(folder: Path, tables: list[Table], facts: Mapping[str, Any]) -> Path:
    """Write report.md, report.json and the plots into `folder`; the path of report.md.

    Args:
        facts: of the evaluation: data, mode, test, train, validation, seeds, command, seconds
            and whatever else the JSON should hold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = draw(tables, folder)
    seeds = facts["seeds"]
    repeated = (
        f"Numbers are mean ± standard deviation over {len(seeds)} seeds."
        if len(seeds) > 1
        else "One seed, so that nothing is said of the spread."
    )
    parts = [HEAD.format(**{**facts, "seeds": repeated})]
    for table in tables:
        parts.append(f"\n## {table.title}\n\n{table.note}\n\n{table.markdown()}\n")
        if table.name in plots:
            parts.append(f"\n![{table.title}]({plots[table.name]})\n")
    shown = any(
        key.startswith("paper_") and value is not None
        for table in tables
        for row in table.rows
        for key, value in row.items()
    )
    if shown:
        paper = "\n".join(
            f"- {name.replace('_', ' ')}: {figures.source(name)}" for name in figures.NAMES
        )
        parts.append(FOOT.format(paper=paper))
    path = folder / "report.md"
    path.write_text("".join(parts))
    everything = {**facts, "tables": {table.name: table.as_json() for table in tables}}
    (folder / "report.json").write_text(json.dumps(everything, indent=1) + "\n")
    return path
