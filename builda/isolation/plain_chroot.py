"""Isolation in a plain directory, for places where nothing can be mounted: chroot(2) and a supervisor.

The builder has put all that the command needs into the tree (`builder.run.emulated_mounts`). The command shares the
caller's processes, network, ipc and host name, and can read whatever the caller can. Where the kernel has Landlock,
the command writes in the tree only. The supervisor (`child.proc_server`) answers calls that name /proc and /dev.
Without CAP_SYS_ADMIN the kernel takes its filter only from a process with no_new_privs, so setuid files give no rights.
"""

from __future__ import annotations

import os

from builda.isolation.child.proc_server import filter_program
from builda.isolation.chroot import in_tree
from builda.isolation.launch import check, run_child
from builda.isolation.wire import Method
from builda.linux import caps
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.events import Emit
    from builda.isolation.kinds import Kind
    from builda.isolation.spec import Process, Sandbox, Wanted
    from builda.isolation.wire import PlainTree


class PlainChrootIsolation:
    """chroot(2) into a directory, with a supervisor for /proc and /dev."""

    def __init__(self, kind: Kind, wanted: Wanted) -> None:
        self.kind = kind
        self._cache = wanted.cache

    def run(self, process: Process, sandbox: Sandbox, emit: Emit) -> int:
        """See `Isolation.run`. IsolationUnavailable for a sandbox with mounts: they must be in the tree already."""
        root, secrets, sandbox = in_tree(sandbox, self.kind.name)
        # With CAP_SYS_PTRACE the supervisor would read the memory of any process as root, and open for the command what
        # the command's user may not open.
        given_up = caps.to_bits(("CAP_SYS_PTRACE",)) & ~caps.to_bits(process.capabilities)
        plain: PlainTree = {
            "root": root,
            "secrets": secrets,
            "given_up": given_up,
            "filter": filter_program(os.uname().machine),
        }
        process = replace(process, no_new_privileges=True)
        checked = check(process, sandbox, self.kind, self._cache)
        return run_child(process, sandbox, emit, checked=checked, method=Method(plain_tree=plain))
