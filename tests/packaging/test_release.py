# SPDX-License-Identifier: Apache-2.0
"""``make dist``: reproducible, complete, and with SBOMs that list what is shipped."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from deploy.release import sbom
from tests.harness.environment import IN_VM, ROOT, TIMEOUT_SCALE, not_applicable, require
from tracer import __version__
from tracer.base.extras import EXTRAS

from . import dockerfile

BUILD_S = 600 * TIMEOUT_SCALE
EPOCH = "1700000000"
MAINTAINER = {"DEBFULLNAME": "Mary O'Brien", "DEBEMAIL": "mary@example.org"}
PLACES = {
    "first": {"TZ": "UTC", "LC_ALL": "C.UTF-8", "umask": "022"},
    "another/place": {"TZ": "Asia/Tokyo", "LC_ALL": "POSIX", "umask": "077"},
}
ARTIFACTS = {
    f"oomtrace-{__version__}.tar.gz",
    f"oomtrace-{__version__}-py3-none-any.whl",
    f"oomtrace-{__version__}-py3-none-any.whl.cdx.json",
    f"oomtrace_{__version__}_all.deb",
    f"oomtrace_{__version__}_all.deb.cdx.json",
    "SHA256SUMS",
}
Sbom = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def on_host() -> None:
    if IN_VM:
        not_applicable("a guest has neither PyPI nor compilers")


@pytest.fixture(scope="module")
def sources() -> set[str]:
    """The files of a fresh clone."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in done.stdout.splitlines() if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, sources: set[str]) -> list[Path]:
    """dist/ of two copies, built in different directories, time zones, locales and with different umasks."""
    folder = tmp_path_factory.mktemp("release")
    running = []
    for place, settings in PLACES.items():
        copy = folder / place
        for name in sources:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
            (copy / name).chmod((ROOT / name).stat().st_mode)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
        environment = {**inherited, **MAINTAINER, **settings, "SOURCE_DATE_EPOCH": EPOCH}
        log = (copy / "build.log").open("wb")
        command = ["sh", "-c", f"umask {settings['umask']} && exec make dist"]
        process = subprocess.Popen(command, cwd=copy, env=environment, stdout=log, stderr=subprocess.STDOUT)
        running.append((copy, process, log))
    for copy, process, log in running:
        status = process.wait(BUILD_S)
        log.close()
        assert status == 0, (copy / "build.log").read_text()[-4000:]
    return [copy / "dist" for copy, _, _ in running]


@pytest.fixture(scope="module")
def dist(built: list[Path]) -> Path:
    return built[0]


def test_reproducible(built: list[Path]) -> None:
    """The same sources make the same bytes."""
    sums = [{path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in dist.iterdir()} for dist in built]
    assert set(sums[0]) == ARTIFACTS
    assert sums[0] == sums[1]


def test_checksums(dist: Path) -> None:
    """SHA256SUMS lists all files, in the format of sha256sum(1)."""
    done = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=dist, capture_output=True, text=True)
    assert done.returncode == 0
    assert {line.partition(":")[0] for line in done.stdout.splitlines()} == ARTIFACTS - {"SHA256SUMS"}


def test_checked_by_twine(built: list[Path]) -> None:
    """twine check passes for both."""
    log = (built[0].parent / "build.log").read_text()
    assert len(re.findall(r"^Checking \S+: .*PASSED", log, re.MULTILINE)) == 2


def test_sdist(dist: Path, sources: set[str]) -> None:
    """The sdist has all sources and the compiled programs, so a wheel made from it has them, too."""
    objects = {f"tracer/objects/oomtrace.{name}.bpf.o" for name in ("x86_64", "arm64")}
    with tarfile.open(dist / f"oomtrace-{__version__}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names - {"PKG-INFO", "build.log"} == sources | objects
    with zipfile.ZipFile(dist / f"oomtrace-{__version__}-py3-none-any.whl") as wheel:
        assert objects <= set(wheel.namelist())


def read(path: Path) -> Sbom:
    found: Sbom = json.loads(path.read_text())
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    return found


def requirements(bom: Sbom) -> dict[str, str]:
    """Dependency -> scope, in an SBOM."""
    return {
        each["value"]: component["scope"]
        for component in bom["components"]
        for each in component.get("properties", ())
        if each["name"] == sbom.REQUIRES
    }


def hashes(bom: Sbom) -> dict[str, str]:
    return {each["name"]: each["hashes"][0]["content"] for each in bom["components"] if each["type"] == "file"}


def test_sbom_of_wheel(dist: Path) -> None:
    """The wheel's SBOM has the dependencies of METADATA, and the hashes of the programs, as in RECORD."""
    path = dist / f"oomtrace-{__version__}-py3-none-any.whl"
    bom = read(path.with_name(path.name + ".cdx.json"))
    with zipfile.ZipFile(path) as archive:
        metadata = archive.read(f"oomtrace-{__version__}.dist-info/METADATA").decode()
        objects = {name: archive.read(name) for name in archive.namelist() if name.endswith(".bpf.o")}
    required = re.findall(r"^Requires-Dist: (.*)", metadata, re.MULTILINE)
    optional = {text for text in required if re.search(f"extra == '({'|'.join(EXTRAS)})'$", text)}
    needed = {text for text in required if "extra ==" not in text} | {"libbpf.so.1"}
    assert len(optional) == len(EXTRAS)
    assert requirements(bom) == dict.fromkeys(optional, "optional") | dict.fromkeys(needed, "required")
    assert hashes(bom) == {name: hashlib.sha256(content).hexdigest() for name, content in objects.items()}
    shipped = bom["metadata"]["component"]
    assert shipped["hashes"][0]["content"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert shipped["version"] == __version__
    assert shipped["licenses"][0]["expression"] in metadata


def test_sbom_of_deb(dist: Path) -> None:
    """The deb's SBOM has the relations of the package, and the hashes of the programs, as unpacked by dpkg-deb."""
    path = dist / f"oomtrace_{__version__}_all.deb"
    bom = read(path.with_name(path.name + ".cdx.json"))
    expected = {}
    for field, scope in (("Depends", "required"), ("Recommends", "optional"), ("Suggests", "optional")):
        done = subprocess.run(["dpkg-deb", "--field", path, field], capture_output=True, text=True, check=True)
        expected.update(dict.fromkeys(done.stdout.strip().split(", "), scope))
    assert requirements(bom) == expected
    subprocess.run(["dpkg-deb", "--extract", path, dist.parent / "unpacked"], check=True)
    unpacked = (dist.parent / "unpacked").rglob("*.bpf.o")
    assert hashes(bom) == {
        str(file.relative_to(dist.parent / "unpacked")): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in unpacked
    }


def test_sbom_of_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image's SBOM has exactly the installed packages, with version and architecture."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    deb = ROOT / f"dist/oomtrace_{__version__}_all.deb"
    require(deb.exists(), f"{deb}: make deb")
    archive = tmp_path / "image.tar"
    archive.symlink_to(dockerfile.archive(deb))
    (written,) = sbom.write([archive])
    bom = read(written)
    with tarfile.open(archive) as files:
        files.extract("./var/lib/dpkg/status", tmp_path, filter="data")
    query = ["dpkg-query", f"--admindir={tmp_path}/var/lib/dpkg", "--show", "--showformat"]
    done = subprocess.run(
        [*query, "${Package} ${Version} ${Architecture}\\n"], capture_output=True, text=True, check=True
    )
    installed = {tuple(line.split()) for line in done.stdout.splitlines()}
    listed = {
        (each["name"], each["version"], re.findall("arch=([a-z0-9]+)", each["purl"])[0]) for each in bom["components"]
    }
    assert listed == installed
    assert ("oomtrace", __version__, "all") in listed
    assert bom["metadata"]["component"]["type"] == "container"
    needs = {each["ref"]: each.get("dependsOn", []) for each in bom["dependencies"]}
    assert "deb:libbpf1:amd64" in needs["deb:oomtrace:all"]


def test_sbom_of_other_python_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files installed by pip in an image are listed; files owned by a package are not listed twice."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    owned = "usr/lib/python3/dist-packages/typer-0.15.1.dist-info/METADATA"
    status = "Package: {}\nStatus: {}\nArchitecture: all\nVersion: {}\nDescription: x\n y\n"
    files = {
        "usr/lib/os-release": 'ID=debian\nVERSION_ID="13"\n',
        "var/lib/dpkg/status": "\n".join(
            [
                status.format("oomtrace", "install ok installed", "0.1.0"),
                status.format("python3-typer", "install ok installed", "0.15.1-1"),
                status.format("gone", "deinstall ok config-files", "1"),
            ]
        ),
        "var/lib/dpkg/info/python3-typer.list": f"/.\n/{owned}\n",
        owned: "Name: typer\nVersion: 0.15.1\n\ntext\n",
        "usr/local/lib/python3.13/dist-packages/Paho_MQTT-2.1.0.egg-info/PKG-INFO": "Name: Paho_MQTT\nVersion: 2.1.0\n",
    }
    archive = tmp_path / "image.tar"
    with tarfile.open(archive, "w") as made:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            made.addfile(member, io.BytesIO(text.encode()))
    (written,) = sbom.write([archive])
    assert {component["purl"] for component in read(written)["components"]} == {
        "pkg:deb/oomtrace@0.1.0?arch=all&distro=debian-13",
        "pkg:deb/debian/python3-typer@0.15.1-1?arch=all&distro=debian-13",
        "pkg:pypi/paho-mqtt@2.1.0",
    }
