"""The documents, by the validators of their libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builda.contents.licences import Licensing
from builda.contents.sbomdocument import document, purl_list
from builda.contents.scan import Contents
from builda.contents.subject import Subject
from tests.support.packages import APK, go_program, scanned, tar
from tests.support.schemas import check_cyclonedx, check_spdx

SUBJECT = Subject(
    name="registry.example.org/team/app",
    digest="sha256:" + "ab" * 32,
    architecture="amd64",
    created=1_700_000_000.7,
    version="1.0",
)
HOSTILE = (
    b"Package: \x1b[31m\xff\n\nPackage: a b/c@d?e#f%%\nVersion: 1 :\\u0000 \xff\nMaintainer: <<((x))\nSource: (((\n"
    b"Architecture: &=%\n\nPackage: \xe2\x80\xae\nVersion: \xf0\x9f\x98\x80\nMaintainer: Organization: a (b) <c>\n"
)
METADATA = (b"Name: x\nVersion: 1\nLicense: ((MIT AND\n", b"Name: y\nVersion: 2\nLicense: " + b"AND " * 200, b"no\n")


def contents(*, hostile: bool) -> Contents:
    files: dict[str, Any] = {"lib/apk/db/installed": APK, "etc/os-release": b"ID=alpine\nVERSION_ID=3.19\n"}
    if hostile:
        files["var/lib/dpkg/status"] = HOSTILE
        files["etc/os-release"] = b"ID=\xff/..\nVERSION_ID=<&>\n"
        files |= {f"usr/{n}.dist-info/METADATA": data for n, data in enumerate(METADATA)}
    return scanned(tar(files), tar({"bin/x": go_program("dep\tx.org/y\tv1\n")}, 0o755))


@pytest.mark.parametrize("hostile", [False, True])
def test_spdx_is_valid(tmp_path: Path, hostile: bool) -> None:
    data = document("spdx-json", SUBJECT, contents(hostile=hostile))
    check_spdx(data.decode(), tmp_path / "x.spdx.json")
    found = json.loads(data)
    assert found["documentNamespace"].endswith("ab" * 32)
    assert found["creationInfo"]["created"] == "2023-11-14T22:13:20Z"
    by_name = {package["name"]: package for package in found["packages"]}
    assert by_name["musl"]["licenseDeclared"] == "MIT"
    assert by_name["musl"]["sourceInfo"] == "found by the apk database /lib/apk/db/installed in layer 1"
    assert ("Packages may be missing" in found.get("comment", "")) == hostile
    if not hostile:
        purl = by_name["musl"]["externalRefs"][0]["referenceLocator"]
        assert purl == "pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64&distro=alpine-3.19"
        assert by_name["x.org/y"]["externalRefs"][0]["referenceLocator"] == "pkg:golang/x.org/y@v1"


@pytest.mark.slow  # the schemas of CycloneDX take seconds to load
@pytest.mark.parametrize("hostile", [False, True])
def test_cyclonedx_is_valid(hostile: bool) -> None:
    data = document("cyclonedx-json", SUBJECT, contents(hostile=hostile))
    check_cyclonedx(data.decode())
    found = json.loads(data)
    (musl,) = (one for one in found["components"] if one["name"] == "musl")
    assert musl["licenses"] == [{"acknowledgement": "declared", "expression": "MIT"}]
    assert {one["name"]: one["value"] for one in musl["properties"]}["builda:layer"] == "1"
    assert found["metadata"]["component"]["version"] == SUBJECT.digest
    assert ("properties" in found["metadata"]) == hostile


def test_documents_say_the_same_each_time() -> None:
    for form in ("spdx-json", "cyclonedx-json"):
        assert document(form, SUBJECT, contents(hostile=True)) == document(form, SUBJECT, contents(hostile=True))


def test_package_urls_are_listed_once_and_sorted() -> None:
    urls = json.loads(purl_list(contents(hostile=False)))["image_contents"]["dependencies"]
    assert urls == sorted(urls)
    assert urls[-1] == "pkg:golang/x.org/y@v1"


@pytest.mark.parametrize(
    ("said", "expression"),
    [
        ((), None),
        (("GPL-2+",), "GPL-2.0-or-later"),
        (("LGPL-2.1",), "LGPL-2.1-only"),
        (("GPL-3.0-only",), "GPL-3.0-only"),
        (("MIT", "Expat"), "MIT"),
        (("GPL-2.0 or MIT", "Apache-2.0"), "(GPL-2.0-only OR MIT) AND Apache-2.0"),
        (("GPL-1+ or Artistic, and odd",), "(GPL-1.0-or-later OR Artistic-1.0-Perl) AND LicenseRef-odd"),
        (("public-domain",), "LicenseRef-public-domain"),
        (("GPLv2+",), "GPL-2.0-or-later"),
    ],
)
def test_licences_are_written_in_the_words_of_spdx(said: tuple[str, ...], expression: str | None) -> None:
    assert Licensing().expression(said) == expression
