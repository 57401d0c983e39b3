"""Limits of a command's descriptors, which are lower than what builda itself needs to start it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builda.isolation.spec import Rlimit
from tests.support.pathcalls import compiled
from tests.unit.isolation.conftest import Box

FEW = (3, 4, 5, 6, 10, 12)


def descriptors(soft: int, hard: int) -> tuple[Rlimit, ...]:
    return (Rlimit(type="RLIMIT_NOFILE", soft=soft, hard=hard),)


def check_few(box: Box) -> None:
    """A program that needs a fourth descriptor runs if the limit allows it, and else says what the kernel says."""
    for number in FEW:
        status = box.run("head", "-c", "4", "/etc/passwd", rlimits=descriptors(number, number))
        said = (1, "head: /etc/passwd: Too many open files\n") if number == 3 else (0, "root")
        assert (number, status, box.output) == (number, *said)


def test_a_command_gets_as_few_descriptors_as_asked_for(box: Box) -> None:
    check_few(box)


def test_a_command_in_a_chroot_gets_as_few_descriptors_as_asked_for(new_box: Callable[..., Box]) -> None:
    box = new_box(None, can_mount=False)
    box.sandbox = replace(box.sandbox, network="host", hostname=None)
    check_few(box)


@pytest.mark.usefixtures("answered")
def test_a_traced_command_gets_as_few_descriptors_as_asked_for(box: Box) -> None:
    box.trace()
    check_few(box)


@pytest.mark.usefixtures("answered")
@pytest.mark.parametrize("soft", [5, 64, 1800])
def test_a_traced_command_lowers_and_raises_its_limit(soft: int, box: Box, tmp_path: Path) -> None:
    box.trace()
    shutil.copy(compiled("limits", tmp_path), box.rootfs / "root")
    assert (box.run("/root/limits", rlimits=descriptors(soft, 2000)), box.output) == (0, "done\n")
