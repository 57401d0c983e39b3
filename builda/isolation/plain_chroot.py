"""Isolation in a plain directory, for places where nothing can be mounted: chroot(2) and a supervisor.

The builder has put all that the command needs into the tree (`builder.run.emulated_mounts`). The command shares the
caller's processes, network, ipc and host name, and can read whatever the caller can. Where the kernel has Landlock,
the command writes in the tree only. The supervisor (`child.proc_server`) answers calls that name /proc and /dev.
Without CAP_SYS_ADMIN the kernel takes its filter only from a process with no_new_privs, so setuid files give no rights.
Where the kernel hands no calls over there is no supervisor: /proc is empty, and /dev must have true nodes.
"""

from __future__ import annotations

import os
import stat

from builda.errors import IsolationUnavailable
from builda.isolation.child.proc_server import filter_program
from builda.isolation.chroot import in_tree
from builda.isolation.launch import check, run_child
from builda.isolation.wire import Method
from builda.linux import caps
from builda.linux import syscalls as sys_
from builda.linux.notifications import notifications_refused
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.events import Emit
    from builda.isolation.begun import Begun
    from builda.isolation.kinds import Kind
    from builda.isolation.spec import Process, Sandbox, Wanted
    from builda.isolation.wire import PlainTree


class PlainChrootIsolation:
    """chroot(2) into a directory, with a supervisor for /proc and /dev."""

    def __init__(self, kind: Kind, wanted: Wanted) -> None:
        self.kind = kind
        self._cache = wanted.cache

    def run(self, process: Process, sandbox: Sandbox, emit: Emit, begun: Begun | None = None) -> int:
        """See `Isolation.run`. IsolationUnavailable for a sandbox with mounts: they must be in the tree already."""
        root, secrets, sandbox = in_tree(sandbox, self.kind.name)
        refused = notifications_refused()
        if refused is not None:
            _check_nodes(root, refused)
        # With CAP_SYS_PTRACE the supervisor would read the memory of any process as root, and open for the command what
        # the command's user may not open.
        given_up = caps.to_bits(("CAP_SYS_PTRACE",)) & ~caps.to_bits(process.capabilities)
        plain: PlainTree = {
            "root": root,
            "secrets": secrets,
            "given_up": given_up,
            "filter": filter_program(os.uname().machine) if refused is None else None,
        }
        process = replace(process, no_new_privileges=True)
        checked = check(process, sandbox, self.kind, self._cache)
        return run_child(process, sandbox, emit, checked=checked, method=Method(plain_tree=plain), begun=begun)


def _check_nodes(root: str, refused: str) -> None:
    """IsolationUnavailable unless /dev/null of the tree is a device: files would stand in for /dev/urandom too."""
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        null = sys_.openat2(directory, "dev/null", os.O_PATH | os.O_CLOEXEC)
    finally:
        os.close(directory)
    try:
        is_device = stat.S_ISCHR(os.fstat(null).st_mode)
    finally:
        os.close(null)
    if not is_device:
        raise IsolationUnavailable(
            f"commands can have no devices here: no node can be made, and {refused}",
            hint="in a pod, leave out hostUsers: false, and keep MKNOD among the capabilities",
        )
