"""Processes known again, started with chosen descriptors, and sent signals."""

from __future__ import annotations

import os
import select
import signal
import sys

import pytest

from builda.linux import process, userns
from builda.linux.syscalls import CLONE_NEWUSER, unshare
from tests.support import needs


def test_this_process_is_alive_and_another_with_its_pid_is_not() -> None:
    pid, start = process.process_identity()
    assert pid == os.getpid()
    assert process.is_alive(pid, start)
    assert not process.is_alive(pid, start + 1)


def test_a_zombie_is_not_alive() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(reader, 1)
        os._exit(0)
    identity = process.process_identity(pid)
    assert process.is_alive(*identity)
    os.write(writer, b"x")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not process.is_alive(*identity)
    os.waitpid(pid, 0)
    assert not process.is_alive(*identity)
    with pytest.raises(ProcessLookupError):
        process.process_identity(pid)
    os.close(reader)
    os.close(writer)


def test_a_spawned_process_has_the_descriptors_given() -> None:
    reader, writer = os.pipe()
    swapped = {writer: reader, reader: writer}  # each wants the other's number
    code = f"import os; os.write({reader}, b'hello')"
    pid = process.spawn([sys.executable, "-IS", "-c", code], environ={}, descriptors=swapped)
    os.close(writer)
    assert os.read(reader, 10) == b"hello"
    assert process.wait(pid) == 0
    os.close(reader)


def test_a_status_is_as_a_shell_shows_it() -> None:
    assert process.wait(process.spawn(["/bin/sh", "-c", "exit 3"], environ={}, descriptors={})) == 3
    assert process.wait(process.spawn(["/bin/sh", "-c", "kill -9 $$"], environ={}, descriptors={})) == 137


def test_signals_are_forwarded_and_handlers_come_back() -> None:
    reader, writer = os.pipe()
    code = (
        "import os, signal; signal.signal(signal.SIGUSR1, lambda *_: os._exit(5)); os.write(1, b'up');"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])\nwhile True: signal.pause()"
    )
    pid = process.spawn([sys.executable, "-c", code], environ={}, descriptors={1: writer})
    seen: list[int] = []

    def note(number: int) -> bool:
        seen.append(number)
        return False

    before = signal.getsignal(signal.SIGUSR1)
    with process.forwarding(pid, note):
        assert os.read(reader, 2) == b"up"
        os.kill(os.getpid(), signal.SIGUSR1)
        assert process.wait(pid) == 5
    assert seen == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) is before
    os.close(reader)
    os.close(writer)


def test_a_user_namespace_is_noticed() -> None:
    pid = os.fork()
    if pid == 0:
        try:
            unshare(CLONE_NEWUSER)
        except OSError:
            os._exit(77)
        os._exit(0 if userns.in_user_namespace() else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 77:
        needs.not_here("no user namespaces here")
    assert status == 0


def test_a_program_ends_with_the_process_that_started_it() -> None:
    reader, writer = os.pipe()
    starter = os.fork()
    if starter == 0:
        argv = process.ended_with_parent(["sleep", "1000"], signal.SIGTERM)
        child = os.posix_spawn(argv[0], argv, dict(os.environ))
        os.write(writer, str(child).encode())
        signal.pause()
    child = int(os.read(reader, 16))
    watch = os.pidfd_open(child)
    os.kill(starter, signal.SIGKILL)
    os.waitpid(starter, 0)
    assert select.select([watch], [], [], 10)[0] == [watch]  # it has ended
    for fd in (reader, writer, watch):
        os.close(fd)
