"""Context: what every primitive is given.

A primitive is a function of a Context, a working container and a step. It gets no Builder, so it reaches another
primitive only by importing it, and modules that need each other show it. Parameters are called `ctx`, because `context`
is the build context everywhere.
"""

from __future__ import annotations

import os

from builda.errors import NotFound
from builda.events import Decided
from builda.values import dataclass, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Literal

    from builda.builder.image.layers import Layers
    from builda.builder.remote import Remote
    from builda.events import Emit, Subject
    from builda.isolation.spec import Isolation
    from builda.plan import RunOptions
    from builda.store.store import Store


@dataclass(slots=True)
class Network:
    """The network of commands that ask for none. It is the only state that a primitive changes for later ones."""

    private: bool  # a network of its own; False: the host's
    relay_failed: bool = False  # a private network was tried and cannot be made here, and a warning said so


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The store, what is outside it, and where events go. Threads may share it."""

    store: Store
    remote: Remote
    isolation: Callable[[RunOptions], Isolation]
    layers: Callable[[], Layers]  # the frozen layers that threads are storing; the pool is made when first needed
    run_defaults: Callable[[], RunOptions]  # default options of commands, from containers.conf
    network: Network
    version: str
    configured_environ: Callable[[], Mapping[str, str]]  # what containers.conf adds below `environ`
    emit: Emit
    now: Callable[[], float]  # seconds since the epoch
    environ: Mapping[str, str]
    directory: Path | None = None  # where relative paths of a script start; None: the current directory
    tracing: bool = False  # whether `decided` tells

    def decided(self, subject: Subject, message: Callable[[], str]) -> None:
        """Emit a decision if decisions are traced (--log-level debug). `message` is called only then."""
        if self.tracing:
            self.emit(Decided(subject=subject, message=message()))

    @property
    def cwd(self) -> str:
        """The directory that relative paths start from. NotFound if it was removed."""
        if self.directory is not None:
            return str(self.directory)
        try:
            return os.getcwd()
        except FileNotFoundError as error:
            hint = "go to one that exists, or write absolute paths"
            raise NotFound("no such file or directory: the working directory is gone", hint=hint) from error

    @property
    def cwd_or_root(self) -> str:
        """Same as `cwd`; "/" if the current directory was removed: for what absolute paths are done with, too."""
        try:
            return self.cwd
        except NotFound:
            return "/"

    def run_options(self, options: RunOptions) -> RunOptions:
        """The options over the defaults; a capability that is added here is not dropped there."""
        base = self.run_defaults()
        if base.cap_drop:
            added = {name.strip().upper().removeprefix("CAP_") for name in options.cap_add}
            kept = (name for name in base.cap_drop if "ALL" not in added and name.removeprefix("CAP_") not in added)
            base = replace(base, cap_drop=tuple(kept))
        return options.over(base)

    def default_network(self, options: RunOptions) -> Literal["private", "host"]:
        """The network of a command whose options name none."""
        if not self.network.private:
            return "host"
        if options.isolation is None and self.store.can_mount:  # the default can, which a cached build need not look up
            return "private"
        from builda.isolation.kinds import find_kind

        kind = find_kind(options.isolation, can_mount=self.store.can_mount, can_chroot=self.store.can_chroot)
        return "private" if kind.own_network else "host"
