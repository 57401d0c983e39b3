"""System calls whose failures are easy to miss."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from builda.linux import syscalls
from builda.linux.trial import attempt

pytestmark = pytest.mark.root


def test_file_ids_that_the_kernel_refuses_are_an_error(tmp_path: Path) -> None:
    """setfsuid(2) says nothing of it: files would be opened as root."""

    def refused() -> None:
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        for ids in ((2000, 1000), (1000, 2000), (0, 0), (-1, 1000), (0xFFFFFFFF, 1000)):
            with pytest.raises(PermissionError):
                syscalls.set_file_ids(*ids)
        syscalls.set_file_ids(1000, 1000)

    assert attempt(refused) is None


def test_files_are_opened_as_the_user_that_was_set(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("")
    (tmp_path / "secret").chmod(0o600)
    tmp_path.chmod(0o755)

    def opened() -> None:
        os.chdir(tmp_path)
        syscalls.set_file_ids(65534, 65534)
        with pytest.raises(PermissionError):
            os.open("secret", os.O_RDONLY)
        syscalls.set_file_ids(0, 0)
        os.close(os.open("secret", os.O_RDONLY))

    assert attempt(opened) is None


def test_a_working_directory_out_of_the_root_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()

    def looked() -> None:
        os.chdir(tmp_path)
        assert syscalls.getcwd() == os.fsencode(tmp_path)
        os.chroot("inside")
        assert syscalls.getcwd().startswith(b"(unreachable)")

    assert attempt(looked) is None


def test_signals_wait_while_they_are_held_and_those_that_waited_before_go_on_waiting() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        signals = syscalls.SignalsOfThread()
        for _ in range(2):
            signals.hold()
            assert {signal.SIGUSR1, signal.SIGTERM, signal.SIGTSTP} <= signal.pthread_sigmask(signal.SIG_BLOCK, [])
            signals.let_go()
            assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before | {signal.SIGUSR1}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
