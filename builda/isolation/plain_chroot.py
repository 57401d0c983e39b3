"""Isolation in a plain directory, for places where nothing can be mounted: chroot(2) and a supervisor.

The builder has put all that the command needs into the tree (`builder.run.emulated_mounts`). The command shares the
caller's processes, network, ipc and host name, and can read whatever the caller can. Where the kernel has Landlock,
the command writes in the tree only. The supervisor (`child.proc_server`) answers calls that name /proc and /dev.
Without CAP_SYS_ADMIN the kernel takes its filter only from a process with no_new_privs, so setuid files give no rights.
"""

from __future__ import annotations

import os

from builda.errors import IsolationUnavailable
from builda.isolation.child.proc_server import filter_program
from builda.isolation.chroot import check_confinement
from builda.isolation.launch import check, run_child
from builda.isolation.wire import NAMESPACES, Method
from builda.linux import caps
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.events import Emit
    from builda.isolation.kinds import Kind
    from builda.isolation.spec import Process, Sandbox, Wanted
    from builda.isolation.wire import PlainTree

_ALL_SHARED = dict.fromkeys(NAMESPACES, "host")


class PlainChrootIsolation:
    """chroot(2) into a directory, with a supervisor for /proc and /dev."""

    def __init__(self, kind: Kind, wanted: Wanted) -> None:
        self.kind = kind
        self._cache = wanted.cache

    def run(self, process: Process, sandbox: Sandbox, emit: Emit) -> int:
        """See `Isolation.run`. IsolationUnavailable for a sandbox with mounts: they must be in the tree already."""
        check_confinement(sandbox)
        if sandbox.mounts or sandbox.files or sandbox.devices:
            raise IsolationUnavailable("nothing can be mounted here", hint="put what the command needs into its tree")
        (root,) = sandbox.rootfs
        # The builder has put them into the tree. The child holds them open for writing, so that no file that is to be
        # executed can be among them (ETXTBSY).
        secrets = tuple(file.target for file in sandbox.memory_files if not file.mode & 0o111)
        # With CAP_SYS_PTRACE the supervisor would read the memory of any process as root, and open for the command what
        # the command's user may not open.
        given_up = caps.to_bits(("CAP_SYS_PTRACE",)) & ~caps.to_bits(process.capabilities)
        plain: PlainTree = {
            "root": root.source,
            "secrets": secrets,
            "given_up": given_up,
            "filter": filter_program(os.uname().machine),
        }
        process = replace(process, no_new_privileges=True)
        sandbox = replace(sandbox, namespaces=_ALL_SHARED, network="host", memory_files=())
        checked = check(process, sandbox, self.kind, self._cache)
        return run_child(process, sandbox, emit, checked=checked, method=Method(plain_tree=plain))
