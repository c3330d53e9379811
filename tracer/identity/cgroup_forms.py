# SPDX-License-Identifier: Apache-2.0
"""Forms of cgroup paths: what container managers call the cgroups that they create.

A new form is one entry of FORMS, with a path that has it.  Tests parse each entry's example.

Few managers document their paths.  The table follows paths from real hosts and kernel logs; the sources of
hashicorp/nomad (``client/lib/cgroupslib``) and cloudfoundry/bpm-release (``jobid``); and the parser tests of
cilium/tetragon, coroot-node-agent, falcosecurity/plugins, netdata, google/cadvisor, grafana/beyla,
opentelemetry-ebpf-profiler, DataDog/dd-trace-go and elastic/apm.  Where these disagree, a comment gives the reason for
the choice.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, cast

Kind = Literal["container", "kubepods", "pod", "group", "other"]
"""What the cgroup holds, and the groups of the pattern.

``container``: one container; its id and, if the path has one, its name.
``kubepods``: the kubelet's tree down to a pod at most; QoS level and pod uid.
``pod``: one Kubernetes pod; QoS level and pod uid.
``group``: the containers of one podman pod or ECS task; no groups.
``other``: anything else; no groups.
"""


class Form(NamedTuple):
    kind: Kind
    runtime: str | None
    """None: the path does not show the runtime."""
    pattern: str
    """Matches one or several whole components.  It must take linear time on any input: no two unbounded repeats that
    can match the same characters."""
    example: str
    """A path that contains this form."""


class Component(NamedTuple):
    """One or several directories of a path that match one form."""

    form: Form
    groups: tuple[str | None, ...]
    name: str
    is_first: bool
    is_directory: bool
    """Whether it is one whole directory; otherwise systemd has not created it."""


_HEX64 = r"[0-9a-f]{64}"
# BuildKit generates its own ids: 25 digits in base 36.
_BASE36 = r"[0-9a-z]{25}"
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_TASK = rf"(?:[0-9a-f]{{32}}|{_UUID})"
# The uid of an API pod is a UUID, with "_" for "-" under the systemd driver; that of a static pod is the MD5 of its
# configuration.
_POD_UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"
# Below kubepods only the kubelet creates directories, and a static pod's manifest may set any uid.
_ANY_UID = r"[0-9A-Za-z._-]{1,128}"
_QOS = r"besteffort|burstable"
# A name that is also the id: both groups match it.
_NAME = r"(([^/]+))"

_ID = "5aaf9eb7648eeb1459d86eaa0ace8bcfa93089642e5c3113a14250dae3238aaf"
_UID = "897277d4-5e6f-4999-a976-b8340e8d075e"

FORMS: tuple[Form, ...] = (
    # docker/ID, docker-ID.scope, and SLICE:docker:ID if runc without systemd is given a path in systemd's syntax.
    Form("container", "docker", rf"docker[-:/]({_HEX64})(?:\.scope)?", f"/system.slice/docker-{_ID}.scope"),
    Form(
        "container",
        "containerd",
        rf"(?:cri-containerd|nerdctl)[-:]({_HEX64})(?:\.scope)?",
        f"/system.slice/nerdctl-{_ID}.scope",
    ),
    Form("container", "cri-o", rf"crio[-:]({_HEX64})(?:\.scope)?", f"/kubepods/besteffort/pod{_UID}/crio-{_ID}.scope"),
    # libpod-payload is `--cgroups=split`: quadlets and cephadm keep the container below their own service.
    Form(
        "container",
        "podman",
        rf"libpod(?:-payload)?[-:]({_HEX64})(?:\.scope)?",
        f"/machine.slice/libpod-{_ID}.scope/container",
    ),
    Form(
        "container",
        "buildkit",
        rf"(?:docker[-:/]|buildkit[-:/])({_BASE36})(?:\.scope)?",
        "/docker/buildkit/n4eu0udvbz9vfzjy71jkvgkwh",
    ),
    Form("container", "lxc", rf"lxc(?:\.payload[./]|/){_NAME}", "/lxc.payload.web"),
    Form("container", "libvirt-lxc", rf"libvirt/lxc/{_NAME}", "/libvirt/lxc/web"),
    Form("container", "libvirt-lxc", rf"{_NAME}\.libvirt-lxc", "/machine/web.libvirt-lxc"),
    Form(
        "container",
        "libvirt-lxc",
        rf"machine-lxc\\x2d(?:[0-9]+\\x2d)?{_NAME}\.scope",
        r"/machine.slice/machine-lxc\x2d969\x2dweb.scope",
    ),
    Form(
        "container", "systemd-nspawn", rf"systemd-nspawn@{_NAME}\.service", "/machine.slice/systemd-nspawn@web.service"
    ),
    # Virtual machines (machine-qemu\x2d1\x2dNAME.scope, qemu.slice/101.scope on Proxmox) are not containers.
    Form(
        "container",
        "systemd-nspawn",
        rf"(?<=/machine\.slice/)machine-(?!qemu\\x2d){_NAME}\.scope",
        "/machine.slice/machine-web.scope/payload",
    ),
    # The ECS agent starts containers with Docker; on Fargate the path does not show the runtime.
    Form("container", "docker", rf"ecs/{_TASK}/({_HEX64})", f"/ecs/55091c13-b8cf-4801-b527-f4601742204d/{_ID}"),
    Form(
        "container",
        "ecs",
        rf"ecs/(?:{_TASK}/)?([0-9a-f]{{32}}-[0-9]{{1,20}})",
        "/ecs/34dc0b5e626f2c5c4c5170e34b10e765-1234567890",
    ),
    # Garden shortens its UUIDs to 8-4-4-4-4 digits.
    Form(
        "container",
        "garden",
        r"garden/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{4,12})",
        "/system.slice/garden.service/garden/6f265890-5165-7fab-6b52-18d1",
    ),
    # An allocation holds several tasks, so the id includes the task.
    Form(
        "container",
        "nomad",
        rf"(?:(?<=/share\.slice/)|(?<=/reserve\.slice/))({_UUID}\.([^/]+))\.scope",
        "/nomad.slice/share.slice/8a2f1c3e-0b7d-4f7a-9d55-3f1d2a9c6b10.web.scope",
    ),
    Form("container", "nomad", rf"nomad/({_UUID}\.([^/]+))", "/nomad/8a2f1c3e-0b7d-4f7a-9d55-3f1d2a9c6b10.web"),
    # BPM writes any other byte as "." and two digits, so a unit's suffix is never part of a name.
    Form(
        "container",
        "bpm",
        r"(?:runc-|[0-9A-Za-z_-]{1,64}-bpm-)?(bpm-((?:[0-9A-Za-z_-]|\.[0-9a-f]{2})+))(?:\.scope)?",
        "/system.slice/runc-bpm-galera-agent.scope",
    ),
    # containerd without a plugin: /NAMESPACE/NAME, both free-form.  Only the namespaces of ctr, nerdctl, the CRI
    # plugin, dockerd and LinuxKit match, and only at the root: otherwise every cgroup at depth two would be a
    # container (as in falcosecurity/plugins).  In any other namespace only a name of 64 hex digits matches (nerdctl).
    Form("container", "docker", rf"(?<=\A/)moby/({_HEX64})", f"/moby/{_ID}"),
    Form("container", "containerd", rf"(?<=\A/)(?:default|k8s\.io|services\.linuxkit)/({_HEX64})", f"/k8s.io/{_ID}"),
    Form(
        "container",
        "containerd",
        r"(?<=\A/)(?:default|k8s\.io|services\.linuxkit)/"
        r"(?![^/]*\.(?:service|scope|slice|socket|mount|swap)(?:/|\Z))(([0-9A-Za-z][0-9A-Za-z._-]{0,75}))",
        "/default/web",
    ),
    # The kubelet's cgroupfs and systemd drivers; kind puts a cgroup root of its own (kubelet) in front.
    Form(
        "kubepods",
        None,
        rf"kubepods(?:/({_QOS})(?=/|\Z))?(?:/pod({_ANY_UID})(?=/|\Z))?",
        f"/kubepods/burstable/pod{_UID}",
    ),
    Form(
        "kubepods",
        None,
        rf"(?:[^/:]*-)?kubepods(?:-({_QOS}))?(?:-pod({_ANY_UID}))?\.slice",
        "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice",
    ),
    # Seen from another cgroup namespace (/../../podUID/ID): a QoS level above it is not visible.
    Form("pod", None, rf"(?:({_QOS})/)?pod({_POD_UID})", f"/burstable/pod{_UID}/{_ID}"),
    Form("group", None, rf"libpod_parent/{_HEX64}", f"/libpod_parent/{_ID}"),
    Form("group", None, rf"[a-z-]*libpod_pod_{_HEX64}\.slice", f"/machine.slice/machine-libpod_pod_{_ID}.slice"),
    Form(
        "group",
        None,
        rf"ecs/{_TASK}|ecstasks-{_TASK}\.slice",
        "/ecstasks.slice/ecstasks-488fc5b8b77f4fb7984bdc4aba948f9f.slice",
    ),
    # Docker, containerd and k3s under kubepods, and Docker with --cgroup-parent: the path does not show which.
    Form("container", None, rf"({_HEX64})", f"/kubepods/burstable/pod{_UID}/{_ID}"),
    Form("other", None, r"[^/]+?", "/system.slice"),
)
"""The first form that matches at a component applies."""

# runc without systemd takes SLICE:PREFIX:NAME, systemd's syntax, for the name of one directory.  It is read as two
# components, the slice and the rest.
_SPEC = r"(?<=\.slice):(?=[^/:]+:[^/:]+(?:/|\Z))"
_SCAN = re.compile(
    rf"(?:/|{_SPEC})(?:"
    + "|".join(f"(?P<form{number}>{form.pattern})" for number, form in enumerate(FORMS))
    + rf")(?=/|\Z|{_SPEC})"
)
# A form's own group encloses the groups of its pattern, so it closes last: Match.lastindex is its number.  The groups
# of the pattern are those up to the next form's own group.
_STARTS = [*sorted(_SCAN.groupindex.values()), _SCAN.groups + 1]
_FORM_BY_GROUP = {
    start: (form, slice(start, end - 1)) for form, start, end in zip(FORMS, _STARTS, _STARTS[1:], strict=False)
}


def split_path(path: str) -> Iterator[Component]:
    """Split an absolute path, without empty components, into components, each with its form."""
    for match in _SCAN.finditer(path):
        form, groups = _FORM_BY_GROUP[cast(int, match.lastindex)]
        name = match[0][1:]
        is_directory = "/" not in name and path[match.end() : match.end() + 1] != ":"
        yield Component(form, match.groups()[groups], name, match.start() == 0, is_directory)
