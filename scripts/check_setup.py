"""Exit with 1 and say what is missing when this virtual environment is not complete.

    .venv/bin/python scripts/check_setup.py EXTRA

Takes about 0.1 s and looks for what a half-finished or damaged installation lacks: each
distribution that pyproject.toml names, its list of files (which pip writes last), and those files.
Not a check of versions: set-up installs again whenever pyproject.toml changes.
"""

import csv
import os
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution

REQUIREMENT = re.compile(
    r"([\w.-]+)(?:\[([\w,\s.-]+)\])?[^;]*(?:;.*?\bextra\s*==\s*['\"]([\w.-]+)['\"])?"
)


def missing(extra: str) -> list[str]:
    """Names of the distributions that `ddnn[extra]` needs and that are not there."""
    lacking = set() if _is_complete("ddnn") else {"ddnn"}
    todo, seen = ["", extra], set()
    while todo:
        wanted = todo.pop()
        seen.add(wanted)
        for requirement in distribution("ddnn").requires or []:
            match = REQUIREMENT.match(requirement)
            if match is None or (match[3] or "") != wanted:
                continue
            if match[1] == "ddnn":
                more = [name.strip() for name in match[2].split(",")]
                todo += [name for name in more if name not in seen]
            elif not _is_complete(match[1]):
                lacking.add(match[1])
    return sorted(lacking)


def _is_complete(name: str) -> bool:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return False
    record = found.read_text("RECORD")
    if record is None:
        return False
    base = str(found.locate_file(""))
    # Compiled files come and go.
    files = (row[0] for row in csv.reader(record.splitlines()) if row)
    return all(os.path.exists(f"{base}/{file}") for file in files if not file.endswith(".pyc"))


def main() -> None:
    try:
        lacking = missing(sys.argv[1])
    except PackageNotFoundError:
        lacking = ["ddnn"]
    if lacking:
        sys.exit(f"missing: {', '.join(lacking)}")


if __name__ == "__main__":
    main()
