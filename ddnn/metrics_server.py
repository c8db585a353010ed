"""`/metrics` of one process: the only file that imports prometheus_client.

A process imports it only when it has a `metrics_port` (`ddnn.metrics_settings.open_metrics`).
"""

from __future__ import annotations

import hmac
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import (
    CollectorRegistry,
    ProcessCollector,
    generate_latest,
    make_wsgi_app,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from ddnn.errors import ConfigError
from ddnn.loopback import is_loopback
from ddnn.metrics import TABLE, Histogram, Kind, Metric, Sample
from ddnn.metrics_settings import MetricsSettings, check_exposure, host_of
from ddnn.tls import readable_by_others

log = logging.getLogger(__name__)
#: A reader that sends nothing holds a thread no longer than this.
REQUEST_TIMEOUT_S = 10.0
MAX_TOKEN_BYTES = 4096
_KINDS: dict[Kind, Any] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def render(site: str, node: str, samples: Iterable[Sample]) -> bytes:
    """Samples -> Prometheus' text format; for tests, and services with a web server anyway."""
    return generate_latest(_registry(site, node, lambda: samples))


class MetricsServer:
    """Serves one process's metrics in a thread of its own.

    Args:
        settings: of the process.
        site, node: whose metrics.
        read: gives the samples of this moment; called on the server's threads.

    Raises:
        ConfigError: the settings would show them to anybody, a file cannot be used, or the port
            is taken.
    """

    def __init__(
        self,
        settings: MetricsSettings,
        site: str,
        node: str,
        read: Callable[[], Iterable[Sample]],
    ) -> None:
        check_exposure(settings)
        token = _read_token(Path(settings.metrics_token)) if settings.metrics_token else None
        guarded = _Guarded(make_wsgi_app(_registry(site, node, read)), settings, token)
        host, port = settings.metrics_host, settings.metrics_port
        _Server.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._server: WSGIServer = make_server(host, port, guarded, _Server, _Quiet)
        except OSError as error:
            raise ConfigError(
                f"cannot serve metrics at {host} port {port}: {error.strerror}"
            ) from error
        if settings.metrics_cert:
            context = _context(settings)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )

    def start(self) -> None:
        """Answer from now on."""
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()
        log.info("metrics at %s port %d", *self._server.server_address[:2])

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that went away, or that speaks no TLS, is no fault of ours."""
        log.debug("a reader of metrics failed", exc_info=True)


class _Quiet(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT_S
    server_version, sys_version = "ddnn", ""

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


class _Guarded:
    """Lets through who asks this host by its own name, and has the token if there is one."""

    def __init__(self, app: Any, settings: MetricsSettings, token: bytes | None) -> None:
        self._app = app
        self._check_host = is_loopback(settings.metrics_host)
        self._token = token

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if self._check_host and not is_loopback(host_of(environ.get("HTTP_HOST", ""))):
            return _refuse(start_response, "421 Misdirected Request")
        given = str(environ.get("HTTP_AUTHORIZATION", "")).encode("latin-1", "replace")
        if self._token is not None and not hmac.compare_digest(given, b"Bearer " + self._token):
            return _refuse(start_response, "401 Unauthorized", ("WWW-Authenticate", "Bearer"))
        if environ.get("PATH_INFO") != "/metrics":
            return _refuse(start_response, "404 Not Found")
        found: Iterable[bytes] = self._app(environ, start_response)
        return found


def _refuse(start_response: Any, status: str, *headers: tuple[str, str]) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain"), *headers])
    return [status.encode() + b"\n"]


def _context(settings: MetricsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.metrics_cert, settings.metrics_key)
        if settings.metrics_ca:
            context.load_verify_locations(settings.metrics_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"TLS files of /metrics ({settings.metrics_cert}, {settings.metrics_key}"
            f"{', ' + settings.metrics_ca if settings.metrics_ca else ''}): "
            f"{error.strerror or error}"
        ) from error
    return context


def _read_token(path: Path) -> bytes:
    try:
        if readable_by_others(path):
            raise ConfigError(f"metrics_token {path} can be read by others: chmod 600 {path}")
        token = path.read_bytes()[: MAX_TOKEN_BYTES + 1].strip()
    except OSError as error:
        raise ConfigError(f"metrics_token {path}: {error.strerror}") from error
    if not 16 <= len(token) <= MAX_TOKEN_BYTES:
        raise ConfigError(f"metrics_token {path} must hold one line of 16 characters or more")
    return token


def _registry(site: str, node: str, read: Callable[[], Iterable[Sample]]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Reader(site, node, read))
    ProcessCollector(registry=registry)
    return registry


class _Reader(Collector):
    def __init__(self, site: str, node: str, read: Callable[[], Iterable[Sample]]) -> None:
        self._site, self._node, self._read = site, node, read

    def collect(self) -> Iterable[Family]:
        build = Sample("ddnn_build_info", 1, (version("ddnn"),))
        return _families(self._site, self._node, [build, *self._read()])


def _families(site: str, node: str, samples: Iterable[Sample]) -> Iterable[Family]:
    """Samples -> prometheus_client's families, by metric.

    Raises:
        KeyError: a sample that the table does not have.
    """
    families: dict[str, Any] = {}
    for sample in samples:
        metric = TABLE[sample.name]
        family = families.get(sample.name)
        if family is None:
            family = families[sample.name] = _family(metric)
        labels = (sample.site or site, node, *sample.labels)
        if isinstance(sample.value, Histogram):
            family.add_metric(labels, _buckets(sample.value), sample.value.sum)
        else:
            family.add_metric(labels, sample.value)
    return families.values()


def _family(metric: Metric) -> Any:
    return _KINDS[metric.kind](metric.name, metric.help, labels=("site", "node", *metric.labels))


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    below = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        below += count
        found.append(("+Inf" if bound == float("inf") else repr(bound), below))
    return found
