"""What each reader finds in a file, and what it makes of files that lie."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from builda.contents import apk, dpkg, facts, golang, node, osrelease, python, rpm
from builda.contents.ecosystems import wanted
from builda.contents.facts import Flaw, Licences, Package, System
from builda.errors import CorruptContent
from tests.support import packages
from tests.support.packages import go_program, rpm_database, rpm_header

STATUS = b"""Package: bash
Status: install ok installed
Maintainer: Some One <a@example.org>
Architecture: amd64
Source: bash (5.2.15-2)
Version: 5.2.15-2+b8
Description: shell
 Package: not-a-field
 Version: 9

Package: gone
Status: deinstall ok config-files
Version: 1

Package: libc6
Status: install ok half-configured
Architecture: amd64
Source: glibc
Version: 2.36-9
"""


def test_dpkg_names_what_is_installed() -> None:
    found = packages.facts(dpkg.status, STATUS)
    assert [(one.name, one.version) for one in found if isinstance(one, Package)] == [
        ("bash", "5.2.15-2+b8"),
        ("libc6", "2.36-9"),
    ]
    assert found[0] == Package(
        "deb",
        "bash",
        "5.2.15-2+b8",
        qualifiers=(("arch", "amd64"), ("upstream", "bash@5.2.15-2")),
        supplier="Some One <a@example.org>",
    )


def test_a_file_of_status_d_has_no_status_and_counts() -> None:
    found = packages.facts(dpkg.status, b"Package: tzdata\nVersion: 2024a\nArchitecture: all\n")
    assert found == [Package("deb", "tzdata", "2024a", qualifiers=(("arch", "all"),))]


def test_copyright_files_in_the_format_for_machines_name_licences() -> None:
    data = b"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-2+\n"
    data += b" text\n\nFiles: a\nLicense: Expat\n\nLicense: GPL-2+\n"
    assert packages.facts(dpkg.copyright, data) == [Licences(("GPL-2+", "Expat"))]
    assert packages.facts(dpkg.copyright, b"This is free software.\nLicense: no\n") == []


def test_apk_keeps_the_case_of_its_letters_apart() -> None:
    found = packages.facts(apk.installed, packages.APK)
    assert found == [
        Package(
            "apk",
            "musl",
            "1.2.4-r2",
            qualifiers=(("arch", "x86_64"),),
            licences=("MIT",),
            supplier="Timo <t@example.org>",
            homepage="https://musl.libc.org/",
        ),
        Package(
            "apk",
            "ssl_client",
            "1.36.1-r5",
            qualifiers=(("arch", "x86_64"), ("upstream", "busybox")),
            licences=("GPL-2.0-only",),
        ),
    ]


def test_rpm_reads_headers(tmp_path: Path) -> None:
    header = rpm_header(name="bash", version="5.1.8", release="6.el9", epoch=1, license="GPLv3+", arch="x86_64")
    key = rpm_header(name="gpg-pubkey", version="1", release="2")
    assert packages.facts(rpm.database, rpm_database(tmp_path, headers=[header, key])) == [
        Package("rpm", "bash", "5.1.8-6.el9", qualifiers=(("arch", "x86_64"), ("epoch", "1")), licences=("GPLv3+",))
    ]


@pytest.mark.parametrize(
    "blob",
    [b"", b"\0" * 7, struct.pack(">II", 1 << 31, 8), struct.pack(">II", 1, 4) + b"\0" * 8,
     struct.pack(">IIIIiI", 1, 4, 1000, 6, 100, 1) + b"abc\0", struct.pack(">IIIIiI", 1, 4, 1000, 6, -1, 1) + b"abc\0",
     struct.pack(">IIIIiI", 1, 4, 1000, 6, 0, 1) + b"abcd", rpm_header(name="x")],
)  # fmt: skip
def test_a_row_that_is_no_header_is_told_and_the_others_count(tmp_path: Path, blob: bytes) -> None:
    good = rpm_header(name="good", version="1")
    found = packages.facts(rpm.database, rpm_database(tmp_path, headers=[blob, good]))
    assert isinstance(found[0], Flaw)
    assert "row 1" in found[0].message
    assert found[1:] == [Package("rpm", "good", "1")]


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (("CREATE TABLE other (a)",), "no table of packages"),
        (
            (
                "CREATE VIEW Packages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
                "SELECT i AS hnum, zeroblob(i) AS blob FROM n",
            ),
            "no table of packages",
        ),
        (("CREATE TABLE Packages (hnum INTEGER)",), "no such column"),
        (
            (
                "CREATE TABLE Packages (hnum INTEGER, b, blob AS (zeroblob(999999999)))",
                "INSERT INTO Packages (hnum) VALUES (1)",
            ),
            "not a database",
        ),
    ],
)
def test_a_database_that_lies_is_refused(tmp_path: Path, statements: tuple[str, ...], said: str) -> None:
    with pytest.raises(CorruptContent, match=said):
        packages.facts(rpm.database, rpm_database(tmp_path, *statements, "CREATE TABLE x (a)"))


@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0", b"SQLite format 3\0" + b"\xff" * 5000, b"junk" * 500])
def test_what_is_no_database_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptContent):
        packages.facts(rpm.database, data)


def test_older_databases_of_rpm_are_told_and_not_read() -> None:
    said = [
        packages.facts(rpm.other, bytes(12) + b"\x61\x15\x06\x00" + bytes(100)),
        packages.facts(rpm.other, b"RpmP" + bytes(100)),
    ]
    assert ["Berkeley DB" in str(said[0]), "ndb" in str(said[1])] == [True, True]
    assert packages.facts(rpm.other, b"a file of something else") == []
    assert packages.facts(rpm.log, b"") == []


def test_python_takes_the_headers_only() -> None:
    data = (
        b"Metadata-Version: 2.1\nName: Foo_Bar.baz\nVersion: 1.0\nLicense: UNKNOWN\n"
        b"Classifier: License :: OSI Approved :: MIT License\nClassifier: Programming Language :: C\n\nName: not-this\n"
    )
    assert packages.facts(python.metadata, data) == [Package("pypi", "foo-bar-baz", "1.0", licences=("MIT License",))]
    newer = b"Name: a\nVersion: 2\nLicense: old\nLicense-Expression: MIT OR Apache-2.0\n"
    assert packages.facts(python.metadata, newer) == [Package("pypi", "a", "2", licences=("MIT OR Apache-2.0",))]


def test_node_reads_packages_and_lock_files_of_all_versions() -> None:
    data = json.dumps({"name": "@a/b", "version": "1.0.0", "license": {"type": "MIT"}}).encode()
    assert packages.facts(node.package, data) == [Package("npm", "b", "1.0.0", "@a", licences=("MIT",))]
    assert packages.facts(node.package, b'{"type": "module"}') == []
    lock = {"packages": {"": {"name": "app"}, "node_modules/x": {"version": "1"}, "node_modules/l": {"link": True}}}
    nested = {"dependencies": {"x": {"version": "1", "dependencies": {"y": {"version": "2"}}}}}
    x = Package("npm", "x", "1", is_declared=True)
    assert packages.facts(node.lock, json.dumps(lock).encode()) == [x]
    assert packages.facts(node.lock, json.dumps(nested).encode()) == [x, x._replace(name="y", version="2")]


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"name":' + b"[" * 100_000, b"\xff\xfe", b'{"a":' * 50_000])
def test_bad_json_is_refused(data: bytes) -> None:
    for read in (node.package, node.lock):
        with pytest.raises(CorruptContent):
            packages.facts(read, data)


MODULES = "path\texample.org/app\nmod\texample.org/app\tv1.0.0\th1:=\ndep\tgolang.org/x/sys\tv0.1.0\th1:=\n" + (
    "dep\ta.org/old\tv1.0.0\n=>\tb.org/new\tv2.0.0\th1:=\nbuild\t-compiler=gc\n"
)


@pytest.mark.parametrize("before", [16, 4096, (1 << 18) - 16, (1 << 18), (1 << 20) + 32])
def test_go_programs_name_their_modules(before: int) -> None:
    found = packages.facts(golang.program, go_program(MODULES, before=before))
    assert [(one.namespace, one.name, one.version) for one in found if isinstance(one, Package)] == [
        ("", "stdlib", "1.21.5"),
        ("example.org", "app", "v1.0.0"),
        ("golang.org/x", "sys", "v0.1.0"),
        ("b.org", "new", "v2.0.0"),
    ]


def test_a_magic_text_that_begins_nothing_is_passed_over() -> None:
    decoy = b"\x7fELF" + bytes(12) + (b"\xff Go buildinf:" + b"\2" * 18) * 300
    real = go_program(MODULES, before=16 * 400)
    found = packages.facts(golang.program, decoy[: 16 * 300] + real[16 * 300 :])
    assert isinstance(found[0], Package)
    assert packages.facts(golang.program, decoy) == []
    assert packages.facts(golang.program, b"#!/bin/sh\n" + real) == []
    assert packages.facts(golang.program, real[:4100]) == []
    assert isinstance(packages.facts(golang.program, go_program(MODULES, flags=0))[0], Flaw)


def test_os_release_may_have_quotes() -> None:
    assert packages.facts(osrelease.system, b'NAME="x"\nID="Rocky"\nVERSION_ID=\'9.3\'\n') == [System("rocky", "9.3")]


def test_texts_are_cut_and_made_harmless() -> None:
    long = b"Package: " + b"a" * 10_000_000 + b"\nVersion: 1\x1b[31m\xff\x00\nArchitecture: all\n"
    (found,) = packages.facts(dpkg.status, long)
    assert isinstance(found, Package)
    assert (len(found.name), found.version) == (facts.TEXT, "1\ufffd[31m\ufffd\ufffd")


def test_a_database_is_read_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "DATABASE", 4 << 20)
    pieces = iter(lambda: b"Package: a\nVersion: 1\n" + b"Conffiles: x\n" * 20_000 + b"\n", b"")
    found = dpkg.status(facts.File("x", 1 << 40, lambda _: next(pieces)))
    assert next(found) == Package("deb", "a", "1")
    with pytest.raises(CorruptContent, match="more than"):
        list(found)


@pytest.mark.parametrize(
    ("path", "what"),
    [
        (b"var/lib/dpkg/status", "dpkg database"),
        (b"var/lib/dpkg/status.d/base", "dpkg database"),
        (b"var/lib/dpkg/status.d/base.md5sums", None),
        (b"var/lib/dpkg/status-old", None),
        (b"usr/lib/apk/db/installed", "apk database"),
        (b"opt/v/lib/python3.11/site-packages/a-1.dist-info/METADATA", "Python metadata"),
        (b"usr/lib/python3/dist-packages/a.egg-info", "Python metadata"),
        (b"usr/lib/python3/dist-packages/a.egg-info/PKG-INFO", "Python metadata"),
        (b"app/node_modules/@a/b/package.json", "package.json"),
        (b"app/node_modules/b/package.json", "package.json"),
        (b"app/node_modules/b/lib/package.json", None),
        (b"app/package.json", None),
        (b"app/package-lock.json", "npm lock file"),
        (b"app/node_modules/a/package-lock.json", None),
        (b"usr/lib/sysimage/rpm/rpmdb.sqlite", "rpm database"),
        (b"x/var/lib/dpkg/status", None),
    ],
)
def test_files_are_chosen_by_their_paths(path: bytes, what: str | None) -> None:
    row = wanted(path)
    assert (None if row is None else row.what) == what
