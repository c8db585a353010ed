"""`make deploy` to a host with systemd, by ssh: run by `make test-deploy`, minutes.

The tests are one story and run in their order.
"""

import os
import time

import pytest
from PIL import Image

from broker.mosquitto import LocalBroker
from ddnn.mqtt import Client
from demo.observer import Observer
from tests.bundles import random_bundle
from tests.deploy.host import FOLDER, Host
from training.publish import publish_bundle

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.environ.get("DDNN_TEST_DEPLOY") != "1", reason="boots a container: make test-deploy"
    ),
]
UNIT = "ddnn@device.service"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The host, a broker that it reaches, and what is to be seen on that."""
    work = tmp_path_factory.mktemp("deploy")
    broker = LocalBroker(directory=work / "broker")
    pictures = FOLDER / "rootfs" / "srv" / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), (90, 120, 60)).save(pictures / "0.png")
    os.chmod(pictures / "0.png", 0o644)
    with Host(work) as host:
        broker.start()
        client = Client(broker.host, broker.port, "observer")
        observer = Observer(client, "s1")
        client.start()
        client.wait_connected(10)
        yield host, broker, client, observer
        client.stop()
        broker.stop()


def settings(host, broker, name, source="folder:/srv/pictures"):
    folder = host.work / name
    folder.mkdir(exist_ok=True)
    (folder / "device.toml").write_text(
        f'broker = "{broker.host}"\nport = {broker.port}\ncamera = 0\n'
        f'source = "{source}"\nloop = true\n# {name}\n'
    )
    return folder


def wait(condition, what, timeout_s):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def main_pid(host):
    return int(host.say(f"systemctl show --property=MainPID --value {UNIT}") or 0)


def online(observer):
    status = observer.devices.get("device-0")
    return status is not None and status.state == "online"


def test_deployed_agent_runs_takes_the_bundle_and_shows_its_pictures(site):
    host, broker, client, observer = site
    done = host.make("deploy", settings(host, broker, "first"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.say(f"systemctl is-enabled {UNIT}") == "enabled"
    wait(lambda: online(observer), "status", 20)
    bundle = random_bundle()
    publish_bundle(client, "s1", bundle, 10)
    wait(lambda: observer.devices["device-0"].bundle == bundle.bundle_id, "bundle", 20)
    assert host.say("stat --format=%a:%U:%G /etc/ddnn/device.toml") == "640:root:ddnn"
    assert host.say(f"ps -o user= -p {main_pid(host)}") == "ddnn"


def test_second_deployment_changes_nothing(site):
    host, broker, _, _ = site
    before = host.say("readlink /opt/ddnn/current"), main_pid(host)
    done = host.make("deploy", settings(host, broker, "first"))
    assert done.returncode == 0
    assert (host.say("readlink /opt/ddnn/current"), main_pid(host)) == before
    assert "Success" not in done.stderr.partition("Results")[0]


def test_killed_agent_is_started_again(site):
    host, _, _, observer = site
    before = main_pid(host)
    host.run(f"sudo kill -9 {before}")
    wait(lambda: main_pid(host) not in (0, before), "another process", 20)
    wait(lambda: online(observer), "status", 20)
    assert observer.devices["device-0"].bundle, "the bundle on its disk"


def test_hung_agent_is_killed_by_the_watchdog_and_started_again(site):
    host, _, _, observer = site
    before = main_pid(host)
    host.run(f"sudo kill -STOP {before}")
    wait(lambda: main_pid(host) not in (0, before), "another process", 60)
    wait(lambda: online(observer), "status", 20)


def test_upgrade_that_does_not_come_up_is_taken_back(site):
    host, broker, _, observer = site
    before = host.say("readlink /opt/ddnn/current")
    done = host.make("deploy", settings(host, broker, "broken", source="folder:/srv/none"))
    assert done.returncode != 0
    assert "there is no folder of pictures at /srv/none" in done.stdout + done.stderr
    assert host.say("readlink /opt/ddnn/current") == before
    assert host.say(f"systemctl is-active {UNIT}") == "active"
    wait(lambda: online(observer), "status", 20)


def test_upgrade_replaces_the_version_and_keeps_the_one_before(site):
    host, broker, _, observer = site
    before = host.say("readlink /opt/ddnn/current")
    done = host.make("deploy", settings(host, broker, "second"))
    assert done.returncode == 0, done.stdout + done.stderr
    now = host.say("readlink /opt/ddnn/current")
    assert now != before
    kept = host.say("ls /opt/ddnn/versions").split()
    assert sorted(f"versions/{name}" for name in kept) == sorted((before, now))
    wait(lambda: online(observer), "status", 20)


def test_status_shows_version_and_services(site):
    host, broker, _, _ = site
    done = host.make("status", settings(host, broker, "second"))
    assert host.say("readlink /opt/ddnn/current") in done.stdout + done.stderr
    assert UNIT in done.stdout + done.stderr


def test_undeploy_leaves_nothing_but_what_was_kept(site):
    host, broker, _, observer = site
    done = host.make("undeploy", settings(host, broker, "second"))
    assert done.returncode == 0, done.stdout + done.stderr
    wait(lambda: not online(observer), "goodbye", 20)
    assert host.say("ls -d /opt/ddnn /etc/ddnn /etc/systemd/system/ddnn* 2>/dev/null") == ""
    assert "device" in host.say("sudo ls /var/lib/ddnn")
