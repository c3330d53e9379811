# SPDX-License-Identifier: Apache-2.0
"""``oomtrace schema``: the JSON Schema of the records."""

from tracer.commands.common import print_json
from tracer.schema import json_schema


def schema() -> None:
    """Print the JSON Schema of the records."""
    print_json(json_schema())
