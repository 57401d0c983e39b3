"""Which maps the --userns options mean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builda.builder.usernamespace import Users, is_asked_for, parse_map, users_of, with_ids
from builda.errors import BuildaError, InvalidValue, IsolationUnavailable
from builda.isolation.mapping import Mapping
from builda.linux.mount import Mount
from builda.runoptions import RunOptions


@pytest.fixture
def etc(tmp_path: Path) -> str:
    (tmp_path / "subuid").write_text("containers:200000:100000\nbuild:5000:10\nbuild:9000:20\n")
    (tmp_path / "subgid").write_text("containers:300000:1000\ncontainers:400000:100000\nbuild:6000:30\n")
    return str(tmp_path)


def of(etc: str, **options: str) -> Users:
    return users_of(RunOptions(**options), etc=etc)  # type: ignore[arg-type]  # all of these are texts


@pytest.mark.parametrize("said", [None, "", "host"])
def test_nothing_is_asked_for(said: str | None) -> None:
    assert not is_asked_for(RunOptions(userns=said))
    assert is_asked_for(RunOptions(userns=said, userns_uid_map="0:1:1"))


def test_a_map_of_uids_is_that_of_gids_too(etc: str) -> None:
    rows = ((0, 100000, 10), (10, 5, 1))
    assert of(etc, userns_uid_map="0:100000:10,10:5:1") == (rows, rows, None)
    assert of(etc, userns_uid_map="0:7:1", userns_gid_map="0:8:1")[:2] == (((0, 7, 1),), ((0, 8, 1),))


def test_ranges_of_a_user_are_mapped_one_behind_the_other(etc: str) -> None:
    assert of(etc, userns_uid_map_user="build") == (((0, 5000, 10), (10, 9000, 20)), ((0, 6000, 30),), None)
    assert of(etc, userns_uid_map="0:1:1", userns_gid_map_group="build")[1] == ((0, 6000, 30),)


@pytest.mark.parametrize("said", ["auto", "private", "container"])
def test_the_ranges_of_containers_are_taken_by_default(etc: str, said: str) -> None:
    assert of(etc, userns=said)[:2] == (((0, 200000, 65536),), ((0, 300000, 1000), (1000, 400000, 64536)))


def test_auto_keeps_to_a_size_and_around_what_is_said(etc: str) -> None:
    assert of(etc, userns="auto:size=1000")[0] == ((0, 200000, 1000),)
    assert of(etc, userns="auto:size=100,uidmapping=5:7:1")[0] == ((0, 200000, 5), (5, 7, 1), (6, 200005, 94))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"userns_uid_map": "0:1"}, "--userns-uid-map is CONTAINER:HOST:SIZE"),
        ({"userns_uid_map": "0:x:1"}, "--userns-uid-map is CONTAINER:HOST:SIZE"),
        ({"userns_uid_map": "0:1:0"}, "not a range of ids in --userns-uid-map: 0:1:0"),
        ({"userns_uid_map": "0:4294967295:1"}, "not a range of ids"),
        ({"userns_uid_map": "0:10:5,4:100:5"}, "--userns-uid-map maps an id twice: 4"),
        ({"userns_uid_map": "0:10:5,5:14:5"}, "--userns-uid-map maps an id twice: 14"),
        ({"userns_uid_map": "5:10:5"}, "has no id 0"),
        ({"userns_gid_map": "0:1:1"}, "--userns-gid-map needs --userns-uid-map"),
        ({"userns_uid_map_user": "nobody-here"}, "no range of uids for nobody-here"),
        ({"userns": "auto:size=x"}, "--userns=auto takes size=N"),
        ({"userns": "keep-id"}, "--userns is host, private"),
        ({"userns": "auto", "userns_uid_map": "0:1:1"}, "--userns=auto cannot be used with options that say the map"),
        ({"userns": "ns:/proc/nothing"}, "cannot open the user namespace"),
        ({"userns": "/proc/self/ns/mnt"}, "not a user namespace that can be joined"),
    ],
)
def test_what_makes_no_sense_is_named(etc: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(BuildaError, match=words):
        of(etc, **options)


def test_the_line_that_lacks_is_said(tmp_path: Path) -> None:
    with pytest.raises(IsolationUnavailable) as raised:
        of(str(tmp_path), userns="auto")
    assert "containers:2147483648:65536" in str(raised.value.hint)
    (tmp_path / "subuid").write_text("containers:1:x\n")
    with pytest.raises(IsolationUnavailable, match="not USER:START:COUNT"):
        of(str(tmp_path), userns="auto")


def test_a_part_of_a_map_need_not_have_id_0() -> None:
    assert parse_map("5:6:7", "uidmapping", whole=False) == ((5, 6, 7),)
    with pytest.raises(InvalidValue, match="uidmapping"):
        parse_map("5:6", "uidmapping", whole=False)


def test_what_is_buildas_own_is_mapped() -> None:
    mounts = tuple(Mount("bind", source, "/x") for source in ("/store/cache/a", "/storefront", "/home"))
    assert [mount.options for mount in with_ids(mounts, ("/store", "/run"))] == [("idmap",), (), ()]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_namespace_is_asked_for_its_maps() -> None:
    there = Mapping(((0, 77000, 5),), ((0, 88000, 6),), None)
    users = users_of(RunOptions(userns=f"/proc/{os.getpid()}/fd/{there.fd}"))
    os.close(there.fd)
    assert users[:2] == (there.uids, there.gids)
