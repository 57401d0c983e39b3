"""How what `run` says is laid over what `from` said."""

from __future__ import annotations

from builda.runoptions import RunOptions

MAPPED = RunOptions(userns_uid_map="0:1:2", userns_gid_map="0:3:4", group_add=("5",), network="none")


def test_lists_are_added_and_single_values_replaced() -> None:
    found = RunOptions(group_add=("6",), network="host").over(MAPPED)
    assert (found.group_add, found.network, found.userns_uid_map) == (("5", "6"), "host", "0:1:2")


def test_a_user_namespace_is_replaced_as_a_whole() -> None:
    assert RunOptions(userns="host").over(MAPPED) == RunOptions(userns="host", group_add=("5",), network="none")
    found = RunOptions(userns_uid_map="0:9:1").over(MAPPED)
    assert (found.userns_uid_map, found.userns_gid_map) == ("0:9:1", None)
