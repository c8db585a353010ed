"""`ddnn device`."""

from __future__ import annotations

import click

from ddnn import config
from ddnn.cli import set_up_logging, stop_event
from device_agent.service import DeviceService, DeviceSettings


@click.command()
@config.options(DeviceSettings)
def device(settings: DeviceSettings) -> None:
    """Run the agent of one camera.

    It waits for a bundle on the site's retained topics (or starts with the one in --store),
    sends a summary per slot, and features only when the gateway asks.
    """
    set_up_logging(settings.log_level)
    DeviceService(settings, stop_event()).run()
