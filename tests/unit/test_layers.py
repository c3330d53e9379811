# SPDX-License-Identifier: Apache-2.0
"""The order of the modules of tracer/, as the data flows, and what each may weigh."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tracer

LAYERS = (
    ("brief", "printable"),
    ("__init__", "errors", "extras", "clock", "heads", "gfp", "image", "logs.__init__", "logs.oom_tasks", "whose"),
    ("event",),
    (
        "backlog",
        "backoff",
        "handover",
        "heap",
        "line_queue",
        "notify",
        "privileges",
        "ring",
        "secret",
        "stderr",
        "wire",
    ),
    ("threads",),
    (
        "libbpf",
        "incident",
        "cgroup",
        "cgroupfs",
        "disk",
        "files",
        "filter",
        "host",
        "inference",
        "leaves",
        "metrics_server",
        "named",
        "regularity",
        "screen",
        "spool_segment",
        "twins",
        "logs.oom_lines",
        "logs.places",
        "logs.times",
        "schema",
    ),
    ("ledger", "recorded", "sentence"),
    ("style_ecs", "style_otel"),
    ("ids", "style", "logs.learnt", "logs.remarks", "logs.reported", "logs.terminal"),
    ("line", "logs.dmesg_json", "logs.files"),
    ("cgroup_account",),
    (
        "audit",
        "bpffs",
        "engine",
        "kernel_log",
        "kernel_types",
        "logs.kmsg",
        "logs.oom_kills",
        "network",
        "process",
        "waiting",
    ),
    ("hung", "reader"),
    ("folder_reader", "process_reader"),
    ("kill_rings", "logs.oom_details", "memcg", "processes", "record_brief"),
    ("logs.oom_incident", "process_list"),
    ("rings",),
    ("facts", "redact", "bolt", "spool_folder", "state"),
    ("containerd", "containers_storage", "docker", "kubelet", "options", "sinks.__init__", "spool"),
    ("badness",),
    ("refusals", "sinks.about", "undelivered", "sinks.alone", "sinks.target"),
    (
        "logs.oom_report",
        "logs.records",
        "runtimes",
        "sinks.connect",
        "sinks.known",
        "sinks.message",
        "sinks.pipe",
        "sinks.rotated",
        "sinks.tls",
    ),
    (
        "sinks.file",
        "sinks.forward_secret",
        "sinks.http_body",
        "sinks.http_client",
        "sinks.journald_fields",
        "sinks.kafka",
        "sinks.syslog_message",
    ),
    ("sinks.forward", "sinks.http", "sinks.journald", "sinks.mqtt", "sinks.otlp", "sinks.syslog"),
    ("sinks.open",),
    ("backfill", "logs.journal", "logs.this_boot", "output"),
    ("logs.alike",),
    ("logs.formats", "outputs"),
    ("logs.boots", "logs.hosts", "logs.line_reader"),
    ("logs.scan",),
    ("metrics_access",),
    ("metrics",),
    ("settings",),
    ("config", "reload", "stream"),
    ("interfaces", "names"),
    ("reading",),
    ("attach", "engine_core", "features", "pins", "record", "enrich", "exits", "bcc_child"),
    ("report.__init__", "report.memory", "report.whose", "report.log"),
    ("report.incidents",),
    ("report.inputs", "report.markdown"),
    ("report.page", "watch.__init__"),
    ("watch.feed", "watch.model", "watch.text"),
    ("watch.screen",),
    ("engine_bcc", "identity", "logs.kills", "pipeline", "sigkill"),
    ("parse", "report.make", "watch.app"),
    ("source", "doctor", "top"),
    ("top_table", "why.__init__", "why.choice", "why.memory", "why.moment"),
    ("why.watches",),
    ("why.sources",),
    ("why.history", "why.killer", "why.search"),
    ("why.cause", "why.limits"),
    ("why.verdict",),
    ("why.advice",),
    ("why.usage",),
    ("why.words",),
    ("why.answer",),
    ("daemon",),
    ("commands.__init__",),
    ("commands.manual",),
    ("commands.common",),
    (
        "commands.config",
        "commands.detach",
        "commands.doctor",
        "commands.parse",
        "commands.report",
        "commands.resolve",
        "commands.run",
        "commands.schema",
        "commands.top",
        "commands.watch",
        "commands.why",
    ),
    ("cli",),
    ("__main__",),
)
"""A module may import those of the layers above it in this list, and no other."""

PACKAGE = Path(tracer.__file__).parent
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
THIRD_PARTY = {
    "orjson": {
        "commands.common",
        "containers_storage",
        "engine_bcc",
        "facts",
        "ids",
        "line",
        "logs.boots",
        "logs.journal",
        "logs.learnt",
        "names",
        "network",
        "options",
        "hung",
        "pins",
        "reader",
        "recorded",
        "report.page",
        "sinks.about",
        "sinks.forward",
        "sinks.http",
        "sinks.http_body",
        "sinks.journald_fields",
        "sinks.known",
        "sinks.message",
        "sinks.otlp",
        "sinks.syslog_message",
        "spool_segment",
    },
    "opentelemetry": {"sinks.otlp"},
    "prometheus_client": {"metrics"},
    "tomli": {"config"},
    "zstandard": {"sinks.rotated"},
    "typer": {"cli", *(module for module in MODULES if module.startswith("commands."))},
    "bcc": {"bcc_child"},
    "confluent_kafka": {"sinks.kafka"},
    "msgpack": {"sinks.forward"},
    "paho": {"sinks.mqtt"},
    "urwid": {"watch.screen"},
}


def imports(module: str) -> Iterator[str]:
    """What a module imports, inside functions as well; of tracer what the name after the dot is."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "import by the full name"
            assert node.module is not None
            package, _, name = node.module.partition(".")
            if package != "tracer" or name in MODULES:
                yield node.module
                continue
            for alias in node.names:  # a module of the package, or a name that the package itself has
                inner = f"{name}.{alias.name}" if name else alias.name
                yield f"tracer.{inner if inner in MODULES else f'{name}.__init__'.removeprefix('.')}"


def test_every_module_has_a_place() -> None:
    """A new module is given its place in the list above."""
    assert sorted(MODULES) == sorted(module for layer in LAYERS for module in layer)


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_data(module: str) -> None:
    """A module imports lower ones only, so there is no circle, and stages do not know one another."""
    own = next(number for number, layer in enumerate(LAYERS) if module in layer)
    lower = {name for layer in LAYERS[:own] for name in layer}
    assert {name.removeprefix("tracer.") for name in imports(module) if name.startswith("tracer.")} <= lower


@pytest.mark.parametrize("module", MODULES)
def test_third_party_imports(module: str) -> None:
    """Beside the standard library a module imports only what it is known to need."""
    allowed = {name for name, modules in THIRD_PARTY.items() if module in modules}
    foreign = {name.partition(".")[0] for name in imports(module)} - sys.stdlib_module_names - {"tracer"}
    assert foreign <= allowed


def loaded_after(program: str, *flags: str) -> set[str]:
    """The modules that are loaded in a fresh Python after ``program``."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(tracer.__file__).parents[1])!r})\n{program}\nprint(*sys.modules)"
    )
    command = [sys.executable, *flags, "-c", program]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_bcc_child_needs_nothing_installed() -> None:
    """The system's Python has bcc and perhaps nothing else: the child starts without site-packages."""
    loaded = loaded_after("import tracer.bcc_child", "-I", "-S")
    assert {
        "tracer",
        *(f"tracer.{each}" for each in ("bcc_child", "kernel_types", "libbpf", "errors", "printable")),
    } == {name for name in loaded if name.partition(".")[0] == "tracer"}


def test_daemon_does_not_load_the_command_line() -> None:
    """What the daemon imports stays for as long as it runs."""
    loaded = loaded_after("import tracer.daemon")
    assert loaded.isdisjoint(
        {
            "typer",
            "tracer.cli",
            "tracer.doctor",
            "tracer.parse",
            "tracer.report.make",
            "urwid",
            "tracer.logs.kills",
            "tracer.logs.scan",
            "tracer.config",
            "bcc",
        }
    )
