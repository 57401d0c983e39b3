"""Overlays that the program fuse-overlayfs serves, as detached mounts like any other.

builda makes the mount itself and gives the program the connection: there is no fusermount and no mount point. The
kernel ends the connection with the last reference to the mount, and so the program, whichever process was killed. The
program is a child of this process in a session of its own and inherits none of its descriptors. builda waits for its
end, so that the next program finds the working directory free.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress

from builda.errors import InUse, StoreUnavailable
from builda.linux import detached
from builda.linux import syscalls as sys_
from builda.linux.process import find_program
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

KIND = detached.FUSE
"""The type of such a mount, and the name of the program."""
DEVICE = "/dev/fuse"

_CONNECTION, _LOCK = 3, 4  # the program's descriptors
_PATIENCE_MS = 10_000
_SIGNALLED = 128
_ENVIRONMENT = {"FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT": "1"}  # whiteouts are always .wh. files: one form is enough


class Server(NamedTuple):
    """A mount, the pid of the program that serves it, and a descriptor of the program's output."""

    mount: int
    pid: int
    said: int


def lacking() -> str | None:
    """The reason why such mounts cannot be made; None if they can."""
    if find_program(KIND) is None:
        return f"{KIND} is not installed"
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{DEVICE}: {error.strerror}"
    return None


@contextmanager
def served(lower: tuple[str, ...], options: tuple[str, ...]) -> Iterator[int]:
    """A detached mount of `lower` (topmost first) and the upperdir and workdir of `options`: its O_PATH descriptor.

    After the block the program has ended. StoreUnavailable if it ended before, so that writes may be lost.
    """
    server = _start(lower, options)
    try:
        yield server.mount
        gone = _has_ended(server, patience=0)
    except BaseException:
        _end(server)
        raise
    words = _said(server)
    status = _end(server)
    if gone or status > _SIGNALLED:
        how = f"was ended by signal {status - _SIGNALLED}" if status > _SIGNALLED else f"failed: {words}"
        raise StoreUnavailable(
            f"{KIND}, which serves the files of the container, {how}",
            hint="the last writes may be lost: repeat the step",
        )


def left_alone(lower: tuple[str, ...], options: tuple[str, ...]) -> int:
    """The same mount without an end: it lasts as long as any process uses it. The caller closes the descriptor."""
    server = _start(lower, options)
    os.close(server.said)
    return server.mount


def _start(lower: tuple[str, ...], options: tuple[str, ...]) -> Server:
    attributes, settings = detached.split_options(options)
    _check_paths((*lower, *settings))
    program = find_program(KIND)
    if program is None:
        raise OSError(errno.ENOENT, "is not installed", KIND)
    device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        mount = _mount(device, attributes)
        try:
            words = ",".join((f"lowerdir={':'.join(lower)}", *settings))
            argv = [program, "-f", "-o", words, f"/dev/fd/{_CONNECTION}"]
            with _alone(settings) as lock:
                pid, said = _spawn(argv, device, lock)
        except BaseException:
            os.close(mount)
            raise
    finally:
        os.close(device)  # only the program holds the connection now: if it dies, calls fail and do not hang
    server = Server(mount, pid, said)
    try:
        os.stat(mount)
    except OSError as error:
        words = _said(server)
        _end(server)
        raise OSError(error.errno, f"{KIND} does not work: {words or error.strerror}") from error
    return server


@contextmanager
def unserved(workdir: str) -> Iterator[None]:
    """Keep fuse-overlayfs from using this working directory in the block. Waits for one that is still ending."""
    fd = _locked(workdir)
    try:
        yield
    finally:
        os.close(fd)


def _check_paths(words: tuple[str, ...]) -> None:
    for word in words:
        path = word.partition("=")[2] if "=" in word.partition("/")[0] else word
        if any(character in path for character in ":,\\"):
            raise OSError(errno.EINVAL, f"{KIND} takes no directory with a colon, a comma or a backslash", path)


def _mount(device: int, attributes: int) -> int:
    context = sys_.fsopen("fuse")
    try:
        settings = {"source": KIND, "subtype": KIND, "fd": str(device), "rootmode": "40000"}
        for key, value in {**settings, "user_id": "0", "group_id": "0"}.items():
            sys_.fsconfig(context, sys_.FSCONFIG_SET_STRING, key, value)
        for flag in ("default_permissions", "allow_other"):
            sys_.fsconfig(context, sys_.FSCONFIG_SET_FLAG, flag)
        sys_.fsconfig(context, sys_.FSCONFIG_CMD_CREATE)
        return sys_.fsmount(context, attributes)
    finally:
        os.close(context)


@contextmanager
def _alone(settings: list[str]) -> Iterator[int | None]:
    """A locked descriptor of the workdir. The program inherits it, so the lock lasts as long as the program."""
    work = next((word.partition("=")[2] for word in settings if word.startswith("workdir=")), None)
    if work is None:
        yield None
        return
    fd = _locked(work)
    try:
        yield fd
    finally:
        os.close(fd)


def _locked(path: str) -> int:
    """Lock a workdir. InUse after ten seconds: a program needs a moment to end after its mount."""
    import fcntl
    import time

    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _ in range(_PATIENCE_MS):
            with suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            time.sleep(0.001)
        raise InUse(f"working tree is mounted elsewhere, by another {KIND}: {path}", hint="unmount it there first")
    except BaseException:
        os.close(fd)
        raise


def _spawn(argv: list[str], device: int, lock: int | None) -> tuple[int, int]:
    """Start the program: (pid, descriptor of its output). A ^C at the terminal does not reach it."""
    import signal

    said = os.memfd_create("builda-fuse")
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        given = {0: null, 1: null, 2: said, _CONNECTION: device} | ({} if lock is None else {_LOCK: lock})
        others = [int(name) for name in os.listdir("/proc/self/fd")]
        spare = dict(zip(given, range(max(others) + 1, max(others) + 1 + len(given)), strict=True))
        actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, fd, spare[number]) for number, fd in given.items()]
        actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in others if _is_inherited(fd)]
        actions += [(os.POSIX_SPAWN_DUP2, spare[number], number) for number in given]
        actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in spare.values()]
        environ = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ} | _ENVIRONMENT
        default = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
        pid = os.posix_spawn(
            argv[0], argv, environ, file_actions=actions, setsid=True, setsigmask=(), setsigdef=default
        )
    except BaseException:
        os.close(said)
        raise
    finally:
        os.close(null)
    return pid, said


def _is_inherited(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:  # EBADF: the descriptor that listed the directory
        return False


def _said(server: Server) -> str:
    """The last line of the program's output."""
    os.lseek(server.said, 0, os.SEEK_SET)
    lines = os.read(server.said, 65536).decode("utf-8", "replace").splitlines()
    return next((line.strip().removeprefix(f"{KIND}: ") for line in reversed(lines) if line.strip()), "")


def _end(server: Server) -> int:
    """Close the mount and wait for the program; its exit status. 0 if another process still uses the mount."""
    from builda.linux.process import wait

    os.close(server.mount)
    os.close(server.said)
    return wait(server.pid) if _has_ended(server, patience=_PATIENCE_MS) else 0


def _has_ended(server: Server, *, patience: int) -> bool:
    """Whether the program ends within `patience` milliseconds."""
    import select

    watch = sys_.pidfd_open(server.pid)
    try:
        waiting = select.poll()
        waiting.register(watch, select.POLLIN)
        return bool(waiting.poll(patience))
    finally:
        os.close(watch)
