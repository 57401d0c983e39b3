"""Builder: the primitives. Each takes a working container and a step, and returns the container as it is afterwards.

Each is a function in a module of its own, imported when it is first used: `builda config` does not pay for what
`builda run` needs.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from functools import cached_property

from builda import __version__
from builda.builder.context import Context, Network
from builda.builder.imageoptions import CommitOptions, FromOptions, Inputs, PullOptions, PushOptions, RegistryAccess
from builda.events import ignore
from builda.linux.userns import in_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Literal, Self

    from builda.builder.cached.caching import Caching
    from builda.builder.image.layers import LayerOptions, Layers
    from builda.builder.remote import Remote
    from builda.events import Emit
    from builda.isolation.spec import Isolation
    from builda.linux.mount import Mount
    from builda.linux.stopping import Stop
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest
    from builda.plan import Configure, Copy, MakeDirectory, Run, RunOptions
    from builda.store.containers import WorkingContainer
    from builda.store.images import Removal
    from builda.store.store import Image, Store

_FROM, _COMMIT, _PULL, _PUSH = FromOptions(), CommitOptions(), PullOptions(), PushOptions()
_ACCESS = RegistryAccess()
_INPUTS = Inputs()
_SUCCESS = frozenset({0})


class Builder:
    """The primitives over one store; a context manager that ends its threads.

    Threads may share it; two that use one working container wait for each other.
    """

    version = __version__

    def __init__(
        self,
        store: Store,
        *,
        remote: Remote,
        isolation: Callable[[RunOptions], Isolation],
        emit: Emit = ignore,
        now: Callable[[], float] = time.time,
        environ: Mapping[str, str] = os.environ,
        defaults: Callable[[], RunOptions] | None = None,
        configured_environ: Callable[[], Mapping[str, str]] = dict,
        cwd: Path | None = None,
        tracing: bool = False,
    ) -> None:
        self._defaults = defaults
        self.context = Context(
            store=store,
            remote=remote,
            isolation=isolation,
            layers=lambda: self._layers,
            run_defaults=lambda: self.defaults,
            network=Network(private=not in_user_namespace()),
            version=self.version,
            emit=emit,
            now=now,
            environ=environ,
            configured_environ=configured_environ,
            directory=cwd,
            tracing=tracing,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if "_layers" in self.__dict__:
            self._layers.close()

    @cached_property
    def _layers(self) -> Layers:
        from builda.builder.image.layers import Layers

        return Layers(self.store)

    @property
    def store(self) -> Store:
        """The store with images and working containers."""
        return self.context.store

    @property
    def emit(self) -> Emit:
        """The function that gets events."""
        return self.context.emit

    @property
    def environ(self) -> Mapping[str, str]:
        """The caller's environment. Commands see its proxy variables and, on a terminal, TERM."""
        return self.context.environ

    @cached_property
    def defaults(self) -> RunOptions:
        """Default options of commands, from containers.conf and mounts.conf."""
        from builda.plan import RunOptions

        return RunOptions() if self._defaults is None else self._defaults()

    def default_network(self, options: RunOptions) -> Literal["private", "host"]:
        """The network of a command whose options name none."""
        return self.context.default_network(options)

    def pull(self, name: str, options: PullOptions = _PULL) -> Image:
        """The image that `name` means (name, ID, digest, or transport and argument), fetched as the policy says."""
        from builda.builder.image.pull import pull

        return pull(self.context, name, options)

    def tagged(self, name: str, access: RegistryAccess = _ACCESS) -> tuple[str, ...]:
        """The full names of all tags of the repository that `name`, which has no tag of its own, means."""
        from builda.builder.image.pull import tagged

        return tagged(self.context, name, access)

    def push(self, image: str, destination: str | None = None, options: PushOptions = _PUSH) -> Descriptor:
        """Copy a stored image to `destination` (default: its own name's registry); what was written, by digest.

        The bytes are those of the store, so the digest is the one that `commit` gave, unless `options` ask for another
        format or compression.
        """
        from builda.builder.image.push import push

        return push(self.context, image, destination, options)

    def from_image(self, name: str, options: FromOptions = _FROM) -> WorkingContainer:
        """A new working container on the image that `name` means; `scratch` is the empty one."""
        from builda.builder.from_image import CONTAINER, from_image

        if name.startswith(CONTAINER):
            self._settle(self.store.container(name.removeprefix(CONTAINER)))
        container = from_image(self.context, name, options)
        if options.cache is None or container.cache is not None:
            return container
        from builda.builder.cached.cachestart import started

        return started(self.context, container, options)

    def _settle(self, container: WorkingContainer) -> None:
        """Make layers of the changes in a container with a cache."""
        if container.cache is not None:
            from builda.builder.cached.cachestart import settled

            settled(self.context, container)

    def mount(self, container: WorkingContainer) -> Path:
        """Mount the root file system where every process sees it, until `umount`; a second call gives the same path."""
        from builda.builder.mounting import mount

        return mount(self.context, container)

    def umount(self, container: WorkingContainer) -> bool:
        """Undo `mount`; False when it was not mounted."""
        from builda.builder.mounting import umount

        return umount(self.context, container)

    def mount_image(self, image: Image) -> Path:
        """Mount an image read-only where every process sees it; each call needs a `umount_image`."""
        from pathlib import Path

        from builda.builder.mounting import mount_image

        return Path(mount_image(self.context, image))

    def umount_image(self, image: Image, *, force: bool = False) -> bool:
        """Undo one `mount_image`, with `force` all of them; False when it was not mounted."""
        from builda.builder.mounting import umount_image

        return umount_image(self.context, image.digest, force=force)

    @contextmanager
    def mounted(self, container: WorkingContainer) -> Iterator[int]:
        """A directory descriptor of the root file system for the time of a `with`; it is mounted nowhere else."""
        from builda.builder.mounting import opened

        with opened(self.context, container) as (root, _):
            yield root

    def rootfs(self, container: WorkingContainer) -> tuple[Mount, ...]:
        """The mounts of the working tree: a bind of its `builda mount` if any, as two overlays cannot share it."""
        from builda.builder.materialize import with_tree
        from builda.builder.working_tree import rootfs

        return rootfs(self.context, with_tree(self.context, container))

    def view(self, image: Image) -> AbstractContextManager[tuple[Mount, ...]]:
        """The read-only mounts of an image, valid inside the `with`. Unpacks the image if necessary."""
        from builda.builder.mounting import viewed

        return viewed(self.context, image)

    def run(
        self,
        container: WorkingContainer,
        step: Run,
        *,
        inputs: Inputs = _INPUTS,
        valid_statuses: frozenset[int] = _SUCCESS,
        capture: bool = False,
        copy_output: bool = False,
        stage: str | None = None,
        stop: Stop | None = None,
        caching: Caching | None = None,
    ) -> WorkingContainer:
        """Run a command in the working container; CommandFailed when its status is none of `valid_statuses`.

        In a container with a cache the command is not run if its result is remembered; `caching` says how to look.

        `capture` sends its output to `emit`, marked with `stage`, instead of the caller's stdout and stderr;
        `copy_output` sends it to both.
        `stop` ends the command on request.
        """
        from builda.plan import Run as RunStep

        if not isinstance(step, RunStep):  # as a list of words, which subprocess would take
            raise TypeError(f"run takes a Run, as in builda.Run(args=('true',)): {step!r}")
        from builda.builder.run.command import surroundings

        around = surroundings(self.context, capture=capture, copy_output=copy_output, stage=stage, stop=stop)
        if container.cache is None:
            from builda.builder.run.run import run

            return run(self.context, container, step, inputs, valid_statuses, around)
        from builda.builder.cached import scriptsteps
        from builda.builder.cached.caching import PLAIN

        return scriptsteps.run(self.context, container, step, inputs, valid_statuses, around, caching or PLAIN)

    def copy(
        self, container: WorkingContainer, step: Copy, *, inputs: Inputs = _INPUTS, caching: Caching | None = None
    ) -> tuple[WorkingContainer, Digest | None]:
        """Copy files in; with the digest of the content, None when nothing was copied."""
        if container.cache is not None:
            from builda.builder.cached import scriptsteps
            from builda.builder.cached.caching import PLAIN

            return scriptsteps.copy(self.context, container, step, inputs, caching or PLAIN)
        from builda.builder.copy.copying import copy

        return copy(self.context, container, step, inputs)

    def make_directory(self, container: WorkingContainer, step: MakeDirectory) -> WorkingContainer:
        """Make sure that a directory exists; a new one belongs to the step's user."""
        if container.cache is not None:
            from builda.builder.cached import scriptsteps
            from builda.builder.cached.caching import PLAIN

            return scriptsteps.make_directory(self.context, container, step, _INPUTS, PLAIN)
        from builda.builder.copy.copying import make_directory

        return make_directory(self.context, container, step)

    def config(self, container: WorkingContainer, step: Configure) -> WorkingContainer:
        """Edit the pending configuration; the files are not touched, nor even mounted."""
        from builda.builder.records import configure

        return configure(self.context, container, step)

    def freeze(
        self,
        container: WorkingContainer,
        *,
        created_by: str | None = None,
        comment: str | None = None,
        options: LayerOptions | None = None,
        background: bool = True,
        only_changes: bool = False,
    ) -> WorkingContainer:
        """Close what was changed so far as a layer of its own; threads make its bytes while work goes on.

        Without changes there is a history entry only; none with `only_changes`.

        `options` are those of the commit to come: a commit with others makes the bytes again. With `background=False`
        they are left to the commit: right for a process that ends before it.
        """
        from builda.builder.image.freeze import freeze
        from builda.builder.image.layers import LayerOptions

        chosen = (options or LayerOptions()) if background else None
        return freeze(self.context, container, created_by, comment, chosen, only_changes=only_changes)

    def commit(self, container: WorkingContainer, options: CommitOptions = _COMMIT) -> Image:
        """Make an image of the working container. Its name points at it only when it is whole."""
        self._settle(container)
        from builda.builder.image.commit import commit

        return commit(self.context, container, options, tells=True)

    def remove(self, container: WorkingContainer) -> None:
        """Remove the working container and its mount; InUse when something runs in it."""
        from builda.builder.removal import remove

        remove(self.context, container)

    def prune(self, *, all_images: bool = False, force: bool = False, until: float | None = None) -> Removal:
        """Remove what is not needed any more, and what killed commands left behind, on disk and elsewhere.

        Images without a name go, and with `all_images` those with names, unless a working container stands on them,
        which with `force` goes first. With `until`, seconds since the epoch, only images that were made, and caches
        that were last used, before that time.
        """
        from builda.builder.removal import prune

        return prune(self.context, all_images=all_images, force=force, until=until)
