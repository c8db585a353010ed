"""`ddnn cloud`."""

from __future__ import annotations

import click

from cloud_service.service import CloudService, CloudSettings
from ddnn import config
from ddnn.cli import set_up_logging, stop_event


@click.command()
@config.options(CloudSettings)
def cloud(settings: CloudSettings) -> None:
    """Run a cloud worker for every site on the broker.

    It answers what the gateways escalate. Start several with different --worker names: they
    share the load.
    """
    set_up_logging(settings.log_level)
    CloudService(settings, stop_event()).run()
