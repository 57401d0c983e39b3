"""The message by which the parent tells the child what to do: its type, and the one function that writes it.

It crosses into the child by marshal, so it holds nothing but None, bool, int, str, bytes, tuples and dictionaries. The
child imports the types for the type checker only: they do not exist at run time. tests/unit/isolation/test_wire.py
checks that each key is written and read.
"""

from __future__ import annotations

from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    from builda.isolation.spec import Process, Sandbox
    from builda.linux.detached import Description
    from builda.linux.mount import Mount
    from builda.linux.userns import IdMap

    class Runtime(TypedDict):
        """The OCI runtime that the child starts instead of the command, which the bundle then names."""

        args: tuple[str, ...]  # the runtime's path and arguments
        env: tuple[tuple[str, str], ...]  # the runtime's environment
        config: bytes  # config.json of the bundle
        mountpoints: tuple[tuple[str, bool], ...]  # (path inside, is a directory): made and recorded before it starts
        needs_cgroup2: bool  # mount cgroup2 at /sys/fs/cgroup, so that the runtime sees one hierarchy

    class PlainTree(TypedDict):
        """A root directory that nothing can be mounted in: the command enters it by chroot(2)."""

        root: str  # path of the directory, in the caller's mount namespace
        secrets: tuple[str, ...]  # paths inside of files to be emptied when the command ends
        given_up: int  # bits of capabilities that the supervisor drops: of CAP_SYS_PTRACE, unless the command has it
        filter: bytes | None  # BPF: hands calls that may name /proc or /dev to the supervisor (proc_server); None: no
        # supervisor, and the command has no /proc

    class TracedTree(TypedDict):
        """A root directory for a command whose calls are answered by a supervisor (`isolation.traced`)."""

        root: str  # path of the directory
        secrets: tuple[str, ...]  # paths inside of files to be emptied when the command ends

    class Wire(TypedDict):
        """What to run, where, and how."""

        # The process tree
        parent: int  # pid of builda: the child ends if it is no longer its parent
        session: bool  # the command leads a session: signals are passed on to it, not sent by the terminal
        signal_mask: tuple[int, ...]  # numbers of the signals that are blocked in the command
        cgroup: str | None  # directory of the cgroup to enter; None: stay in the caller's
        owned_streams: tuple[int, ...]  # of descriptors 0, 1, 2 the pipes that builda made: they are given to the user

        # Namespaces
        namespaces: dict[str, str]  # cgroup, ipc, uts, network, pid -> "private", "host" or "ns:PATH"
        users: tuple[IdMap, IdMap, str | None] | None  # user namespace: uid map, gid map, path of one to join
        network_by_parent: bool  # report ("network",) and wait until the parent has made eth0
        relay: tuple[str, ...] | None  # program that relays the network; empty: none is installed; None: not wanted
        hostname: str | None  # host name to set in a private uts namespace; None: keep the caller's

        # Which program does the rest, if not the child itself
        runtime: Runtime | None
        plain_tree: PlainTree | None
        emulation: (
            bytes | None
        )  # BPF: hands calls about ids and owners to a supervisor (emulator); None: one is not wanted
        traced_tree: TracedTree | None

        # The file system
        scratch: str  # the caller's private directory that a tmpfs is mounted over
        rootfs: tuple[Description, ...]  # mounts that make the root, the root itself first
        mounts: tuple[Description, ...]  # mounts on top of it, in order
        files: tuple[tuple[str, bytes], ...]  # (path inside, content), mode 0644, bound over what is there
        memory_files: tuple[tuple[str, bytes, int, tuple[int, int] | None], ...]  # (path, content, mode, uid and gid)
        devices: tuple[tuple[str, str], ...]  # (device node of the host, path inside)
        makes_nodes: bool  # make device nodes of the command's own; False: bind the host's (user namespaces)
        shows_devices: bool  # device nodes in the root and its mounts open devices (CAP_SYS_ADMIN); else nodev
        masked_paths: tuple[str, ...]  # hidden by an empty file or directory
        readonly_paths: tuple[str, ...]
        shm_size: int  # bytes of /dev/shm
        new_proc_sys: bool  # new proc and sysfs where the kernel allows; False: bind the caller's
        pivot: bool  # pivot_root(2); False: move the mount to / and chroot(2)
        mountpoint_record: str | None  # file that notes the mount points that have to be made in the root

        # The command
        args: tuple[str, ...]  # args[0] is looked up in PATH of env, inside the root
        env: tuple[tuple[str, str], ...]
        cwd: str
        umask: int
        uid: int
        gid: int
        groups: tuple[int, ...] | None  # supplementary groups; None: keep the caller's
        capabilities: int  # bits of the bounding, effective and permitted sets
        rlimits: tuple[tuple[str, int, int, int], ...]  # (name, number, soft, hard); -1 is unlimited
        no_new_privileges: bool
        seccomp: bytes | None  # BPF program (struct sock_filter[]); None: unconfined
        terminal: bool  # the streams are a new pseudo terminal
        window_size: tuple[int, int]  # lines and columns of that terminal


class Checked(NamedTuple):
    """What depends on this process, on the kernel and on files: found and checked before anything is started."""

    parent: int
    in_user_namespace: bool
    capabilities: int
    rlimits: tuple[tuple[str, int, int, int], ...]
    devices: tuple[tuple[str, str], ...]
    seccomp: bytes | None
    relay: tuple[str, ...] | None
    window_size: tuple[int, int]
    signal_mask: tuple[int, ...]
    emulation: bytes | None = None


class Method(NamedTuple):
    """How one isolation differs from the others in what the child does."""

    new_proc_sys: bool = True
    runtime: Runtime | None = None
    plain_tree: PlainTree | None = None
    traced_tree: TracedTree | None = None


class Acquired(NamedTuple):
    """What the parent holds for the time of the run."""

    cgroup: str | None
    session: bool
    owned_streams: tuple[int, ...]


NAMESPACES = ("pid", "ipc", "uts", "cgroup")
"""The kinds that `Sandbox.namespaces` names; the network has a field of its own."""


def to_wire(process: Process, sandbox: Sandbox, checked: Checked, method: Method, acquired: Acquired) -> Wire:
    """The message for one run. Pure: it looks at its arguments only."""
    namespaces = {kind: sandbox.namespaces.get(kind, "private") for kind in NAMESPACES}
    namespaces["network"] = "private" if sandbox.network == "none" else sandbox.network
    return {
        "parent": checked.parent,
        "session": acquired.session,
        "signal_mask": checked.signal_mask,
        "cgroup": acquired.cgroup,
        "owned_streams": acquired.owned_streams,
        "namespaces": namespaces,
        "users": None if sandbox.users is None else (*sandbox.users,),
        "network_by_parent": sandbox.network == "private" and not checked.in_user_namespace,
        "relay": checked.relay,
        "hostname": sandbox.hostname,
        "runtime": method.runtime,
        "plain_tree": method.plain_tree,
        "emulation": checked.emulation,
        "traced_tree": method.traced_tree,
        "scratch": sandbox.scratch,
        "rootfs": _plain(sandbox.rootfs),
        "mounts": _plain(sandbox.mounts),
        "files": tuple(sandbox.files.items()),
        "memory_files": tuple((file.target, file.data, file.mode, file.owner) for file in sandbox.memory_files),
        "devices": checked.devices,
        "makes_nodes": not checked.in_user_namespace,
        "shows_devices": shows_devices(process),
        "masked_paths": sandbox.masked_paths,
        "readonly_paths": sandbox.readonly_paths,
        "shm_size": sandbox.shm_size,
        "new_proc_sys": method.new_proc_sys,
        "pivot": not sandbox.no_pivot,
        "mountpoint_record": sandbox.mountpoint_record,
        "args": process.args,
        "env": process.env,
        "cwd": process.cwd,
        "umask": process.umask,
        "uid": process.user.uid,
        "gid": process.user.gid,
        "groups": None if process.user.keep_groups else process.user.additional_gids,
        "capabilities": checked.capabilities,
        "rlimits": checked.rlimits,
        "no_new_privileges": process.no_new_privileges,
        "seccomp": checked.seccomp,
        "terminal": process.terminal,
        "window_size": checked.window_size,
    }


def shows_devices(process: Process) -> bool:
    """Whether nodes in the root open devices: for a command with CAP_SYS_ADMIN, which could mount them open anyway."""
    return "CAP_SYS_ADMIN" in process.capabilities


def _plain(mounts: tuple[Mount, ...]) -> tuple[Description, ...]:
    """The mounts as plain tuples: marshal takes no named ones."""
    return tuple((each.type, each.source, each.target, each.options, each.lower) for each in mounts)
