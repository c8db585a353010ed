"""`ddnn inspect`: what a bundle is, on one page."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import click
import msgspec

from ddnn.bundle import Bundle, Manifest
from ddnn.measurements import EXITS, Calibration, ExitKey, MissingTable
from ddnn.store import read_folder
from training.cost import Cost, section_cost

MOST_SETS = 12


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The same for a program, as JSON.")
def inspect(bundle: Path, as_json: bool) -> None:
    """Show what a bundle folder holds: topology, sections, costs, exits, what was measured.

    Every hash is checked, and every section against the manifest; none is run. Signatures are
    named and not checked: that takes the keys that a node trusts.
    """
    found = read_folder(bundle)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(facts(found)), indent=2).decode())
    else:
        click.echo("\n".join(page(found)))


def facts(bundle: Bundle) -> dict[str, Any]:
    """Everything that the page shows, as plain values: names as in the manifest."""
    manifest = msgspec.to_builtins(bundle.manifest)
    costs = _costs(bundle)
    for section in manifest["sections"]:
        section["cost"] = costs[section["role"]]._asdict()
    return {
        "bundle_id": bundle.bundle_id,
        "tag": f"{bundle.tag:04x}",
        "signed_by": [signature.keyid for signature in bundle.signatures],
        "manifest": manifest,
    }


def page(bundle: Bundle) -> list[str]:
    """The page, line by line."""
    manifest = bundle.manifest
    image = manifest.image
    total = sum(len(data) for data in bundle.sections.values())
    lines = [
        f"bundle      {manifest.name}, version {manifest.version}, made {manifest.created}",
        f"id          {bundle.bundle_id}",
        f"tag         {bundle.tag:04x}",
        f"signed by   {', '.join(each.keyid for each in bundle.signatures) or 'nobody'}",
        f"classes     {', '.join(manifest.classes)}",
        f"pictures    {image.width} x {image.height}, {_number(image.channels, 'channel')}",
        f"size        {total:,} bytes in {_number(len(bundle.sections), 'section')}",
        *_terms_lines(manifest),
        "",
        *drawing(bundle),
        "  (an exit answers where the normalised entropy is below its number)",
        "",
        *_section_lines(bundle),
        "",
        *_exit_lines(bundle),
    ]
    if manifest.calibration is not None and manifest.calibration.curve:
        lines += ["", *_curve_lines(manifest.calibration, _early(bundle))]
    lines += _disagreement_lines(manifest)
    if manifest.missing is not None:
        lines += ["", *_missing_lines(manifest.missing)]
    if manifest.training:
        lines += ["", "training"]
        lines += [f"  {key} = {value}" for key, value in sorted(manifest.training.items())]
    return lines


def _terms_lines(manifest: Manifest) -> list[str]:
    """Where and until when it may be taken up; none without limits."""
    terms = manifest.terms
    if terms is msgspec.UNSET:
        return []
    limits = [f"until {terms.expires:%Y-%m-%d %H:%M} UTC"] if terms.expires else []
    limits += [f"site {', '.join(terms.sites)}"] if terms.sites else []
    limits += [f"{tier} {', '.join(names)}" for tier, names in sorted(terms.hardware.items())]
    limits += [f"ddnn {terms.min_version} or later"] if terms.min_version else []
    return [f"limits      {'; '.join(limits)}"] if limits else []


def drawing(bundle: Bundle) -> list[str]:
    """The topology: cameras, gateways with their exits, cloud."""
    manifest = bundle.manifest
    edges = manifest.topology.edges
    groups = edges or (tuple(range(manifest.topology.cameras)),)
    several = len(groups) > 1
    left: list[str] = []
    joints: list[int] = []
    for number, cameras in enumerate(groups):
        box = f"edge {number}" if several else f"gateway 0: {_exits(bundle)}"
        middle = (len(cameras) - 1) // 2
        joints.append(len(left) + middle)
        for place, camera in enumerate(cameras):
            line = f"  camera {camera:<3} --+" if len(cameras) > 1 else f"  camera {camera:<3} ---"
            left.append(f"{line}--> {box}" if place == middle else line)
        left.append("")
    left.pop()
    if manifest.section("cloud") is None:
        return left
    site = f"--> site: {_exits(bundle)} --> cloud" if several else "--> cloud"
    width = max(len(line) for line in left)
    centre = (joints[0] + joints[-1]) // 2
    drawn = []
    for row, line in enumerate(left):
        between = joints[0] <= row <= joints[-1]
        if row in joints:
            line = f"{line} ".ljust(width + 1, "-") + "--+"
        elif between:
            line = line.ljust(width + 3) + ("+" if row == centre else "|")
        drawn.append(f"{line}{site}" if row == centre else line)
    return drawn


def _exits(bundle: Bundle) -> str:
    """The exits of the site's gateway."""
    if bundle.manifest.topology.sends_images:
        return "no exit, passes pictures on"
    exits = [f"{tier}{_bound(bundle, tier)}" for tier in EXITS[:2] if tier in bundle.manifest.exits]
    return ", ".join(exits) or "no exit"


def _bound(bundle: Bundle, tier: ExitKey) -> str:
    info = bundle.manifest.exits.get(tier)
    return "" if info is None or info.threshold is None else f" < {info.threshold:g}"


def _when(bundle: Bundle, tier: ExitKey) -> str:
    bound = _bound(bundle, tier)
    if not bound:
        return "always"
    return "never" if bound == " < 0" else f"entropy{bound}"


def _costs(bundle: Bundle) -> dict[str, Cost]:
    return {
        info.role: section_cost(info, bundle.sections[info.role])
        for info in bundle.manifest.sections
    }


def _section_lines(bundle: Bundle) -> list[str]:
    """A table; sections of a tier that cost the same share a line."""
    costs = _costs(bundle)
    titles = ("section", "file bytes", "binary weights", "thresholds", "sums: byte x bit")
    rows = [(*titles, "bit x bit", "byte weights")]

    def alike(role: str) -> tuple[str, Cost]:
        return role.partition("/")[0], costs[role]

    order = sorted((info.role for info in bundle.manifest.sections), key=_place)
    for (tier, cost), group in groupby(order, key=alike):
        roles = list(group)
        sizes = sorted(len(bundle.sections[role]) for role in roles)
        name = roles[0] if len(roles) == 1 else f"{tier}/{_span(roles)}"
        size = f"{sizes[0]:,}" if sizes[0] == sizes[-1] else f"{sizes[0]:,}..{sizes[-1]:,}"
        rows.append((name, size, *(f"{value:,}" for value in cost)))
    frame = [sum(values) for values in zip(*costs.values(), strict=True)]
    size = sum(len(data) for data in bundle.sections.values())
    rows.append(("all together", f"{size:,}", *(f"{value:,}" for value in frame)))
    if not any(cost.byte_weights for cost in costs.values()):
        rows = [row[:-1] for row in rows]
    return [*_table(rows), "  (a binary weight is one bit; sums are those of one frame)"]


def _place(role: str) -> tuple[int, int]:
    tier, _, number = role.partition("/")
    place = {"local": 0, "edge": 1, "": 0}
    tiers = ("device", "local", "edge", "join", "cloud")
    return tiers.index(tier), int(place.get(number, number))


def _span(roles: list[str]) -> str:
    numbers = [role.partition("/")[2] for role in roles]
    return f"{numbers[0]}..{numbers[-1]}" if numbers[0].isdigit() else ", ".join(numbers)


def _exit_lines(bundle: Bundle) -> list[str]:
    accuracy = bundle.manifest.accuracy
    rows = [("exit", "answers", "accuracy alone", "share of samples")]
    for tier in EXITS:
        if tier in bundle.manifest.exits:
            alone = shares = None
            if accuracy is not None:
                alone, shares = accuracy.exits.get(tier), accuracy.exit_shares.get(tier)
            rows.append((tier, _when(bundle, tier), _percent(alone), _percent(shares)))
    lines = _table(rows)
    if accuracy is not None:
        overall, samples = _percent(accuracy.overall), _number(accuracy.samples, "test sample")
        lines.append(f"  accuracy of the whole: {overall} of {samples}")
    return lines


def _early(bundle: Bundle) -> list[ExitKey]:
    return [tier for tier in EXITS if tier in bundle.manifest.exits][:-1]


def _curve_lines(calibration: Calibration, early: list[ExitKey]) -> list[str]:
    rows = [
        (
            *(f"{tier} <" for tier in early),
            "accuracy",
            "leave there",
            "bytes per camera",
            "bytes to the cloud",
        )
    ]
    for point in calibration.curve:
        rows.append(
            (
                *(f"{point.thresholds[tier]:.4f}" for tier in early),
                _percent(point.accuracy),
                _percent(point.exit_shares[early[0]]),
                f"{point.camera_bytes:.1f}",
                f"{point.cloud_bytes:.1f}",
            )
        )
    samples = _number(calibration.samples, "validation sample")
    title = f"trade-off, mean payload of one frame ({samples}; chosen for {calibration.goal})"
    return [title, *_table(rows)]


def _disagreement_lines(manifest: Manifest) -> list[str]:
    """What audits at run time are held against."""
    if manifest.disagreement is msgspec.UNSET:
        return []
    return [
        f"the {name} exit disagrees with the last one in {found.disagreed} of "
        f"{_number(found.answered, 'validation sample')} that leave there"
        for name, found in sorted(manifest.disagreement.items(), reverse=True)
    ]


def _missing_lines(table: MissingTable) -> list[str]:
    rows = [("missing cameras", "accuracy", "local exit", "last exit", "answered")]
    for entry in table.sets[:MOST_SETS]:
        rows.append(
            (
                ", ".join(map(str, entry.cameras)) or "none",
                _percent(entry.overall),
                _percent(entry.local),
                _percent(entry.last),
                _percent(entry.answered),
            )
        )
    lines = [f"with missing cameras ({_number(table.samples, f'{table.split} sample')})"]
    lines += _table(rows)
    if len(table.sets) > MOST_SETS:
        worst = min(table.sets[MOST_SETS:], key=lambda entry: entry.overall)
        lines.append(
            f"  and {len(table.sets) - MOST_SETS} more sets; the worst: without "
            f"{', '.join(map(str, worst.cameras))}, {_percent(worst.overall)} (--json has all)"
        )
    return lines


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """First column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
