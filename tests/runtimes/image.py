# SPDX-License-Identifier: Apache-2.0
"""An image of busybox, made without a registry, as a directory and as an archive that every runtime loads."""

import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
APPLETS = ("cat", "dd", "sh", "sleep")
NEVER = "never"
"""A FIFO without a writer."""
REFERENCE = "docker.io/oomtrace/victim:1"
LABELS = {"org.example.image": "victim"}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def make_tree(root: Path) -> Path:
    """Make a root directory, with the files that nspawn and LXC require."""
    for folder in ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr"):
        (root / folder).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    os.mkfifo(root / NEVER)
    (root / "etc/os-release").write_text("ID=oomtrace\n")
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    return root


def make_archive(root: Path, archive: Path) -> Path:
    """Make an image of the directory: an OCI layout (podman, containerd) and Docker archive (old dockers) in one."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(root, ".")
    blobs: dict[str, bytes] = {}

    def blob(kind: str, content: bytes) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    layer_blob = blob("layer.v1.tar", layer.getvalue())
    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sleep", "3600"], "Labels": LABELS},
        "rootfs": {"type": "layers", "diff_ids": [layer_blob["digest"]]},
    }
    config_blob = blob("config.v1+json", _json(config))
    manifest = {"schemaVersion": 2, "config": config_blob, "layers": [layer_blob]}
    manifest_blob: dict[str, object] = {
        **blob("manifest.v1+json", _json({**manifest, "mediaType": "application/vnd.oci.image.manifest.v1+json"})),
        "annotations": {"io.containerd.image.name": REFERENCE, "org.opencontainers.image.ref.name": "1"},
    }
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "manifests": [manifest_blob]}),
        "manifest.json": _json(
            [{"Config": _path(config_blob), "RepoTags": [REFERENCE], "Layers": [_path(layer_blob)]}]
        ),
        **blobs,
    }
    with tarfile.open(archive, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _path(blob: Mapping[str, object]) -> str:
    return f"blobs/sha256/{str(blob['digest']).removeprefix('sha256:')}"
