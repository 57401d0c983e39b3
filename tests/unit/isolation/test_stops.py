"""Descriptors for threads that have stopped: one that a thread did not receive is for no other."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest

from builda.isolation.traced.stops import Stops
from builda.linux.ptrace import Memory, Registers

MACHINE = "x86_64"
TID = 0x3FFFFF  # a number that no thread has


class Written:
    """Stands in for the memory of a thread."""

    def write(self, tid: int, address: int, data: bytes) -> None:
        pass


class OfKilled(Registers):
    """The registers of a thread that is killed before it gets others."""

    def write(self, tid: int) -> None:
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))


class OfLiving(Registers):
    def write(self, tid: int) -> None:
        pass


@contextmanager
def stops_over(registers: Registers) -> Iterator[Stops]:
    ours, theirs = (end.detach() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    stops = Stops(ours, theirs, 1000, MACHINE)
    stops.attach(registers, cast(Memory, Written()), lambda tid, size: 1 << 20, cast(Any, None), {})
    yield stops
    for end in (stops.ours, stops.theirs):
        end.close()


def is_empty(stops: Stops) -> bool:
    try:
        stops.theirs.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
    except BlockingIOError:
        return True
    return False


def test_a_thread_that_is_killed_before_it_receives_leaves_no_descriptor() -> None:
    with stops_over(OfKilled(MACHINE)) as stops:
        with pytest.raises(ProcessLookupError):
            stops.inject(TID, 0, 0)
        assert TID not in stops.receiving
        assert is_empty(stops)


def test_a_thread_that_ends_while_it_receives_leaves_no_descriptor() -> None:
    with stops_over(OfLiving(MACHINE)) as stops:
        stops.inject(TID, 0, 0)
        assert not is_empty(stops)
        stops.forget(TID)
        assert is_empty(stops)
