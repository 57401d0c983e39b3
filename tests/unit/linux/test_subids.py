"""Ranges of subordinate ids: as they are written, and every way to write them wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from builda.errors import IsolationUnavailable
from builda.linux.subids import IdRange, ranges_of, subordinate_map


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
