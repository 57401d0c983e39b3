"""The process that waits for the next command."""

from __future__ import annotations

import os
import select
import socket
import time
from pathlib import Path

from builda.session.spare import Spare


def test_a_process_that_lacks_memory_to_get_ready_serves_nevertheless(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ready = tmp_path / "ready"

    def rehearse() -> None:
        ready.touch()
        raise MemoryError

    def serve(connection: socket.socket) -> int:
        connection.send(b"served")
        return 7

    with ours, theirs:
        spare = Spare(serve, rehearse)
        deadline = time.monotonic() + 60
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert spare.take(theirs)
        assert select.select([ours], [], [], 60)[0]
        assert ours.recv(10) == b"served"
    assert os.waitstatus_to_exitcode(os.waitpid(spare.pid, 0)[1]) == 7
