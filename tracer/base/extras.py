# SPDX-License-Identifier: Apache-2.0
"""Optional packages: which output, option or command needs each of them, and how to install it."""

from collections.abc import Mapping
from typing import NamedTuple


class Extra(NamedTuple):
    """An extra of pyproject.toml."""

    needed_by: str
    package: str
    """Its name on PyPI."""
    debian: str
    debian_since: int | None = None
    """The first Debian release with a sufficient version; None: every release that oomtrace supports."""


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
    """The hint of a TracerError for a missing extra: how to install it."""
    extra = EXTRAS[name]
    since = f" (from Debian {extra.debian_since} on)" if extra.debian_since else ""
    return f"pipx inject oomtrace {extra.package}, or with the Debian package apt install {extra.debian}{since}"
