"""Native isolation: namespaces and mounts that builda makes itself."""

from __future__ import annotations

from builda.isolation.launch import check, run_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.events import Emit
    from builda.isolation.begun import Begun
    from builda.isolation.kinds import Kind
    from builda.isolation.spec import Process, Sandbox, Wanted


class NativeIsolation:
    """Namespaces made by builda itself; `cache` keeps compiled filters."""

    def __init__(self, kind: Kind, wanted: Wanted) -> None:
        self.kind = kind
        self._cache = wanted.cache

    def run(self, process: Process, sandbox: Sandbox, emit: Emit, begun: Begun | None = None) -> int:
        """See `Isolation.run`."""
        checked = check(process, sandbox, self.kind, self._cache)
        return run_child(process, sandbox, emit, checked=checked, begun=begun)
