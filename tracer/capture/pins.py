# SPDX-License-Identifier: Apache-2.0
"""A folder of a bpffs in which captures go on while no daemon runs, for the next one to adopt.

    PINS/v1-core-0123abcd/              one capture: layout of its events, engine, fingerprint of its programs
        events sigkills cgroups counters ...    maps
        link_0 link_1 ...                   what holds the programs in place
        about                               what the capture is; pinned last: without it the folder is half-made
    PINS/v1-core-0123abcd-briefs        maps that earlier versions, which may find the folder, take for damage in it
    PINS/v1-core-0123abcd-ended-42/     a capture that has ended, and was not read to its end yet

The kernel frees a map or a link when nothing holds it any more: no descriptor, no pin, and for a map no program.
A daemon holds a lock on the folder for as long as it lives, so that events have one reader.
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
"""What is called otherwise belongs to others.  A name in a bpffs may hold no dot."""
_MAP_ARRAY = 2
_MAP_TYPES = {"events": 27, "cgroups": 27, "sigkills": 27, "counters": _MAP_ARRAY, "cmdlines": 1, "briefs": 27,
              "paths": _MAP_ARRAY}  # fmt: skip
"""enum bpf_map_type in include/uapi/linux/bpf.h."""
_COMMON_MAPS = ("events", "counters")
"""What is asked of a capture of another version, which may lack the rest: how many events nobody can read."""
_SIDE_MAPS = ("briefs", "paths")
"""Maps that captures of earlier versions lack; they are pinned beside the folder."""
_ZERO = ctypes.byref(ctypes.c_uint32(0))


class CaptureInfo(TypedDict):
    """What a capture tells of itself; ``layout`` and ``version`` mean the same in every version of oomtrace."""

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
    """A capture that is pinned; descriptors of all that the folder holds."""

    folder: str
    about: CaptureInfo
    maps: dict[str, int]
    links: tuple[int, ...]

    def remove(self) -> None:
        """Unpin it.  The capture ends once the links are closed, too."""
        _try_to_remove_capture(self.folder)

    def close(self) -> None:
        """Close all descriptors."""
        for descriptor in (*self.maps.values(), *self.links):
            os.close(descriptor)


class Pins:
    """The folder, locked by this process until it ends.

    Raises TracerError where another process has locked it, and OSError, which tells what is wrong, where nothing can be
    pinned.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            in_bpffs = bpffs.filesystem_magic(path if os.path.exists(path) else os.path.dirname(os.path.abspath(path)))
        except OSError as error:
            raise OSError(error.errno, f"{path}: {os.strerror(error.errno or 0)}") from error
        if in_bpffs != bpffs.MAGIC:
            raise OSError(f"{path} is not in a bpffs (mount -t bpf bpf /sys/fs/bpf)")
        try:
            if not os.path.exists(path):
                os.mkdir(path, 0o700)
            self._lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise OSError(error.errno, f"{path}: {error.strerror}") from error
        owned = os.fstat(self._lock)
        if owned.st_uid != os.geteuid() or owned.st_mode & 0o022:  # a bpffs may let everybody make folders
            raise OSError(f"{path} can be written by others; remove it")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = os.path.samestat(os.fstat(self._lock), os.stat(path))
        except OSError:  # somebody has it, or has just removed it
            free = False
        if not free:
            os.close(self._lock)
            raise TracerError(
                f"another oomtrace reads what is pinned in {path}",
                "stop it first (systemctl stop oomtrace); oomtrace run --no-keep goes beside it",
            )

    def folder(self, engine: EngineName, fingerprint: str) -> str:
        """Where the capture of these programs belongs."""
        return f"{self.path}/v{EVENT_LAYOUT}-{engine}-{fingerprint}"

    def adopt(self, folder: str) -> PinnedCapture | None:
        """The capture in this folder, if it goes on there; one that is damaged is removed, or ended to be read."""
        if not os.path.lexists(folder):
            _remove_side_maps(folder)
            return None
        found = self._open(folder)
        if found is None:
            return None
        is_whole = found.maps.keys() == set(MAPS) and len(found.links) == len(found.about["hooks"])
        if found.about["layout"] != EVENT_LAYOUT or not is_whole:
            warn(f"the capture pinned in {folder} lacks programs or maps; it begins anew")
            self._end(found).close()
            return None
        return found

    def pin(self, folder: str, about: CaptureInfo, maps: dict[str, int], links: Sequence[Link]) -> PinnedCapture:
        """Make the capture outlive this process.

        Raises OSError where that cannot be; then nothing of it stays pinned.
        """
        told = orjson.dumps(about)
        if len(told) >= INFO_BYTES:
            raise OSError(f"what is to be told of the capture is too long ({len(told)} bytes)")
        for link in links:
            if not link.pinnable:
                raise OSError(f"this kernel cannot pin a {link.hook.kind} (Linux 5.15 and later can)")
        try:
            os.mkdir(folder, 0o700)
        except OSError as error:
            raise OSError(error.errno, f"{folder}: {error.strerror}") from error
        try:
            for name, descriptor in maps.items():
                bpffs.pin_object(descriptor, _pin_path(folder, name))
            for number, link in enumerate(links):
                bpffs.pin_object(link.descriptor, f"{folder}/link_{number}")
            description = _create_info_map(told)
            try:
                bpffs.pin_object(description, f"{folder}/about")
            finally:
                os.close(description)
        except BaseException:
            _remove_capture(folder)
            raise
        return PinnedCapture(folder, about, maps, tuple(link.descriptor for link in links))

    def end_others(self, folder: str) -> tuple[PinnedCapture, ...]:
        """End every capture but the one in this folder; those that can be read, for the caller to read and remove."""
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
        """End all captures, and take the folder away if nothing else is in it; their folders.

        Raises OSError where that is forbidden.
        """
        removed = [f"{self.path}/{name}" for name in self.captures()]
        for folder in removed:
            _remove_capture(folder)
        self._remove_strays()
        if not os.listdir(self.path):
            os.rmdir(self.path)
        return removed

    def _remove_strays(self) -> None:
        """What an earlier version has left beside a folder that it removed."""
        for folder, _, name in (name.rpartition("-") for name in os.listdir(self.path)):
            if name in _SIDE_MAPS and _CAPTURE_NAME.fullmatch(folder) and not os.path.lexists(f"{self.path}/{folder}"):
                _remove_side_maps(f"{self.path}/{folder}")

    def _open(self, folder: str) -> PinnedCapture | None:
        """The capture in a folder; None where that is damaged, and so was removed."""
        opened: list[int] = []

        def get(name: str) -> int:
            opened.append(libbpf.library().bpf_obj_get(os.fsencode(_pin_path(folder, name))))
            if opened[-1] < 0:
                opened.pop()
                error = libbpf.last_error()
                raise OSError(error.errno, f"{name}: {error.strerror}")
            return opened[-1]

        try:
            about = _read_info(get("about"))
            names = [name for name in MAPS if name not in _SIDE_MAPS or os.path.lexists(_pin_path(folder, name))]
            maps = {name: get(name) for name in (names if about["layout"] == EVENT_LAYOUT else _COMMON_MAPS)}
            for name, descriptor in maps.items():
                if read_map_info(descriptor).get("map_type") != str(_MAP_TYPES[name]):
                    raise ValueError(f"{name} is something else")
            links = [name for name in os.listdir(folder) if name not in (*MAPS, "about")]
            for name in links:
                if "link_id" not in read_map_info(get(name)):
                    raise ValueError(f"{name} does not belong there")
            os.close(opened.pop(0))  # about
        except (OSError, ValueError) as error:
            for descriptor in opened:
                os.close(descriptor)
            reason = error.strerror if isinstance(error, OSError) else error
            warn(f"the capture pinned in {folder} is damaged ({reason}) and is removed")
            _try_to_remove_capture(folder)
            return None
        return PinnedCapture(folder, about, maps, tuple(opened[len(maps) :]))

    def _end(self, capture: PinnedCapture) -> PinnedCapture:
        """Unpin its links; what it saw stays pinned until it is read.

        Renamed first: a folder of the old name would be expected to have its links.
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
            warn(f"the capture pinned in {capture.folder} cannot be ended ({error.strerror}); remove it by hand")
        return capture._replace(folder=folder)


def detach_captures(path: str) -> list[str]:
    """End all captures that are pinned in this folder; what was removed.

    Raises TracerError where a daemon still reads there, or what is pinned cannot be removed.
    """
    try:
        os.stat(path)
        return Pins(path).remove()
    except FileNotFoundError:
        return []
    except OSError as error:
        hint = "run it as root (sudo)" if libbpf.lacks_privilege(error) else "see: oomtrace detach --help"
        raise TracerError(f"cannot detach ({error.strerror or error})", hint) from error


def _create_info_map(told: bytes) -> int:
    """A map that holds nothing but these bytes."""
    library = libbpf.library()
    options = libbpf.MapCreateOptions(sz=ctypes.sizeof(libbpf.MapCreateOptions))
    made = library.bpf_map_create(_MAP_ARRAY, b"about", 4, INFO_BYTES, 1, ctypes.byref(options))
    if made < 0:
        raise libbpf.last_error()
    if library.bpf_map_update_elem(made, _ZERO, ctypes.create_string_buffer(told, INFO_BYTES), 0):
        error = libbpf.last_error()
        os.close(made)
        raise error
    return int(made)


def _read_info(descriptor: int) -> CaptureInfo:
    """Raises OSError or ValueError where that is no map of _describe(), or of one that is not understood."""
    info = read_map_info(descriptor)
    if (info.get("map_type"), info.get("value_size")) != (str(_MAP_ARRAY), str(INFO_BYTES)):
        raise ValueError("about is something else")
    told = ctypes.create_string_buffer(INFO_BYTES)
    if libbpf.library().bpf_map_lookup_elem(descriptor, _ZERO, told):
        raise libbpf.last_error()
    about: CaptureInfo = orjson.loads(told.value)
    if not isinstance(about, dict) or not isinstance(about.get("layout"), int):
        raise ValueError("about says nothing")
    if about["layout"] == EVENT_LAYOUT and not CaptureInfo.__annotations__.keys() <= about.keys():
        raise ValueError("about does not say all")
    return about


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
