# SPDX-License-Identifier: Apache-2.0
"""A container image, as it was given to the runtime -> its parts."""

from typing import NamedTuple


class ImageRef(NamedTuple):
    """``registry.example:5000/shop/cart:2.4@sha256:...``; each part but the name may be missing."""

    name: str
    tag: str | None
    digest: str | None
    """The whole reference with the digest, without the tag."""


def parse_image_ref(text: str) -> ImageRef | None:
    """None: it is the id of an image (``sha256:...``), not its name."""
    if text.startswith("sha256:"):
        return None
    rest, at, digest = text.partition("@")
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, ""
    return ImageRef(name, tag or None, f"{name}@{digest}" if at else None)
