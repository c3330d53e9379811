# SPDX-License-Identifier: Apache-2.0
"""Reads the interfaces and addresses of network namespaces, which are identified by inode number.

They can be read only from inside, and entered only through a process, or through a handle that a runtime has mounted.
So the interfaces of a running container are cached.  A thread enters the namespace and ends there: it never has to
return, which could fail, and nothing keeps the namespace alive.
"""

import ctypes
import importlib
import importlib.util
import os
import socket
import struct
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import orjson

from tracer.base import threads
from tracer.base.errors import EXIT_USAGE, TracerError
from tracer.base.extras import install_hint
from tracer.records.owner import Interface

READ_TIMEOUT_S = 0.2
SLOW_S, REREAD_FACTOR = 0.02, 50
"""A namespace that takes longer than SLOW_S is not read again for REREAD_FACTOR times that: it takes at most 2 % of the
time."""
SLOW_MAX = 1024
"""Maximum number of slow namespaces with a time of their next read."""
ENTRIES_MAX = 4096
BYTES_MAX = 2 << 20
"""Maximum size of the cache: a container may have thousands of interfaces and addresses."""
INTERFACES_MAX = 16
ADDRESSES_MAX = 16
"""Per interface."""
HANDLES = ("/run/netns", "/run/docker/netns", "/var/run/netns", "/var/run/docker/netns")
"""Directories where runtimes and CNI mount handles; /var/run is mostly a link to /run."""

_CLONE_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence number, port
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP, _NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
_RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_GETADDR = 16, 18, 20, 22
_RTEXT_FILTER_SKIP_STATS = 8
_RECEIVE_BYTES = 1 << 16
_RECEIVES_MAX = 64
_IFF_LOOPBACK = 0x8
_ARPHRD_ETHER = 1
_FALLBACK_TYPES = frozenset({768, 769, 776, 778, 823})
"""tunl0, ip6tnl0, sit0, gre0, ip6gre0: in every namespace if the host has loaded the module."""


NamespaceContents = tuple[int, int | None, str]
"""Inode number, cookie, interfaces as JSON."""
ReadNamespace = Callable[[str, int | None], NamespaceContents | None]


class _Entry(NamedTuple):
    cookie: int | None
    interfaces: bytes
    """JSON: 150 bytes instead of 900."""


class _Messages(NamedTuple):
    """pyroute2's classes for rtnetlink messages."""

    link: type[Any]
    address: type[Any]


class NetworkNamespaces:
    """Cache of network namespaces, for one thread at a time.  It keeps no descriptor open and no thread alive.

    ``read_remotely`` does what ``read`` does; a reader process may replace it.

    Raises TracerError (exit code 2) if pyroute2 is missing.
    """

    def __init__(self) -> None:
        self.read_remotely: ReadNamespace = self.read
        messages = _import_messages()
        self._messages = messages
        self._links = _request(messages.link, _RTM_GETLINK, [("IFLA_EXT_MASK", _RTEXT_FILTER_SKIP_STATS)])
        self._addresses = _request(messages.address, _RTM_GETADDR, [])
        self._setns = ctypes.CDLL(None, use_errno=True).setns
        self._nsfs = os.stat("/proc/self/ns/net").st_dev
        self._entries: dict[int, _Entry] = {}  # oldest first
        self._bytes = 0
        self._not_before_s: dict[int, float] = {}
        """Time of the next read of slow namespaces, by inode (CLOCK_MONOTONIC)."""
        self._thread: threading.Thread | None = None

    def snapshot(self, handle: str | int) -> int | None:
        """Read the namespace of a pid, or of a path, into the cache, and return its inode number.

        None: it no longer exists, or could not be read within READ_TIMEOUT_S.
        """
        return self._snapshot(handle, None)

    def look_up(self, inode: int, pids: Iterable[int] = (), cookie: int = 0) -> list[Interface] | None:
        """The interfaces, read through one of the pids or a mounted handle, or else from the cache; None: unknown.

        The kernel reuses inode numbers, but not ``cookie`` (``net->net_cookie``), so the cache requires it.  0: the
        kernel has none.
        """
        if not self._read_now(inode, pids):
            entry = self._entries.get(inode)
            # An empty namespace may have been read too early.
            if entry is None or not cookie or entry.cookie != cookie or entry.interfaces == b"[]":
                return None
        interfaces: list[Interface] = orjson.loads(self._entries[inode].interfaces)
        return interfaces

    def _read_now(self, inode: int, pids: Iterable[int]) -> bool:
        began_s = time.monotonic()
        if began_s < self._not_before_s.get(inode, 0.0):
            return False
        handle = self._find_handle(inode, pids)
        is_read = handle is not None and self._snapshot(handle, inode) is not None
        now_s = time.monotonic()
        self._not_before_s.pop(inode, None)
        if now_s - began_s > SLOW_S:
            self._not_before_s[inode] = now_s + REREAD_FACTOR * (now_s - began_s)
            if len(self._not_before_s) > SLOW_MAX:
                del self._not_before_s[next(iter(self._not_before_s))]
        return is_read

    def forget(self, inode: int) -> None:
        """Drop a namespace that has ended from the cache."""
        entry = self._entries.pop(inode, None)
        if entry is not None:
            self._bytes -= len(entry.interfaces)

    def _snapshot(self, handle: str | int, expected: int | None) -> int | None:
        path = f"/proc/{handle}/ns/net" if isinstance(handle, int) else handle
        found = self.read_remotely(path, expected)
        if found is None:
            return None
        inode, cookie, interfaces = found
        self._store(inode, _Entry(cookie, interfaces.encode()))
        return inode

    def read(self, path: str, expected: int | None) -> NamespaceContents | None:
        """Read the namespace of a path; None: it is none, or has another inode number than expected."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            status = os.fstat(descriptor)
            if status.st_dev != self._nsfs or expected not in (None, status.st_ino):
                return None
            entry = self._read_in_thread(descriptor)
        finally:
            os.close(descriptor)
        return None if entry is None else (status.st_ino, entry.cookie, entry.interfaces.decode())

    def _store(self, inode: int, entry: _Entry) -> None:
        self.forget(inode)
        self._entries[inode] = entry
        self._bytes += len(entry.interfaces)
        while len(self._entries) > ENTRIES_MAX or self._bytes > BYTES_MAX:
            self.forget(next(iter(self._entries)))

    def _find_handle(self, inode: int, pids: Iterable[int]) -> str | int | None:
        found: int | None = next((pid for pid in pids if self._is_namespace(f"/proc/{pid}/ns/net", inode)), None)
        if found is not None:
            return found
        for folder in dict.fromkeys(map(os.path.realpath, HANDLES)):
            try:
                names = os.listdir(folder)
            except OSError:
                continue
            for name in names:
                if self._is_namespace(f"{folder}/{name}", inode):
                    return f"{folder}/{name}"
        return None

    def _is_namespace(self, path: str, inode: int) -> bool:
        try:
            status = os.stat(path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == (self._nsfs, inode)

    def _read_in_thread(self, descriptor: int) -> _Entry | None:
        """Read the namespace in a thread; None: it took READ_TIMEOUT_S, or an earlier thread still hangs."""
        if self._thread is not None and self._thread.is_alive():
            return None
        result: list[_Entry | Exception] = []
        try:
            entered = os.dup(descriptor)
        except OSError:  # no free descriptor
            return None
        thread = threads.start("netns", self._enter, entered, result)
        if thread is None:
            os.close(entered)
            return None
        thread.join(READ_TIMEOUT_S)
        # The thread may wait longer for the kernel's lock on all interfaces of the host (rtnl).
        self._thread = thread if thread.is_alive() else None
        return result[0] if result and isinstance(result[0], _Entry) else None

    def _enter(self, descriptor: int, result: list[_Entry | Exception]) -> None:
        deadline_s = time.monotonic() + READ_TIMEOUT_S
        try:
            try:
                if self._setns(descriptor, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(descriptor)
            result.append(_Entry(_cookie(), orjson.dumps(self._read(deadline_s))))
        except Exception as error:  # also pyroute2's: the namespace is untrusted
            result.append(error)

    def _read(self, deadline_s: float) -> list[Interface]:
        """The interfaces of this thread's namespace."""
        interfaces: dict[int, Interface] = {}
        fallbacks = set()
        for link in _dump(self._links, _RTM_NEWLINK, self._messages.link, deadline_s):
            if link["flags"] & _IFF_LOOPBACK:
                continue
            if len(interfaces) == INTERFACES_MAX:
                break
            ethernet = link["ifi_type"] == _ARPHRD_ETHER
            mac_address = link.get_attr("IFLA_ADDRESS") if ethernet else None
            interfaces[link["index"]] = {
                "name": _text(link.get_attr("IFLA_IFNAME")),
                "mac_address": mac_address if isinstance(mac_address, str) else None,
                "ip_addresses": [],
            }
            if link["ifi_type"] in _FALLBACK_TYPES:
                fallbacks.add(link["index"])
        if interfaces:
            for message in _dump(self._addresses, _RTM_NEWADDR, self._messages.address, deadline_s):
                interface = interfaces.get(message["index"])
                # for a point-to-point interface IFA_ADDRESS is the peer's
                address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                if interface is not None and address and len(interface["ip_addresses"]) < ADDRESSES_MAX:
                    interface["ip_addresses"].append(f"{address}/{message['prefixlen']}")
        return [
            interface for index, interface in interfaces.items() if interface["ip_addresses"] or index not in fallbacks
        ]


def _dump(request: bytes, kind: int, message: type[Any], deadline_s: float) -> Iterator[Any]:
    """Send a dump request, and yield its messages.  Its socket is its own, because the caller may not read all of them.

    Raises OSError if the kernel rejects the request, the interfaces change meanwhile, or ``deadline_s`` passes.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.sendto(request, (0, 0))
        for _ in range(_RECEIVES_MAX):
            netlink.settimeout(max(0.001, deadline_s - time.monotonic()))
            data = netlink.recv(_RECEIVE_BYTES)
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, received, flags, _, _ = _HEADER.unpack_from(data, offset)
                if flags & _NLM_F_DUMP_INTR:
                    raise OSError("interfaces changed during the dump")
                if received == _NLMSG_DONE:
                    return
                if received == _NLMSG_ERROR or length < _HEADER.size:
                    raise OSError("the kernel rejected the request")
                if received == kind:
                    decoded = message(data[offset : offset + length])
                    decoded.decode()
                    yield decoded
                offset += (length + 3) & ~3


def _cookie() -> int | None:
    """The kernel's cookie of this thread's namespace, which is never reused; None before Linux 5.14."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as own:
        try:
            return int.from_bytes(own.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)
        except OSError:
            return None


def _text(name: str | bytes | None) -> str:
    """Decode a name; pyroute2 returns bytes for invalid UTF-8."""
    return name.rstrip(b"\0").decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name or ""


def _request(message: type[Any], kind: int, attributes: list[tuple[str, int]]) -> bytes:
    request = message()
    request["header"]["type"] = kind
    request["header"]["flags"] = _NLM_F_REQUEST | _NLM_F_DUMP
    request["attrs"] = attributes
    request.encode()
    return bytes(request.data)


def _import_messages() -> _Messages:
    """Import pyroute2's messages only: 2.5 MB instead of 20 for the whole package."""
    spec = importlib.util.find_spec("pyroute2")
    if spec is None or not spec.submodule_search_locations:
        raise TracerError("--network needs pyroute2", install_hint("network"), EXIT_USAGE)
    bare = types.ModuleType("pyroute2")
    bare.__path__ = list(spec.submodule_search_locations)
    package = sys.modules.setdefault("pyroute2", bare)
    try:
        link = importlib.import_module("pyroute2.netlink.rtnl.ifinfmsg").ifinfmsg
        address = importlib.import_module("pyroute2.netlink.rtnl.ifaddrmsg").ifaddrmsg
    except (ImportError, AttributeError) as error:
        raise TracerError(f"--network cannot use pyroute2 ({error})", install_hint("network"), EXIT_USAGE) from error
    finally:
        if package is bare:  # a later import gets the real package
            del sys.modules["pyroute2"]
    return _Messages(link, address)
