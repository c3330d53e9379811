# SPDX-License-Identifier: Apache-2.0
"""Kind of sender of a SIGKILL."""

from typing import Literal

from tracer.records.model import Sigkill
from tracer.records.owner import owner_of, user_manager_uid

KillerKind = Literal[
    "kernel", "inside", "container", "systemd-oomd", "oom_daemon", "kubelet", "runtime", "systemd", "shell", "other"
]

_OOM_DAEMONS = frozenset({"earlyoom", "nohang", "oomd"})
_RUNTIMES = ("runc", "crun", "containerd", "dockerd", "conmon", "podman", "crio", "lxc", "youki")
_SHELLS = frozenset(
    {"sh", "bash", "dash", "ash", "zsh", "fish", "ksh", "busybox", "kill", "pkill", "killall", "sudo", "timeout"}
)
"""Programs that send SIGKILL for a person or a script."""


def killer_kind(kill: Sigkill) -> KillerKind:
    """The kind of sender.  Processes of containers and users choose their names: only those of the host are trusted."""
    sender = kill["sender"]
    if sender is None:
        return "other" if kill.get("from_kernel", True) is None else "kernel"  # records of earlier versions do not say
    owner, own = owner_of(sender), owner_of(kill)
    if owner.container is not None:
        return "inside" if own.container is not None and own.container["id"] == owner.container["id"] else "container"
    name = sender["comm"]
    unit = owner.systemd["unit"] if owner.systemd is not None else None
    if user_manager_uid(owner) is not None and sender["uid"] != 0:
        return "shell" if name in _SHELLS else "other"
    if name == "systemd-oomd" or unit == "systemd-oomd.service":
        return "systemd-oomd"
    if name in _OOM_DAEMONS:
        return "oom_daemon"
    if name == "kubelet":
        return "kubelet"
    if name.startswith(_RUNTIMES):
        return "runtime"
    if name == "systemd":
        return "systemd"
    return "shell" if name in _SHELLS else "other"
