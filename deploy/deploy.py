"""Install or upgrade ddnn on a host. Run by `make deploy`; a second run changes nothing."""

import os
import sys
from pathlib import Path

from pyinfra import host
from pyinfra.api.exceptions import PyinfraError
from pyinfra.facts.files import Directory, Link
from pyinfra.facts.server import Arch, Command
from pyinfra.operations import apt, files, server

HERE = Path(os.environ["DDNN_ROOT"]) / "deploy"
sys.path.insert(0, str(HERE))
import wheels  # noqa: E402 it lies beside this file

ROLE = os.environ.get("ROLE", "device")
EXTRAS = {"device": "device", "gateway": "edge", "cloud": "cloud"}
TARGET = "/opt/ddnn"
BUILD = HERE.parent / "build" / "wheels"
UNIT = "ddnn@.service"
DROP_IN = "ddnn@device.service.d/camera.conf"


def settings_file() -> Path:
    """This host's settings: SETTINGS/<host>.toml, or else SETTINGS/<role>.toml."""
    folder = Path(os.environ.get("SETTINGS", "site"))
    names = (f"{host.data.ssh_hostname}.toml", f"{ROLE}.toml")
    for file in (folder / name for name in names):
        if file.is_file():
            return file
    raise wheels.DeployError(
        f"no settings for {host.name}: neither of {', '.join(names)} is in {folder}/"
    )


def deploy() -> None:
    """All operations of one host."""
    settings = settings_file()
    machine = host.get_fact(Arch)
    # A program, since the system's own Python is what the virtual environment is made of.
    python = host.get_fact(
        Command, "python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'"
    )
    (wheel,) = Path(os.environ["WHEEL"]).glob("ddnn-*.whl")
    house = wheels.collect(wheel, EXTRAS[ROLE], machine, python, BUILD)
    venv = wheels.identity(house)
    version = wheels.identity(house, settings, HERE / UNIT, HERE / DROP_IN, HERE / "switch")
    there = host.get_fact(Link, f"{TARGET}/current")
    if there and there["link_target"] == f"versions/{version}":
        return

    # Nothing is asked of the network where the packages are there already.
    packages = ["python3-venv"]
    if ROLE == "device" and os.environ.get("PICAMERA") == "1":
        packages.append("python3-picamera2")
    apt.packages(name="System packages", packages=packages, no_recommends=True, _sudo=True)
    server.group(name="Group", group="ddnn", system=True, _sudo=True)
    server.user(
        name="User", user="ddnn", group="ddnn", system=True, shell="/usr/sbin/nologin",
        groups=["video"] if ROLE == "device" else None, home="/var/lib/ddnn", ensure_home=False,
        _sudo=True,
    )  # fmt: skip
    if not host.get_fact(Directory, f"{TARGET}/venvs/{venv}"):
        files.sync(
            name="Packages", src=str(house), dest=f"{TARGET}/wheels/{venv}", delete=True, _sudo=True
        )
        # Made under its final name, since its programs name their own folder; so a half-made one
        # is told by the missing mark.
        server.shell(
            name="Virtual environment",
            commands=[
                f"rm -rf {TARGET}/venvs/{venv} && mkdir -p {TARGET}/venvs && "
                f"python3 -m venv --system-site-packages {TARGET}/venvs/{venv} && "
                f"{TARGET}/venvs/{venv}/bin/pip install --quiet --no-index "
                f"--find-links {TARGET}/wheels/{venv} 'ddnn[{EXTRAS[ROLE]}]' && "
                # A wheel for another processor ends here and not in a service (SIGILL).
                f"{TARGET}/venvs/{venv}/bin/python -c 'import numpy, ddnn.section, ddnn.mqtt' && "
                f"rm -rf {TARGET}/wheels || {{ rm -rf {TARGET}/venvs/{venv}; exit 1; }}"
            ],
            _sudo=True,
        )
    folder = f"{TARGET}/versions/{version}"
    for source, target, mode in (
        (HERE / UNIT, f"units/{UNIT}", "644"),
        (HERE / DROP_IN, f"units/{DROP_IN}", "644"),
        (HERE / "switch", "switch", "755"),
        (settings, f"settings/{ROLE}.toml", "640"),
    ):
        files.put(
            name=f"{target}", src=str(source), dest=f"{folder}/{target}", mode=mode, user="root",
            group="ddnn", add_deploy_dir=False, _sudo=True,
        )  # fmt: skip
    files.link(name="venv", path=f"{folder}/venv", target=f"../../venvs/{venv}", _sudo=True)
    for path, target in (
        (f"/etc/systemd/system/{UNIT}", f"{TARGET}/current/units/{UNIT}"),
        (
            f"/etc/systemd/system/{DROP_IN.partition('/')[0]}",
            f"{TARGET}/current/units/{DROP_IN.partition('/')[0]}",
        ),
        ("/etc/ddnn", f"{TARGET}/current/settings"),
    ):
        files.link(name=path, path=path, target=target, _sudo=True)
    server.shell(
        name="Switch to the new version",
        commands=[f"{folder}/switch {version} ddnn@{ROLE}.service"],
        _sudo=True,
    )


try:
    deploy()
except wheels.DeployError as error:
    raise PyinfraError(str(error)) from error
