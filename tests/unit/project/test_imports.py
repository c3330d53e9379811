# SPDX-License-Identifier: Apache-2.0
"""Allowed imports between the packages of tracer/, third-party imports, and no import cycles."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import tracer

USES = {
    # The base of all packages.
    "base": "",
    "linux": "base",
    "records": "base",
    "redaction": "base",
    "identity": "base linux records",
    "encoding": "records identity",
    "reading": "base linux identity",
    "delivery": "base records encoding",
    "config": "base records encoding redaction identity delivery",
    "logs": "base records encoding identity",
    # The daemon, in the order of an event's way through it.
    "capture": "base linux records config",
    "accounting": "base linux records logs",
    "pipeline": "base linux records encoding identity reading delivery config logs capture accounting",
    "daemon": "base linux records redaction identity reading delivery config capture accounting pipeline",
    # The commands; those that read records or logs are packages.
    "doctor": "base linux delivery config logs capture",
    "top": "base linux records redaction identity reading",
    "report": "base records encoding identity logs",
    "watch": "base records encoding logs report",
    "why": "base linux records encoding identity config logs",
    "commands": "base linux records encoding identity reading delivery config logs capture doctor top report watch why",
    "cli": "base commands",
    "__main__": "cli",
}
"""Package of tracer/ -> packages that it may import."""

THIRD_PARTY = {
    "orjson": "encoding records identity reading delivery config logs capture report commands",
    "typer": "cli commands",
    "tomli": "config.toml_file",
    "bcc": "capture.engine_bcc_child",
    "prometheus_client": "delivery.metrics",
    "confluent_kafka": "delivery.sinks.kafka",
    "msgpack": "delivery.sinks.forward",
    "opentelemetry": "delivery.sinks.otlp",
    "paho": "delivery.sinks.mqtt",
    "zstandard": "delivery.sinks.rotated",
    "urwid": "watch.screen",
}
"""Third-party package -> packages and modules of tracer/ that may import it."""

HOME = Path(tracer.__file__).parent
MODULES = {".".join(path.relative_to(HOME).with_suffix("").parts): path for path in sorted(HOME.rglob("*.py"))}


def imports(module: str) -> Iterator[str]:
    """Imports of a module, including those in functions; modules of tracer without ``tracer.``."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "import by the full name"
            assert node.module is not None
            package, _, name = node.module.partition(".")
            if package != "tracer" or name in MODULES:
                yield node.module.removeprefix("tracer.")
                continue
            for alias in node.names:  # a module of the package, or a name in the package
                inner = f"{name}.{alias.name}" if name else alias.name
                yield inner if inner in MODULES else f"{name}.__init__".removeprefix(".")


def package(module: str) -> str:
    return module.partition(".")[0]


def test_every_package_has_a_place() -> None:
    assert {package(module) for module in MODULES} - {"__init__"} == set(USES)


@pytest.mark.parametrize("name", USES)
def test_imports(name: str) -> None:
    """A package imports exactly the packages listed for it."""
    modules = [module for module in MODULES if package(module) == name]
    used = {package(each) for module in modules for each in imports(module) if each in MODULES}
    assert used - {name, "__init__"} == set(USES[name].split()) - {name}


def test_no_circle() -> None:
    """No cycles among packages or modules."""
    TopologicalSorter({name: set(uses.split()) for name, uses in USES.items()}).prepare()
    TopologicalSorter({module: {each for each in imports(module) if each in MODULES} for module in MODULES}).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_third_party_imports(module: str) -> None:
    allowed = {name for name, users in THIRD_PARTY.items() if {module, package(module)} & set(users.split())}
    # tomllib is in the standard library since 3.11, and only imported there.
    foreign = {package(name) for name in imports(module) if name not in MODULES} - {"tracer", "tomllib"}
    assert foreign - sys.stdlib_module_names <= allowed


def loaded_after(program: str, *flags: str) -> set[str]:
    """Modules loaded in a new Python after ``program``."""
    program = f"import sys; sys.path.insert(0, {str(HOME.parent)!r})\n{program}\nprint(*sys.modules)"
    command = [sys.executable, *flags, "-c", program]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_bcc_child_needs_nothing_installed() -> None:
    """bcc's child starts without site-packages: the system's Python may have bcc only."""
    loaded = loaded_after("import tracer.capture.engine_bcc_child", "-I", "-S")
    assert {name for name in loaded if package(name) == "tracer"} == {
        "tracer",
        "tracer.base",
        "tracer.base.errors",
        "tracer.base.printable",
        "tracer.capture",
        "tracer.capture.btf_offsets",
        "tracer.capture.engine_bcc_child",
        "tracer.linux",
        "tracer.linux.libbpf",
    }


def test_daemon_does_not_load_the_command_line() -> None:
    """The daemon imports neither the readers' packages nor heavy libraries."""
    loaded = loaded_after("import tracer.daemon.daemon")
    commands = {"cli", "commands", "doctor", "report", "top", "watch", "why"}
    assert not [name for name in loaded if name.startswith("tracer.") and name.split(".")[1] in commands]
    readers = {"tracer.config.toml_file", "tracer.logs.kills", "tracer.logs.scan"}
    assert loaded.isdisjoint({"bcc", "typer", "urwid", *readers})
