"""A network with nothing but lo, for a caller that may make a network but not configure it (without CAP_NET_ADMIN)."""

from __future__ import annotations

import os

from builda.isolation.child.failure import TOLD_LIMIT, check_told, refused, told
from builda.linux import fork
from builda.linux import syscalls as sys_

_HINT = (
    "a pod needs the capability NET_ADMIN for --network none (securityContext.capabilities.add) where user namespaces "
    "cannot be nested; --network host needs nothing"
)


def raise_lo() -> None:
    """Set lo of the network namespace up, if need be in another one, which takes its place. Failure if refused."""
    try:
        sys_.raise_interface("lo")
    except PermissionError:
        try:
            _enter_network_of_another()
        except OSError as error:
            raise refused("set up the loopback interface of a network of its own", error, _HINT) from error


def _enter_network_of_another() -> None:
    """Enter a network that a child makes in a user namespace of its own, where it has all rights, and sets lo up in."""
    said, tells = os.pipe()
    waits, over = os.pipe()

    def child() -> int:
        os.close(over)
        sys_.prctl(sys_.PR_SET_DUMPABLE, 1)  # so that the parent may enter; no command is there yet
        sys_.unshare(sys_.CLONE_NEWUSER | sys_.CLONE_NEWNET)
        sys_.raise_interface("lo")
        os.write(tells, b"\0")
        os.read(waits, 1)  # until the parent has entered, or is gone
        return 0

    def with_errno() -> int:
        try:
            return child()
        except OSError as error:
            os.write(tells, told(error))
            return 0

    pid = fork.start(with_errno)
    os.close(tells)
    os.close(waits)
    try:
        check_told(os.read(said, TOLD_LIMIT))
        process = sys_.pidfd_open(pid)
        try:
            sys_.setns(process, sys_.CLONE_NEWNET)
        finally:
            os.close(process)
    finally:
        os.close(said)
        os.close(over)
        os.waitpid(pid, 0)
