# SPDX-License-Identifier: Apache-2.0
"""The DaemonSet: valid for Kubernetes, with minimal mounts, and equal to the command documented for Docker."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.harness.environment import IN_VM, ROOT, not_applicable
from tracer import __version__
from tracer.identity.runtimes import ROOTS

from .daemonset import MANIFEST, container, docker_options, host_paths


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_schema(version: str) -> None:
    """The manifest is strictly valid against Kubernetes' OpenAPI definitions."""
    if IN_VM:
        not_applicable("a guest lacks the definitions")
    import kubernetes_validate

    documents = list(yaml.safe_load_all(MANIFEST.read_text()))
    assert [document["kind"] for document in documents] == ["Namespace", "DaemonSet"]
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)
    documents[1]["spec"]["template"]["spec"]["hostPIDs"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(documents[1], version, strict=True)


def test_runtime_folders() -> None:
    """Of the runtimes' directories only what is read is mounted, for each kind of directory."""
    folders = [path for path in host_paths() if not path.startswith("/sys/")]
    kinds = {
        name for name, roots in ROOTS.items() for path in folders for root in roots if f"{path}/".startswith(f"{root}/")
    }
    assert kinds == set(ROOTS)
    for path in folders:
        assert path not in ROOTS["docker"] + ROOTS["containerd"] + ROOTS["containerd-root"], "sockets and secrets"


def test_image_version() -> None:
    """The DaemonSet uses the image of this version."""
    assert container()["image"] == f"oomtrace:{__version__}"


def test_documented_command() -> None:
    """The command of docs/install.md has the DaemonSet's capabilities, and only mounts of the DaemonSet."""
    (command,) = re.findall(r"```console\n\$ (docker run .*?)```", (ROOT / "docs/install.md").read_text(), re.DOTALL)
    words = shlex.split(command)
    documented = [f"{option}={value}" for option, value in itertools.pairwise(words) if option.startswith("--")]
    options = docker_options({"spec.nodeName": "node"}, Path)
    for option in ("--cap-add", "--cap-drop", "--security-opt", "--pid"):
        expected = sorted(each for each in options if each.startswith(f"{option}="))
        assert expected == sorted(each for each in documented if each.startswith(f"{option}="))
    mounts = {each for each in documented if each.startswith("--mount=")}
    assert {_mount(each) for each in mounts} < {_mount(each) for each in options if each.startswith("--mount=")}


def _mount(option: str) -> frozenset[str]:
    return frozenset({*option.split(","), "bind-propagation=rprivate"}) - {"bind-propagation=rprivate"}
