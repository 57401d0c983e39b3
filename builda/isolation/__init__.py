"""Running one process: `isolation_for` gives the way that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builda.errors import InvalidValue, IsolationUnavailable

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
    name: str, *, state: Path, runtime: str | None = None, runtime_flags: tuple[str, ...] = ()
) -> Isolation:
    """The isolation called `native` (Buildah's `rootless`), `oci` or `chroot`; Buildah's `default` is native too.

    `state` is a volatile directory of builda's own (the run root) where compiled filters are kept. `runtime` and
    `runtime_flags` are for `oci`. InvalidValue for another name, IsolationUnavailable when there is no such runtime.
    """
    if name in ("native", "rootless", "default"):
        from builda.isolation.native import NativeIsolation

        return NativeIsolation(cache=state / "cache")
    if name == "chroot":
        from builda.isolation.chroot import ChrootIsolation

        return ChrootIsolation(cache=state / "cache")
    if name == "oci":
        from builda.isolation.oci_runtime import OciIsolation

        return OciIsolation(runtime=runtime, flags=runtime_flags, cache=state / "cache")
    raise InvalidValue(f"no such isolation: {name}", hint="there are native, oci and chroot")


def in_tree(name: str | None, *, state: Path) -> Isolation:
    """The one way to run something where nothing can be mounted, called chroot; IsolationUnavailable for others."""
    if name not in (None, "chroot", "rootless", "default"):
        raise IsolationUnavailable(
            f"isolation {name} needs mounts, which this process may not make",
            hint="leave --isolation out, or set it to chroot; `builda doctor` says what mounts need",
        )
    from builda.isolation.plain_chroot import TreeIsolation

    return TreeIsolation(cache=state / "cache")
