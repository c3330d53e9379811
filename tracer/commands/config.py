# SPDX-License-Identifier: Apache-2.0
"""``oomtrace config``: looks into a configuration file before the service does."""

import typer

from tracer.commands.common import print_json
from tracer.metrics import Place
from tracer.metrics import parse as parse_metrics
from tracer.options import CONFIG
from tracer.printable import printable
from tracer.sinks.file import rotated
from tracer.sinks.open import open_target, parse_all
from tracer.sinks.target import Target, shown

config = typer.Typer(name="config", no_args_is_help=True, help="Check the configuration file, or show what it says.")
FILE: str = typer.Argument(CONFIG, metavar="[FILE]", help="The configuration file.")


@config.command()
def check(file: str = FILE) -> None:
    """Tell what is wrong in a configuration file, and in which line; nothing is sent or written."""
    from tracer.config import Config  # what it needs would keep `run` from starting quickly

    options = Config(file).options({})
    outputs = ", ".join([_try(target) for target in parse_all(options.outputs)])
    metrics = ", ".join([_try_metrics(place) for place in map(parse_metrics, options.metrics)])
    print(f"{printable(file)} is right; outputs: {outputs}{'; metrics: ' * bool(metrics)}{metrics}")


@config.command()
def show(file: str = FILE) -> None:
    """Print what a configuration file makes of all settings, as JSON."""
    from tracer.config import Config
    from tracer.settings import shown as shown_settings

    print_json(shown_settings(Config(file).options({})))


def _try(target: Target) -> str:
    """The output for everybody's eyes.

    Raises TracerError where something that it needs is missing; stdout and files are not opened, as that makes them.
    """
    if target.scheme == "file":
        rotated(target)
    if target.scheme in ("stdout", "file"):
        return shown(target.uri)
    sink = open_target(target)
    sink.close()
    return printable(sink.uri)


def _try_metrics(place: Place) -> str:
    """The same of metrics; a port is not opened.

    Raises TracerError where a certificate, key, token or password cannot be used.
    """
    if place.access is not None:
        place.access.check()
    return printable(place.told)
