"""A child that was started ahead: one run takes it, and none of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from builda.isolation.begun import Begun
from builda.linux import process
from builda.linux.process import is_alive, process_identity

ENDED = 30.0
"""Seconds in which a process must have ended."""


def test_a_child_that_no_run_takes_is_ended() -> None:
    with Begun(None) as begun:
        pid, connection = begun.take()
        begun._child = pid, connection  # as if it had not been taken
        identity = process_identity(pid)
    assert not is_alive(*identity)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_a_second_run_gets_a_child_of_its_own() -> None:
    with Begun(None) as begun:
        children = [begun.take(), begun.take()]
    assert len({pid for pid, _ in children}) == 2
    for pid, connection in children:
        connection.close()
        assert process.wait(pid) == 137, "it ends when nothing comes"


def test_the_child_ends_with_its_parent() -> None:
    text = "import time, builda.isolation.begun as b; c = b.Begun(None); print(c._child[0], flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    identity = process_identity(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    deadline = time.monotonic() + ENDED
    while is_alive(*identity):
        assert time.monotonic() < deadline
        time.sleep(0.01)
