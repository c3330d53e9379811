# SPDX-License-Identifier: Apache-2.0
"""Parses container image references, as passed to the runtime."""

from typing import NamedTuple


class ImageRef(NamedTuple):
    """``registry.example:5000/shop/cart:2.4@sha256:...``; all parts except the name are optional."""

    name: str
    tag: str | None
    digest: str | None
    """NAME@DIGEST: the reference without the tag."""


def parse_image_ref(text: str) -> ImageRef | None:
    """Parse a reference; None: ``text`` is an image id (``sha256:...``)."""
    if text.startswith("sha256:"):
        return None
    rest, at, digest = text.partition("@")
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, ""
    return ImageRef(name, tag or None, f"{name}@{digest}" if at else None)
