"""Kills for lack of memory are read from a cgroup's own count; the files here are as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

from builda.isolation.oom import Kills, described


def cgroup(path: Path, kills: int, limit: str) -> None:
    path.mkdir(exist_ok=True)
    (path / "memory.events").write_text(f"low 0\nhigh 0\nmax 3\noom 1\noom_kill {kills}\noom_group_kill 0\n")
    (path / "memory.max").write_text(f"{limit}\n")


def test_only_kills_since_the_start_count(tmp_path: Path) -> None:
    place = tmp_path / "cgroup"
    cgroup(place, 2, "67108864")
    kills = Kills(str(place))
    assert not kills.happened()
    cgroup(place, 3, "67108864")
    assert kills.happened()
    assert kills.way_out() == "the limit of its cgroup is 64 MiB: raise it (--memory, or the limit of the pod)"


def test_without_a_limit_the_machine_lacks_memory(tmp_path: Path) -> None:
    cgroup(tmp_path, 0, "max")
    assert "the machine has too little memory" in Kills(str(tmp_path)).way_out()


def test_a_cgroup_that_is_gone_counts_nothing(tmp_path: Path) -> None:
    assert not Kills(str(tmp_path / "gone")).happened()


def test_the_callers_own_cgroup_can_be_read_anywhere() -> None:
    assert not Kills(None).happened()


def test_words_tell_who_was_killed() -> None:
    assert described(137) == "command was killed for lack of memory"
    assert described(2) == "command failed with exit status 2, and something it ran was killed for lack of memory"
