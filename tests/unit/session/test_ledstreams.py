"""Streams that are led to a child process, and joined there line by line."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

SCRIPT = """
import os, sys, threading
from builda.session.ledstreams import WholeLines, lead

lines = WholeLines(1)
led = lead(lines.wrote, lambda status: lines.end())
def write(descriptor, line, times):
    for _ in range(times):
        left = line
        while left:
            left = left[os.write(descriptor, left):]
threads = [
    threading.Thread(target=write, args=(1, b"o" * 200_000 + b"\\n", 20)),
    threading.Thread(target=write, args=(2, b"e" * 50 + b"\\n", 3000)),
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
os.write(2, b"last words")
led.end(0)
"""


def test_a_line_of_one_stream_is_in_no_line_of_another() -> None:
    """The reader is slow, so that the pipes fill up within a line."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        read = b""
        while piece := os.read(process.stdout.fileno(), 30_000):
            read += piece
            time.sleep(0.001)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0
    found = read.splitlines()
    assert found.count(b"o" * 200_000) == 20
    assert found.count(b"e" * 50) == 3000
    assert found.count(b"last words") == 1
    assert len(found) == 3021
