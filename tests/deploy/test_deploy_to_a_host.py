"""`make deploy` of one camera to a host with systemd, by ssh: run by `make test-deploy`, minutes.

The tests are one story and run in their order.
"""

import hashlib

import pytest

from broker.mosquitto import LocalBroker, free_port
from ddnn.mqtt import Client
from demo.observer import Observer
from tests.bundles import random_bundle
from tests.deploy.host import CONTAINER, Host, main_pid, wait
from training.publish import publish_bundle

pytestmark = CONTAINER
UNIT = "ddnn@device.service"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The host, a broker that it reaches, and what is to be seen on that."""
    work = tmp_path_factory.mktemp("deploy")
    broker = LocalBroker(directory=work / "broker")
    with Host(work) as host:
        broker.start()
        client = Client(broker.host, broker.port, "observer")
        observer = Observer(client, "s1")
        client.start()
        client.wait_connected(10)
        yield host, broker, client, observer
        client.stop()
        broker.stop()


def deploy(host, broker, name, source="folder:/srv/pictures", port=None):
    """`make deploy` with settings called `name`."""
    folder = host.work / name
    folder.mkdir(exist_ok=True)
    (folder / "device.toml").write_text(
        f'broker = "{broker.host}"\nport = {port or broker.port}\ncamera = 0\n'
        f'source = "{source}"\nloop = true\n# {name}\n'
        'record_dir = "/var/lib/ddnn/device/recordings"\nrecord_every = 20\n'
    )
    return host.make("deploy", HOSTS=host.name, SETTINGS=folder)


def online(observer):
    status = observer.devices.get("device-0")
    return status is not None and status.state == "online"


def test_deployed_agent_runs_takes_the_bundle_and_shows_its_pictures(site):
    host, broker, client, observer = site
    done = deploy(host, broker, "first")
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.say(f"systemctl is-enabled {UNIT}") == "enabled"
    wait(lambda: online(observer), "status", 20)
    bundle = random_bundle()
    publish_bundle(client, "s1", bundle, 10)
    wait(lambda: observer.devices["device-0"].bundle == bundle.bundle_id, "bundle", 20)
    assert host.say("stat --format=%a:%U:%G /etc/ddnn/device/device.toml") == "640:root:ddnn"
    assert host.say(f"ps -o user= -p {main_pid(host, UNIT)}") == "ddnn"


def test_second_deployment_changes_nothing(site):
    host, broker, _, _ = site
    before = host.say("readlink /opt/ddnn/current"), main_pid(host, UNIT)
    done = deploy(host, broker, "first")
    assert done.returncode == 0
    assert (host.say("readlink /opt/ddnn/current"), main_pid(host, UNIT)) == before
    assert "Success" not in done.stderr.partition("Results")[0]


def test_killed_agent_is_started_again(site):
    host, _, _, observer = site
    before = main_pid(host, UNIT)
    host.run(f"sudo kill -9 {before}")
    wait(lambda: main_pid(host, UNIT) not in (0, before), "another process", 20)
    wait(lambda: online(observer), "status", 20)
    assert observer.devices["device-0"].bundle, "the bundle on its disk"


def test_hung_agent_is_killed_by_the_watchdog_and_started_again(site):
    host, _, _, observer = site
    before = main_pid(host, UNIT)
    host.run(f"sudo kill -STOP {before}")
    wait(lambda: main_pid(host, UNIT) not in (0, before), "another process", 60)
    wait(lambda: online(observer), "status", 20)


def test_recordings_come_home(site):
    host, _, _, _ = site
    recordings = "/var/lib/ddnn/device/recordings"
    wait(lambda: host.say(f"sudo find {recordings} -name 0.png"), "a recording", 30)
    home = host.work / "recordings"
    done = host.make("collect", HOSTS="pi@127.0.0.1", OUT=home)
    assert done.returncode == 0, done.stdout + done.stderr
    pictures = list(home.rglob("0.png"))
    assert pictures
    slot = pictures[0].parent.name
    there = host.say(f"sudo sh -c 'cat {recordings}/*/{slot}/0.png | sha256sum'").split()[0]
    assert hashlib.sha256(pictures[0].read_bytes()).hexdigest() == there


def test_version_that_its_doctor_fails_is_not_switched_to(site):
    host, broker, _, observer = site
    before = host.say("readlink /opt/ddnn/current"), main_pid(host, UNIT)
    done = deploy(host, broker, "nobody", port=free_port())
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "FAILURE  broker" in said, said
    assert "nobody listens there" in said
    assert "nothing was switched" in said
    assert (host.say("readlink /opt/ddnn/current"), main_pid(host, UNIT)) == before
    assert online(observer)


def test_upgrade_that_does_not_come_up_is_taken_back(site):
    host, broker, _, observer = site
    before = host.say("readlink /opt/ddnn/current")
    done = deploy(host, broker, "broken", source="folder:/srv/none")
    assert done.returncode != 0
    assert "there is no folder of pictures at /srv/none" in done.stdout + done.stderr
    assert host.say("readlink /opt/ddnn/current") == before
    assert host.say(f"systemctl is-active {UNIT}") == "active"
    wait(lambda: online(observer), "status", 20)


def test_upgrade_replaces_the_version_and_keeps_the_one_before(site):
    host, broker, _, observer = site
    before = host.say("readlink /opt/ddnn/current")
    done = deploy(host, broker, "second")
    assert done.returncode == 0, done.stdout + done.stderr
    now = host.say("readlink /opt/ddnn/current")
    assert now != before
    kept = host.say("ls /opt/ddnn/versions").split()
    assert sorted(f"versions/{name}" for name in kept) == sorted((before, now))
    wait(lambda: online(observer), "status", 20)


def test_deployment_that_would_remove_a_service_is_refused(site):
    host, _, _, _ = site
    folder = host.work / "gateway"
    folder.mkdir()
    (folder / "gateway.toml").write_text("")
    done = host.make("deploy", HOSTS=host.name, ROLE="gateway", SETTINGS=folder)
    assert done.returncode != 0
    assert "runs device, which this would remove" in done.stdout + done.stderr
    assert host.say(f"systemctl is-active {UNIT}") == "active"


def test_status_shows_version_and_services(site):
    host, _, _, _ = site
    done = host.make("status", HOSTS=host.name)
    assert host.say("readlink /opt/ddnn/current") in done.stdout + done.stderr
    assert UNIT in done.stdout + done.stderr


def test_undeploy_leaves_nothing_but_what_was_kept(site):
    host, _, _, observer = site
    done = host.make("undeploy", HOSTS=host.name)
    assert done.returncode == 0, done.stdout + done.stderr
    wait(lambda: not online(observer), "goodbye", 20)
    assert host.say("ls -d /opt/ddnn /etc/ddnn /etc/systemd/system/ddnn* 2>/dev/null") == ""
    assert "device" in host.say("sudo ls /var/lib/ddnn")
