"""The command's network by a relay: the child starts pasta or slirp4netns before it leaves the caller's network.

The program waits until the command's network namespace exists, and dies with the child. `isolation.relay_program`
chooses it.
"""

from __future__ import annotations

import os

from builda.isolation.child.failure import Failure
from builda.linux import fork
from builda.linux import syscalls as sys_

_HINT = "install passt or slirp4netns, and let /dev/net/tun be opened; or use --network host or --network none"
_KILL = 9
_TUN = "/dev/net/tun"


class Relay:
    """The program. It is forked in the caller's namespaces, and waits for the command's network namespace."""

    def __init__(self, argv: tuple[str, ...]) -> None:
        self._name = os.path.basename(argv[0])
        self._said = os.memfd_create("builda-relay")
        start, self._go = os.pipe()
        self._ready, ready = os.pipe()
        parent = os.getpid()

        def child() -> int:
            os.close(self._go)
            return _become(argv, parent, start, ready, self._said)

        fork.start(child)
        os.close(start)
        os.close(ready)

    def connect(self) -> None:
        """Start the relay for this process's network namespace, and wait until it works. Failure if it does not."""
        os.write(self._go, b"g")
        if not os.read(self._ready, 64):
            os.lseek(self._said, 0, os.SEEK_SET)
            lines = os.read(self._said, 65536).decode("utf-8", "replace").splitlines()
            words = [line.strip() for line in lines if line.strip() and "syslog" not in line]
            why = words[-1] if words else "it ended"
            if not os.path.exists(_TUN):
                why = f"{why} (there is no {_TUN}, which a pod gets from a device plugin)"
            raise Failure("NetworkUnavailable", f"cannot make a private network: {self._name}: {why}", _HINT)


def unavailable() -> Failure:
    """The failure that says that no such program is installed."""
    return Failure(
        "NetworkUnavailable", "cannot make a private network: neither pasta nor slirp4netns is installed", _HINT
    )


def _become(argv: tuple[str, ...], parent: int, start: int, ready: int, said: int) -> int:
    """Execute the program; an exit status if that fails.

    It gets the namespace open: pasta drops the right to open it by /proc.
    """
    try:
        sys_.prctl(sys_.PR_SET_PDEATHSIG, _KILL)
        if os.getppid() != parent or not os.read(start, 1):
            return 1
        netns = os.open(f"/proc/{parent}/ns/net", os.O_RDONLY)
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1):
            os.dup2(null, fd)
        os.dup2(said, 2)
        for fd in (netns, ready):
            os.set_inheritable(fd, True)
        words = [word.replace("READY", str(ready)).replace("NETNS", str(netns)) for word in argv]
        os.execve(argv[0], words, {"PATH": os.environ.get("PATH", "/usr/bin:/bin")})
    except OSError as error:
        os.write(said, f"{error.strerror}\n".encode())
    return 1
