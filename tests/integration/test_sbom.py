"""`builda image sbom`: real package databases, in images that are stored, pushed and archived."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Builda
from tests.support import needs
from tests.support.registry import registry

pytestmark = [pytest.mark.root, needs.program("docker-registry")]
EPOCH = "1700000000"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, debian: Path) -> Builda:
    """A store with `full`: Debian, on it a Python distribution and a program made by Go, and less of dpkg's files."""
    place = tmp_path_factory.mktemp("full")
    made = Builda(place / "store", place / "run")
    container = made("from", f"oci-archive:{debian}")
    installed = Path(str(distribution("packaging")._path))  # type: ignore[attr-defined]  # where pip put it
    made("copy", "-q", container, installed, f"/opt/site-packages/{installed.name}")
    program = shutil.which("docker-registry")
    assert program is not None
    made("copy", "-q", container, program, "/usr/bin/")
    made("commit", "-q", "--rm", container, "full")
    return made


def document(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def rows(builda: Builda, *arguments: str) -> dict[str, list[str]]:
    lines = builda("image", "sbom", "--format=table", *arguments).splitlines()[1:]
    return {line.split()[0]: line.split() for line in lines}


def test_packages_of_all_kinds_are_found_with_their_layers(full: Builda) -> None:
    found = rows(full, "full")
    layers = document(full("image", "inspect", "full"))["Layers"]
    short = [layer.partition(":")[2][:12] for layer in layers]
    assert found["bash"][2] == "deb"
    assert found["bash"][-2:] == [short[0], "/var/lib/dpkg/status"]
    assert found["packaging"][1:3] == [distribution("packaging").version, "pypi"]
    assert found["packaging"][-2] == short[1]
    assert found["stdlib"][2] == "golang"
    assert found["stdlib"][-1] == "/usr/bin/docker-registry"


def test_documents_are_the_same_wherever_the_image_is(full: Builda, tmp_path: Path) -> None:
    output = tmp_path / "full.json"
    full("image", "sbom", "--output", output, "full", SOURCE_DATE_EPOCH=EPOCH)
    stored = document(output.read_text())
    assert stored["creationInfo"]["created"] == "2023-11-14T22:13:20Z"
    with registry() as server:
        name = server.name("full")
        full("push", "--tls-verify=false", "full", f"docker://{name}:1")
        pushed = document(full("image", "sbom", "--tls-verify=false", f"docker://{name}:1", SOURCE_DATE_EPOCH=EPOCH))
        assert stored["packages"][1:] == pushed["packages"][1:]
        assert pushed["name"] == name
    assert stored["documentNamespace"] == pushed["documentNamespace"]
    assert len([one for one in stored["packages"] if "pkg:deb/debian/" in json.dumps(one)]) > 50
    licences = {one["name"]: one.get("licenseDeclared") for one in stored["packages"]}
    assert "GPL-3.0-or-later" in licences["bash"]


def test_cyclonedx_and_package_urls(full: Builda) -> None:
    found = document(full("image", "sbom", "--format=cyclonedx", "full", SOURCE_DATE_EPOCH=EPOCH))
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    urls = document(full("image", "sbom", "--format=purl", "full"))["image_contents"]["dependencies"]
    assert {one["purl"] for one in found["components"]} == set(urls)


@needs.program("rpm")
@needs.program("rpmbuild")
def test_packages_that_rpm_installed_are_found(builda: Builda, tmp_path: Path) -> None:
    spec = tmp_path / "own.spec"
    spec.write_text(
        "Name: own\nVersion: 2.1\nRelease: 3\nEpoch: 4\nSummary: x\nLicense: MIT and GPLv2+\nBuildArch: noarch\n"
        "%description\nx\n%install\nmkdir -p %{buildroot}/etc\necho x > %{buildroot}/etc/own\n%files\n/etc/own\n"
    )
    define = ["--define", f"_topdir {tmp_path}/top", "--define", "_dbpath /usr/lib/sysimage/rpm"]
    subprocess.run(["rpmbuild", "-bb", "--quiet", *define, spec], check=True, capture_output=True)
    (package,) = (tmp_path / "top/RPMS/noarch").iterdir()
    tree = tmp_path / "tree"
    tree.mkdir()
    subprocess.run(["rpm", "--root", tree, *define[2:], "--nodeps", "-i", package], check=True, capture_output=True)
    container = builda("from", "scratch")
    builda("copy", "-q", container, tree, "/")
    builda("commit", "-q", "--rm", container, "rpms")
    found = rows(builda, "rpms")["own"]
    assert found[1:3] == ["2.1-3", "rpm"]
    urls = document(builda("image", "sbom", "--format=purl", "rpms"))["image_contents"]["dependencies"]
    assert urls == ["pkg:rpm/own@2.1-3?arch=noarch&epoch=4&upstream=own-2.1-3.src.rpm"]


def test_what_cannot_be_read_is_told(builda: Builda, tmp_path: Path) -> None:
    (tmp_path / "tree/var/lib/rpm").mkdir(parents=True)
    (tmp_path / "tree/var/lib/rpm/Packages").write_bytes(bytes(12) + b"\x61\x15\x06\x00" + bytes(500))
    container = builda("from", "scratch")
    builda("copy", "-q", container, tmp_path / "tree", "/")
    builda("commit", "-q", "--rm", container, "old")
    result = builda.run("image", "sbom", "old")
    layer = document(builda("image", "inspect", "old"))["Layers"][0]
    assert f"packages may be missing: /var/lib/rpm/Packages in layer {layer}: is a Berkeley DB file" in result.stderr
    assert "Berkeley DB" in document(result.stdout)["comment"]


def test_wrong_command_lines_are_refused(builda: Builda, base: str, tmp_path: Path) -> None:
    assert "unknown format of an SBOM: syft" in builda.fails("image", "sbom", "--format=syft", base)
    assert "no such file or directory" in builda.fails("image", "sbom", "-o", tmp_path / "no/x", base)
    assert "image not known" in builda.fails("image", "sbom", "localhost/none")
    builda("manifest", "create", "empty")
    assert "no image for platform" in builda.fails("image", "sbom", "empty")
