# SPDX-License-Identifier: Apache-2.0
"""Who sends SIGKILL, by what sigkill records tell of the sender."""

from typing import Literal

from tracer.event import Sigkill

KillerKind = Literal[
    "kernel", "inside", "container", "systemd-oomd", "oom_daemon", "kubelet", "runtime", "systemd", "shell", "other"
]

_OOM_DAEMONS = frozenset({"earlyoom", "nohang", "oomd"})
_RUNTIMES = ("runc", "crun", "containerd", "dockerd", "conmon", "podman", "crio", "lxc", "youki")
_SHELLS = frozenset(
    {"sh", "bash", "dash", "ash", "zsh", "fish", "ksh", "busybox", "kill", "pkill", "killall", "sudo", "timeout"}
)
"""What sends it for a human or a script."""


def kind_of(kill: Sigkill) -> KillerKind:
    """A process in a container may call itself as it likes, so its name counts on the host only."""
    sender = kill["sender"]
    if sender is None:
        return "other" if kill.get("from_kernel", True) is None else "kernel"  # records of earlier versions do not say
    if sender["container"] is not None:
        own = kill["container"]
        return "inside" if own is not None and own["id"] == sender["container"]["id"] else "container"
    name = sender["comm"]
    unit = sender["systemd"]["unit"] if sender["systemd"] is not None else None
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
