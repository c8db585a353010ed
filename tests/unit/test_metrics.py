"""`/metrics`: names, numbers, and who may read them."""

import http.client
import math
import ssl
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as parse

from broker.mosquitto import free_port
from broker.pki import Authority
from cloud_service import metrics as worker_metrics
from cloud_service.answering import Stats
from cloud_service.worker import Worker
from ddnn import metrics
from ddnn.errors import ConfigError
from ddnn.health import Health
from ddnn.loopback import is_loopback
from ddnn.metrics import TABLE, Histogram, Sample
from ddnn.metrics_server import render
from ddnn.metrics_settings import check_exposure, open_metrics
from ddnn.outbox import Outbox
from ddnn.tier import Decision
from device_agent import metrics as device_metrics
from edge_gateway import metrics as gateway_metrics
from edge_gateway.gateway import Gateway, GatewayRules
from tests.promtool import promtool

UNITS = ("_seconds", "_bytes", "_ratio", "_celsius", "_total", "_info")


def settings(**given):
    plain = {"metrics_port": 0, "metrics_host": "127.0.0.1"}
    files = dict.fromkeys(("metrics_cert", "metrics_key", "metrics_ca", "metrics_token"), "")
    return SimpleNamespace(**plain | files | given)


def one_of_each():
    """A sample of every metric in the table."""
    for metric in TABLE.values():
        value = 1.5
        if metric.kind == "histogram":
            value = Histogram(metrics.SECONDS)
            value.add(0.3)
        yield Sample(metric.name, value, tuple(f"some-{label}" for label in metric.labels))


# -- names and numbers ---------------------------------------------------------------------------


def test_names_and_units_are_as_prometheus_wants_them():
    for metric in TABLE.values():
        assert metric.name.startswith("ddnn_"), metric
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric
        assert metric.help.endswith("."), metric
        for label in metric.labels:
            assert f"{label}" not in ("le", "quantile", "job", "instance", "site", "node"), metric


def test_every_metric_is_made_by_the_processes_that_the_table_names():
    packages = {
        "device": ["device_agent", "ddnn"],
        "gateway": ["edge_gateway", "ddnn"],
        "worker": ["cloud_service", "ddnn"],
        "dashboard": ["cloud_service", "ddnn"],
    }
    root = Path(metrics.__file__).parent.parent
    for metric in TABLE.values():
        for who in metric.who:
            files = [file for package in packages[who] for file in (root / package).glob("*.py")]
            made = any(
                f'"{metric.name}"' in file.read_text()
                for file in files
                if file != Path(metrics.__file__)
            )
            # `metrics.others` makes this one.
            assert made or metric.name == "ddnn_events_total", (metric.name, who)


def test_what_is_shown_passes_prometheus_own_linter():
    text = render("s1", "gateway", one_of_each())
    outcome = promtool("check", "metrics", stdin=text)
    # Names of nouns that end in no unit are no fault; promtool would say so.
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_every_metric_can_be_read_again_with_its_labels():
    text = render("s1", "gateway", one_of_each()).decode()
    families = {family.name: family for family in parse(text)}
    for metric in TABLE.values():
        family = families[metric.name.removesuffix("_total")]
        assert family.type == metric.kind
        for sample in family.samples:
            labels = sample.labels.keys() - {"le"}
            assert labels == {"site", "node", *metric.labels}


def test_sample_that_the_table_does_not_have_is_refused():
    with pytest.raises(KeyError):
        render("s1", "gateway", [Sample("ddnn_surprise", 1)])


@given(st.lists(st.floats(0, 100), max_size=50))
def test_histogram_counts_every_value_once_below_each_bound_it_is_below(values):
    histogram = Histogram(metrics.SECONDS)
    for value in values:
        histogram.add(value)
    text = render("s", "n", [Sample("ddnn_decision_seconds", histogram)]).decode()
    (family,) = (f for f in parse(text) if f.name == "ddnn_decision_seconds")
    for sample in family.samples:
        if sample.name.endswith("_bucket"):
            bound = float(sample.labels["le"])
            assert sample.value == sum(value <= bound for value in values)
        elif sample.name.endswith("_count"):
            assert sample.value == len(values)
        else:
            assert math.isclose(sample.value, sum(values), abs_tol=1e-9)


# -- what services say ---------------------------------------------------------------------------


def decision(exit_name="local", entropy=0.2, missing=(), degraded=None):
    return Decision(
        slot=1,
        tag=1,
        label=0,
        probability=0.9,
        entropy=entropy,
        threshold=0.5,
        exit=exit_name,
        used=(0,),
        absent=(1,),
        missing=missing,
        degraded=degraded,
        stage_s={"summaries": 0.02, "features": 0.03},
        payload_bytes=25,
    )


def values(samples):
    """By name and labels; each one once."""
    found = {}
    for sample in samples:
        assert len(sample.labels) == len(TABLE[sample.name].labels), sample
        assert (sample.name, sample.labels) not in found, sample
        found[sample.name, sample.labels] = sample.value
    return found


def test_gateway_tells_payload_and_what_raw_views_of_the_cameras_that_reported_would_take():
    gateway = Gateway(GatewayRules(site="s1", period_s=0.1), boot=1)
    gateway.tally.decided(decision(missing=(2,)), (1000, 1000, 1000))
    found = values(gateway_metrics.samples(gateway))
    assert found["ddnn_payload_bytes_total", ()] == 25
    assert found["ddnn_raw_offload_bytes_total", ()] == 2000
    assert found["ddnn_decision_seconds", ()].sum == pytest.approx(0.05)
    assert found["ddnn_stage_seconds", ("features",)].sum == pytest.approx(0.03)
    assert found["ddnn_decision_entropy_ratio", ("local",)].sum == pytest.approx(0.2)
    assert found["ddnn_decision_entropy_ratio", ("cloud",)].sum == 0


def test_gateway_tells_every_counter_that_it_has():
    gateway = Gateway(GatewayRules(site="s1", period_s=0.1), boot=1)
    gateway.memory.counts.update(
        {"opened": 7, "decided": 4, "degraded": 2, "expired": 1, "exit.local": 6}
    )
    gateway.memory.counts.update({"degraded.cloud_down": 2, "expired.restart": 1})
    gateway.counts.update({"late": 3, "something_new": 5, "outbox.expired": 2})
    found = values(gateway_metrics.samples(gateway))
    assert found["ddnn_slots_opened_total", ()] == 7
    ends = [found["ddnn_slots_ended_total", (end,)] for end in ("decided", "degraded", "expired")]
    assert ends == [4, 2, 1]
    assert found["ddnn_decisions_total", ("local",)] == 6
    assert found["ddnn_decisions_degraded_total", ("cloud_down",)] == 2
    assert found["ddnn_slots_expired_total", ("restart",)] == 1
    assert found["ddnn_messages_refused_total", ("late",)] == 3
    assert found["ddnn_outbox_dropped_total", ("expired",)] == 2
    assert found["ddnn_events_total", ("something_new",)] == 5
    assert ("ddnn_events_total", ("late",)) not in found


def test_camera_tells_counters_outbox_and_health():
    counts = {"summaries_sent": 10, "put_aside": 2, "absent": 3, "payload_bytes": 120}
    counts |= {"views_missing": 1, "record_errors": 4, "outbox.relabelled": 1}
    outbox = Outbox(max_bytes=1000, max_age_s=10)
    outbox.put(1, b"x" * 11, 0.0)
    health = Health(source="opening", temperature_c=61.5, memory_mb=300, restarts=2)
    found = values(device_metrics.samples(counts, outbox, health, 3072))
    assert found["ddnn_raw_offload_bytes_total", ()] == 12 * 3072
    assert found["ddnn_outbox_bytes", ()] == 11
    assert found["ddnn_camera_running", ()] == 0
    assert found["ddnn_temperature_celsius", ()] == 61.5
    assert found["ddnn_memory_available_bytes", ()] == 300e6
    assert found["ddnn_views_lost_total", ("missing",)] == 1
    assert found["ddnn_outbox_dropped_total", ("relabelled",)] == 1
    assert found["ddnn_events_total", ("record_errors",)] == 4
    assert ("ddnn_clock_offset_seconds", ()) not in found, "not known is not 0"


def test_worker_tells_what_became_of_requests():
    worker = Worker()
    worker.answer("s1", b"\xff garbage")
    worker.counts["dropped_full"] += 2
    sizes = Histogram(metrics.BATCH)
    sizes.add(3)
    stats = Stats(waiting=5, batch_size=sizes, latency_s=Histogram(metrics.SECONDS))
    found = values(worker_metrics.samples(worker.counts, stats))
    assert found["ddnn_worker_queue", ()] == 5
    assert found["ddnn_worker_batch_size", ()].sum == 3
    assert found["ddnn_worker_requests_total", ("dropped",)] == 2
    assert found["ddnn_worker_requests_total", ("malformed",)] == 1
    assert found["ddnn_worker_requests_total", ("answered",)] == 0


# -- who may read --------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.0.9", "::1"])
def test_this_machine_is_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "192.168.1.5", "evil.example", "127.0.0.1.x"]
)
def test_everything_else_is_not(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("given_settings", "missing"),
    [
        ({"metrics_host": "0.0.0.0"}, "metrics_cert"),
        ({"metrics_host": "0.0.0.0", "metrics_token": "t"}, "TLS"),
        ({"metrics_host": "::", "metrics_cert": "c", "metrics_key": "k"}, "who may read"),
        ({"metrics_cert": "c"}, "belong together"),
        ({"metrics_ca": "c"}, "no TLS"),
    ],
)
def test_metrics_that_anybody_could_read_are_refused(given_settings, missing):
    with pytest.raises(ConfigError, match=missing):
        check_exposure(settings(metrics_port=9100, **given_settings))


def test_without_a_port_nothing_is_served():
    assert open_metrics(settings(), "s1", "gateway", list) is None


def test_token_that_others_may_read_is_refused(tmp_path):
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123")
    token.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        open_metrics(settings(metrics_port=free_port(), metrics_token=str(token)), "s", "n", list)


def test_port_that_is_taken_is_said():
    port = free_port()
    first = open_metrics(settings(metrics_port=port), "s", "n", list)
    try:
        with pytest.raises(ConfigError, match="cannot serve metrics"):
            open_metrics(settings(metrics_port=port), "s", "n", list)
    finally:
        first._server.server_close()


@pytest.fixture
def serve():
    """Starts a server and asks it: (status, body)."""
    started = []

    def start(**given):
        port = free_port()
        made = settings(metrics_port=port, **given)
        server = open_metrics(made, "s1", "gateway", lambda: [Sample("ddnn_slots_open", 3)])
        server.start()
        started.append(server)

        def ask(path="/metrics", method="GET", context=None, **headers):
            if context:
                made = http.client.HTTPSConnection("localhost", port, context=context, timeout=5)
            else:
                made = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            made.request(method, path, headers=names)
            answer = made.getresponse()
            body = answer.read().decode()
            made.close()
            return answer.status, body

        return ask

    yield start
    for server in started:
        server.stop()


def test_whoever_is_on_this_machine_reads_them(serve):
    status, body = serve()()
    assert status == 200
    assert 'ddnn_slots_open{node="gateway",site="s1"} 3.0' in body
    assert "process_resident_memory_bytes" in body


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:9100", "", "127.0.0.1.evil.example"]
)
def test_page_that_points_its_name_at_this_machine_reads_nothing(serve, name):
    status, body = serve()(Host=name)
    assert status == 421
    assert "ddnn_slots" not in body


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/", "GET", 404), ("/metrics", "POST", 405)]
)
def test_there_is_nothing_but_the_metrics(serve, path, method, status):
    assert serve()(path, method)[0] == status


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A CA, a server's certificate for localhost, a reader's, and one of another CA."""
    folder = tmp_path_factory.mktemp("pki")
    now = datetime.now(UTC).replace(microsecond=0)
    made = {}
    for name in ("own", "other"):
        authority = Authority.create(folder / name, name, now)
        made[name] = str(folder / name / "ca.crt")
        issued = authority.issue("s1.operator", now)
        (folder / f"{name}-reader.pem").write_bytes(issued.key + issued.certificate)
        made[f"{name}-reader"] = str(folder / f"{name}-reader.pem")
        if name == "own":
            issued = authority.issue("s1.gateway", now, kind="broker", hosts=("localhost",))
            (folder / "server.crt").write_bytes(issued.certificate)
            (folder / "server.key").write_bytes(issued.key)
    tls = {"metrics_cert": str(folder / "server.crt"), "metrics_key": str(folder / "server.key")}
    return SimpleNamespace(tls=tls, **{name.replace("-", "_"): path for name, path in made.items()})


def reader(files, own=None):
    context = ssl.create_default_context(cafile=files.own)
    if own:
        context.load_cert_chain(own)
    return context


def test_reader_with_a_certificate_of_the_right_authority_reads_them(serve, files):
    ask = serve(metrics_ca=files.own, **files.tls)
    assert ask(context=reader(files, files.own_reader))[0] == 200


@pytest.mark.parametrize("own", [None, "other_reader"])
def test_reader_without_a_certificate_or_with_a_foreign_one_is_refused(serve, files, own):
    ask = serve(metrics_ca=files.own, **files.tls)
    with pytest.raises((ssl.SSLError, OSError)):
        ask(context=reader(files, own and getattr(files, own)))
    # And the server lives on.
    assert ask(context=reader(files, files.own_reader))[0] == 200


def test_reader_needs_the_token(serve, files, tmp_path):
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("0123456789abcdef0123\n")
    ask = serve(metrics_token=str(token), **files.tls)
    context = reader(files)
    assert ask(context=context)[0] == 401
    assert ask(context=context, Authorization="Bearer wrong")[0] == 401
    assert ask(context=context, Authorization="Bearer 0123456789abcdef0123")[0] == 200
