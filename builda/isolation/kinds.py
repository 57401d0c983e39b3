"""The isolations that there are, one row each, and what each can do.

To add one, write a module with a class like `native.NativeIsolation` and give it a row here. Nothing outside this
package compares the name of an isolation: it asks a field of its row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builda.errors import InvalidValue, IsolationUnavailable
from builda.isolation.spec import Kind

if TYPE_CHECKING:
    from builda.isolation.spec import Isolation, Wanted


def _native(kind: Kind, wanted: Wanted) -> Isolation:
    from builda.isolation.native import NativeIsolation

    return NativeIsolation(kind, cache=wanted.cache)


def _oci(kind: Kind, wanted: Wanted) -> Isolation:
    from builda.isolation.oci_runtime import OciIsolation

    return OciIsolation(kind, runtime=wanted.runtime, flags=wanted.runtime_flags, cache=wanted.cache)


def _chroot(kind: Kind, wanted: Wanted) -> Isolation:
    from builda.isolation.chroot import ChrootIsolation

    return ChrootIsolation(kind, cache=wanted.cache)


def _plain_chroot(kind: Kind, wanted: Wanted) -> Isolation:
    from builda.isolation.plain_chroot import PlainChrootIsolation

    return PlainChrootIsolation(kind, cache=wanted.cache)


NATIVE = Kind("native", _native, aliases=("rootless", "default"))
OCI = Kind(
    "oci",
    _oci,
    no_own_ids="the root of its user namespace could not enter builda's directories, where a runtime looks for the "
    "tree",
    keeps_groups=False,
    restricts_devices=True,
    takes_runtime=True,
)
CHROOT = Kind("chroot", _chroot, own_network=False, no_own_ids="it has the caller's namespaces")
PLAIN_CHROOT = Kind(
    "chroot",
    _plain_chroot,
    aliases=("rootless", "default"),
    mounts=False,
    own_network=False,
    no_own_ids="it has the caller's namespaces",
)
KINDS = (NATIVE, OCI, CHROOT, PLAIN_CHROOT)
"""In the order of preference: the first that works where builda can mount, or cannot, is the default there."""


def find_kind(name: str | None, *, can_mount: bool = True) -> Kind:
    """The isolation that `name` (None: the default) means where builda can mount, or cannot.

    InvalidValue for an unknown name, IsolationUnavailable for one that needs mounts where there are none.
    """
    here = tuple(kind for kind in KINDS if kind.mounts == can_mount)
    for kind in here:
        if name is None or name == kind.name or name in kind.aliases:
            return kind
    known = tuple(dict.fromkeys(kind.name for kind in KINDS))
    if name not in known:
        raise InvalidValue(f"unknown isolation: {name}", hint=f"it is {', '.join(known[:-1])} or {known[-1]}")
    raise IsolationUnavailable(
        f"isolation {name} needs mounts, which this process may not make",
        hint=f"leave --isolation out, or set it to {here[0].name}; `builda doctor` says what mounts need",
    )


def isolation_name(text: str | None, *, has_runtime: bool = False) -> str | None:
    """The name of the isolation that --isolation calls `text`.

    Without a text, the one that runs commands with an OCI runtime if a runtime is named, else None. InvalidValue for
    an unknown one.
    """
    if text is not None:
        return find_kind(text).name
    return next(kind.name for kind in KINDS if kind.takes_runtime) if has_runtime else None
