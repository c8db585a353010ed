"""Remove ddnn from a host; what it has kept in /var/lib/ddnn stays. Run by `make undeploy`."""

from pyinfra.operations import files, server

server.shell(
    name="Stop and forget the services",
    commands=[
        "for unit in $(systemctl list-units --all --plain --no-legend 'ddnn@*' | cut -d' ' -f1); "
        "do systemctl disable --now --quiet $unit; done; rm -f /etc/systemd/system/ddnn@*"
    ],
    _sudo=True,
)
files.link(name="Settings", path="/etc/ddnn", present=False, _sudo=True)
files.directory(name="Programs", path="/opt/ddnn", present=False, _sudo=True)
server.shell(name="Reload", commands=["systemctl daemon-reload"], _sudo=True)
