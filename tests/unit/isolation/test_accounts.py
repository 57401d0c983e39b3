"""`user[:group]` by the /etc/passwd and /etc/group of a tree."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from builda.builder.copy.ownernames import owner
from builda.errors import InvalidValue, NotFound
from builda.isolation.accounts import home_directory, resolve_user
from builda.isolation.spec import User
from tests.support import needs

PASSWD = "root:x:0:0:root:/root:/bin/sh\n# comment\n\nbroken:x\nbob:x:1000:1001::/home/bob:/bin/sh\n77:x:5:5::/five:\n"
GROUP = "root:x:0:\nbob:x:1001:\nwheel:x:10:root,bob\nbad:x:y:\nusers:x:100:bob\n"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0, (0, 10))),
        ("root", (0, 0, (0, 10))),
        ("bob", (1000, 1001, (1001, 10, 100))),
        ("1000", (1000, 1001, (1001, 10, 100))),
        ("0001000", (1000, 1001, (1001, 10, 100))),
        ("bob:wheel", (1000, 10, (10,))),
        ("bob:4242", (1000, 4242, (4242,))),
        (":wheel", (0, 10, (10,))),
        ("4242", (4242, 0, (0,))),
        ("4242:4343", (4242, 4343, (4343,))),
        ("4294967294", (4294967294, 0, (0,))),
        ("77", (77, 0, (0,))),  # a number even though an account has it for a name
    ],
)
def test_names_and_numbers(root: int, text: str, expected: tuple[int, int, tuple[int, ...]]) -> None:
    assert resolve_user(root, text) == User(uid=expected[0], gid=expected[1], additional_gids=expected[2])


def test_additional_groups_come_on_top(root: int) -> None:
    assert resolve_user(root, "bob", ("users", "7")).additional_gids == (1001, 10, 100, 7)
    assert resolve_user(root, "bob:bob", ("wheel",)).additional_gids == (1001, 10)


@pytest.mark.parametrize(("text", "hint"), [("bbo", "did you mean bob?"), ("bob:whel", "did you mean wheel?")])
def test_an_unknown_name_is_named_with_a_near_one(root: int, text: str, hint: str) -> None:
    with pytest.raises(NotFound, match=text.rpartition(":")[2]) as caught:
        resolve_user(root, text)
    assert caught.value.hint == hint


_TOO_LARGE = ["4294967295", "4294967296", "99999999999", "18446744073709551615", "9" * 5000]


@pytest.mark.parametrize("text", ["bob:", *_TOO_LARGE, *(f"0:{number}" for number in _TOO_LARGE)])
def test_what_cannot_be_is_refused(root: int, text: str) -> None:
    with pytest.raises(InvalidValue):
        resolve_user(root, text)
    with pytest.raises(InvalidValue):
        owner(root, text)


@pytest.mark.parametrize("number", _TOO_LARGE)
def test_an_account_or_group_with_an_id_that_cannot_be_is_refused_and_harms_no_other(
    root: int, tmp_path: Path, number: str
) -> None:
    """setresuid(2) takes -1 for "as it is": the command would stay root."""
    (tmp_path / "etc/passwd").write_text(f"{PASSWD}eve:x:{number}:5::/:\nmal:x:6:{number}::/:\nmember:x:7:7::/:\n")
    (tmp_path / "etc/group").write_text(f"{GROUP}evil:x:{number}:member\n")
    for text in ("eve", "mal", "6", "bob:evil", "member"):
        with pytest.raises(InvalidValue, match="larger than 4294967294"):
            resolve_user(root, text)
    assert resolve_user(root, "bob").uid == 1000
    assert resolve_user(root, "member:bob").uid == 7


def test_numbers_of_other_scripts_are_names(root: int, tmp_path: Path) -> None:
    (tmp_path / "etc/passwd").write_text("odd:x:\u00b2:5::/:\n")
    with pytest.raises(NotFound):
        resolve_user(root, "odd")
    with pytest.raises(NotFound):
        resolve_user(root, "\u00b2")


@pytest.mark.parametrize("kind", ["fifo", "device", "directory", "socket", "link to a device"])
def test_a_file_of_accounts_that_is_none_is_refused_and_not_opened(root: int, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "etc/passwd"
    place.unlink()
    match kind:
        case "fifo":
            os.mkfifo(place)
        case "directory":
            place.mkdir()
        case "socket":
            os.mknod(place, stat.S_IFSOCK | 0o600)
        case _:
            if os.geteuid() != 0:
                needs.not_here("no right to make a device node")
            # A loop device that is not there: to open it fails with another error.
            os.mknod(tmp_path / "etc/node", stat.S_IFBLK | 0o600, os.makedev(7, 1 << 19))
            if kind == "device":
                (tmp_path / "etc/node").rename(place)
            else:
                place.symlink_to("/etc/node")
    with pytest.raises(InvalidValue, match="not a regular file in the container: /etc/passwd"):
        resolve_user(root, "bob")


def test_a_tree_without_passwd_knows_numbers_only(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert resolve_user(fd, "5:6") == User(uid=5, gid=6, additional_gids=(6,))
        assert resolve_user(fd, "") == User(uid=0, gid=0, additional_gids=(0,))
        with pytest.raises(NotFound):
            resolve_user(fd, "root")
    finally:
        os.close(fd)


def test_a_link_out_of_the_tree_is_not_followed(root: int, tmp_path: Path) -> None:
    (tmp_path / "etc/passwd").unlink()
    (tmp_path / "etc/passwd").symlink_to("/etc/passwd")
    with pytest.raises(NotFound):
        resolve_user(root, "daemon")


def test_home_is_what_passwd_says(root: int) -> None:
    assert home_directory(root, 1000) == "/home/bob"
    assert home_directory(root, 4242) == "/"
