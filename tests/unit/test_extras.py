"""Each extra alone is enough for its command: everything else is made unimportable."""

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]

BLOCKER = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
from ddnn.cli import main
main(ARGS, prog_name="ddnn")
"""


def requirements(name, extra=""):
    """Names of the distributions that `name[extra]` asks for, and what those ask for."""
    found = set()
    try:
        lines = distribution(name).requires or []
    except PackageNotFoundError:
        return found
    for line in lines:
        wanted = re.search(r"extra == ['\"]([^'\"]+)", line)
        if wanted and wanted.group(1) != extra:
            continue
        other = re.match(r"[A-Za-z0-9._-]+", line).group().lower().replace("_", "-")
        inner = re.match(r"[A-Za-z0-9._-]+\[([^\]]+)\]", line)
        if other == name:
            for each in inner.group(1).split(","):
                found |= requirements(name, each.strip())
        elif other not in found:
            found |= {other} | requirements(other)
    return found


def run_with_only(extra, *args):
    allowed = requirements("ddnn", extra) | {"ddnn"}
    blocked = {
        module
        for module, owners in packages_distributions().items()
        if not any(owner.lower().replace("_", "-") in allowed for owner in owners)
    }
    script = f"BLOCKED = {blocked!r}\nARGS = {list(args)!r}\n" + BLOCKER
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("device", "device"),
        ("edge", "gateway"),
        ("cloud", "cloud"),
        ("edge", "publish"),
        ("edge", "rollback"),
        ("edge", "models"),
        ("edge", "retire"),
        ("edge", "keys"),
        ("device", "keys"),
        ("edge", "inspect"),
        ("demo", "demo"),
        ("demo", "broker"),
        ("device", "doctor"),
        ("dashboard", "top"),
        ("dashboard", "decisions"),
        ("admin", "pki"),
        ("admin", "site"),
        ("training", "dataset"),
        ("label", "collect"),
        ("label", "label"),
        ("label", "evaluate"),
        ("training", "train"),
        ("training", "paper"),
    ],
)
def test_extra_alone_is_enough_for_its_commands_help(extra, command):
    result = run_with_only(extra, command, "--help")
    assert result.returncode == 0, result.stderr
    assert f"ddnn {command}" in result.stdout
    assert "not installed" not in result.stdout


@pytest.mark.parametrize(("command", "extra"), [("train", "training"), ("demo", "demo")])
def test_command_whose_extra_is_missing_says_what_to_install(command, extra):
    result = run_with_only("device", command)
    assert result.returncode == 1
    assert f"ddnn[{extra}]" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("extra", ["device", "edge", "cloud", "demo", "label"])
def test_torch_never_comes_with_a_runtime_extra(extra):
    assert "torch" not in requirements("ddnn", extra)
    assert "torch" in requirements("ddnn", "training")


def test_users_mistake_is_one_line_without_a_traceback():
    result = subprocess.run(
        [sys.executable, "-m", "ddnn", "device", "--camera", "0", "--source", "moon:x"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("Error: unknown source 'moon:x'")
    assert "Traceback" not in result.stderr


def test_set_up_check_does_not_take_an_extra_with_a_hyphen_for_what_everybody_needs(monkeypatch):
    spec = importlib.util.spec_from_file_location("check_setup", ROOT / "scripts/check_setup.py")
    check_setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check_setup)
    requires = ["a>=1", 'b>=2; extra == "device-video"', 'ddnn[device-video]; extra == "dev"']
    monkeypatch.setattr(check_setup, "distribution", lambda _: SimpleNamespace(requires=requires))
    monkeypatch.setattr(check_setup, "_is_complete", lambda name: name == "ddnn")
    assert check_setup.missing("demo") == ["a"]
    assert check_setup.missing("dev") == ["a", "b"]
