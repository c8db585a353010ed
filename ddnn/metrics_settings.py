"""Settings of `/metrics`, and who may read it.

Metrics tell who is alive and what a site decides how often. On this machine whoever may log in may
read them; a page of another origin in a browser here may not (the Host header is checked, so that
a name that somebody points at 127.0.0.1 does not help). Any other address needs TLS, and a client
certificate or a token from those who read: else the process does not start.

What serves them is imported only where it is asked for: it takes memory and time that a camera
without `metrics_port` should not pay for (`make bench-device`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Protocol

import msgspec

from ddnn.errors import ConfigError
from ddnn.loopback import is_loopback
from ddnn.metrics import Sample

if TYPE_CHECKING:
    from ddnn.metrics_server import MetricsServer

MetricsPort = Annotated[
    int,
    msgspec.Meta(
        ge=0, le=65535, description="Port of /metrics in Prometheus' text format; 0: there is none."
    ),
]
MetricsHost = Annotated[
    str,
    msgspec.Meta(
        description="Address of /metrics; one that others can reach needs metrics_cert, and "
        "metrics_ca or metrics_token."
    ),
]
MetricsCert = Annotated[
    str,
    msgspec.Meta(description="Certificate of /metrics (PEM) for TLS.", extra={"file": True}),
]
MetricsKey = Annotated[
    str, msgspec.Meta(description="Its private key (PEM).", extra={"file": True})
]
MetricsCa = Annotated[
    str,
    msgspec.Meta(
        description="CA (PEM) of the certificates that readers of /metrics must show.",
        extra={"file": True},
    ),
]
MetricsToken = Annotated[
    str,
    msgspec.Meta(
        description="File with the bearer token that readers of /metrics must send.",
        extra={"file": True},
    ),
]


class MetricsSettings(Protocol):
    """The settings of a service that this reads."""

    @property
    def metrics_port(self) -> int: ...
    @property
    def metrics_host(self) -> str: ...
    @property
    def metrics_cert(self) -> str: ...
    @property
    def metrics_key(self) -> str: ...
    @property
    def metrics_ca(self) -> str: ...
    @property
    def metrics_token(self) -> str: ...


def check_exposure(settings: MetricsSettings) -> None:
    """Refuse settings that would show the metrics to anybody on the network.

    Raises:
        ConfigError: what is missing.
    """
    if bool(settings.metrics_cert) != bool(settings.metrics_key):
        raise ConfigError("metrics_cert and metrics_key belong together: give both or none")
    if settings.metrics_ca and not settings.metrics_cert:
        raise ConfigError("metrics_ca needs metrics_cert and metrics_key: there is no TLS yet")
    if not settings.metrics_port or is_loopback(settings.metrics_host):
        return
    if not settings.metrics_cert:
        raise ConfigError(
            f"metrics_host {settings.metrics_host} can be reached by others: give metrics_cert and "
            "metrics_key (TLS), and metrics_ca or metrics_token for who may read; or leave it at "
            "127.0.0.1 and have an agent or proxy on this machine collect them"
        )
    if not (settings.metrics_ca or settings.metrics_token):
        raise ConfigError(
            f"metrics_host {settings.metrics_host} can be reached by others: say who may read, by "
            "metrics_ca (client certificates) or metrics_token (a bearer token)"
        )


def host_of(header: str) -> str:
    """The name or address in a Host header, without port and brackets, in small letters."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def open_metrics(
    settings: MetricsSettings, site: str, node: str, read: Callable[[], Iterable[Sample]]
) -> MetricsServer | None:
    """What serves one process's metrics, or None where no port is set.

    Args:
        read: gives the samples of this moment; called on the server's threads.

    Raises:
        ConfigError: the settings would show them to anybody, cannot be used, or
            prometheus_client is not installed.
    """
    check_exposure(settings)
    if not settings.metrics_port:
        return None
    try:
        from ddnn.metrics_server import MetricsServer
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"metrics_port needs the module {error.name!r}: pip install prometheus-client"
        ) from None
    return MetricsServer(settings, site, node, read)
