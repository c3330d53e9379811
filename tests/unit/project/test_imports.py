# SPDX-License-Identifier: Apache-2.0
"""Which package of tracer/ may import which, what each may weigh, and no circle among its modules."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import tracer

USES = {
    # What any package may build upon.
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
    # The daemon, in the order in which an event passes it.
    "capture": "base linux records config",
    "accounting": "base linux records logs",
    "pipeline": "base linux records encoding identity reading delivery config logs capture accounting",
    "daemon": "base linux records redaction identity reading delivery config capture accounting pipeline",
    # The commands: the readers among them are packages of their own.
    "doctor": "base linux delivery config logs capture",
    "top": "base linux records redaction identity reading",
    "report": "base records encoding identity logs",
    "watch": "base records encoding logs report",
    "why": "base linux records encoding identity config logs",
    "commands": "base linux records encoding identity reading delivery config logs capture doctor top report watch why",
    "cli": "base commands",
    "__main__": "cli",
}
"""Packages of tracer/, and the others that each may import."""

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
"""Beside the standard library: the packages and modules of tracer/ that may import it."""

HOME = Path(tracer.__file__).parent
MODULES = {".".join(path.relative_to(HOME).with_suffix("").parts): path for path in sorted(HOME.rglob("*.py"))}


def imports(module: str) -> Iterator[str]:
    """What a module imports, inside functions as well; of tracer the module, without ``tracer.``."""
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
            for alias in node.names:  # a module of the package, or a name that the package itself has
                inner = f"{name}.{alias.name}" if name else alias.name
                yield inner if inner in MODULES else f"{name}.__init__".removeprefix(".")


def package(module: str) -> str:
    return module.partition(".")[0]


def test_every_package_has_a_place() -> None:
    assert {package(module) for module in MODULES} - {"__init__"} == set(USES)


@pytest.mark.parametrize("name", USES)
def test_imports(name: str) -> None:
    """A package imports those that it is said to use, and no other."""
    modules = [module for module in MODULES if package(module) == name]
    used = {package(each) for module in modules for each in imports(module) if each in MODULES}
    assert used - {name, "__init__"} == set(USES[name].split()) - {name}


def test_no_circle() -> None:
    """Neither among packages nor among modules; raises CycleError where there is one."""
    TopologicalSorter({name: set(uses.split()) for name, uses in USES.items()}).prepare()
    TopologicalSorter({module: {each for each in imports(module) if each in MODULES} for module in MODULES}).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_third_party_imports(module: str) -> None:
    allowed = {name for name, users in THIRD_PARTY.items() if {module, package(module)} & set(users.split())}
    # tomllib is the standard library's from 3.11 on, and imported only there.
    foreign = {package(name) for name in imports(module) if name not in MODULES} - {"tracer", "tomllib"}
    assert foreign - sys.stdlib_module_names <= allowed


def loaded_after(program: str, *flags: str) -> set[str]:
    """The modules that are loaded in a fresh Python after ``program``."""
    program = f"import sys; sys.path.insert(0, {str(HOME.parent)!r})\n{program}\nprint(*sys.modules)"
    command = [sys.executable, *flags, "-c", program]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_bcc_child_needs_nothing_installed() -> None:
    """The system's Python has bcc and perhaps nothing else: the child starts without site-packages."""
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
    """What the daemon imports stays for as long as it runs."""
    loaded = loaded_after("import tracer.daemon.daemon")
    commands = {"cli", "commands", "doctor", "report", "top", "watch", "why"}
    assert not [name for name in loaded if name.startswith("tracer.") and name.split(".")[1] in commands]
    readers = {"tracer.config.toml_file", "tracer.logs.kills", "tracer.logs.scan"}
    assert loaded.isdisjoint({"bcc", "typer", "urwid", *readers})
