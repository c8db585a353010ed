"""Install or upgrade ddnn on a host. Run by `make deploy`; a second run changes nothing."""

import io
import os
import sys
from pathlib import Path
from uuid import uuid4

from pyinfra import host
from pyinfra.api.exceptions import PyinfraError
from pyinfra.facts.files import Directory, Link
from pyinfra.facts.server import Arch, Command
from pyinfra.operations import apt, files, server

HERE = Path(os.environ["DDNN_ROOT"]) / "deploy"
sys.path.insert(0, str(HERE))
import nodes  # noqa: E402 these lie beside this file
import wheels  # noqa: E402

TARGET = nodes.TARGET
BUILD = HERE.parent / "build" / "wheels"


def trusted_keys() -> Path | None:
    """`trusted.json` in the site's folder, or that of the settings."""
    folder = Path(os.environ.get("SITE") or os.environ.get("SETTINGS") or "site")
    path = folder / "trusted.json"
    return path if path.is_file() else None


def factory_bundle() -> Path | None:
    """BUNDLE, or the folder `bundle` of the site."""
    if os.environ.get("BUNDLE"):
        return Path(os.environ["BUNDLE"])
    folder = Path(os.environ.get("SITE") or os.environ.get("SETTINGS") or "site") / "bundle"
    return folder if folder.is_dir() else None


def deploy() -> None:
    """All operations of one host."""
    own = nodes.place(os.environ)[host.name]
    machine = host.get_fact(Arch)
    # A program, since the system's own Python is what the virtual environment is made of.
    python = host.get_fact(
        Command, "python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'"
    )
    (wheel,) = Path(os.environ["WHEEL"]).glob("ddnn-*.whl")
    extras = nodes.extras(own)
    house = wheels.collect(wheel, extras, machine, python, BUILD)
    venv = wheels.identity(house)
    with_files = (trusted_keys(), factory_bundle())
    links = {"venv": f"../../venvs/{venv}"}
    version = wheels.identity(house, nodes.pack(nodes.entries(own, "-", *with_files), links))
    there = host.get_fact(Link, f"{TARGET}/current")
    if there and there["link_target"] == f"versions/{version}":
        return
    running = host.get_fact(Command, f"cat {TARGET}/current/services 2>/dev/null || true") or ""
    left_out = set(running.split()) - {node.service for node in own}
    if left_out:
        raise nodes.DeployError(
            f"{host.name} runs {', '.join(sorted(left_out))}, which this would remove: deploy all "
            "of a host's nodes at once, or make undeploy first (bundles and recordings stay)"
        )

    # Nothing is asked of the network where the packages are there already.
    apt.packages(
        name="System packages", packages=nodes.packages(own), no_recommends=True, _sudo=True
    )
    server.group(name="Group", group="ddnn", system=True, _sudo=True)
    server.user(
        name="User", user="ddnn", group="ddnn", system=True, shell="/usr/sbin/nologin",
        groups=["video"] if any(node.role == "device" for node in own) else None,
        home="/var/lib/ddnn", ensure_home=False, _sudo=True,
    )  # fmt: skip
    if not host.get_fact(Directory, f"{TARGET}/venvs/{venv}"):
        files.sync(
            name="Packages", src=str(house), dest=f"{TARGET}/wheels/{venv}", delete=True, _sudo=True
        )
        # Made under its final name, since its programs name their own folder; so a half-made one
        # is removed at once.
        server.shell(
            name="Virtual environment",
            commands=[
                f"rm -rf {TARGET}/venvs/{venv} && mkdir -p {TARGET}/venvs && "
                f"python3 -m venv --system-site-packages {TARGET}/venvs/{venv} && "
                f"{TARGET}/venvs/{venv}/bin/pip install --quiet --no-index "
                f"--find-links {TARGET}/wheels/{venv} 'ddnn[{extras}]' && "
                # A wheel for another processor ends here and not in a service (SIGILL). And what a
                # service imports is compiled, as the unit's environment wants it.
                f"PYTHONOPTIMIZE=2 PYTHONPYCACHEPREFIX={TARGET}/venvs/{venv}/compiled "
                f"{TARGET}/venvs/{venv}/bin/python -c 'import {nodes.IMPORTS}' && "
                f"rm -rf {TARGET}/wheels || {{ rm -rf {TARGET}/venvs/{venv}; exit 1; }}"
            ],
            _sudo=True,
        )
    put_version(version, nodes.pack(nodes.entries(own, version, *with_files), links))
    offline = "--offline" if os.environ.get("OFFLINE") == "1" else ""
    server.shell(
        name="Doctor",
        commands=[f"{TARGET}/versions/{version}/check {version} {offline}"],
        _sudo=True,
    )
    units = "/etc/systemd/system"
    services = [f"ddnn@{node.service}.service" for node in own]
    for path, target in (
        (f"{units}/ddnn@.service", f"{TARGET}/current/units/ddnn@.service"),
        *((f"{units}/{each}.d", f"{TARGET}/current/units/{each}.d") for each in services),
        ("/etc/ddnn", f"{TARGET}/current/nodes"),
    ):
        files.link(name=path, path=path, target=target, _sudo=True)
    server.shell(
        name="Switch to the new version",
        commands=[f"{TARGET}/versions/{version}/switch {version}"],
        _sudo=True,
    )


def put_version(version: str, tar: bytes) -> None:
    """Unpack a version's files; keys among them are at no moment to be read by others."""
    folder = f"{TARGET}/versions/{version}"
    # What pyinfra uploads lies in a temporary folder first, as a file that all may read.
    private = f"/tmp/ddnn-{uuid4().hex}"
    server.shell(name="Private folder", commands=[f"mkdir -m 700 {private}"])
    server.shell(
        name="Folders",
        commands=[
            f"mkdir -p {TARGET}/versions && rm -rf {TARGET}/incoming {folder}.new && "
            f"mkdir -m 700 {TARGET}/incoming {folder}.new"
        ],
        _sudo=True,
    )
    files.put(
        name="Files", src=io.BytesIO(tar), dest=f"{TARGET}/incoming/version.tar", mode="600",
        _sudo=True, _temp_dir=private,
    )  # fmt: skip
    server.shell(
        name="Version",
        commands=[
            f"tar -x --same-owner --same-permissions -C {folder}.new "
            f"-f {TARGET}/incoming/version.tar && chmod 755 {folder}.new && rm -rf {folder} && "
            f"mv -T {folder}.new {folder} && rm -rf {TARGET}/incoming {private}"
        ],
        _sudo=True,
    )


try:
    deploy()
except nodes.DeployError as error:
    raise PyinfraError(str(error)) from error
