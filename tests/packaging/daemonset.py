# SPDX-License-Identifier: Apache-2.0
"""Arguments of ``docker run`` for the container of deploy/kubernetes/daemonset.yaml, as a kubelet would run it.

A field that it cannot translate is an error, so that all of the manifest is tested.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.harness.environment import ROOT

MANIFEST = ROOT / "deploy/kubernetes/daemonset.yaml"
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}

FOR_KUBERNETES_ONLY = frozenset(
    {
        "automountServiceAccountToken",
        "enableServiceLinks",
        "tolerations",
        "nodeSelector",
        "priorityClassName",
        "terminationGracePeriodSeconds",
    }
)
"""Fields of the pod that have no meaning for a container of Docker."""

Fields = dict[str, Any]


def daemonset() -> Fields:
    (found,) = (document for document in yaml.safe_load_all(MANIFEST.read_text()) if document["kind"] == "DaemonSet")
    return found  # type: ignore[no-any-return]


def pod() -> Fields:
    return daemonset()["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def container() -> Fields:
    (only,) = pod()["containers"]
    return only  # type: ignore[no-any-return]


def host_paths() -> dict[str, str]:
    """Mounts: path in the container -> path on the host."""
    volumes = {volume["name"]: volume["hostPath"]["path"] for volume in pod()["volumes"]}
    mounts = {mount["mountPath"]: volumes.pop(mount["name"]) for mount in container()["volumeMounts"]}
    assert not volumes, f"unused volumes: {volumes}"
    return mounts


def docker_options(fields: Mapping[str, str], place: Callable[[str], Path]) -> list[str]:
    """Options of ``docker run``, with the values of the downward API, and this host's paths."""
    spec, only = dict(pod()), dict(container())
    for name in FOR_KUBERNETES_ONLY & spec.keys():
        del spec[name]
    del spec["containers"], spec["volumes"], only["name"], only["image"], only["args"]
    options = ["--pid=host"] if spec.pop("hostPID") else []
    options += _environment(only.pop("env"), fields) + _resources(only.pop("resources"))
    options += _security(dict(only.pop("securityContext")))
    hosts = host_paths()
    for mount in only.pop("volumeMounts"):
        target = mount["mountPath"]
        propagation = {None: "rprivate", "HostToContainer": "rslave"}[mount.get("mountPropagation")]
        words = ["type=bind", f"source={place(hosts[target])}", f"target={target}", f"bind-propagation={propagation}"]
        options.append("--mount=" + ",".join([*words, *(["readonly"] if mount.get("readOnly") else [])]))
        assert mount.keys() <= {"name", "mountPath", "readOnly", "mountPropagation"}
    assert not spec
    assert not only
    return options


def _environment(variables: list[Fields], fields: Mapping[str, str]) -> list[str]:
    return [
        f"--env={variable['name']}={fields[variable['valueFrom']['fieldRef']['fieldPath']]}" for variable in variables
    ]


def _resources(resources: Fields) -> list[str]:
    assert resources["limits"].keys() == {"memory"}
    amount = resources["limits"]["memory"]
    limit = int(amount[:-2]) * UNITS[amount[-2:]]
    return [f"--memory={limit}", f"--memory-swap={limit}"]


def _security(context: Fields) -> list[str]:
    assert context.pop("seccompProfile") == {"type": "RuntimeDefault"}, "Docker's default"
    assert context.pop("appArmorProfile") == {"type": "Unconfined"}
    assert context.pop("allowPrivilegeEscalation") is False
    options = ["--security-opt=apparmor=unconfined", "--security-opt=no-new-privileges"]
    options.append(f"--user={context.pop('runAsUser')}:{context.pop('runAsGroup')}")
    if context.pop("readOnlyRootFilesystem"):
        options.append("--read-only")
    capabilities = context.pop("capabilities")
    options += [f"--cap-drop={name}" for name in capabilities.pop("drop")]
    options += [f"--cap-add={name}" for name in capabilities.pop("add")]
    assert not context
    assert not capabilities
    return options
