# SPDX-License-Identifier: Apache-2.0
"""A directory in a bpffs where captures continue while no daemon runs, for the next daemon to adopt.

    PINS/v1-core-0123abcd/              one capture: layout of its events, engine, fingerprint of its programs
        events sigkills cgroups counters ...    maps
        link_0 link_1 ...                   links, which keep the programs attached
        about                               description; pinned last, so a directory without it is incomplete
    PINS/v1-core-0123abcd-briefs        maps beside the directory, because earlier versions would take them for damage
    PINS/v1-core-0123abcd-ended-42/     a capture that has ended and is not read to its end yet

The kernel frees a map or a link without references: descriptors, pins, and for a map programs.
A daemon locks the directory for its lifetime, because a ring buffer has one reader.
"""

import contextlib
import ctypes
import fcntl
import os
import re
import time
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import orjson

from tracer.base.errors import TracerError
from tracer.base.log import warn
from tracer.capture.programs import MAPS, EngineName, Link, read_map_info
from tracer.capture.wire import EVENT_LAYOUT
from tracer.linux import bpffs, libbpf
from tracer.records.model import Source

INFO_BYTES = 4096

_CAPTURE_NAME = re.compile(r"v[0-9]+-[a-z]+-[0-9a-f]{8}(-ended-[0-9]+)?")
"""Other names in the directory are not oomtrace's.  A name in a bpffs has no dot."""
_MAP_ARRAY = 2
_MAP_TYPES = {"events": 27, "cgroups": 27, "sigkills": 27, "counters": _MAP_ARRAY, "cmdlines": 1, "briefs": 27,
              "paths": _MAP_ARRAY}  # fmt: skip
"""enum bpf_map_type in include/uapi/linux/bpf.h."""
_COMMON_MAPS = ("events", "counters")
"""Maps read of a capture of another version, which may lack the others: to count the events that cannot be read."""
_SIDE_MAPS = ("briefs", "paths")
"""Maps that captures of earlier versions lack; pinned beside the directory."""
_ZERO = ctypes.byref(ctypes.c_uint32(0))


class CaptureInfo(TypedDict):
    """The description of a capture; ``layout`` and ``version`` mean the same in every version of oomtrace."""

    layout: int
    version: str
    engine: EngineName
    fingerprint: str
    source: Source
    scores: bool
    hooks: list[tuple[str, str, str]]
    since_ns: int
    """CLOCK_BOOTTIME when all of its programs were attached."""


class PinnedCapture(NamedTuple):
    """A pinned capture, with descriptors of its maps (by name) and links."""

    folder: str
    info: CaptureInfo
    maps: dict[str, int]
    links: tuple[int, ...]

    def remove(self) -> None:
        """Unpin the capture.  It ends once its links are also closed."""
        _try_to_remove_capture(self.folder)

    def close(self) -> None:
        """Close all descriptors."""
        for descriptor in (*self.maps.values(), *self.links):
            os.close(descriptor)


class Pins:
    """The directory of pins, locked by this process until it ends.

    Raises TracerError if another process has locked it, OSError if nothing can be pinned there.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            in_bpffs = bpffs.filesystem_magic(path if os.path.exists(path) else os.path.dirname(os.path.abspath(path)))
        except OSError as error:
            raise OSError(error.errno, f"{path}: {os.strerror(error.errno or 0)}") from error
        if in_bpffs != bpffs.MAGIC:
            raise OSError(f"{path} is not in a bpffs; mount one: mount -t bpf bpf /sys/fs/bpf")
        try:
            if not os.path.exists(path):
                os.mkdir(path, 0o700)
            self._lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise OSError(error.errno, f"{path}: {error.strerror}") from error
        owned = os.fstat(self._lock)
        if owned.st_uid != os.geteuid() or owned.st_mode & 0o022:  # a bpffs may be writable for all users
            raise OSError(f"{path} is owned or writable by another user; remove it")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            has_lock = os.path.samestat(os.fstat(self._lock), os.stat(path))
        except OSError:  # locked, or removed just now
            has_lock = False
        if not has_lock:
            os.close(self._lock)
            raise TracerError(
                f"another oomtrace uses the capture pinned in {path}",
                "stop it first (systemctl stop oomtrace), or run a second one with: oomtrace run --no-keep",
            )

    def folder(self, engine: EngineName, fingerprint: str) -> str:
        """The directory for a capture of these programs."""
        return f"{self.path}/v{EVENT_LAYOUT}-{engine}-{fingerprint}"

    def adopt(self, folder: str) -> PinnedCapture | None:
        """The capture that continues in this directory, or None; a damaged one is removed, or ended to be read."""
        if not os.path.lexists(folder):
            _remove_side_maps(folder)
            return None
        found = self._open(folder)
        if found is None:
            return None
        is_complete = found.maps.keys() == set(MAPS) and len(found.links) == len(found.info["hooks"])
        if found.info["layout"] != EVENT_LAYOUT or not is_complete:
            warn(f"the capture pinned in {folder} lacks programs or maps; starting a new one")
            self._end(found).close()
            return None
        return found

    def pin(self, folder: str, info: CaptureInfo, maps: dict[str, int], links: Sequence[Link]) -> PinnedCapture:
        """Pin the capture, so that it outlives this process.

        Raises OSError if it cannot be pinned; then none of it stays pinned.
        """
        description = orjson.dumps(info)
        if len(description) >= INFO_BYTES:
            raise OSError(f"the description of the capture is too long ({len(description)} bytes)")
        for link in links:
            if not link.pinnable:
                raise OSError(f"this kernel cannot pin a {link.hook.kind} (requires Linux 5.15)")
        try:
            os.mkdir(folder, 0o700)
        except OSError as error:
            raise OSError(error.errno, f"{folder}: {error.strerror}") from error
        try:
            for name, descriptor in maps.items():
                bpffs.pin_object(descriptor, _pin_path(folder, name))
            for number, link in enumerate(links):
                bpffs.pin_object(link.descriptor, f"{folder}/link_{number}")
            info_map = _create_info_map(description)
            try:
                bpffs.pin_object(info_map, f"{folder}/about")
            finally:
                os.close(info_map)
        except BaseException:
            _remove_capture(folder)
            raise
        return PinnedCapture(folder, info, maps, tuple(link.descriptor for link in links))

    def end_others(self, folder: str) -> tuple[PinnedCapture, ...]:
        """End all captures except the one in this directory; returns those that can be read, to be read and removed."""
        others = []
        self._remove_strays()
        for name in self.captures():
            if f"{self.path}/{name}" == folder:
                continue
            found = self._open(f"{self.path}/{name}")
            if found is None:
                continue
            if "-ended-" not in name:
                found = self._end(found)
            for link in found.links:
                os.close(link)
            others.append(found._replace(links=()))
        return tuple(others)

    def captures(self) -> list[str]:
        """The names of the captures that are pinned."""
        return sorted(name for name in os.listdir(self.path) if _CAPTURE_NAME.fullmatch(name))

    def remove(self) -> list[str]:
        """End all captures, and remove the directory if nothing else is in it; returns the captures' directories.

        Raises OSError if one cannot be removed.
        """
        removed = [f"{self.path}/{name}" for name in self.captures()]
        for folder in removed:
            _remove_capture(folder)
        self._remove_strays()
        if not os.listdir(self.path):
            os.rmdir(self.path)
        return removed

    def _remove_strays(self) -> None:
        """Remove maps that an earlier version has left beside a directory that it removed."""
        for folder, _, name in (name.rpartition("-") for name in os.listdir(self.path)):
            if name in _SIDE_MAPS and _CAPTURE_NAME.fullmatch(folder) and not os.path.lexists(f"{self.path}/{folder}"):
                _remove_side_maps(f"{self.path}/{folder}")

    def _open(self, folder: str) -> PinnedCapture | None:
        """Open the capture in a directory; a damaged one is removed, and None returned."""
        opened: list[int] = []

        def get(name: str) -> int:
            opened.append(libbpf.library().bpf_obj_get(os.fsencode(_pin_path(folder, name))))
            if opened[-1] < 0:
                opened.pop()
                error = libbpf.last_error()
                raise OSError(error.errno, f"{name}: {error.strerror}")
            return opened[-1]

        try:
            info = _read_info(get("about"))
            names = [name for name in MAPS if name not in _SIDE_MAPS or os.path.lexists(_pin_path(folder, name))]
            maps = {name: get(name) for name in (names if info["layout"] == EVENT_LAYOUT else _COMMON_MAPS)}
            for name, descriptor in maps.items():
                if read_map_info(descriptor).get("map_type") != str(_MAP_TYPES[name]):
                    raise ValueError(f"{name} has another type")
            links = [name for name in os.listdir(folder) if name not in (*MAPS, "about")]
            for name in links:
                if "link_id" not in read_map_info(get(name)):
                    raise ValueError(f"{name} is not a link")
            os.close(opened.pop(0))  # about
        except (OSError, ValueError) as error:
            for descriptor in opened:
                os.close(descriptor)
            reason = error.strerror if isinstance(error, OSError) else error
            warn(f"the capture pinned in {folder} is damaged ({reason}); removing it")
            _try_to_remove_capture(folder)
            return None
        return PinnedCapture(folder, info, maps, tuple(opened[len(maps) :]))

    def _end(self, capture: PinnedCapture) -> PinnedCapture:
        """Unpin the links; the maps stay pinned until they are read.

        The directory is renamed first, because one of the old name is expected to have links.
        """
        folder = f"{capture.folder}-ended-{time.monotonic_ns()}"
        try:
            os.rename(capture.folder, folder)
            for name in _SIDE_MAPS:
                with contextlib.suppress(FileNotFoundError):
                    os.rename(_pin_path(capture.folder, name), _pin_path(folder, name))
            for name in os.listdir(folder):
                if name.startswith("link_"):
                    os.unlink(f"{folder}/{name}")
        except OSError as error:
            warn(f"the capture pinned in {capture.folder} cannot be ended ({error.strerror}); remove that directory")
        return capture._replace(folder=folder)


def detach_captures(path: str) -> list[str]:
    """End all captures pinned in this directory; returns the directories removed.

    Raises TracerError if a daemon uses the directory, or a capture cannot be removed.
    """
    try:
        os.stat(path)
        return Pins(path).remove()
    except FileNotFoundError:
        return []
    except OSError as error:
        hint = "run oomtrace as root (sudo)" if libbpf.lacks_privilege(error) else "see: oomtrace detach --help"
        raise TracerError(f"cannot remove the captures pinned in {path} ({error.strerror or error})", hint) from error


def _create_info_map(description: bytes) -> int:
    """A map of one element, which holds these bytes."""
    library = libbpf.library()
    options = libbpf.MapCreateOptions(sz=ctypes.sizeof(libbpf.MapCreateOptions))
    descriptor = library.bpf_map_create(_MAP_ARRAY, b"about", 4, INFO_BYTES, 1, ctypes.byref(options))
    if descriptor < 0:
        raise libbpf.last_error()
    if library.bpf_map_update_elem(descriptor, _ZERO, ctypes.create_string_buffer(description, INFO_BYTES), 0):
        error = libbpf.last_error()
        os.close(descriptor)
        raise error
    return int(descriptor)


def _read_info(descriptor: int) -> CaptureInfo:
    """The contents of a map of _create_info_map(); raises OSError or ValueError if it is another map or not valid."""
    properties = read_map_info(descriptor)
    if (properties.get("map_type"), properties.get("value_size")) != (str(_MAP_ARRAY), str(INFO_BYTES)):
        raise ValueError("about has another type")
    description = ctypes.create_string_buffer(INFO_BYTES)
    if libbpf.library().bpf_map_lookup_elem(descriptor, _ZERO, description):
        raise libbpf.last_error()
    info: CaptureInfo = orjson.loads(description.value)
    if not isinstance(info, dict) or not isinstance(info.get("layout"), int):
        raise ValueError("about has no layout")
    if info["layout"] == EVENT_LAYOUT and not CaptureInfo.__annotations__.keys() <= info.keys():
        raise ValueError("about lacks fields")
    return info


def _pin_path(folder: str, name: str) -> str:
    return f"{folder}-{name}" if name in _SIDE_MAPS else f"{folder}/{name}"


def _remove_side_maps(folder: str) -> None:
    for name in _SIDE_MAPS:
        with contextlib.suppress(OSError):
            os.unlink(_pin_path(folder, name))


def _remove_capture(folder: str) -> None:
    bpffs.remove_pins(folder)
    _remove_side_maps(folder)


def _try_to_remove_capture(folder: str) -> None:
    bpffs.try_remove_pins(folder)
    _remove_side_maps(folder)
