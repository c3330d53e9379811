# SPDX-License-Identifier: Apache-2.0
"""Packages that only some outputs, options and commands need, and how they are installed."""

from collections.abc import Mapping
from typing import NamedTuple


class Extra(NamedTuple):
    """What pyproject.toml has as an extra of this name."""

    what: str
    """What needs it."""
    package: str
    """On PyPI."""
    debian: str
    debian_since: int | None = None
    """The first Debian that has it, or has it new enough; None: all have that can have oomtrace."""


EXTRAS: Mapping[str, Extra] = {
    "network": Extra("`--network`", "pyroute2", "python3-pyroute2"),
    "metrics": Extra("`--metrics`", "prometheus_client", "python3-prometheus-client"),
    "zstd": Extra("outputs `file:` with `compress=zstd`", "zstandard", "python3-zstandard"),
    "otlp": Extra("outputs `otlp+...`", "opentelemetry-proto", "python3-opentelemetry-proto", 13),
    "forward": Extra("outputs `forward...`", "msgpack", "python3-msgpack"),
    "kafka": Extra("outputs `kafka...`", "confluent-kafka", "python3-confluent-kafka"),
    "mqtt": Extra("outputs `mqtt...`", "paho-mqtt", "python3-paho-mqtt", 13),
    "watch": Extra("`oomtrace watch`", "urwid", "python3-urwid"),
}


def install_hint(name: str) -> str:
    """What to do where an extra is missing, as a hint of TracerError."""
    extra = EXTRAS[name]
    since = f" (from Debian {extra.debian_since} on)" if extra.debian_since else ""
    return f"pipx inject oomtrace {extra.package}, or with the Debian package apt install {extra.debian}{since}"
