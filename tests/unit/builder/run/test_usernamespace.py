"""Which maps the --userns options mean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builda.builder.run.usernamespace import Users, is_asked_for, parse_map, users_of
from builda.errors import BuildaError, InvalidValue, IsolationUnavailable
from builda.isolation.child.id_mapping import Mapping
from builda.runoptions import RunOptions


@pytest.fixture
def etc(tmp_path: Path) -> str:
    (tmp_path / "subuid").write_text(
        "containers:200000:100000\nbuild:5000:10\nbuild:9000:20\ntwice:50:10\ntwice:55:10\n"
    )
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


def test_auto_takes_the_ranges_of_containers(etc: str) -> None:
    assert of(etc, userns="auto")[:2] == (((0, 200000, 65536),), ((0, 300000, 1000), (1000, 400000, 64536)))


@pytest.mark.parametrize("said", ["private", "container"])
def test_a_private_namespace_without_a_map_has_our_ids(etc: str, said: str) -> None:
    users = of(etc, userns=said)
    assert not users.are_others
    assert users.outside(0, 0) == (0, 0)
    assert of(etc, userns_uid_map="0:0:5,7:8:1").are_others


def test_auto_keeps_to_a_size_and_around_what_is_said(etc: str) -> None:
    assert of(etc, userns="auto:size=1000")[0] == ((0, 200000, 1000),)
    assert of(etc, userns="auto:size=100,uidmapping=5:7:1")[0] == ((0, 200000, 5), (5, 7, 1), (6, 200005, 94))
    assert of(etc, userns="auto:size=9,uidmapping=5:200003:1")[0] == (
        (0, 200000, 3), (3, 200004, 2), (5, 200003, 1), (6, 200006, 3),
    )  # fmt: skip
    assert of(etc, userns="auto:size=2,uidmapping=9:9:1,uidmapping=1:1:4")[0] == ((0, 200000, 1), (1, 1, 4), (9, 9, 1))


def test_auto_gives_the_size_that_is_said_or_nothing(etc: str) -> None:
    with pytest.raises(IsolationUnavailable, match="needs 102000, 1000 are missing"):
        of(etc, userns="auto:size=102000,uidmapping=0:1000000:102000")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"userns_uid_map": "0:1"}, "--userns-uid-map is CONTAINER:HOST:SIZE"),
        ({"userns_uid_map": "0:x:1"}, "--userns-uid-map is CONTAINER:HOST:SIZE"),
        ({"userns_uid_map": f"0:{'9' * 5000}:1"}, "--userns-uid-map is CONTAINER:HOST:SIZE"),
        ({"userns_uid_map": "0:1:0"}, "not a range of ids in --userns-uid-map: 0:1:0"),
        ({"userns_uid_map": "0:4294967295:1"}, "not a range of ids"),
        ({"userns_uid_map": "0:10:5,4:100:5"}, "--userns-uid-map maps an id twice: 4"),
        ({"userns_uid_map": "0:10:5,5:14:5"}, "--userns-uid-map maps an id twice: 14"),
        ({"userns_uid_map": "5:10:5"}, "lacks id 0"),
        (
            {"userns_uid_map": ",".join(f"{n}:{n}:1" for n in range(341))},
            "more than the 340 ranges that a map can have",
        ),
        ({"userns_uid_map": "0:1:²"}, "--userns-uid-map is CONTAINER:HOST:SIZE"),
        ({"userns_gid_map": "0:1:1"}, "--userns-gid-map needs --userns-uid-map"),
        ({"userns_uid_map": "0:1:1", "userns_uid_map_user": "build"}, "cannot be used with --userns-uid-map-user"),
        (
            {"userns_uid_map": "0:1:1", "userns_gid_map": "0:1:1", "userns_gid_map_group": "build"},
            "cannot be used with --userns-gid-map-group",
        ),
        ({"userns_uid_map_user": "twice"}, "ranges of uids of twice overlap in .*: 55"),
        ({"userns_uid_map_user": "nobody-here"}, "no range of uids for nobody-here"),
        ({"userns": "auto:size=x"}, "--userns=auto takes size=N"),
        ({"userns": "auto:size=0"}, "--userns=auto takes size=N"),
        ({"userns": "auto:uidmapping=1:2"}, "uidmapping is CONTAINER:HOST:SIZE"),
        ({"userns": "keep-id"}, "--userns must be host, private"),
        ({"userns": "auto", "userns_uid_map": "0:1:1"}, "--userns=auto cannot be used with options that set the map"),
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


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_namespace_without_root_is_not_joined(etc: str) -> None:
    there = Mapping(((1, 77000, 5),), ((0, 88000, 6),), None)
    with pytest.raises(InvalidValue, match="user namespace lacks id 0"):
        of(etc, userns=f"/proc/{os.getpid()}/fd/{there.fd}")
    os.close(there.fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_namespace_is_asked_for_its_maps() -> None:
    there = Mapping(((0, 77000, 5),), ((0, 88000, 6),), None)
    users = users_of(RunOptions(userns=f"/proc/{os.getpid()}/fd/{there.fd}"))
    os.close(there.fd)
    assert users[:2] == (there.uids, there.gids)
