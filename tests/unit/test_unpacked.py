"""Where programs of unpacked Debian packages find their libraries."""

import os
import subprocess
import sys

from broker.unpacked import find_program, library_env


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_libraries_of_a_package_and_those_that_it_keeps_to_itself_are_found(tmp_path):
    put(
        tmp_path,
        "lib/arch/libwrap.so.0",
        "usr/lib/arch/libpulse.so.0",
        "usr/lib/arch/pulseaudio/libpulsecommon.so",
        "usr/lib/arch/empty/README",
        "usr/share/doc/libwrap/libwrap.so.html",
    )
    assert library_env(tmp_path, {}) == {
        "LD_LIBRARY_PATH": os.pathsep.join(
            f"{tmp_path}/{name}" for name in ("lib/arch", "usr/lib/arch", "usr/lib/arch/pulseaudio")
        )
    }


def test_libraries_that_were_asked_for_before_come_last(tmp_path):
    put(tmp_path, "usr/lib/arch/libz.so.1")
    found = library_env(tmp_path, {"LD_LIBRARY_PATH": "/own:/more"})
    assert found == {"LD_LIBRARY_PATH": f"{tmp_path}/usr/lib/arch:/own:/more"}


def test_package_that_is_not_unpacked_changes_nothing(tmp_path):
    assert library_env(tmp_path / "none", {"LD_LIBRARY_PATH": "/own"}) == {}


def test_scripts_are_told_the_same(tmp_path):
    put(tmp_path, "usr/lib/arch/libz.so.1")
    command = [sys.executable, "-m", "broker.unpacked", str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env={}).stdout
    assert said == f"{tmp_path}/usr/lib/arch\n"


def test_program_is_the_unpacked_one_or_else_the_systems(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setenv("PATH", str(tmp_path / "system"))
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert find_program("wrk", "tools") is None
    put(tmp_path / "system", "wrk")
    (tmp_path / "system/wrk").chmod(0o755)
    assert find_program("wrk", "tools") == (str(tmp_path / "system/wrk"), {})
    unpacked = tmp_path / "venv/tools"
    put(unpacked, "usr/bin/wrk", "usr/lib/arch/libz.so.1")
    libraries = {"LD_LIBRARY_PATH": f"{unpacked}/usr/lib/arch"}
    assert find_program("wrk", "tools") == (str(unpacked / "usr/bin/wrk"), libraries)
