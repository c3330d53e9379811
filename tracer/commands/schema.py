# SPDX-License-Identifier: Apache-2.0
"""``oomtrace schema``: the JSON Schema of the records."""

from tracer.commands.common import print_json
from tracer.commands.manual import codes, documented
from tracer.records.json_schema import json_schema


@documented(
    {
        "oomtrace schema >oomtrace.schema.json": "Save the schema, for a validator or a code generator.",
        "oomtrace schema | jq '.\"$defs\".OomKill.properties'": "The fields of an oom_kill record.",
    },
    codes(),
)
def schema() -> None:
    """Print the JSON Schema of the records."""
    print_json(json_schema())
