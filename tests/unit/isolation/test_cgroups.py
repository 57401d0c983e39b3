"""Limits as files of a cgroup, and the refusal where they cannot be enforced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builda.errors import InvalidValue, IsolationUnavailable
from builda.isolation.cgroups import cgroup_files, limited
from tests.support import needs


def test_limits_become_the_files_of_version_2() -> None:
    resources: dict[str, int | str] = {
        "memory": 1 << 20,
        "memory_swap": 3 << 20,
        "cpu_quota": 50_000,
        "cpu_shares": 1024,
        "cpuset_cpus": "0-1",
        "cpuset_mems": "0",
    }
    assert cgroup_files(resources) == (
        ("memory.max", "1048576"),
        ("memory.swap.max", "2097152"),
        ("cpu.max", "50000 100000"),
        ("cpu.weight", "39"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
    )


@pytest.mark.parametrize(("shares", "weight"), [(2, "1"), (262_144, "10000"), (1, "1"), (999_999, "10000")])
def test_shares_become_a_weight(shares: int, weight: str) -> None:
    assert cgroup_files({"cpu_shares": shares}) == (("cpu.weight", weight),)


def test_a_period_alone_has_no_quota() -> None:
    assert cgroup_files({"cpu_period": 5000}) == (("cpu.max", "max 5000"),)


def test_unlimited_swap() -> None:
    assert cgroup_files({"memory": 5, "memory_swap": -1}) == (("memory.max", "5"), ("memory.swap.max", "max"))


@pytest.mark.parametrize("resources", [{"memory_swap": 5}, {"memory": 5, "memory_swap": 4}, {"lunch": 1}])
def test_what_cannot_be_is_refused(resources: dict[str, int | str]) -> None:
    with pytest.raises(InvalidValue):
        cgroup_files(resources)


def _has_memory_controller() -> bool:
    return any("memory" in path.read_text() for path in Path("/sys/fs/cgroup").glob("**/cgroup.controllers"))


@pytest.mark.root
def test_limits_that_cannot_be_enforced_are_an_error() -> None:
    if _has_memory_controller():
        needs.not_here("this machine can limit memory")
    with pytest.raises(IsolationUnavailable, match="memory"), limited({"memory": 1 << 20}, None):
        raise AssertionError("not reached")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="cgroups need root")
def test_a_cgroup_of_its_own_is_gone_afterwards() -> None:
    if "cgroup2" not in Path("/proc/self/mountinfo").read_text():
        needs.not_here("no cgroup v2 hierarchy is mounted")
    with limited({}, None) as path:
        assert os.path.isdir(path)
    assert not os.path.exists(path)
