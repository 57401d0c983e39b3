"""What the layers of an image show together."""

from __future__ import annotations

import pytest

from builda.contents import scan
from builda.errors import CorruptContent
from tests.support.packages import APK, Link, go_program, names, scanned, tar

STATUS = "var/lib/dpkg/status"
INFO = "usr/lib/python3/a-{0}.dist-info/METADATA"
DISTRIBUTION = b"Name: a\nVersion: %d\n"


def deb(*names: str) -> bytes:
    return b"".join(b"Package: %b\nVersion: 1\nStatus: install ok installed\n\n" % name.encode() for name in names)


def test_the_highest_layer_of_a_file_counts_and_is_named() -> None:
    found = scanned(tar({STATUS: deb("old", "both")}), tar({STATUS: deb("both", "new")}))
    assert [(one.package.name, one.layer, one.path) for one in found.packages] == [
        ("both", "2", "/var/lib/dpkg/status"),
        ("new", "2", "/var/lib/dpkg/status"),
    ]


@pytest.mark.parametrize(
    "above",
    [
        {"usr/lib/python3/.wh.a-1.dist-info": b""},
        {"usr/.wh.lib": b""},
        {"usr/lib/python3/.wh..wh..opq": b""},
        {"usr/lib/python3": "elsewhere"},
        {"usr/lib/python3": b"a file"},
        {INFO.format(1): b"Name: a\n"},
        {INFO.format(1): b""},
    ],
)
def test_what_a_layer_hides_does_not_count(above: dict[str, bytes | str | None]) -> None:
    below = tar({"usr": None, "usr/lib/python3": None, INFO.format(1): DISTRIBUTION % 1})
    assert names(scanned(below)) == ["a 1"]
    assert names(scanned(below, tar(above))) == []


def test_what_is_put_back_counts() -> None:
    below = tar({INFO.format(1): DISTRIBUTION % 1})
    gone = tar({"usr/.wh.lib": b""})
    assert names(scanned(below, gone, tar({INFO.format(2): DISTRIBUTION % 2}))) == ["a 2"]
    assert names(scanned(below, tar({"usr/.wh.lib": b"", INFO.format(2): DISTRIBUTION % 2}))) == ["a 2"]


def test_programs_are_looked_into_if_they_can_be_executed() -> None:
    program = go_program("dep\tx.org/y\tv1\n")
    assert names(scanned(tar({"bin/app": program}, 0o755))) == ["stdlib 1.21.5", "y v1"]
    assert names(scanned(tar({"bin/app": program}, 0o644))) == []
    assert names(scanned(tar({"bin/app": program}, 0o755), tar({"bin/app": b"#!/bin/sh\n"}, 0o755))) == []


def test_a_hard_link_is_read_whichever_name_comes_first() -> None:
    cache = "root/cache/METADATA"
    assert names(scanned(tar({cache: DISTRIBUTION % 3, INFO.format(3): Link(cache)}))) == ["a 3"]
    both = tar({INFO.format(3): DISTRIBUTION % 3, "copy/a-3.dist-info/METADATA": Link(INFO.format(3))})
    assert names(scanned(both)) == ["a 3", "a 3"]
    assert names(scanned(tar({INFO.format(3): Link("gone")}))) == []


def test_licences_of_debian_packages_come_from_their_copyright_files() -> None:
    copyright_ = b"Format: x\nLicense: GPL-2+\n"
    found = scanned(
        tar(
            {
                STATUS: deb("gcc", "libgcc", "none"),
                "usr/share/doc/gcc/copyright": copyright_,
                "usr/share/doc/libgcc": "gcc",
                "etc/os-release": "../usr/lib/os-release",
                "usr/lib/os-release": b'ID=debian\nVERSION_ID="12"\n',
            }
        )
    )
    assert [one.package.licences for one in found.packages] == [("GPL-2+",), ("GPL-2+",), ()]
    assert {(one.package.namespace, one.package.qualifiers) for one in found.packages} == {
        ("debian", (("distro", "debian-12"),))
    }


def test_what_a_lock_file_names_is_left_out_if_it_is_installed() -> None:
    lock = b'{"packages":{"node_modules/x":{"version":"1"},"node_modules/y":{"version":"1"}}}'
    found = scanned(
        tar({"app/package-lock.json": lock, "app/node_modules/x/package.json": b'{"name":"x","version":"1"}'})
    )
    assert [(one.package.name, one.package.is_declared) for one in found.packages] == [("x", False), ("y", True)]


def test_the_same_layers_give_the_same_packages_whatever_their_order_in_the_tar() -> None:
    files: dict[str, bytes | str | Link | None] = {STATUS: deb("b", "a"), "lib/apk/db/installed": APK}
    files[INFO.format(1)] = DISTRIBUTION % 1
    assert scanned(tar(files)) == scanned(tar(dict(reversed(files.items()))))


def test_a_damaged_file_is_told_with_its_place_and_the_others_count() -> None:
    found = scanned(
        tar({"a/node_modules/x/package.json": b'{"x":' * 40_000, STATUS: deb("a") + b"Package: b\n\n" * 50})
    )
    assert names(found) == ["a 1"]
    said = [str(one) for one in found.warnings]
    assert said[0].startswith("/a/node_modules/x/package.json in layer 1: it is not JSON")
    assert said[-1].startswith("/var/lib/dpkg/status in layer 1: has")
    assert "has 30 more such entries" in " ".join(said)
    assert len(said) == 22


def test_names_of_files_that_are_no_text_are_told_harmlessly() -> None:
    found = scanned(tar({"\x1b[31m/\udcff.dist-info/METADATA": b"x"}))
    assert [one.path for one in found.warnings] == ["/\ufffd[31m/\ufffd.dist-info/METADATA"]


def test_entries_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "ENTRIES", 100)
    assert names(scanned(tar({f"f{number}": b"" for number in range(1000)}))) == []
    with pytest.raises(CorruptContent, match="more than 100 directories"):
        scanned(tar({f"d{number}": None for number in range(101)}))
    monkeypatch.setattr(scan, "PACKAGES", 10)
    with pytest.raises(CorruptContent, match="more than 10 packages"):
        scanned(tar({STATUS: deb(*map(str, range(11)))}))


def test_a_truncated_layer_is_an_error() -> None:
    with pytest.raises(CorruptContent, match="truncated"):
        scanned(tar({STATUS: deb("a")})[:700])
