"""The program that relays the network of a command where builda has no rights on the caller's: pasta or slirp4netns.

It runs as a user's own process and needs no bridge. `child.relay` starts it.
"""

from __future__ import annotations

RESOLVER = "10.0.2.3"
"""Address of the name server that both programs offer to the command. They pass its questions to the caller's."""

_PASTA = (
    "--foreground --stderr --quiet --config-net --no-netns-quit --runas 0:0 --tcp-ports none --udp-ports none "
    f"--tcp-ns none --udp-ns none --no-map-gw --dns-forward {RESOLVER} --pid /proc/self/fd/READY "
    "--netns /proc/self/fd/NETNS"
)
_SLIRP4NETNS = (
    "--configure --mtu=65520 --disable-host-loopback --ready-fd=READY --netns-type=path /proc/self/fd/NETNS tap0"
)


def relay_command() -> tuple[str, ...]:
    """The argument list of the first program that is installed; empty if none is.

    READY and NETNS in it stand for the numbers of two descriptors: the pipe that the program writes to when it works,
    and the network namespace of the command.
    """
    from builda.linux.process import find_program

    for name, words in (("pasta", _PASTA), ("slirp4netns", _SLIRP4NETNS)):
        path = find_program(name)
        if path is not None:
            return (path, *words.split())
    return ()
