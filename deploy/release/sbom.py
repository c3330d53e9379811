# SPDX-License-Identifier: Apache-2.0
"""In: what a release ships: a wheel, a Debian package, or the root file system of an image (tar).  Out: its SBOM.

python3 -m deploy.release.sbom FILE...      writes FILE.cdx.json, CycloneDX 1.6, for each FILE (.whl, .deb, .tar)

What is inside the file has a version and a hash.  What an installation brings besides has none: the one who installs
chooses the version, and the property oomtrace:requires says which ones will do.  The same file and SOURCE_DATE_EPOCH
make the same SBOM.
"""

from __future__ import annotations

import datetime
import email.parser
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from tracer.base.extras import EXTRAS

NAME = "oomtrace"
REQUIRES = "oomtrace:requires"
LICENCE = "Apache-2.0 AND GPL-2.0-only"
OBJECT_LICENCE = "GPL-2.0-only"
_REQUIREMENT = re.compile(r"[A-Za-z0-9][\w.-]*")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([\w-]+)['"]""")
_DISTRIBUTION = re.compile(r".*\.(?:dist-info/METADATA|egg-info/PKG-INFO|egg-info)$")
_SCHEMA = SchemaVersion.V1_6


class Installed(NamedTuple):
    """An image's root file system, as far as an SBOM needs it."""

    system: dict[str, str]
    """os-release(5)."""
    packages: list[dict[str, str]]
    """Fields of each package that dpkg has installed."""
    distributions: list[tuple[str, str, str]]
    """Python's, of no package of dpkg: name, version, path."""


def wheel(path: Path) -> Bom:
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.parser.BytesParser().parsebytes(archive.read(name))
        objects = [_object(name, archive.read(name)) for name in archive.namelist() if name.endswith(".bpf.o")]
    wanted = [text for text in metadata.get_all("Requires-Dist", []) if _is_for_users(text)]
    needs = _requirements((_python_name(text), text, _EXTRA.search(text) is not None) for text in wanted)
    # Loaded with ctypes, and so in no metadata of Python.
    needs += _requirements([(PackageURL("generic", None, "libbpf"), "libbpf.so.1", False)])
    return _bom(path, ComponentType.APPLICATION, metadata["Version"], objects, needs)


def _is_for_users(requirement: str) -> bool:
    """Not of an extra that only a checkout has: nobody needs those to run what is shipped."""
    extra = _EXTRA.search(requirement)
    return extra is None or extra[1] in EXTRAS


def _python_name(text: str) -> PackageURL:
    found = _REQUIREMENT.match(text)
    assert found
    return PackageURL("pypi", None, _normal(found[0]))


def _normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def deb(path: Path) -> Bom:
    fields = _stanza(subprocess.run(["dpkg-deb", "--field", path], capture_output=True, text=True, check=True).stdout)
    content = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], capture_output=True, check=True).stdout
    objects = []
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".bpf.o") else None
            if file is not None:
                objects.append(_object(member.name.removeprefix("./"), file.read()))
    wanted = [
        (PackageURL("deb", "debian", _names(relation)[0]), relation, optional)
        for field, optional in (("Depends", False), ("Recommends", True), ("Suggests", True))
        for relation in _split(fields.get(field, ""))
    ]
    needs = _requirements(wanted)
    return _bom(path, ComponentType.APPLICATION, fields["Version"], objects, needs)


def _split(relations: str) -> list[str]:
    return [relation.strip() for relation in relations.split(",") if relation.strip()]


def _names(relation: str) -> list[str]:
    """The packages of a relation, each of which will do."""
    return [alternative.split()[0].partition(":")[0] for alternative in relation.split("|")]


def image(path: Path) -> Bom:
    installed = read_image(path)
    distribution = f"{installed.system['ID']}-{installed.system['VERSION_ID']}"
    packages = {fields["Package"]: _package(fields, distribution) for fields in installed.packages}
    others = [
        Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            purl=PackageURL("pypi", None, _normal(name), version),
            bom_ref=f"python:{path}",
            properties=[Property(name="oomtrace:path", value=path)],
        )
        for name, version, path in installed.distributions
    ]
    (version,) = (fields["Version"] for fields in installed.packages if fields["Package"] == NAME)
    bom = _bom(path, ComponentType.CONTAINER, version, [*packages.values(), *others], [])
    providers: dict[str, list[str]] = {}
    for fields in installed.packages:
        for name in [fields["Package"], *_relations(fields.get("Provides", ""))]:
            providers.setdefault(name, []).append(fields["Package"])
    for fields in installed.packages:
        wanted = _relations(fields.get("Pre-Depends", "")) + _relations(fields.get("Depends", ""))
        needed = {provider for name in wanted for provider in providers.get(name, [])} - {fields["Package"]}
        bom.register_dependency(packages[fields["Package"]], [packages[name] for name in sorted(needed)])
    return bom


def _relations(text: str) -> list[str]:
    return [name for relation in _split(text) for name in _names(relation)]


def _package(fields: dict[str, str], distribution: str) -> Component:
    name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
    where = {"arch": architecture, "distro": distribution}
    # Of this project, the others are of the distribution.
    space = None if name == NAME else distribution.partition("-")[0]
    return Component(
        name=name,
        version=version,
        type=ComponentType.APPLICATION if name == NAME else ComponentType.LIBRARY,
        purl=PackageURL("deb", space, name, version, where),
        bom_ref=f"deb:{name}:{architecture}",
    )


def read_image(path: Path) -> Installed:
    """Reads what `docker export` writes; any other tar of a root file system will do."""
    system: dict[str, str] = {}
    status = ""
    owned: set[str] = set()
    found: list[tuple[str, str, str]] = []
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            name = member.name.removeprefix("./").lstrip("/")
            if not member.isfile():
                continue
            wanted = name in ("usr/lib/os-release", "var/lib/dpkg/status") or name.startswith("var/lib/dpkg/info/")
            if not wanted and not _DISTRIBUTION.fullmatch(name):
                continue
            file = archive.extractfile(member)
            assert file is not None
            content = file.read().decode(errors="replace")
            if name == "usr/lib/os-release":
                pairs = (line.partition("=") for line in content.splitlines() if "=" in line)
                system = {key: value.strip("\"'") for key, _, value in pairs}
            elif name == "var/lib/dpkg/status":
                status = content
            elif name.startswith("var/lib/dpkg/info/"):
                if name.endswith(".list"):
                    owned.update(line.lstrip("/") for line in content.splitlines())
            else:
                metadata = email.parser.Parser().parsestr(content)
                found.append((metadata["Name"], metadata["Version"], name))
    if not system or not status:
        raise SystemExit(f"{path}: not the root file system of a Debian: no os-release or dpkg status in it")
    stanzas = (_stanza(text) for text in status.split("\n\n") if text.strip())
    packages = [fields for fields in stanzas if fields["Status"] == "install ok installed"]
    return Installed(system, packages, sorted(each for each in found if each[2] not in owned))


def _stanza(text: str) -> dict[str, str]:
    """Fields of a package (deb-control(5)); lines that go on are joined."""
    lines = re.sub(r"\n[ \t]", " ", text.strip()).splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _object(name: str, content: bytes) -> Component:
    """A compiled BPF program that is inside."""
    digest = hashlib.sha256(content).hexdigest()
    return Component(
        name=name,
        version=f"sha256:{digest}",
        type=ComponentType.FILE,
        bom_ref=f"file:{name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        licenses=[DisjunctiveLicense(id=OBJECT_LICENCE)],
    )


def _requirements(wanted: Iterable[tuple[PackageURL, str, bool]]) -> list[Component]:
    """What an installation brings: what it is, which versions will do, and whether it works without."""
    found: dict[str, Component] = {}
    for purl, requires, optional in wanted:
        component = found.setdefault(
            purl.name,
            Component(
                name=purl.name,
                type=ComponentType.LIBRARY,
                purl=purl,
                bom_ref=f"requires:{purl.name}",
                scope=ComponentScope.OPTIONAL,
            ),
        )
        component.properties.add(Property(name=REQUIRES, value=requires))
        if not optional:
            component.scope = ComponentScope.REQUIRED
    return list(found.values())


def _bom(path: Path, kind: ComponentType, version: str, inside: list[Component], needs: list[Component]) -> Bom:
    digest = _digest(path)
    shipped = Component(
        name=NAME,
        version=version,
        type=kind,
        purl=PackageURL("generic", None, NAME, version, {"checksum": f"sha256:{digest}"}),
        bom_ref=path.name,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        licenses=[LicenseExpression(LICENCE)],
    )
    bom = Bom(components=[*inside, *needs], serial_number=uuid.uuid5(uuid.NAMESPACE_OID, digest))
    bom.metadata.component = shipped
    made = int(os.environ["SOURCE_DATE_EPOCH"])
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(made, datetime.timezone.utc)
    bom.register_dependency(shipped, [*inside, *needs])
    return bom


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def encode(bom: Bom) -> str:
    """CycloneDX as JSON; raises ValueError where that is not valid by its schema."""
    text = make_outputter(bom, OutputFormat.JSON, _SCHEMA).output_as_string(indent=2) + "\n"
    if error := JsonStrictValidator(_SCHEMA).validate_str(text):
        raise ValueError(f"not a valid SBOM: {error}")
    return text


MAKERS = {".whl": wheel, ".deb": deb, ".tar": image}


def write(paths: Iterable[Path]) -> Iterator[Path]:
    """Yields each SBOM that was written."""
    for path in paths:
        written = path.with_name(f"{path.name}.cdx.json")
        written.write_text(encode(MAKERS[path.suffix](path)))
        yield written


def main() -> int:
    paths = [Path(word) for word in sys.argv[1:]]
    if not paths or any(path.suffix not in MAKERS for path in paths):
        print("usage: python3 -m deploy.release.sbom FILE.whl|FILE.deb|FILE.tar...", file=sys.stderr)
        return 2
    if "SOURCE_DATE_EPOCH" not in os.environ:
        print("sbom: SOURCE_DATE_EPOCH is not set: the time of the commit, in seconds", file=sys.stderr)
        return 2
    for written in write(paths):
        print(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
