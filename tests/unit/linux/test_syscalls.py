"""System calls whose failures are easy to miss."""

from __future__ import annotations

import errno
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


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        (syscalls.CLONE_NEWNS, "mnt"),
        (syscalls.CLONE_NEWCGROUP, "cgroup"),
        (syscalls.CLONE_NEWUTS, "uts"),
        (syscalls.CLONE_NEWIPC, "ipc"),
        (syscalls.CLONE_NEWUSER, "user"),
        (syscalls.CLONE_NEWPID, "pid"),
        (syscalls.CLONE_NEWNET, "net"),
    ],
)
def test_a_limit_of_namespaces_is_named(flag: int, name: str) -> None:
    """The kernel says ENOSPC, whose words are about a disk. The limit is that of a namespace of the test's own."""

    def refused() -> None:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        Path("/proc/self/uid_map").write_text("0 0 1")
        Path(f"/proc/sys/user/max_{name}_namespaces").write_text("0")
        with pytest.raises(OSError, match=f"unshare: the limit user.max_{name}_namespaces is reached") as caught:
            syscalls.unshare(flag)
        assert caught.value.errno == errno.ENOSPC

    assert attempt(refused) is None
