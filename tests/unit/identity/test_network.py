# SPDX-License-Identifier: Apache-2.0
"""network.py: the cache, and the error if pyroute2 is missing; tests/kernel reads real namespaces."""

import importlib
import importlib.util
import os
import sys
import threading
import time

import orjson
import pytest

from tests.harness.lines import wait_for
from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.identity import interface_cache, network
from tracer.identity.interface_cache import InterfaceCache
from tracer.identity.network import READ_TIMEOUT_S, NetworkNamespaces, _Entry
from tracer.linux import cgroupfs
from tracer.records.owner import Interface

ETH0: Interface = {"name": "eth0", "mac_address": "02:42:ac:11:00:02", "ip_addresses": ["172.17.0.2/16"]}


COOKIE = 4097


@pytest.fixture
def namespaces(monkeypatch: pytest.MonkeyPatch) -> NetworkNamespaces:
    """Without mounted handles."""
    monkeypatch.setattr(network, "HANDLES", ())
    return NetworkNamespaces()


def entry(*interfaces: Interface, cookie: int | None = COOKIE) -> _Entry:
    return _Entry(cookie, orjson.dumps(interfaces))


def test_remembered(namespaces: NetworkNamespaces) -> None:
    """A cached namespace is returned repeatedly."""
    namespaces._store(1, entry(ETH0))
    assert [ETH0] == namespaces.look_up(1, cookie=COOKIE) == namespaces.look_up(1, cookie=COOKIE)
    assert namespaces.look_up(2, cookie=COOKIE) is None
    namespaces.forget(1)
    namespaces.forget(1)
    assert namespaces.look_up(1, cookie=COOKIE) is None
    assert namespaces._bytes == 0


def test_another_of_that_number(namespaces: NetworkNamespaces) -> None:
    """An entry with another cookie, or without one, is not used."""
    namespaces._store(1, entry(ETH0))
    assert namespaces.look_up(1, cookie=COOKIE + 1) is None
    assert namespaces.look_up(1) is None
    assert namespaces.look_up(1, cookie=COOKIE) == [ETH0]
    namespaces._store(2, entry(ETH0, cookie=None))
    assert namespaces.look_up(2, cookie=COOKIE) is None
    assert namespaces.look_up(2) is None


def test_empty(namespaces: NetworkNamespaces) -> None:
    """An empty entry is not used: the interfaces may have been created after the read."""
    namespaces._store(1, entry())
    assert namespaces.look_up(1, cookie=COOKIE) is None


def test_oldest_is_forgotten(namespaces: NetworkNamespaces) -> None:
    """The least recently read entry is dropped first."""
    for inode in range(network.ENTRIES_MAX):
        namespaces._store(inode, entry(ETH0))
    namespaces._store(0, entry(ETH0))
    namespaces._store(network.ENTRIES_MAX, entry(ETH0))
    assert namespaces.look_up(1, cookie=COOKIE) is None
    assert namespaces.look_up(0, cookie=COOKIE) == [ETH0]
    assert len(namespaces._entries) == network.ENTRIES_MAX


def test_large_ones_are_forgotten(namespaces: NetworkNamespaces) -> None:
    """Containers with many addresses do not fill the memory."""
    addresses = ["2001:db8:1111:2222:3333:4444:5555:6666/128"] * network.ADDRESSES_MAX
    interface: Interface = {"name": "eth0", "mac_address": None, "ip_addresses": addresses}
    large = entry(*[interface] * network.INTERFACES_MAX)
    for inode in range(network.ENTRIES_MAX):
        namespaces._store(inode, large)
    assert network.BYTES_MAX - len(large.interfaces) < namespaces._bytes <= network.BYTES_MAX
    assert namespaces._bytes == sum(len(each.interfaces) for each in namespaces._entries.values())


def test_no_rights(namespaces: NetworkNamespaces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the privilege to enter a namespace nothing is read."""
    monkeypatch.setattr(namespaces, "_setns", lambda *_: -1)
    assert namespaces.snapshot("/proc/self/ns/net") is None


def test_without_pyroute2(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the package to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(TracerError, match="pipx inject oomtrace pyroute2") as caught:
        NetworkNamespaces()
    assert caught.value.exit_code == EXIT_USAGE


def test_another_pyroute2(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pyroute2 with other modules is the same error, and no module stays imported."""

    def fail(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(TracerError, match="cannot use pyroute2") as caught:
        NetworkNamespaces()
    assert caught.value.exit_code == EXIT_USAGE
    assert "pyroute2" not in sys.modules


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cgroups named like containers, with long paths, do not fill the memory."""
    monkeypatch.setattr(interface_cache, "WAITING_BYTES_MAX", 50_000)
    monkeypatch.setattr(interface_cache, "VISIT_DELAYS_S", (0.0, 0.1))
    monkeypatch.setattr(cgroupfs, "first_process", lambda *_: None)
    spaces = NetworkNamespaces()
    visited = InterfaceCache(spaces, spaces.read)
    for number in range(1000):
        visited.prefetch(f"{'/x' * 1000}/docker-{number:064x}.scope")
        assert visited._waiting_bytes <= 50_000
        assert sum(len(path or "") for _, _, path in list(visited._waiting)) <= 52_100
    wait_for(lambda: not visited._waiting)
    assert visited._waiting_bytes == 0


def test_dear_ones_are_bounded(namespaces: NetworkNamespaces, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last SLOW_MAX slow namespaces are kept."""
    monkeypatch.setattr(network, "SLOW_S", -1.0)
    monkeypatch.setattr(network, "SLOW_MAX", 10)
    for number in range(30):
        assert namespaces.look_up(number) is None
    assert list(namespaces._not_before_s) == list(range(20, 30))


def test_late(namespaces: NetworkNamespaces, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that blocks in the kernel is abandoned after READ_TIMEOUT_S; no other starts until it ends."""
    may = threading.Event()
    visits: list[int] = []

    def setns(_descriptor: int, _kind: int) -> int:  # as in rtnl_lock()
        visits.append(1)
        may.wait()
        return 0

    monkeypatch.setattr(namespaces, "_setns", setns)
    for least_s, most_s in ((READ_TIMEOUT_S, 20.0), (0.0, READ_TIMEOUT_S)):
        began_s = time.monotonic()
        assert namespaces.snapshot(os.getpid()) is None
        assert least_s <= time.monotonic() - began_s < most_s
    assert len(visits) == 1
    may.set()
