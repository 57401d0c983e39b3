"""The pages that a process writes to are noted, and copied ahead in another."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from builda.linux import fork
from builda.session.writtenpages import FEW, PAGE, Pages, faults, joined

NUMBER = 2000


@pytest.mark.parametrize(
    ("runs", "gap", "result"),
    [
        ([], 0, []),
        ([(5, 1)], 0, [(5, 1)]),
        ([(7, 2), (5, 1), (6, 1)], 0, [(5, 4)]),
        ([(5, 10), (6, 2)], 0, [(5, 10)]),
        ([(5, 1), (8, 1)], 1, [(5, 1), (8, 1)]),
        ([(5, 1), (8, 1)], 2, [(5, 4)]),
    ],
)
def test_runs_are_joined(runs: list[tuple[int, int]], gap: int, result: list[tuple[int, int]]) -> None:
    assert joined(runs, gap) == result


def test_a_process_has_copies_of_what_another_wrote_to() -> None:
    memory = bytearray(NUMBER * PAGE)
    pages = Pages()

    def write() -> int:
        before = faults()
        memory[::PAGE] = bytes([1]) * NUMBER
        return min((faults() - before) * 100 // NUMBER, 100)

    def write_and_note() -> int:
        before = faults()
        write()
        pages.note(before)
        return 0

    def copy_and_write() -> int:
        return write() if pages.copy() else 125

    write()
    assert status(write) > 90  # percent of the pages
    assert status(write_and_note) == 0
    percent = status(copy_and_write)
    if percent == 125:
        pytest.skip("the kernel copies no pages ahead, or has one processor")
    assert percent < 10


def test_a_command_that_was_given_few_pages_notes_none() -> None:
    pages = Pages()

    def note() -> int:
        pages.note(faults() + 1000 * FEW)
        return 0

    assert status(note) == 0
    assert pages.copy() is False


def status(child: Callable[[], int]) -> int:
    """The exit status of a forked process that runs `child`."""
    return os.waitstatus_to_exitcode(os.waitpid(fork.start(child), 0)[1])
