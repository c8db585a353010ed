"""`make deploy SITE=...`: a camera and two gateways with certificates, keys and a factory bundle.

Run by `make test-deploy`, minutes. The tests are one story and run in their order.
"""

import pytest

from broker import site as site_folder
from broker.mosquitto import LocalBroker, free_port
from broker.pki import now_utc
from broker.plan import BrokerPlan, Plan
from broker.production import render_config
from ddnn.key_files import write_keys
from ddnn.mqtt import Client
from ddnn.store import write_folder
from ddnn.tls import TlsFiles
from ddnn.trust import KeySet
from demo.observer import Observer
from tests.bundles import random_bundle
from tests.deploy.host import CONTAINER, Host, main_pid, wait
from tests.signing import signed, trusted

pytestmark = CONTAINER
SERVICES = ("device", "gateway", "gateway-0")
UNITS = [f"ddnn@{service}.service" for service in SERVICES]
GATEWAY = "ddnn@gateway.service"


@pytest.fixture(scope="module")
def yard(tmp_path_factory):
    """The host, the folder of its site, and the site's broker, which does not run yet."""
    work = tmp_path_factory.mktemp("site")
    with Host(work) as host:
        folder = work / "yard"
        plan = Plan(
            site="s1",
            cameras=(0,),
            edges=1,
            broker=BrokerPlan(
                names=("127.0.0.1",), port=free_port(), bind="127.0.0.1", user="root"
            ),
            hosts={"device-0": host.name, "gateway": host.name, "gateway-0": host.name},
        )
        site_folder.init(folder, plan)
        site_folder.build(folder, now_utc())
        camera = folder / "nodes" / "s1.device-0" / "device.toml"
        camera.write_text(camera.read_text() + 'source = "folder:/srv/pictures"\nloop = true\n')
        write_keys(folder / "trusted.json", KeySet(keys=(trusted(),)))
        bundle = signed(random_bundle())
        write_folder(folder / "bundle", bundle)
        here = str((folder / "broker").resolve())
        broker = LocalBroker(
            port=plan.broker.port,
            directory=work / "broker",
            config=lambda port: render_config(plan, here),
        )
        yield host, folder, broker, bundle
        broker.stop()


@pytest.fixture(scope="module")
def observer(yard):
    """What a dashboard sees; with it the broker is started."""
    _, folder, broker, _ = yard
    broker.start()
    own = folder / "nodes" / "s1.dashboard"
    tls = TlsFiles(own / "ca.crt", own / "node.crt", own / "node.key")
    client = Client("127.0.0.1", broker.port, "any", tls=tls)
    seen = Observer(client, "s1")
    client.start()
    client.wait_connected(10)
    yield seen
    client.stop()


def online(observer, node):
    status = observer.statuses.get(node)
    return status is not None and status.state == "online"


def test_site_without_its_broker_is_not_deployed(yard):
    host, folder, _, _ = yard
    done = host.make("deploy", SITE=folder)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "nobody listens there" in said, said
    for service in SERVICES:
        assert f"ddnn doctor on {service}:" in said
    assert host.say("readlink /opt/ddnn/current") == ""
    assert host.say("systemctl list-units --all --plain --no-legend 'ddnn@*'") == ""


def test_node_starts_with_its_factory_bundle_where_no_broker_is(yard):
    host, folder, _, _ = yard
    done = host.make("deploy", SITE=folder, OFFLINE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    for unit in UNITS:
        assert host.say(f"systemctl is-active {unit}") == "active"
    wait(
        lambda: "running bundle" in host.say(f"sudo journalctl --output=cat -u {UNITS[0]}"),
        "the camera's bundle",
        20,
    )
    log = host.say(f"sudo journalctl --output=cat -u {GATEWAY}")
    assert "running bundle" in log
    assert "nobody listens there" in log


@pytest.mark.parametrize("service", SERVICES)
def test_key_is_root_s_alone_on_disk_and_the_service_s_own_at_run_time(yard, service):
    host, _, _, _ = yard
    role = service.partition("-")[0]
    shown = host.say(f"sudo sh -c 'stat --format=%n:%a:%U:%G /etc/ddnn/{service}/*'")
    found = dict(line.rpartition("/")[2].split(":", 1) for line in shown.splitlines())
    assert found == {
        f"{role}.toml": "640:root:ddnn",
        "ca.crt": "644:root:root",
        "node.crt": "644:root:root",
        "node.key": "600:root:root",
    }
    assert host.run(f"sudo -u ddnn cat /etc/ddnn/{service}/node.key").returncode != 0
    pid = main_pid(host, f"ddnn@{service}.service")
    folder = f"/run/credentials/ddnn@{service}.service"
    assert f"--config {folder}/{role}.toml" in host.say(f"ps -ww -o args= -p {pid}")
    assert host.say(f"sudo stat --format=%a {folder}/node.key") in ("400", "440")
    assert host.say(f"cat {folder}/node.key 2>&1").endswith("Permission denied")


def test_nothing_of_the_upload_is_left_behind(yard):
    host, _, _, _ = yard
    assert host.say("ls -d /tmp/ddnn-* /tmp/pyinfra-* /opt/ddnn/incoming 2>/dev/null") == ""


def test_nodes_find_their_broker_with_their_certificates_when_it_comes(yard, observer):
    _, _, _, bundle = yard
    for node in ("device-0", "gateway", "gateway-0"):
        wait(lambda node=node: online(observer, node), f"status of {node}", 30)
    for node in ("device-0", "gateway"):
        assert observer.statuses[node].bundle == bundle.bundle_id, "the factory's"
    wait(lambda: observer.take_new(), "a decision of the deployed gateway", 30)


def test_second_deployment_of_a_site_changes_nothing(yard, observer):
    host, folder, _, _ = yard
    before = [main_pid(host, unit) for unit in UNITS]
    done = host.make("deploy", SITE=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [main_pid(host, unit) for unit in UNITS] == before
    assert "Success" not in done.stderr.partition("Results")[0]


def test_killed_gateway_is_started_again_and_decides(yard, observer):
    host, _, _, _ = yard
    before = main_pid(host, GATEWAY)
    host.run(f"sudo kill -9 {before}")
    wait(lambda: main_pid(host, GATEWAY) not in (0, before), "another process", 20)
    observer.take_new()
    wait(lambda: observer.take_new(), "decisions", 30)


def test_hung_gateway_is_killed_by_the_watchdog_and_decides_again(yard, observer):
    host, _, _, _ = yard
    before = main_pid(host, GATEWAY)
    host.run(f"sudo kill -STOP {before}")
    wait(lambda: main_pid(host, GATEWAY) not in (0, before), "another process", 60)
    observer.take_new()
    wait(lambda: observer.take_new(), "decisions", 30)


def test_renewed_certificate_reaches_its_node(yard, observer):
    host, folder, _, _ = yard
    (folder / "nodes" / "s1.gateway" / "node.crt").unlink()
    site_folder.build(folder, now_utc())
    done = host.make("deploy", SITE=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    fresh = (folder / "nodes" / "s1.gateway" / "node.crt").read_text().strip()
    assert host.say("cat /etc/ddnn/gateway/node.crt") == fresh
    wait(lambda: online(observer, "gateway"), "status", 30)


def test_undeploy_of_a_site_leaves_no_key_behind(yard, observer):
    host, folder, _, _ = yard
    done = host.make("undeploy", SITE=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.say("ls -d /opt/ddnn /etc/ddnn /etc/systemd/system/ddnn* 2>/dev/null") == ""
    assert host.say("sudo find / -xdev -name node.key") == ""
