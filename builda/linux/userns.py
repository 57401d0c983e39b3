"""User namespaces: whether this process is in one, and entering a new one.

`enter` unshares in place, while this process has one thread. A forked helper stays in the old namespace and writes the
maps: itself if this process has the rights (container root), else by newuidmap and newgidmap.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from builda.errors import InvalidValue, IsolationUnavailable, NotFound
from builda.linux import fork
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

IdMap: TypeAlias = tuple[tuple[int, int, int], ...]
"""Rows of /proc/PID/uid_map: first id inside, first id outside, how many."""

_WHOLE = (0, 0, 0xFFFFFFFF)
_INITIAL = 0xEFFFFFFD  # the inode of the first user namespace, part of the kernel's interface
_NOT_MAPPED = "cannot map the ids of a user namespace: "


class Maps(NamedTuple):
    """The id maps of a namespace. `tools` are the paths of newuidmap and newgidmap if they have to write the maps."""

    uids: IdMap
    gids: IdMap
    tools: tuple[str, str] | None = None
    denies_groups: bool = False  # deny setgroups(2): else an unprivileged user may map no group


def id_map(kind: str = "uid") -> IdMap:
    """The rows of this process's own map; the whole range on a kernel without user namespaces."""
    try:
        with open(f"/proc/self/{kind}_map", encoding="utf-8") as file:
            rows = tuple(tuple(map(int, line.split())) for line in file)
    except FileNotFoundError:
        return (_WHOLE,)
    return tuple((row[0], row[1], row[2]) for row in rows)


def in_user_namespace() -> bool:
    """Whether this process is in a user namespace other than the first. The map cannot tell: it may be the identity."""
    try:
        return os.stat("/proc/self/ns/user").st_ino != _INITIAL
    except FileNotFoundError:  # a kernel without user namespaces
        return False


def unmapped(uid: int, gid: int, maps: Mapping[str, IdMap] | None = None) -> str | None:
    """The message that an owner has no id in these maps (None: this process's), with the range that would do.

    None if both ids are mapped.
    """
    for kind, wanted in (("uid", uid), ("gid", gid)):
        rows = id_map(kind) if maps is None else maps[kind]
        if not any(first <= wanted < first + size for first, _, size in rows):
            held = ", ".join(f"{first}-{first + size - 1}" for first, _, size in rows)
            return f"{kind} {wanted} is not in this user namespace, which has {held}; a range of {wanted} ids would do"
    return None


def maps_at(path: str) -> tuple[IdMap, IdMap]:
    """The maps of uids and gids of the user namespace at `path`, which must be a descendant of this process's."""
    from builda.linux import syscalls as sys_

    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise NotFound(f"cannot open the user namespace: {path}: {error.strerror}") from error
    reader, writer = os.pipe()

    def child() -> int:
        with suppress(OSError):
            sys_.setns(fd, sys_.CLONE_NEWUSER)
            for kind in ("uid", "gid"):
                rows = [" ".join(map(str, row)) for row in id_map(kind)]
                os.write(writer, ",".join(rows).encode() + b"\n")
        return 0

    pid = fork.start(child)  # a process that has joined it cannot come back
    for end in (fd, writer):
        os.close(end)
    with open(reader, encoding="ascii") as pipe:
        lines = pipe.read().splitlines()
    os.waitpid(pid, 0)
    if len(lines) != 2:
        raise InvalidValue(f"not a user namespace that can be joined: {path}")
    uids, gids = (tuple(_row(text) for text in line.split(",")) for line in lines)
    return uids, gids


def _row(text: str) -> tuple[int, int, int]:
    first, outside, size = map(int, text.split())
    return first, outside, size


def identity() -> Maps:
    """Maps in which each id of this process's namespace is itself."""
    uids = tuple((inside, inside, size) for inside, _, size in id_map("uid"))
    gids = tuple((inside, inside, size) for inside, _, size in id_map("gid"))
    return Maps(uids, gids)


def only() -> Maps:
    """Maps of one id: this process's own user and group are 0."""
    return Maps(((0, os.geteuid(), 1),), ((0, os.getegid(), 1),), denies_groups=True)


def enter(maps: Maps) -> None:
    """Make this process root of a new user namespace with a new mount namespace.

    IsolationUnavailable if the kernel refuses, or the helpers do, with their message. If the helpers fail, this process
    is in a namespace without a map and should end.
    """
    from builda.linux import syscalls as sys_

    go, told = os.pipe(), os.pipe()
    target = os.getpid()

    def help_with_maps() -> int:
        os.close(go[1])
        return _write_maps(target, maps, go[0], told[1])

    helper = fork.start(help_with_maps)
    os.close(go[0])
    os.close(told[1])
    refused = None
    try:
        sys_.unshare(sys_.CLONE_NEWUSER | sys_.CLONE_NEWNS)
        os.write(go[1], b"g")
    except OSError as error:
        refused = error
    os.close(go[1])
    with open(told[0], encoding="utf-8", errors="replace") as pipe:
        said = pipe.read()
    os.waitpid(helper, 0)
    if refused is not None:
        raise _no_namespace(refused) from refused
    if said:
        raise mapping_refused(said, by_tools=maps.tools is not None)


def _no_namespace(error: OSError) -> IsolationUnavailable:
    hint = "in a pod, seccomp RuntimeDefault forbids it: seccompProfile Unconfined allows it"
    if error.errno in (errno.ENOSPC, errno.EUSERS):
        hint = "raise the limit: sysctl user.max_user_namespaces=15000"
    elif error.errno == errno.EINVAL:
        hint = "this process has other threads already"
    return IsolationUnavailable(f"cannot make a user namespace: {error.strerror}", hint=hint)


def mapping_refused(said: str, *, by_tools: bool) -> IsolationUnavailable:
    """The error for an id map that could not be written, with a hint that fits the message `said`."""
    said = said.removeprefix(_NOT_MAPPED)
    hint = "newuidmap and newgidmap need their set-uid bit or file capabilities, and no_new_privs off"
    if not by_tools:
        hint = "container root needs the capabilities SETUID, SETGID and SETFCAP for it"
    elif "write to" in said:  # set-uid, and the bounding set lacks SYS_ADMIN
        hint = (
            "newuidmap and newgidmap need file capabilities in a pod: "
            "chmod 755 them, setcap cap_setuid+ep newuidmap, setcap cap_setgid+ep newgidmap"
        )
    return IsolationUnavailable(_NOT_MAPPED + said, hint=hint)


def _write_maps(target: int, maps: Maps, go: int, told: int) -> int:
    """Write the maps, in the process that helps, and the error if any into `told`; its exit status."""
    if os.read(go, 1):
        said = _maps_by_tools(target, maps) if maps.tools else _maps_by_hand(target, maps)
        os.write(told, said.encode())
    return 0


def _maps_by_hand(target: int, maps: Maps) -> str:
    texts = {f"{kind}_map": _as_rows(rows) for kind, rows in (("gid", maps.gids), ("uid", maps.uids))}
    if maps.denies_groups:
        texts = {"setgroups": "deny", **texts}
    for name, text in texts.items():
        try:
            fd = os.open(f"/proc/{target}/{name}", os.O_WRONLY)
            os.write(fd, text.encode())
            os.close(fd)
        except OSError as error:
            return f"{name}: {error.strerror}"
    return ""


def _as_rows(rows: IdMap) -> str:
    return "\n".join(" ".join(map(str, row)) for row in rows)


def _maps_by_tools(target: int, maps: Maps) -> str:
    """Run newuidmap and newgidmap at the same time; their errors, "" for none."""
    assert maps.tools is not None
    running = []
    for tool, rows in zip(maps.tools, (maps.uids, maps.gids), strict=True):
        words = [str(number) for row in rows for number in row]
        reader, writer = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, writer, 2), (os.POSIX_SPAWN_DUP2, writer, 1)]
        try:
            pid = os.posix_spawn(tool, [tool, str(target), *words], dict(os.environ), file_actions=actions)
        except OSError as error:
            return f"{tool}: {error.strerror}"
        os.close(writer)
        running.append((tool, pid, reader))
    said = []
    for tool, pid, reader in running:
        with open(reader, encoding="utf-8", errors="replace") as pipe:
            words_said = " ".join(pipe.read().split())
        if os.waitpid(pid, 0)[1]:
            said.append(words_said or f"{tool} failed")
    return "; ".join(said)
