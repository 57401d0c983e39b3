"""The last steps before the command: directory, limits, identity, filter, execve(2).

Their order matters: each step needs rights that a later one takes away.
"""

from __future__ import annotations

import errno
import os

from builda.isolation.child.failure import Failure, refused
from builda.isolation.child.mountpoints import names
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.isolation.wire import Wire

_LAST = 1 << 31  # no descriptor has such a number
_NOFILE = 7  # RLIMIT_NOFILE
_ROOM = 128  # descriptors: more than are open here before the command is executed
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def execute(wire: Wire, ready: Callable[[], None], report: int, supervisor: int = -1, queues: int = -1) -> None:
    """Become the command. `ready` is called when only execve(2) itself can still fail.

    Of the descriptors from 3 on only the given ones stay open until the exec. `supervisor` is the socket that takes
    the listener of a plain tree's filter, `queues` as for `hand_over`.
    """
    environment = dict(wire["env"])
    os.umask(wire["umask"])
    _close_all_but({report, supervisor, queues} - {-1})
    _change_directory(wire["cwd"])
    _set_limits(wire["rlimits"])
    permitted = _limit_bounding_set(wire["capabilities"])
    if wire["emulation"] is None:
        _change_user(wire)
    # The command must not read the caller's keys. Where keyctl(2) is filtered it cannot reach them anyway.
    sys_.join_session_keyring()
    path = _look_up(wire["args"][0], environment.get("PATH", _DEFAULT_PATH))
    _confine(wire, permitted, supervisor, queues)
    _limit_descriptors(wire["rlimits"])
    ready()
    try:
        os.execve(path, wire["args"], environment)
    except OSError as error:
        raise _not_executed(path, error) from error


def execute_traced(wire: Wire, submit: Callable[[], None], ready: Callable[[], None], keep: set[int]) -> None:
    """Become the command of mode `traced`. `submit` gives this process's calls to the supervisor.

    After it paths lie in the container, and the process has the command's ids. `keep` are descriptors that stay open.
    """
    environment = dict(wire["env"])
    _close_all_but(keep)
    _set_limits(wire["rlimits"])
    sys_.join_session_keyring()
    submit()
    _limit_descriptors(wire["rlimits"])
    os.umask(wire["umask"])
    try:
        os.chdir(wire["cwd"])
    except OSError as error:
        raise Failure("NotFound", f"cannot change to the working directory: {wire['cwd']}: {error.strerror}") from error
    path = _look_up(wire["args"][0], environment.get("PATH", _DEFAULT_PATH))
    ready()
    try:
        os.execve(path, wire["args"], environment)
    except OSError as error:
        raise _not_executed(path, error) from error


def _close_all_but(keep: set[int]) -> None:
    """Close all other descriptors: an image may name /proc/self/fd/N as working directory (CVE-2024-21626)."""
    first = 3
    for fd in (*sorted(keep), _LAST):
        if first < fd:
            sys_.close_range(first, fd - 1)
        first = fd + 1


def _change_directory(path: str) -> None:
    try:
        fd = _opened_or_made(path)
        os.fchdir(fd)
        os.close(fd)
        here = sys_.getcwd()
    except OSError as error:
        why = "too many links, or one of /proc" if error.errno == errno.ELOOP else error.strerror
        raise Failure("NotFound", f"cannot change to the working directory: {path}: {why}") from error
    if not here.startswith(b"/"):
        raise Failure("InvalidValue", f"working directory is outside the container: {path}")


def _opened_or_made(path: str) -> int:
    """The directory at `path`. It is made if a mount hides it, but not in the root itself, as OCI runtimes do.

    The builder has made it in the root already; a volume above it may lack it.
    """
    try:
        return _opened_directory(path)
    except FileNotFoundError:
        pass
    here = _opened_directory("/")
    root = os.fstat(here).st_dev
    done = ""
    for name in names(path):
        done = f"{done}/{name}"
        try:
            found = _found_or_made(here, name, done, root)
        finally:
            os.close(here)
        here = found
    return here


def _found_or_made(above: int, name: str, path: str, root: int) -> int:
    """The directory `path`, which is `name` in `above`. It is made if it is missing and not on the device `root`."""
    try:
        return _opened_directory(path)
    except FileNotFoundError:
        if os.fstat(above).st_dev == root:
            raise
        os.mkdir(name, 0o755, dir_fd=above)  # EEXIST for a dangling link: it is not followed
        return _opened_directory(path)


def _opened_directory(path: str) -> int:
    """The directory at `path`. Magic links of /proc (fd/N, cwd, root) are refused: they lead outside."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        return sys_.openat2(root, path, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        # EPERM: some pods filter the call. EAGAIN: the kernel does not resolve `..` behind an absolute link at the root
        # of an overlay that was mounted detached, however often it is asked.
        if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EAGAIN):
            raise
        return _walked(root, path)
    finally:
        os.close(root)


def _walked(root: int, path: str) -> int:
    """The same without openat2(2): reads each link and walks its text, so that the kernel follows none."""
    here = os.dup(root)
    links = 40
    rest = names(path)
    try:
        while rest:
            name = rest.pop(0)
            target = _link_target(here, name)
            if target is None:
                here = _moved(here, name)
                continue
            links -= 1
            if not links:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith("/"):
                here = _moved(here, "/")
            rest = names(target) + rest
    except OSError:
        os.close(here)
        raise
    return here


def _link_target(directory: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.EINVAL:  # not a link
            return None
        raise


def _moved(here: int, name: str) -> int:
    found = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
    os.close(here)
    return found


def _set_limits(limits: tuple[tuple[str, int, int, int], ...]) -> None:
    """Limit resources, which may need a capability; leave room for the descriptors that are opened here."""
    for limit in limits:
        name, number, soft, hard = limit
        if number != _NOFILE or not 0 <= soft < _ROOM:
            _set_limit(limit)
        elif not 0 <= hard < _ROOM:
            _set_limit((name, number, _ROOM, hard))


def _limit_descriptors(limits: tuple[tuple[str, int, int, int], ...]) -> None:
    """Lower the number of descriptors to one that would not have left room."""
    for limit in limits:
        if limit[1] == _NOFILE and 0 <= limit[2] < _ROOM:
            _set_limit(limit)


def _set_limit(limit: tuple[str, int, int, int]) -> None:
    name, number, soft, hard = limit
    try:
        sys_.setrlimit(number, soft, hard)
    except OSError as error:
        raise refused(f"set {name} to {soft}:{hard}", error) from error


def _limit_bounding_set(wanted: int) -> int:
    """Drop all other capabilities from the bounding set. Returns the bits that the command can have."""
    number = 0
    kept = 0
    while True:
        try:
            held = sys_.prctl(sys_.PR_CAPBSET_READ, number)
        except OSError:  # EINVAL: past the last capability of this kernel
            break
        if held and wanted >> number & 1:
            kept |= 1 << number
        elif held:
            try:
                sys_.prctl(sys_.PR_CAPBSET_DROP, number)
            except OSError as error:
                raise refused("drop a capability from the bounding set", error) from error
        number += 1
    return kept & sys_.capget()[1]


def _change_user(wire: Wire) -> None:
    sys_.prctl(sys_.PR_SET_KEEPCAPS, 1)
    groups = wire["groups"]
    try:
        if groups is not None:
            os.setgroups(groups)
    except PermissionError as error:  # a user namespace of one id denies setgroups(2); its own group needs none
        if set(groups or ()) - {wire["gid"]}:
            raise refused("set the groups of the command", error) from error
    try:
        os.setresgid(wire["gid"], wire["gid"], wire["gid"])
        os.setresuid(wire["uid"], wire["uid"], wire["uid"])
    except OSError as error:
        raise refused(f"become user {wire['uid']}:{wire['gid']}", error) from error


def _confine(wire: Wire, permitted: int, supervisor: int, queues: int) -> None:
    """Set the seccomp filter and the capabilities. A filter needs SYS_ADMIN or no_new_privs."""
    effective = permitted if wire["uid"] == 0 or wire["emulation"] is not None else 0
    if wire["no_new_privileges"]:
        sys_.prctl(sys_.PR_SET_NO_NEW_PRIVS, 1)
    if wire["emulation"] is not None:
        _emulate(supervisor, wire["emulation"])
    if wire["no_new_privileges"]:
        pass  # the filter comes last
    elif wire["seccomp"] is not None:
        held = sys_.capget()[1]
        sys_.capset(held, held, 0)  # setresuid(2) cleared the effective set
        _install(wire["seccomp"])
    try:
        sys_.prctl(sys_.PR_CAP_AMBIENT, sys_.PR_CAP_AMBIENT_CLEAR_ALL)
        sys_.capset(effective, effective, 0)
    except OSError as error:
        raise refused("set capabilities", error) from error
    if wire["plain_tree"] is not None:
        _hand_over(supervisor, wire["plain_tree"]["filter"], queues)
    if wire["no_new_privileges"] and wire["seccomp"] is not None:
        _install(wire["seccomp"])


def _emulate(supervisor: int, program: bytes) -> None:
    from builda.isolation.child.notification import hand_over  # loaded by the supervisor's process

    try:
        hand_over(supervisor, program)
    except OSError as error:
        raise refused("hand over calls about owners", error) from error


def _hand_over(supervisor: int, program: bytes | None, queues: int) -> None:
    from builda.isolation.child.proc_server import (
        hand_over,
    )  # loaded before chroot(2): now it would come from the container

    try:
        hand_over(supervisor, program, queues)
    except OSError as error:
        raise refused("hand over calls that name /proc", error) from error


def _install(program: bytes) -> None:
    try:
        sys_.set_seccomp_filter(program)
    except OSError as error:
        raise refused("install the seccomp filter", error) from error


def _look_up(name: str, search: str) -> str:
    """The path of the program `name`, searched as execvp(3) does. Failure with status 126 or 127."""
    if "/" in name:
        return name
    denied = None
    for directory in search.split(":") if name else ():
        path = f"{directory or '.'}/{name}"
        try:
            is_directory = os.stat(path).st_mode & 0o170000 == 0o040000
        except OSError:
            continue
        if not is_directory and os.access(path, os.X_OK):
            return path
        denied = denied or path
    if denied is not None:
        raise Failure("CommandFailed", f"not executable: {denied}", "chmod +x makes a file executable", 126)
    raise Failure("CommandFailed", f"no such command in the container: {name}", f"PATH is {search}", 127)


def _not_executed(path: str, error: OSError) -> Failure:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return _not_found(path)
    if error.errno == errno.ENOEXEC:
        hint = "it has no #! line, or is a program for another architecture"
        return Failure("CommandFailed", f"not a program that this kernel can run: {path}", hint, 126)
    if error.errno == errno.EACCES:
        return Failure("CommandFailed", f"not executable: {path}", None, 126)
    return Failure("CommandFailed", f"cannot execute {path}: {error.strerror}", None, 126)


def _not_found(path: str) -> Failure:
    """Why execve(2) said ENOENT: the file is missing, or the interpreter or loader that it names."""
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(256)
    except OSError:
        return Failure("CommandFailed", f"no such command in the container: {path}", None, 127)
    if head.startswith(b"#!"):
        line = head[2:].split(b"\n")[0]
        interpreter = os.fsdecode((line.split() or [b""])[0])
        hint = "its first line ends in a carriage return" if line.endswith(b"\r") else None
        message = f"the interpreter of {path} is not in the container: {interpreter}"
        return Failure("CommandFailed", message, hint, 127)
    message = f"the dynamic loader of the program is not in the container: {path}"
    return Failure("CommandFailed", message, "ldd shows what it needs; a static program needs none", 127)
