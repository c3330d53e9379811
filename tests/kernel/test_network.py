# SPDX-License-Identifier: Apache-2.0
"""tracer/identity/network.py in real network namespaces; the oracle is iproute2."""

import itertools
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness.cgroups import Cgroup
from tests.harness.environment import IN_VM, ROOT, attempts, not_applicable, require, wait_until
from tracer.identity import interface_cache, network
from tracer.identity.network import NetworkNamespaces
from tracer.records.owner import Interface

from .conftest import Eat, MakeDaemon

MakeNetns = Callable[..., str]
HANDLES = Path("/run/netns")
NUMBERS = itertools.count(1)
"""Names are not reused, because the kernel removes namespaces in the background."""


@pytest.fixture(autouse=True)
def _here() -> None:
    if IN_VM:
        not_applicable("does not depend on the kernel's OOM path")


def ip(*arguments: str | bytes) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True).stdout.decode("utf-8", "replace")


def inode(path: str | Path) -> int:
    return os.stat(path).st_ino


def settled(netns: str) -> bool:
    """Duplicate address detection is over."""
    return "tentative" not in ip("-n", netns, "addr")


def interfaces_by_ip(netns: str) -> list[dict[str, Any]]:
    return [
        {
            "name": link["ifname"],
            "mac_address": link["address"] if link["link_type"] == "ether" else None,
            "ip_addresses": [f"{address['local']}/{address['prefixlen']}" for address in link["addr_info"]],
        }
        for link in json.loads(ip("-j", "-n", netns, "addr"))
        if link["link_type"] != "loopback" and (link["addr_info"] or link["link_type"] == "ether")
    ]


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    require(shutil.which("ip"), "iproute2")


@pytest.fixture(name="netns")
def make_netns(request: pytest.FixtureRequest) -> Iterator[MakeNetns]:
    """Makes namespaces, each with a veth pair whose outer end exists as long as the namespace does."""
    made: list[str] = []

    def make(*addresses: str, inner: str = "eth0") -> str:
        name = f"oomt{os.getpid()}n{next(NUMBERS)}"
        ip("netns", "add", name)
        made.append(name)
        if addresses:
            ip("link", "add", name, "type", "veth", "peer", "name", inner, "netns", name)
            ip("link", "set", name, "up")
            ip("-n", name, "link", "set", inner, "up")
        for address in addresses:
            ip("-n", name, "addr", "add", address, "dev", inner)
        return name

    yield make
    for name in made:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.fixture
def namespaces() -> NetworkNamespaces:
    return NetworkNamespaces()


@contextmanager
def process_in(netns: str) -> Iterator[int]:
    process = subprocess.Popen(["ip", "netns", "exec", netns, "sleep", "600"])
    try:
        wait_until("the process is inside", lambda: inode(f"/proc/{process.pid}/ns/net") == inode(HANDLES / netns))
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_addresses(namespaces: NetworkNamespaces, netns: MakeNetns) -> None:
    """IPv4 and IPv6 addresses as iproute2 shows them, by handle and by process."""
    name = netns("172.30.0.2/16", "10.1.2.3/32", "2001:db8::7/64")
    wait_until("addresses are settled", lambda: settled(name))
    expected = interfaces_by_ip(name)
    assert len(expected[0]["ip_addresses"]) == 4
    number = inode(HANDLES / name)
    assert namespaces.snapshot(str(HANDLES / name)) == number
    assert namespaces.look_up(number) == expected
    with process_in(name) as pid:
        assert NetworkNamespaces().snapshot(pid) == number


def test_another_address(namespaces: NetworkNamespaces, netns: MakeNetns) -> None:
    """A second read gets new addresses; of a point-to-point link the local address, not the peer's."""
    name = netns("172.30.0.2/16")
    namespaces.snapshot(str(HANDLES / name))
    ip("-n", name, "addr", "add", "10.0.0.1", "peer", "10.0.0.2/30", "dev", "eth0")
    wait_until("addresses are settled", lambda: settled(name))
    number = namespaces.snapshot(str(HANDLES / name))
    assert number is not None
    assert namespaces.look_up(number) == interfaces_by_ip(name)
    assert "10.0.0.1/30" in interfaces_by_ip(name)[0]["ip_addresses"]


def test_looked_for(netns: MakeNetns) -> None:
    """An unknown namespace is found by its mounted handle, or else by a process in it."""
    name = netns("172.30.0.2/16")
    wait_until("addresses are settled", lambda: settled(name))
    number, expected = inode(HANDLES / name), interfaces_by_ip(name)
    assert NetworkNamespaces().look_up(number) == expected
    with process_in(name) as pid:
        ip("netns", "del", name)
        assert NetworkNamespaces().look_up(number) is None
        assert NetworkNamespaces().look_up(number, [os.getpid(), pid]) == expected


def test_only_loopback(namespaces: NetworkNamespaces, netns: MakeNetns) -> None:
    """A namespace with loopback only has no interfaces; later ones are found."""
    name = netns()
    number = namespaces.snapshot(str(HANDLES / name))
    assert number is not None
    assert namespaces.look_up(number) == []
    ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    found = namespaces.look_up(number)
    assert found is not None
    assert [interface["name"] for interface in found] == ["eth0"]


@pytest.mark.parametrize("inner", [b"\xff\xfe\x1b[0m", "é\u202e".encode(), b'a"\\b', b"x" * 15])
def test_name(namespaces: NetworkNamespaces, netns: MakeNetns, inner: bytes) -> None:
    """A container can give its interface any name."""
    name = netns()
    ip("link", "add", name, "type", "veth", "peer", "name", inner, "netns", name)
    number = namespaces.snapshot(str(HANDLES / name))
    assert number is not None
    assert [inner.decode("utf-8", "backslashreplace")] == [each["name"] for each in namespaces.look_up(number) or []]


def test_many(namespaces: NetworkNamespaces, netns: MakeNetns) -> None:
    """The number of interfaces and addresses is limited."""
    name = netns(*(f"172.30.0.{last}/16" for last in range(1, 40)))
    for number in range(40):
        ip("-n", name, "link", "add", f"a{number}", "type", "veth", "peer", "name", f"b{number}")
    found = namespaces.look_up(inode(HANDLES / name))
    assert found is not None
    assert len(found) == network.INTERFACES_MAX
    eth0 = next(interface for interface in found if interface["name"] == "eth0")
    assert len(eth0["ip_addresses"]) == network.ADDRESSES_MAX


def test_dead_namespace(namespaces: NetworkNamespaces, netns: MakeNetns) -> None:
    """The cache keeps no namespace alive; a dead namespace is found by its cookie only."""
    name = netns("172.30.0.2/16")
    number = namespaces.snapshot(str(HANDLES / name))
    assert number is not None
    ip("netns", "del", name)
    wait_until("the namespace is gone", lambda: name not in ip("link"))
    cookie = namespaces._entries[number].cookie
    assert cookie is not None, "this kernel has SO_NETNS_COOKIE"
    assert namespaces.look_up(number, cookie=cookie)
    assert namespaces.look_up(number, cookie=cookie + 1) is None
    assert namespaces.look_up(number) is None


@pytest.mark.parametrize("handle", ["/run/netns/none", "/proc/self/ns/mnt", "/dev/null", "/etc", "", 1 << 30])
def test_no_namespace(namespaces: NetworkNamespaces, handle: str | int) -> None:
    """A handle that is missing or not a network namespace yields None."""
    assert namespaces.snapshot(handle) is None


def test_stays_outside(namespaces: NetworkNamespaces, netns: MakeNetns) -> None:
    """The caller does not change its namespace."""
    before = inode("/proc/thread-self/ns/net")
    tasks = set(os.listdir("/proc/self/task"))
    assert namespaces.snapshot(str(HANDLES / netns("172.30.0.2/16"))) is not None
    # A thread of an earlier test may end meanwhile, too.
    wait_until("its thread has ended", lambda: tasks.issuperset(os.listdir("/proc/self/task")))
    assert {before} == {inode(f"/proc/self/task/{task}/ns/net") for task in os.listdir("/proc/self/task")}


def test_busy_kernel(namespaces: NetworkNamespaces, netns: MakeNetns, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that blocks in the kernel delays callers briefly, and no second thread is started."""
    handle = str(HANDLES / netns("172.30.0.2/16"))
    released = threading.Event()
    real = namespaces._read
    monkeypatch.setattr(namespaces, "_read", lambda deadline: [released.wait(10), real(deadline)][1])
    began = time.monotonic()
    assert namespaces.snapshot(handle) is None
    assert network.READ_TIMEOUT_S <= time.monotonic() - began < 5 * network.READ_TIMEOUT_S
    threads = threading.active_count()
    assert namespaces.snapshot(handle) is None
    assert threading.active_count() == threads
    released.set()
    wait_until("the thread has ended", lambda: threading.active_count() < threads)
    monkeypatch.undo()
    assert namespaces.snapshot(handle) is not None


def test_dear(namespaces: NetworkNamespaces, netns: MakeNetns, monkeypatch: pytest.MonkeyPatch) -> None:
    """A namespace that is slow to read is not read at each kill: the earlier result is used."""
    number = inode(HANDLES / netns("172.30.0.2/16"))
    real, wait_s = namespaces._read, 0.1

    def read_slowly(deadline: float) -> list[Interface]:
        time.sleep(wait_s)
        return real(deadline)

    monkeypatch.setattr(namespaces, "_read", read_slowly)
    found = namespaces.look_up(number)
    assert found is not None
    cookie = namespaces._entries[number].cookie
    assert cookie is not None, "this kernel has SO_NETNS_COOKIE"
    began_s = time.monotonic()
    for _ in range(20):
        assert namespaces.look_up(number, cookie=cookie) == found
    assert time.monotonic() - began_s < wait_s, "it was read again"
    assert len(namespaces._not_before_s) == 1
    monkeypatch.undo()
    namespaces._not_before_s[number] = 0.0  # the pause is over
    assert namespaces.look_up(number, cookie=cookie) == found
    assert not namespaces._not_before_s, "it is quick again"


@pytest.mark.parametrize("told_by", ["handle", "memory"])
def test_victim(told_by: str, netns: MakeNetns, cgroup: Cgroup, eat: Eat, make_daemon: MakeDaemon) -> None:
    """A container's only process is killed: its network is recorded, although the namespace is gone with it."""
    name = netns("172.30.0.2/16", "2001:db8::7/64")
    wait_until("addresses are settled", lambda: settled(name))
    expected, number = interfaces_by_ip(name), inode(HANDLES / name)
    daemon = make_daemon(arguments=["--network"])
    daemon.wait_ready()
    group = cgroup.child("docker").child(secrets.token_hex(32), 8)
    victim = eat(16, group, gate=True, through=("nsenter", f"--net={HANDLES / name}"))
    victim.start()
    if told_by == "memory":
        time.sleep(2 * interface_cache.VISIT_DELAYS_S[1])
        ip("netns", "del", name)
        daemon.process.send_signal(signal.SIGSTOP)  # or it could read the namespace while the victim dies
    victim.go()
    victim.die()
    daemon.process.send_signal(signal.SIGCONT)
    for _ in attempts():
        if killed := daemon.of_type("oom_kill"):
            break
    (record,) = killed
    assert record["victim"]["pid"] == victim.pid
    assert record["network"] == {"namespace_inode": number, "host_network": False, "interfaces": expected}
    assert record["container"]["ip_addresses"] == ["172.30.0.2", "2001:db8::7"]


def test_thousand(namespaces: NetworkNamespaces, netns: MakeNetns) -> None:
    """1,000 reads leak no descriptors, threads, namespaces or memory."""

    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    def rss() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    names = [netns("172.30.0.2/16", "2001:db8::7/64") for _ in range(4)]
    before = held()
    for _ in range(200):  # let the heap grow to its size
        namespaces.snapshot(str(HANDLES / names[0]))
    size = rss()
    timeouts = 0
    for number in range(1000):
        if namespaces.snapshot(str(HANDLES / names[number % 4])) is None:
            timeouts += 1  # on a busy machine; no read begins before the thread of the last one ends
            wait_until("the last thread ended", lambda: held() == before)
    assert timeouts <= 10
    wait_until("the last thread ended", lambda: held() == before)
    assert rss() - size < 2 << 20
    for name in names:
        ip("netns", "del", name)
    wait_until("the namespaces are gone", lambda: not any(name in ip("link") for name in names))


def test_weight() -> None:
    """Memory that reading networks adds to the daemon; all of pyroute2 would add 20 MB."""
    program = """
import ctypes, gc, sys
def rss():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Rss:"))
import tracer.daemon.daemon
rss()
before = rss()
from tracer.identity.network import NetworkNamespaces
from tracer.records.owner import Interface
NetworkNamespaces().snapshot("/proc/self/ns/net")
print(rss() - before, "pyroute2" in sys.modules, "asyncio" in sys.modules)
"""
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.split()
    assert int(output[0]) < 5000, "KiB"
    assert output[1:] == ["False", "False"]
