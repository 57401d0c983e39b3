"""What each caught call returns for bad input: in the modes `single` and `traced` what the kernel says in a chroot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.pathcalls import compiled, in_chroot, in_traced
from tests.support.rootless import LONELY, rootless
from tests.unit.isolation.conftest import answered as answered
from tests.unit.isolation.conftest import new_box as new_box  # the fixture, shared with the unit tests

pytestmark = pytest.mark.root

STEPS = [23, pytest.param(1, marks=pytest.mark.long)]
"""Of the paths, each call gets every twenty-third one."""
MAY_DIFFER = {
    "(syscall(SYS_capget, &header, data))": {"ESRCH"},  # a process is not looked for
    "(syscall(SYS_prctl, option, value, 0, 0, 0))": {"1"},  # no_new_privs is set in the chroot only
}
"""Calls, and what the kernel returns where the modes may return something else."""
MAY_DIFFER_IN_SINGLE = {
    **MAY_DIFFER,
    '(chmod("file", 0644))': {"EPERM"},  # a pretended user may do what root may
    "(syscall(SYS_fchown, fd, 1, 1))": {"EBADF"},  # of a descriptor that was opened with O_PATH
    "(syscall(SYS_flistxattr, fd, buffer, 0) < 0 ? -1 : 0)": {"EBADF"},  # the same
}
MAY_DIFFER_IN_TRACED = {
    **MAY_DIFFER,
    "(syscall(SYS_connect, s, &address, n))": {"EAFNOSUPPORT", "EINVAL"},  # a path given to a socket of another family
    "(syscall(SYS_sendmsg, fd, NULL, 0))": {"EBADF"},  # a descriptor that was opened with O_PATH
    '(syscall(SYS_fsetxattr, fd, "user.x", "v", 1, 0))': {"0"},  # young kernels take AT_FDCWD for a descriptor
    '(syscall(SYS_fgetxattr, fd, "user.none", buffer, 10))': {"ENODATA"},
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("errnos", tmp_path_factory.mktemp("errnos"))


@pytest.fixture(scope="module")
def kernels(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], list[str]]:
    """The lines of the program in a chroot, by step."""
    found: dict[int, list[str]] = {}

    def lines(step: int) -> list[str]:
        if step not in found:
            root = tmp_path_factory.mktemp("chroot")
            found[step] = in_chroot(program, root, str(step)).splitlines()
        return found[step]

    return lines


@pytest.mark.usefixtures("answered")
@pytest.mark.parametrize("step", STEPS)
def test_calls_in_traced(
    step: int, program: Path, kernels: Callable[[int], list[str]], new_box: Callable[..., Any]
) -> None:
    found = in_traced(program, new_box, str(step)).splitlines()
    assert differences(kernels(step), found, MAY_DIFFER_IN_TRACED) == []


@pytest.mark.parametrize("step", STEPS)
def test_calls_in_single(step: int, program: Path, kernels: Callable[[int], list[str]]) -> None:
    with rootless(LONELY) as builda:
        assert '"mode": "single"' in builda("info")
        copy = builda.home / "program"
        shutil.copy(program, copy)
        container = builda("from", "scratch")
        builda("copy", "-q", container, copy, "/root/errnos")
        found = builda("run", container, "--", "/root/errnos", str(step)).splitlines()
    assert differences(kernels(step), found, MAY_DIFFER_IN_SINGLE) == []


def differences(wanted: list[str], found: list[str], allowed: dict[str, set[str]]) -> list[str]:
    """Lines that differ and should not."""
    assert len(found) == len(wanted) > 1000
    return [
        f"{line}, not {other}" for line, other in zip(wanted, found, strict=True) if not _alike(line, other, allowed)
    ]


def _alike(line: str, other: str, allowed: dict[str, set[str]]) -> bool:
    call, _, result = line.rpartition(" = ")
    if line == other:
        return True
    return other.startswith(f"{call} = ") and any(call.endswith(end) and result in allowed[end] for end in allowed)
