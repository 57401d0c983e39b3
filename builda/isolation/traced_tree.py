"""Isolation where the kernel gives no namespace and no chroot(2): a supervisor answers the command's calls.

The builder has put all that the command needs into the tree (`builder.run.emulated_mounts`). The command shares the
caller's processes, network and ipc. Paths lead into the tree; ids, owners and the host name are pretended (`traced`).
"""

from __future__ import annotations

from builda.isolation.chroot import in_tree
from builda.isolation.launch import check, run_child
from builda.isolation.wire import Method

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.events import Emit
    from builda.isolation.begun import Begun
    from builda.isolation.kinds import Kind
    from builda.isolation.spec import Process, Sandbox, Wanted
    from builda.isolation.wire import TracedTree


class TracedIsolation:
    """ptrace(2) and two seccomp filters; needs no right at all."""

    def __init__(self, kind: Kind, wanted: Wanted) -> None:
        self.kind = kind
        self._cache = wanted.cache

    def run(self, process: Process, sandbox: Sandbox, emit: Emit, begun: Begun | None = None) -> int:
        """See `Isolation.run`. IsolationUnavailable for a sandbox with mounts: they must be in the tree already."""
        root, secrets, sandbox = in_tree(sandbox, self.kind.name)
        traced: TracedTree = {"root": root, "secrets": secrets}
        checked = check(process, sandbox, self.kind, self._cache)
        return run_child(process, sandbox, emit, checked=checked, method=Method(traced_tree=traced), begun=begun)
