"""FIFOs of mode `traced` where no thread can be started. tests/integration/test_fifos_of_calls.py has the rest."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import Any, cast

import pytest

from builda.isolation.traced.fifos import Fifos

pytestmark = pytest.mark.root
IDENTITY = 7


class Answers:
    """Stands in for a listener, and keeps what is answered."""

    def __init__(self) -> None:
        self.given: list[tuple[int, tuple[int, int, int]]] = []

    def elsewhere(self, identity: int) -> Answers:
        return self

    def still_waits(self, identity: int) -> bool:
        return True

    def drop_late(self) -> None:
        pass

    def send(self, identity: int, answer: tuple[int, int, int]) -> None:
        self.given.append((identity, answer))


def is_answered_without_threads(held: int) -> bool:
    """Whether the call gets ENOMEM, and the descriptor is closed, in a process that can start no thread."""
    answers = Answers()
    os.setgid(54321)
    os.setuid(54321)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    fifos = Fifos(cast(Any, answers))
    for _ in range(2):
        fifos.open(IDENTITY, os.getpid(), os.dup(held), os.O_RDONLY)
    os.close(held)
    fifos.let_go()
    return answers.given == [(IDENTITY, (0, -errno.ENOMEM, 0))] * 2 and not os.path.exists(f"/proc/self/fd/{held}")


def test_an_open_for_which_no_thread_can_be_started_fails(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    held = os.open(tmp_path / "fifo", os.O_PATH)
    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if is_answered_without_threads(held) else 1)
        finally:
            os._exit(2)
    os.close(held)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
