# SPDX-License-Identifier: Apache-2.0
"""Declarations of libbpf's functions for ctypes.

Functions keep libbpf's names, under which its documentation has them.  libbpf 1.x reports an error by NULL or a
negative return value, and sets errno.
"""

import ctypes
import errno
import os
from ctypes import POINTER, c_bool, c_char_p, c_int, c_longlong, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any

from tracer.base.errors import EXIT_UNSUPPORTED, TracerError

PRINT_FN = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)


class MapCreateOptions(ctypes.Structure):
    """``struct bpf_map_create_opts``."""

    _fields_ = [
        ("sz", c_size_t),
        ("btf_fd", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
        ("map_extra", c_uint64),
        ("numa_node", c_uint32),
        ("map_ifindex", c_uint32),
    ]


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "libbpf_set_print": (c_void_p, [PRINT_FN]),
    "bpf_object__open_file": (c_void_p, [c_char_p, c_void_p]),
    "bpf_object__load": (c_int, [c_void_p]),
    "bpf_object__close": (None, [c_void_p]),
    "bpf_object__next_program": (c_void_p, [c_void_p, c_void_p]),
    "bpf_object__next_map": (c_void_p, [c_void_p, c_void_p]),
    "bpf_object__find_map_by_name": (c_void_p, [c_void_p, c_char_p]),
    "bpf_program__name": (c_char_p, [c_void_p]),
    "bpf_program__section_name": (c_char_p, [c_void_p]),
    "bpf_program__set_autoload": (c_int, [c_void_p, c_bool]),
    "bpf_program__fd": (c_int, [c_void_p]),
    "bpf_raw_tracepoint_open": (c_int, [c_char_p, c_int]),
    "bpf_link_create": (c_int, [c_int, c_int, c_int, c_void_p]),
    "bpf_obj_pin": (c_int, [c_int, c_char_p]),
    "bpf_obj_get": (c_int, [c_char_p]),
    "bpf_map__fd": (c_int, [c_void_p]),
    "bpf_map__name": (c_char_p, [c_void_p]),
    "bpf_map__type": (c_int, [c_void_p]),
    "bpf_map__key_size": (c_uint32, [c_void_p]),
    "bpf_map__value_size": (c_uint32, [c_void_p]),
    "bpf_map__map_flags": (c_uint32, [c_void_p]),
    "bpf_map__max_entries": (c_uint32, [c_void_p]),
    "bpf_map__set_max_entries": (c_int, [c_void_p, c_uint32]),
    "bpf_map__initial_value": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "bpf_map_create": (c_int, [c_int, c_char_p, c_uint32, c_uint32, c_uint32, c_void_p]),
    "bpf_map_update_elem": (c_int, [c_int, c_void_p, c_void_p, c_uint64]),
    "bpf_map_lookup_elem": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_map_delete_elem": (c_int, [c_int, c_void_p]),
    "libbpf_num_possible_cpus": (c_int, []),
    "btf__load_vmlinux_btf": (c_void_p, []),
    "btf__free": (None, [c_void_p]),
    "btf__find_by_name_kind": (c_int, [c_void_p, c_char_p, c_uint32]),
    "btf__type_by_id": (c_void_p, [c_void_p, c_uint32]),
    "btf__name_by_offset": (c_char_p, [c_void_p, c_uint32]),
    "btf__resolve_size": (c_longlong, [c_void_p, c_uint32]),
}

_library: ctypes.CDLL | None = None


def library() -> ctypes.CDLL:
    """Return libbpf, loaded at first use.

    Raises TracerError (exit code 3) if it is not installed.
    """
    global _library
    if _library is None:
        try:
            loaded = ctypes.CDLL("libbpf.so.1", use_errno=True)
        except OSError as error:
            raise TracerError(
                f"cannot load libbpf 1.x ({error})",
                "install it: apt install libbpf1 (Debian, Ubuntu), dnf install libbpf (Fedora, RHEL)",
                EXIT_UNSUPPORTED,
            ) from error
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
        loaded.libbpf_set_print(PRINT_FN())  # no messages on stderr; errors are returned
        _library = loaded
    return _library


def last_error() -> OSError:
    """The OSError for the errno of the libbpf call that has just failed."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number) if number else "unknown error")


def lacks_privilege(error: OSError) -> bool:
    """Whether the call failed for lack of a capability."""
    return error.errno in (errno.EPERM, errno.EACCES)
