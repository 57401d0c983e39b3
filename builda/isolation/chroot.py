"""Isolation by chroot, for places without pid or network namespaces.

The command has its own mount tree and host name. It shares the caller's processes, network and ipc: it is not confined.
"""

from __future__ import annotations

from builda.errors import IsolationUnavailable
from builda.isolation.launch import check, run_child
from builda.isolation.wire import NAMESPACES, Method
from builda.values import NamedTuple, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.events import Emit
    from builda.isolation.begun import Begun
    from builda.isolation.kinds import Kind
    from builda.isolation.spec import Process, Sandbox, Wanted


class ChrootIsolation:
    """A mount and a UTS namespace, and chroot(2). /proc and /sys are binds of the caller's."""

    def __init__(self, kind: Kind, wanted: Wanted) -> None:
        self.kind = kind
        self._cache = wanted.cache

    def run(self, process: Process, sandbox: Sandbox, emit: Emit, begun: Begun | None = None) -> int:
        """See `Isolation.run`. IsolationUnavailable for limits and for a network of the command's own."""
        check_confinement(sandbox, self.kind.name)
        sandbox = shared(sandbox)
        checked = check(process, sandbox, self.kind, self._cache)
        return run_child(process, sandbox, emit, checked=checked, method=Method(new_proc_sys=False), begun=begun)


def shared(sandbox: Sandbox) -> Sandbox:
    """The sandbox with the caller's processes, ipc, cgroup and network; its host name is its own. No pivot_root(2)."""
    namespaces = {**sandbox.namespaces, **dict.fromkeys(("pid", "ipc", "cgroup"), "host")}
    return replace(sandbox, namespaces=namespaces, network="host", no_pivot=True)


def check_confinement(sandbox: Sandbox, isolation: str, hint: str = "use --isolation native") -> None:
    """IsolationUnavailable if the sandbox asks for a network namespace or a cgroup of the command's own."""
    if sandbox.network == "none" or sandbox.network.startswith("ns:"):
        raise IsolationUnavailable(
            f"{isolation} isolation has no network but the caller's: {sandbox.network}", hint="use --network host"
        )
    if sandbox.resources or sandbox.cgroup_parent:
        raise IsolationUnavailable(f"{isolation} isolation has no resource limits", hint=hint)


class InTree(NamedTuple):
    """A sandbox where nothing can be mounted: its one directory, the secrets that are in it, and the rest."""

    root: str
    secrets: tuple[str, ...]
    sandbox: Sandbox


def in_tree(sandbox: Sandbox, isolation: str) -> InTree:
    """The sandbox with all namespaces of the caller. IsolationUnavailable if it has mounts, or as `check_confinement`.

    The builder has put files in memory into the tree. The child holds them open for writing, so that no file that is to
    be executed can be among the secrets (ETXTBSY).
    """
    check_confinement(sandbox, isolation, "leave the --memory, --cpu and --cgroup-parent options out")
    if sandbox.mounts or sandbox.files or sandbox.devices:
        raise IsolationUnavailable("nothing can be mounted here", hint="put what the command needs into its tree")
    (root,) = sandbox.rootfs
    secrets = tuple(file.target for file in sandbox.memory_files if not file.mode & 0o111)
    namespaces = dict.fromkeys(NAMESPACES, "host")
    return InTree(root.source, secrets, replace(sandbox, namespaces=namespaces, network="host", memory_files=()))
