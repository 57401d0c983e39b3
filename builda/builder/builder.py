"""Builder: the primitives. Each takes a working container and a step, and returns the container as it is afterwards.

The methods decide little themselves: each is one module beside this one. Heavy imports wait for the method that needs
them, because `builda config` shall not pay for what `builda run` does.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builda.builder.options import CommitOptions, FromOptions, Inputs, PullOptions, PushOptions
from builda.events import ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from builda.builder.remote import Remote
    from builda.events import Emit
    from builda.isolation.spec import Isolation
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest
    from builda.plan import Configure, Copy, MakeDirectory, Run
    from builda.store.store import Image, Store, WorkingContainer


class Builder:
    """The primitives over one store. Safe to use from several threads for different working containers."""

    def __init__(
        self,
        store: Store,
        *,
        remote: Remote,
        isolation: Callable[[str], Isolation],
        emit: Emit = ignore,
        now: Callable[[], float] = time.time,
        environ: Mapping[str, str] = os.environ,
        cwd: Path | None = None,
    ) -> None: ...

    def pull(self, name: str, options: PullOptions = PullOptions()) -> Image:
        """The image that `name` means (a name, ID, digest, or a transport and its argument), fetched as the policy says."""

    def push(self, image: str, destination: str | None = None, options: PushOptions = PushOptions()) -> Descriptor:
        """Copy a stored image to `destination` (default: its own name's registry); what was written, by digest."""

    def from_image(self, name: str, options: FromOptions = FromOptions()) -> WorkingContainer:
        """A new working container on the image that `name` means; `scratch` is the empty one."""

    def mount(self, container: WorkingContainer) -> Path:
        """Mount the root file system where every process sees it, until `umount`; mounting again gives the same path."""

    def umount(self, container: WorkingContainer) -> bool:
        """Undo `mount`; False when it was not mounted."""

    def mounted(self, container: WorkingContainer) -> Iterator[int]:
        """A directory descriptor of the root file system for the time of a `with`; nothing is mounted anywhere."""

    def run(
        self,
        container: WorkingContainer,
        step: Run,
        *,
        inputs: Inputs = Inputs(),
        valid_statuses: frozenset[int] = frozenset({0}),
        capture: bool = False,
        stage: str | None = None,
    ) -> WorkingContainer:
        """Run a command in the working container; CommandFailed when its status is none of `valid_statuses`.

        `capture` sends its output to `emit`, marked with `stage`, instead of the caller's stdout and stderr.
        """

    def copy(
        self, container: WorkingContainer, step: Copy, *, inputs: Inputs = Inputs()
    ) -> tuple[WorkingContainer, Digest | None]:
        """Copy files in; with the digest of the content, None when nothing was copied."""

    def make_directory(self, container: WorkingContainer, step: MakeDirectory) -> WorkingContainer:
        """Make sure that a directory exists."""

    def config(self, container: WorkingContainer, step: Configure) -> WorkingContainer:
        """Edit the pending configuration; the files are not touched, nor even mounted."""

    def freeze(self, container: WorkingContainer, *, created_by: str, comment: str | None = None) -> WorkingContainer:
        """Close what was changed so far as a layer of its own; its tar and digests are computed while work goes on."""

    def commit(self, container: WorkingContainer, options: CommitOptions = CommitOptions()) -> Image:
        """Make an image of the working container. Its name points at it only when it is whole."""

    def remove(self, container: WorkingContainer) -> None:
        """Remove the working container; InUse when something runs in it."""
