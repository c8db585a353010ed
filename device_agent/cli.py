"""`ddnn device`: the agent, and what one needs to set a camera up."""

from __future__ import annotations

from pathlib import Path

import click

from ddnn import config
from ddnn.cli import set_up_logging, stop_event
from ddnn.errors import ConfigError
from ddnn.store import BundleStore
from device_agent.service import DeviceService, DeviceSettings
from device_agent.sources import open_source


class _AgentByDefault(click.Group):
    """A group that without a command's name runs the agent."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        asks_for_help = args[:1] in (["--help"], ["-h"])
        if not asks_for_help and args[:1] not in ([name] for name in self.commands):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_AgentByDefault)
def device() -> None:
    """One camera: its agent (`run`, which may be left out), and help to set it up.

    `ddnn device run --help` lists the settings; all commands here take the same.
    """


@device.command()
@config.options(DeviceSettings)
def run(settings: DeviceSettings) -> None:
    """Run the agent of one camera.

    It waits for a bundle on the site's retained topics (or starts with the one in --store),
    sends a summary per slot, and features only when the gateway asks.
    """
    set_up_logging(settings.log_level)
    DeviceService(settings, stop_event()).run()


@device.command()
@config.options(DeviceSettings)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="preview.png",
    show_default=True,
    help="PNG to write.",
)
@click.option(
    "--size",
    metavar="HxW",
    help="What the section takes, pixels. Default: that of the bundle in --store, else 32x32.",
)
def preview(settings: DeviceSettings, out: Path, size: str | None) -> None:
    """Show the picture with region and masks, and beside it what the section sees of it."""
    from device_agent.preview import SHOWN_HEIGHT, draw, take_one, write_png
    from device_agent.viewer import make_viewer

    set_up_logging(settings.log_level)
    shape = _shape(settings, size)
    source = open_source(settings)
    viewer = make_viewer(settings, source)
    try:
        picture = take_one(source, max(SHOWN_HEIGHT, viewer.framing.height_for(shape[0])))
    finally:
        source.close()
    write_png(out, draw(picture, viewer.framing, shape))
    rows, columns = picture.shape[:2]
    click.echo(f"{out}: picture {columns} x {rows}, section {shape[1]} x {shape[0]}")


@device.command()
@config.options(DeviceSettings)
@click.option("--size", metavar="HxW", help="As for preview.")
@click.option(
    "--count",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="End after so many; 0: go on.",
)
def record(settings: DeviceSettings, size: str | None, count: int) -> None:
    """Keep pictures for labelling and training, without a broker, bundle or gateway.

    Every slot's view, or one of every --record-every, goes to --record-dir as the section would
    see it, within --record-mb and --record-per-hour. With --gate only those with something in
    them. The running agent records with the same settings.
    """
    from device_agent.collecting import collect

    set_up_logging(settings.log_level)
    kept = collect(settings, _shape(settings, size), stop_event(), count)
    click.echo(f"{kept} pictures kept in {settings.record_dir}")


def _shape(settings: DeviceSettings, size: str | None) -> tuple[int, int, int]:
    """(H, W, C) of the section's views."""
    if size is not None:
        height, _, width = size.partition("x")
        if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
            raise ConfigError(f"--size {size!r} must be rows x columns, such as 32x32")
        return int(height), int(width), 3
    kept = BundleStore(Path(settings.store)).load(lambda _: set()) if settings.store else None
    if kept is None:
        return settings.record_shape
    image = kept.manifest.image
    return image.height, image.width, image.channels
