"""Running one process in a root file system of its own.

`spec` holds what a caller says (Process, Sandbox) and the Protocol Isolation; `kinds` is the table of isolations, and
`isolation_for` makes one. `native`, `oci_runtime`, `chroot`, `plain_chroot` and `traced_tree` are the isolations. All
of them say what the child shall do (`wire`) and have `launch` start and follow it; `child` is what runs there, with
`traced` and `emulated` where the kernel gives too little. `builder.run` calls this package, `api` makes the isolations.

The one rule: nothing that a run started, mounted or wrote here outlives the run, except the networks and cgroups that
runs share, which `remove_leftovers` removes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from builda.isolation.spec import Isolation


def remove_leftovers() -> None:
    """Remove what runs share or killed runs left outside the store: unused networks, and cgroups of ended runs."""
    from builda.isolation.network import remove_unused
    from builda.isolation.oci_runtime import sweep_cgroups

    sweep_cgroups()
    remove_unused()


def isolation_for(
    name: str | None,
    *,
    state: Path,
    can_mount: bool = True,
    can_chroot: bool = True,
    runtime: str | None = None,
    runtime_flags: tuple[str, ...] = (),
) -> Isolation:
    """The isolation called `name` (None: the default) for a process that can mount, or cannot, or not even chroot(2).

    `state` is a volatile directory of builda's own (the run root) where compiled filters are kept. `runtime` and
    `runtime_flags` are for OCI runtimes. InvalidValue for an unknown name, IsolationUnavailable if it cannot work here.
    """
    from importlib import import_module

    from builda.isolation.kinds import find_kind
    from builda.isolation.spec import Wanted

    kind = find_kind(name, can_mount=can_mount, can_chroot=can_chroot)
    module, of_class = kind.where.split(":")
    make = getattr(import_module(f"{__name__}.{module}"), of_class)
    made: Isolation = make(kind, Wanted(state, runtime, runtime_flags))
    return made
