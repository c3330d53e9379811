# SPDX-License-Identifier: Apache-2.0
"""The Debian package on a host with systemd: installed, used, upgraded, removed and purged, in this order."""

import ctypes
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.eater import binary
from tests.harness.environment import IN_VM, MIB, ROOT, attempts, not_applicable, wait_until
from tests.harness.oracles import Record
from tests.harness.schema import check_line
from tests.runtimes.commands import run

DEB = Path(os.environ.get("OOMTRACE_DEB", "/nowhere"))
SERVICE = "oomtrace.service"
DEFAULTS = Path("/etc/default/oomtrace")
STATE, LOGS, PINS = Path("/var/lib/oomtrace"), Path("/var/log/oomtrace"), Path("/sys/fs/bpf/oomtrace")
RECORDS = LOGS / "oom.json"
OPTIONS = f'OOMTRACE_OPTIONS="-o stdout -o file:{RECORDS} --no-cmdline"\n'
INSTALL = ROOT / "docs/install.md"
DROP_IN = Path(f"/etc/systemd/system/{SERVICE}.d/network.conf")
ADDRESS = "198.51.100.200/32"
DPKG = (Path("/var/lib/dpkg"), Path("/var/log/dpkg.log"))
"""Files written by dpkg."""
BPF_MAP_TYPE_ARRAY = 2


def files() -> set[Path]:
    """All files of the root file system, and of directories on others that the package may use."""
    device = Path("/").stat().st_dev
    found = {*Path("/run").iterdir(), *PINS.parent.iterdir()}
    for folder, names, others in os.walk("/"):
        here = Path(folder)
        names[:] = [name for name in names if (here / name).lstat().st_dev == device and here / name not in DPKG]
        found.update(here / name for name in [*names, *others])
    return found - set(DPKG)


def accounts() -> list[str]:
    return [Path(f"/etc/{name}").read_text() for name in ("passwd", "group", "shadow", "gshadow")]


def property_of(unit: str, name: str) -> str:
    return run("systemctl", "show", f"--property={name}", "--value", unit)


def journal_records() -> list[Record]:
    """The records in the journal."""
    lines = run("journalctl", "--boot", "--unit", SERVICE, "--identifier=oomtrace", "--output=cat").splitlines()
    records = [line for line in lines if line.startswith("{")]
    for record in records:
        check_line(record.encode())
    return [json.loads(record) for record in records]


def kill(*properties: str) -> Record:
    """Let a unit hit its limit; its record in the journal."""
    name = f"packaging-{len(journal_records())}.service"
    limit = ("--property=MemoryMax=32M", "--property=MemorySwapMax=0")
    run("systemd-run", f"--unit={name}", *limit, *properties, "--", binary(), "-a", "0", "96")
    wait_until(f"{name} is killed", lambda: property_of(name, "Result") == "oom-kill")
    pid = int(property_of(name, "ExecMainPID"))
    run("systemctl", "reset-failed", name)
    for _ in attempts(pause=0.2):
        for record in journal_records():
            if record["type"] == "oom_kill" and record["victim"]["pid"] == pid:
                assert record["systemd"] == {"unit": name, "slice": "system.slice"}
                return record
    pytest.fail(f"no record of {pid}, but {journal_records()}")


@pytest.fixture(scope="module")
def before() -> tuple[set[Path], list[str]]:
    """Files and accounts before the package is installed."""
    if not IN_VM or not DEB.exists():
        not_applicable("packages are installed in a virtual machine only: make test-systemd")
    Path("/run/netns").mkdir(exist_ok=True)  # as by `ip netns`
    run("/usr/bin/python3", "-c", "import typer, orjson, bcc")  # writes missing byte code
    return files(), accounts()


@pytest.fixture(scope="module", autouse=True)
def installed(before: tuple[set[Path], list[str]]) -> Iterator[None]:
    """dpkg installs it, which checks the dependencies."""
    assert "oomtrace" not in run("dpkg-query", "--show", "--showformat=${Package}\\n").splitlines()
    run("dpkg", "--install", DEB)
    yield
    run("dpkg", "--purge", "oomtrace", check=False)


def test_service() -> None:
    """The service runs, and is enabled."""
    assert run("systemctl", "is-enabled", SERVICE) == "enabled"
    assert run("systemctl", "is-active", SERVICE) == "active"
    (start,) = journal_records()
    assert (start["type"], start["source"], start["engine"]) == ("start", "bpf", "core")


def test_kill() -> None:
    """A unit's process is killed; its record is in the journal."""
    record = kill()
    assert record["source"] == "bpf"
    assert (record["limit"]["level"], record["limit"]["limit_bytes"]) == ("unit", 32 * MIB)
    assert record["victim"]["cmdline"] == [str(binary()), "-a", "0", "96"]
    assert record["victim"]["exe"] == str(binary())
    assert None not in record["limit"]["breakdown"].values()


def test_command() -> None:
    """The command works from any directory; its Python package is not importable by other programs."""
    assert "This host can be traced" in run("oomtrace", "doctor", cwd=Path("/"))
    assert json.loads(run("oomtrace", "schema", cwd=Path("/tmp")))
    seen = run("env", "--unset=PYTHONPATH", "/usr/bin/python3", "-c", "import tracer", check=False, cwd=Path("/"))
    assert seen == ""
    assert not any(path.is_relative_to("/usr/lib/python3") for path in packaged())


def packaged() -> list[Path]:
    return [Path(line) for line in run("dpkg", "--listfiles", "oomtrace").splitlines()]


def test_options() -> None:
    """The service uses the settings of /etc/default/oomtrace."""
    DEFAULTS.write_text(OPTIONS)
    run("systemctl", "restart", SERVICE)
    assert kill()["victim"]["cmdline"] is None
    assert '"type":"oom_kill"' in RECORDS.read_text()


def test_journal() -> None:
    """With output journald a unit's log has its kill, explained by the package's catalog."""
    DEFAULTS.write_text('OOMTRACE_OPTIONS="-o stdout -o journald"\n')
    run("systemctl", "restart", SERVICE)
    unit = kill()["systemd"]["unit"]

    def unit_log() -> str:
        return run("journalctl", "--boot", "--catalog", "--unit", unit, "OOMTRACE_TYPE=oom_kill")

    wait_until("the unit's log", lambda: "Defined-By: oomtrace" in unit_log())


def test_engine_bcc() -> None:
    """The unit's sandbox allows bcc's compiler."""
    DEFAULTS.write_text('OOMTRACE_OPTIONS="--engine bcc"\n')
    run("systemctl", "restart", SERVICE)
    record = kill()
    start = [each for each in journal_records() if each["type"] == "start"][-1]
    assert (start["source"], start["engine"]) == ("bpf", "bcc")
    assert None not in record["limit"]["breakdown"].values()


def test_exposure() -> None:
    """systemd-analyze security rates the unit's exposure 3.0 of 10 at most."""
    run("systemd-analyze", "security", "--threshold=30", SERVICE)


def test_network(namespace: str) -> None:
    """With the drop-in of docs/install.md the records have IP addresses."""
    (added,) = re.findall(r"```ini\n(.*?)```", INSTALL.read_text(), re.DOTALL)
    DROP_IN.parent.mkdir()
    DROP_IN.write_text(added)
    DEFAULTS.write_text('OOMTRACE_OPTIONS="--network"\n')
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", SERVICE)
    for _ in range(5):  # null if an emulated machine misses the deadline for reading them
        network = kill(f"--property=NetworkNamespacePath=/run/netns/{namespace}")["network"]
        if network["interfaces"] is not None:
            break
    DROP_IN.unlink()
    DROP_IN.parent.rmdir()
    run("systemctl", "daemon-reload")
    assert network["host_network"] is False
    assert [ADDRESS] in [interface["ip_addresses"] for interface in network["interfaces"]]


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace with an interface that has ADDRESS."""
    name = "packaging"
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "add", "front", "type", "bridge")
    run("ip", "-n", name, "address", "add", ADDRESS, "dev", "front")
    yield name
    run("ip", "netns", "delete", name)


def test_again() -> None:
    """Installing it again, as in an upgrade, restarts the service and keeps the administrator's configuration."""
    DEFAULTS.write_text(OPTIONS)
    run("systemctl", "restart", SERVICE)
    first = property_of(SERVICE, "MainPID")
    run("dpkg", "--install", DEB)
    assert run("systemctl", "is-active", SERVICE) == "active"
    assert property_of(SERVICE, "MainPID") not in (first, "0")
    assert kill()["victim"]["cmdline"] is None
    kinds = [record["type"] for record in journal_records()]
    assert kinds.count("start") == kinds.count("stop") + 1


def test_removed(before: tuple[set[Path], list[str]]) -> None:
    """Removal stops the service and keeps the configuration; purge leaves nothing behind."""
    pid = property_of(SERVICE, "MainPID")
    STATE.mkdir(exist_ok=True)
    (STATE / "state").write_text("")
    PINS.mkdir(exist_ok=True)
    pin()
    run("dpkg", "--remove", "oomtrace")
    assert not Path(f"/proc/{pid}").exists()
    assert journal_records()[-1]["type"] == "stop"
    assert not PINS.exists()
    assert DEFAULTS.exists()
    assert RECORDS.exists()
    run("dpkg", "--purge", "oomtrace")
    then, now = before[0], files()
    assert (sorted(now - then), sorted(then - now)) == ([], [])
    assert accounts() == before[1]
    assert run("systemctl", "is-enabled", SERVICE, check=False) in ("", "not-found")


def pin() -> None:
    """Pin a BPF map where the daemon's pins would be."""
    libbpf = ctypes.CDLL("libbpf.so.1")
    descriptor = libbpf.bpf_map_create(BPF_MAP_TYPE_ARRAY, b"pinned", 4, 4, 1, None)
    assert descriptor >= 0
    assert libbpf.bpf_obj_pin(descriptor, str(PINS / "map").encode()) == 0
    os.close(descriptor)
