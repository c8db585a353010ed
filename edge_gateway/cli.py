"""`ddnn gateway`."""

from __future__ import annotations

import click

from ddnn import config
from ddnn.cli import set_up_logging, stop_event
from edge_gateway.service import GatewayService, GatewaySettings


@click.command()
@config.options(GatewaySettings)
def gateway(settings: GatewaySettings) -> None:
    """Run the gateway of one site, or with --edge that of one of its several edges.

    It fuses the cameras' summaries, answers when the entropy is low enough, asks for features
    when it is not, and passes on to the cloud what its edge section is not sure of. Where the
    bundle has several edges it does the same with what one `ddnn gateway --edge K` for each of
    them reports.
    """
    set_up_logging(settings.log_level)
    GatewayService(settings, stop_event()).run()
