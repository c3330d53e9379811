# SPDX-License-Identifier: Apache-2.0
"""``oomtrace config``: checks a configuration file, and prints the resulting settings."""

import typer

from tracer.base.errors import EXIT_FAILED, EXIT_UNSUPPORTED, EXIT_USAGE, TracerError
from tracer.base.printable import printable
from tracer.commands.common import ALWAYS_JSON, JSON, print_json
from tracer.commands.manual import EXIT_CODES, Command, Group, codes, documented
from tracer.config.options import CONFIG_FILE
from tracer.delivery.metrics import Endpoint, parse_endpoint
from tracer.delivery.sinks.destination import Destination, display_uri
from tracer.delivery.sinks.file import rotated_files
from tracer.delivery.sinks.open import open_sink, parse_destinations

config = typer.Typer(name="config", cls=Group, no_args_is_help=True)
FILE: str = typer.Argument(CONFIG_FILE, metavar="FILE", help="Configuration file (TOML).")


@config.callback()
@documented(
    {
        "oomtrace config check": "Check the configuration of the service.",
        "oomtrace config show": "Show every setting of the service.",
    },
    codes(EXIT_FAILED),
)
def about() -> None:
    """Check the configuration file, or show the settings."""


@config.command("check", cls=Command)
@documented(
    {
        "oomtrace config check": "Check the configuration of the service.",
        "oomtrace config check new.toml && sudo cp new.toml /etc/oomtrace/config.toml": "Install a valid file.",
    },
    {
        0: "The file is valid.",
        EXIT_FAILED: "The file, or one that it names, cannot be read.",
        EXIT_USAGE: "The file is invalid; the error names the line.",
        EXIT_UNSUPPORTED: "An output needs a library that is not installed.",
    },
)
def check_command(file: str = FILE, as_json: bool = JSON) -> None:
    """Check a configuration file; an error names its line.

    Also checks the files that outputs name, such as certificates and tokens, and that their libraries are installed.
    Sends and writes nothing.
    """
    if not as_json:
        check(file)
        return
    try:
        outputs, metrics = _checked(file)
    except TracerError as error:
        print_json({"file": file, "valid": False, "outputs": [], "metrics": [], "error": str(error)})
        raise typer.Exit(error.exit_code) from error
    print_json({"file": file, "valid": True, "outputs": outputs, "metrics": metrics, "error": None})


def check(file: str) -> None:
    """Print one line for a valid file.

    Raises TracerError for an invalid one.
    """
    outputs, metrics = _checked(file)
    print(
        f"{printable(file)} is valid; outputs: {', '.join(outputs)}{'; metrics: ' * bool(metrics)}{', '.join(metrics)}"
    )


def _checked(file: str) -> tuple[list[str], list[str]]:
    """The outputs and metrics of a configuration file, without secrets."""
    from tracer.config.toml_file import ConfigFile  # imported here: it would slow down the start of `run`

    options = ConfigFile(file).options({})
    return (
        [_try(destination) for destination in parse_destinations(options.outputs)],
        [_try_metrics(endpoint) for endpoint in map(parse_endpoint, options.metrics)],
    )


@config.command(cls=Command)
@documented(
    {
        "oomtrace config show": "Every setting of the service.",
        "oomtrace config show new.toml | jq .output": "The outputs of another file.",
    },
    {**codes(EXIT_FAILED), EXIT_FAILED: "The file cannot be read.", EXIT_USAGE: EXIT_CODES[EXIT_USAGE]},
)
def show(file: str = FILE, _as_json: bool = ALWAYS_JSON) -> None:
    """Print the resulting settings as JSON.

    Every setting by its name, with the default where the file does not set it.
    """
    from tracer.config.settings import as_settings
    from tracer.config.toml_file import ConfigFile

    print_json(as_settings(ConfigFile(file).options({})))


def _try(destination: Destination) -> str:
    """The URI of an output, without secrets.

    Opens the output, except stdout and files, which opening would create.  Raises TracerError when a file or library
    that the output needs is missing.
    """
    if destination.scheme == "file":
        rotated_files(destination)
    if destination.scheme in ("stdout", "file"):
        return display_uri(destination.uri)
    sink = open_sink(destination)
    sink.close()
    return printable(sink.uri)


def _try_metrics(endpoint: Endpoint) -> str:
    """The address of metrics, without secrets.  The port is not opened.

    Raises TracerError when a certificate, key, token or password cannot be used.
    """
    if endpoint.access is not None:
        endpoint.access.check()
    return printable(endpoint.description)
