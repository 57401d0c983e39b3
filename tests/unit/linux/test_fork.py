"""Forked processes: no signal is lost around the fork, and the child handles signals as a program just started."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import builda
from builda.linux import fork

PACKAGE = Path(builda.__file__).parent
FORKS = {"fork", "forkpty", "fork_exec"}

START = """
import os, signal, sys
from builda.linux import fork

def end(number, frame):
    raise SystemExit(128 + number)

signal.signal(signal.SIGTERM, end)
"""

MANY = """
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"x"))
os.register_at_fork(before=lambda: sum(range(3000)), after_in_parent=lambda: sum(range(3000)))
os.write(1, b"x")
while True:
    os.waitpid(fork.start(lambda: 0), 0)
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", START + script], capture_output=True, text=True, timeout=60)


def _forks(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in FORKS and isinstance(node.value, ast.Name):
            if node.value.id in ("os", "posix", "pty", "_posixsubprocess"):
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module in ("os", "posix", "pty"):
            yield from (node.lineno for alias in node.names if alias.name in FORKS)


def test_builda_forks_in_one_place() -> None:
    found = {
        str(path.relative_to(PACKAGE)): lines
        for path in PACKAGE.rglob("*.py")
        if (lines := list(_forks(ast.parse(path.read_bytes()))))
    }
    assert list(found) == ["linux/fork.py"], found


@pytest.mark.parametrize("moment", ["before", "after_in_parent"])
def test_a_signal_while_functions_around_the_fork_run_is_not_lost(moment: str) -> None:
    hook = f"os.register_at_fork({moment}=lambda: os.kill(os.getpid(), signal.SIGTERM))"
    result = run(f"{hook}; fork.start(lambda: 0); sys.exit('the signal was lost')")
    assert (result.returncode, result.stderr) == (143, "")


def test_a_signal_to_the_child_ends_it_as_a_program_just_started() -> None:
    hook = "os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))"
    result = run(f"{hook}; print(os.waitpid(fork.start(lambda: 0), 0)[1])")
    assert (result.stdout, result.stderr) == ("15\n", "")


def test_every_one_of_many_signals_is_handled() -> None:
    code = f"{START}{MANY}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(300):
            assert os.read(process.stdout.fileno(), 1) == b"x"
            process.send_signal(signal.SIGTERM)
        process.kill()
        assert process.stderr.read() == b""


def test_the_child_blocks_and_ignores_what_this_thread_does() -> None:
    reader, writer = os.pipe()

    def child() -> int:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        os.write(writer, f"{sorted(map(int, blocked))} {signal.getsignal(signal.SIGUSR2)!r}".encode())
        return 7

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    handler = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        pid = fork.start(child)
        inside = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGUSR2, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(writer)
    with open(reader, "rb") as pipe:
        assert pipe.read().decode() == f"{sorted(map(int, inside))} {signal.SIG_IGN!r}"
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_child_that_raises_shows_it_and_fails() -> None:
    result = run("print(os.waitpid(fork.start(lambda: 1 // 0), 0)[1] >> 8)")
    assert result.stdout == "125\n"
    assert "ZeroDivisionError" in result.stderr


def test_a_child_without_memory_says_so_in_a_line() -> None:
    script = (
        "def child():\n    raise MemoryError\nprint(os.waitstatus_to_exitcode(os.waitpid(fork.start(child), 0)[1]))"
    )
    result = run(script)
    assert (result.stdout, result.stderr) == ("125\n", "Error: no memory is left for builda\n")
