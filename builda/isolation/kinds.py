"""The isolations that there are, one row each, and what each can do.

To add one, write a module with a class like `native.NativeIsolation` and give it a row here. Nothing outside this
package compares the name of an isolation: it asks a field of its row.
"""

from __future__ import annotations

from builda.errors import InvalidValue, IsolationUnavailable
from builda.values import NamedTuple


class Kind(NamedTuple):
    """One isolation. The defaults are those of one that makes all namespaces itself."""

    name: str  # what --isolation calls it, and what messages and `inspect` show
    where: str  # MODULE:CLASS in this package
    aliases: tuple[str, ...] = ()  # other values of --isolation that mean it
    mounts: bool = True  # mounts the root file system; False: runs in a directory where nothing can be mounted
    own_network: bool = True  # gives a command a network other than the caller's
    shares: tuple[str, ...] = ()  # the kinds of namespaces that are the caller's in any case
    no_own_ids: str | None = None  # why it gives a command no user namespace of its own; None: it does
    keeps_groups: bool = True  # in a user namespace, keeps groups of the caller that have no number there
    emulates_ids: bool = True  # can let a command with one id see others
    restricts_devices: bool = False  # gives a device for reading only
    takes_runtime: bool = False  # runs commands with an OCI runtime
    traces: bool = False  # gives a command its root directory by answering its calls


NATIVE = Kind("native", "native:NativeIsolation", aliases=("rootless", "default"))
OCI = Kind(
    "oci",
    "oci_runtime:OciIsolation",
    no_own_ids="the root of its user namespace could not enter builda's directories, where a runtime looks for the "
    "tree",
    keeps_groups=False,
    emulates_ids=False,
    restricts_devices=True,
    takes_runtime=True,
)
CHROOT = Kind(
    "chroot",
    "chroot:ChrootIsolation",
    own_network=False,
    shares=("pid", "ipc", "cgroup"),
    no_own_ids="it has the caller's namespaces",
)
PLAIN_CHROOT = CHROOT._replace(
    where="plain_chroot:PlainChrootIsolation",
    shares=(*CHROOT.shares, "uts"),
    aliases=("rootless", "default"),
    mounts=False,
    emulates_ids=False,
)
TRACED = Kind(
    "traced",
    "traced_tree:TracedIsolation",
    own_network=False,
    shares=CHROOT.shares,  # the host name is pretended
    no_own_ids="its ids are pretended",
    aliases=("rootless", "default"),
    emulates_ids=False,  # it does in any case
    mounts=False,
    traces=True,
)
KINDS = (NATIVE, OCI, CHROOT, PLAIN_CHROOT, TRACED)
"""In the order of preference: the first that works where builda can mount, or cannot, is the default there."""


def find_kind(name: str | None, *, can_mount: bool = True, can_chroot: bool = True) -> Kind:
    """The isolation that `name` (None: the default) means where builda can mount, or cannot, or not even chroot(2).

    InvalidValue for an unknown name, IsolationUnavailable for one that needs mounts where there are none.
    """
    here = tuple(kind for kind in KINDS if kind.mounts == can_mount and kind.traces != (can_mount or can_chroot))
    for kind in here:
        if name is None or name == kind.name or name in kind.aliases:
            return kind
    known = tuple(dict.fromkeys(kind.name for kind in KINDS))
    if name not in known:
        raise InvalidValue(f"unknown isolation: {name}", hint=f"it is {', '.join(known[:-1])} or {known[-1]}")
    if name == TRACED.name:
        raise IsolationUnavailable(f"isolation {name} works in mode {name} only", hint=f"--mode {name} enters it")
    right = "chroot(2)" if name == CHROOT.name else "mounts"
    raise IsolationUnavailable(
        f"isolation {name} needs {right}, which this process may not make",
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
