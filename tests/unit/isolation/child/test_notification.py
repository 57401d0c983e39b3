"""Answers to seccomp notifications, while the supervisor gets signals."""

from __future__ import annotations

import ctypes
import os
import signal
import socket

from builda.isolation.child.bpf import Catch, program
from builda.isolation.child.notification import Listener, hand_over, received
from tests.support import needs

X86_64, GETPPID = 0xC000003E, 110  # AUDIT_ARCH_X86_64; a call that programs make seldom
CALLS = 3000


def caught_calls(connection: socket.socket) -> int:
    """In a process of its own: how many of the calls returned no descriptor of a file."""
    libc = ctypes.CDLL(None)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    hand_over(connection.detach(), program(X86_64, (Catch(GETPPID),)))
    wrong = 0
    for _ in range(CALLS):
        fd = libc.syscall(GETPPID)
        wrong += fd <= 2
        if fd > 2:
            os.close(fd)
    return min(wrong, 100)


@needs.machine(None if os.uname().machine == "x86_64" else "the numbers of calls are those of an x86-64 kernel")
def test_signals_do_not_take_the_descriptor_of_a_call_away() -> None:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(caught_calls(theirs))
        finally:
            os._exit(101)
    theirs.close()
    fd = received(ours)
    assert fd is not None
    listener, null = Listener(fd), os.open("/dev/null", os.O_RDONLY)
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        for number in range(CALLS):
            # one signal for each call, at another moment each time: a busy machine could get no further between more
            signal.setitimer(signal.ITIMER_REAL, (number % 60 + 1) * 2e-6)
            while (call := listener.receive()) is None:  # a signal came first
                continue
            listener.inject(call[0], null, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.close(fd)
        os.close(null)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
