"""Ranges of subordinate ids: as they are written, and every way to write them wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from builda.errors import IsolationUnavailable
from builda.linux.subids import IdRange, advice, ranges_of, subordinate_map


def written(tmp_path: Path, text: str) -> str:
    (tmp_path / "subuid").write_text(text)
    (tmp_path / "subgid").write_text(text)
    return str(tmp_path)


def test_the_callers_id_is_root_and_the_ranges_follow(tmp_path: Path) -> None:
    etc = written(tmp_path, "other:1:5\n4242:100000:50000\n4242:300000:20000\n")
    assert subordinate_map("uid", 4242, 4242, etc=etc) == ((0, 4242, 1), (1, 100000, 50000), (50001, 300000, 20000))


def test_a_range_may_be_written_by_name_or_number(tmp_path: Path) -> None:
    etc = written(tmp_path, "root:100000:65536\n0:200000:10\n")
    assert ranges_of("gid", 0, etc=etc) == (IdRange(100000, 65536), IdRange(200000, 10))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no range of uids for user 4242"),
        ("other:100000:65536\n", "no range of uids for user 4242"),
        ("4242:100000\n", r"not USER:START:COUNT: .*subuid:1: 4242:100000"),
        ("x:1:1\n4242:1e5:65536\n", r"not USER:START:COUNT: .*subuid:2: 4242:1e5:65536"),
        ("4242:-5:65536\n", "not USER:START:COUNT"),
        ("4242:100000:0\n", "not a range of ids"),
        ("4242:4294960000:65536\n", "not a range of ids"),
        ("4242:100000:65536\n4242:165535:1000\n", "ranges of uids of user 4242 overlap in .*: 165535"),
        ("4242:4000:65536\n", "ranges of uids of user 4242 overlap in .*: 4242"),
        ("4242:100000:20\n", "range of uids of user 4242 is too small: 20"),
    ],
)
def test_a_wrong_range_is_named(tmp_path: Path, text: str, message: str) -> None:
    etc = written(tmp_path, text)
    with pytest.raises(IsolationUnavailable, match=message) as caught:
        subordinate_map("uid", 4242, 4242, etc=etc)
    assert caught.value.hint


def test_a_missing_file_is_a_missing_range(tmp_path: Path) -> None:
    with pytest.raises(IsolationUnavailable, match="no range of gids"):
        subordinate_map("gid", 4242, 4242, etc=str(tmp_path))


WHOLE = ((0, 0, 2**32 - 1),)
POD = ((0, 200000, 65536),)
TWO_ROWS = "4242:100000:65536\n4242:5000:60536\n"


@pytest.mark.parametrize(
    ("text", "held", "rows"),
    [
        (TWO_ROWS, WHOLE, ((1, 100000, 65536),)),
        (TWO_ROWS, POD, ((1, 5000, 60536),)),
        ("4242:10000:65536\n", POD, ((1, 10000, 55536),)),
        ("4242:10000:65536\n", WHOLE, ((1, 10000, 65536),)),
        ("4242:5000:2000\n4242:100000:2000\n", WHOLE, ((1, 5000, 2000), (2001, 100000, 2000))),
        ("4242:5000:4000\n", ((0, 7, 6000), (6000, 70000, 6000)), ((1, 5000, 1000), (1001, 6000, 3000))),
    ],
)
def test_what_exists_in_the_user_namespace_is_used(
    tmp_path: Path, text: str, held: tuple[tuple[int, int, int], ...], rows: tuple[tuple[int, int, int], ...]
) -> None:
    etc = written(tmp_path, text)
    assert subordinate_map("uid", 4242, 4242, etc=etc, held=held) == ((0, 4242, 1), *rows)


def test_a_range_that_does_not_exist_here_is_the_cause(tmp_path: Path) -> None:
    etc = written(tmp_path, "4242:100000:65536\n")
    message = "uids 100000-165535 of user 4242 in .*/subuid do not exist here: this user namespace has 0-65535"
    with pytest.raises(IsolationUnavailable, match=message) as caught:
        subordinate_map("uid", 4242, 4242, etc=etc, held=POD)
    start, size = map(int, str(caught.value.hint).split()[4].split(":")[1:])
    assert start >= 1000
    assert start + size <= 65536


@pytest.mark.parametrize(
    ("text", "held", "line"),
    [
        ("", WHOLE, "4242:100000:65536"),
        ("a:100000:65536\n", WHOLE, "4242:165536:65536"),
        ("b:165536:65536\na:100000:65536\nc:300000:5\n", WHOLE, "4242:231072:65536"),
        ("a:100000:65536\nb:165600:65536\n", WHOLE, "4242:231136:65536"),
        ("a:1:x\n:::\nb:100000:65536\n", WHOLE, "4242:165536:65536"),
    ],
)
def test_a_free_range_is_proposed(tmp_path: Path, text: str, held: tuple[tuple[int, int, int], ...], line: str) -> None:
    etc = written(tmp_path, text)
    assert advice("uid", 4242, etc, held).startswith(f"a line such as {line} in {etc}/subuid, or: usermod")
    (tmp_path / "subuid").write_text(f"{text}{line}\n")
    assert subordinate_map("uid", 4242, 4242, etc=etc, held=held)[1][1:] == tuple(map(int, line.split(":")[1:]))


def test_where_nothing_is_free_that_is_said(tmp_path: Path) -> None:
    etc = written(tmp_path, "a:0:65536\n")
    assert "no 1000 ids in a row are free for 4242" in advice("uid", 4242, etc, POD)
