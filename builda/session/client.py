"""The client: a command in a session hands itself over to the session's warm process, and ends as that ends.

This module imports nothing but `_socket`, `_signal`, `fcntl` and what every interpreter has loaded, as it is all that
most commands of a script start. A request is a length and a message with descriptors: the working directory first, then
those that the command inherited. The answers are PLAIN (start by yourself), RUNNING with a descriptor of the process,
STOPPED, and ENDED with a wait status.
"""

from __future__ import annotations

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Sequence

VARIABLE = b"BUILDA_SESSION"
CALLER = "BUILDA_CALLER"
"""Set for a served command: its own process ID and that of its client, which the shell waits for."""
SOCKET = b"socket"
PROTOCOL = b"1"
MOST_DESCRIPTORS = 200
"""The kernel passes 253 at once."""
PLAIN, RUNNING, STOPPED, ENDED = b"P", b"R", b"T", b"E"
SIGNALS = (1, 2, 3, 10, 12, 15, 18, 20, 28)
"""HUP, INT, QUIT, USR1, USR2, TERM, CONT, TSTP, WINCH: what is sent to a command, and meant for the served one."""
_FROM_KERNEL = 0x80  # SI_KERNEL: sent by the terminal, to the served process as well
_SIGIO = 29
_SIGSTOP = 19
_O_ASYNC = 0o20000
_F_SETFL, _F_SETOWN, _F_GETFL = 4, 8, 3


def serve(arguments: Sequence[str], code: str) -> None:
    """Have the session serve this command and exit as it did; return where the command has to run by itself.

    `code` identifies the builda that the caller would start.
    """
    place = posix.environ.get(VARIABLE)
    if not place or "--version" in arguments[:1]:
        return
    descriptors = _inherited()
    if len(descriptors) > MOST_DESCRIPTORS:
        return
    try:
        session = _connected(place)
        ask(session, arguments, code, descriptors)
        process = _running(session)
    except OSError:  # the session's process is gone, and has done nothing
        return
    if process is None:
        session.close()
        return
    _end(_follow(session, process))


def _inherited() -> list[int]:
    """The descriptors that this process was started with."""
    found = []
    for name in posix.listdir("/proc/self/fd"):
        try:
            if posix.get_inheritable(int(name)) or int(name) < 3:
                found.append(int(name))
        except OSError:  # it was open for the listing only
            continue
    return sorted(found)


def _connected(place: bytes) -> _socket.socket:
    import _socket

    session = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    path = place + b"/" + SOCKET
    if len(path) < 100:
        session.connect(path)
        return session
    directory = posix.open(place, posix.O_PATH | posix.O_CLOEXEC)  # a path in the kernel is shorter
    session.connect(b"/proc/self/fd/%d/%s" % (directory, SOCKET))
    posix.close(directory)
    return session


def ask(session: _socket.socket, arguments: Sequence[str], code: str, descriptors: list[int]) -> None:
    """Send a request for the command line `arguments`."""
    import _socket

    mask = posix.umask(0o077)
    posix.umask(mask)
    words = [
        PROTOCOL,
        code.encode(errors="surrogateescape"),
        b"%d" % mask,
        b",".join(b"%d" % number for number in descriptors),
        b"%d" % len(arguments),
        *(word.encode("utf-8", "surrogateescape") for word in arguments),
        *(name + b"=" + value for name, value in posix.environ.items()),
    ]
    message = b"\0".join(words)
    directory = posix.open(".", posix.O_PATH | posix.O_CLOEXEC)
    numbers = b"".join(number.to_bytes(4, sys.byteorder) for number in (directory, *descriptors))
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)]
    session.sendmsg([len(message).to_bytes(8, "little")], rights)
    posix.close(directory)
    session.sendall(message)


def _running(session: _socket.socket) -> int | None:
    """A descriptor of the process that serves this command; None if it is to be started by itself."""
    import _socket

    data, rights, _, _ = session.recvmsg(1, _socket.CMSG_SPACE(4))
    if data != RUNNING or not rights:
        return None
    return int.from_bytes(rights[0][2][:4], sys.byteorder)


def _follow(session: _socket.socket, process: int) -> int:
    """Wait for the served process, and pass signals on to it; its wait status.

    It is in this process's group, so what the terminal sends reaches both: only what others send is passed on. Signals
    are waited for, as that alone tells the two apart; the socket announces its answers by SIGIO.
    """
    import _signal  # type: ignore[import-not-found]  # typeshed has none
    import fcntl

    waited = {*SIGNALS, _SIGIO}
    _signal.pthread_sigmask(_signal.SIG_BLOCK, waited)
    fcntl.fcntl(session, _F_SETOWN, posix.getpid())
    fcntl.fcntl(session, _F_SETFL, fcntl.fcntl(session, _F_GETFL) | _O_ASYNC)
    session.setblocking(False)
    answers = b""
    while True:
        try:
            got = session.recv(64)
        except ConnectionError:
            got = b""
        except BlockingIOError:
            info = _signal.sigwaitinfo(waited)
            if info.si_signo != _SIGIO and info.si_code != _FROM_KERNEL:
                _send(process, info.si_signo)
            continue
        answers += got
        while answers[:1] == STOPPED:
            answers = answers[1:]
            posix.kill(posix.getpid(), _SIGSTOP)
        if len(answers) >= 5:  # the served process and the session's both tell it
            return int.from_bytes(answers[1:5], "little")
        if not got:
            return 9  # the session's process was killed, and the served one with it


def _send(process: int, number: int) -> None:
    import _signal

    try:
        _signal.pidfd_send_signal(process, number)
    except ProcessLookupError:
        return


def _end(status: int) -> None:
    """End this process as the served one did: with its exit status, or by the signal that ended it."""
    import _signal

    number = status & 0x7F
    if number == 0:
        posix._exit(status >> 8 & 0xFF)
    if number not in (9, _SIGSTOP):
        _signal.signal(number, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {number})
    posix.kill(posix.getpid(), number)
    posix._exit(128 + number)
