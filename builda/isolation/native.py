"""Native isolation: namespaces and mounts that builda makes itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from builda.isolation.launch import check, run_child

if TYPE_CHECKING:
    from pathlib import Path

    from builda.events import Emit
    from builda.isolation.spec import Process, Sandbox


class NativeIsolation:
    """Namespaces made by builda itself; `cache` keeps compiled filters."""

    name: Literal["native"] = "native"

    def __init__(self, *, cache: Path | None = None) -> None:
        self._cache = cache

    def run(self, process: Process, sandbox: Sandbox, emit: Emit) -> int:
        """See `Isolation.run`."""
        return run_child(process, sandbox, emit, checked=check(process, sandbox, self._cache))
