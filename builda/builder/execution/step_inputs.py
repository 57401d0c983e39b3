"""The inputs of a step, as digests: the part of its key that changes when the files that it reads change."""

from __future__ import annotations

import os
from _thread import allocate_lock  # threading takes a millisecond to import

from builda.builder.execution.keys import is_remote
from builda.errors import NotFound
from builda.plan import Context as BuildContext
from builda.plan import Copy, FromContainer, FromImage, FromStage, MakeDirectory, NamedContext, Run
from builda.store import digests as file_digests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builda.builder.context import Context
    from builda.builder.execution.tip import Tip
    from builda.builder.imageoptions import Inputs, PullOptions
    from builda.oci.digest import Digest
    from builda.plan import Source
    from builda.store.digests import FileKey


class StepInputs:
    """The inputs of one build's steps. Digests of context files are kept from build to build. Threads may share it."""

    def __init__(
        self,
        ctx: Context,
        inputs: Inputs,
        pull: PullOptions,
        tips: Mapping[int, Tip],
        key_of: Callable[[str], Digest] | None = None,
    ) -> None:
        """`tips` are the stages that were begun; a step reads those that are finished.

        A script has none. `key_of` says how the working container of a name stands, and without a context its paths are
        those of its shell.
        """
        self._ctx = ctx
        self._inputs = inputs
        self._pull = pull
        self._tips = tips
        self._key_of = key_of
        self._lock = allocate_lock()
        self._places: dict[str, str] = {}  # of contexts, by the name that they were given
        self._digests: dict[str, dict[FileKey, bytes]] = {}  # of context files, by context
        self._known: dict[str, int] = {}  # how many of them earlier builds took

    def of(self, step: Run | Copy | MakeDirectory) -> Mapping[str, object] | None:
        """The inputs of the step by name; None if they are known only after it was performed."""
        match step:
            case MakeDirectory():
                return {}
            case Run():
                return self._of_run(step)
            case Copy():
                return self._of_copy(step)

    def digests_of(self, context: str) -> dict[FileKey, bytes]:
        """The digests of a context's files that earlier builds took, and this one adds to."""
        with self._lock:
            if context not in self._places:
                self._places[context] = os.path.realpath(context)
            place = self._places[context]
            if place not in self._digests:
                self._digests[place] = file_digests.load(self._ctx.store.layout, place)
                self._known[place] = len(self._digests[place])
            return self._digests[place]

    def save(self) -> None:
        """Keep the digests of context files for later builds."""
        for context, found in self._digests.items():
            if len(found) != self._known[context]:
                file_digests.save(self._ctx.store.layout, context, found, self._ctx.now())

    def _of_run(self, step: Run) -> Mapping[str, object]:
        found: dict[str, object] = {}
        for mount in step.mounts:
            if mount.type == "bind" or mount.from_ != BuildContext():
                found[f"mount {mount.target}"] = self._source(mount.from_, (mount.source or ".",))
        return found

    def _of_copy(self, step: Copy) -> Mapping[str, object] | None:
        remote = [source for source in step.sources if is_remote(source)]
        if remote and step.checksum is None:
            return None
        local = tuple(source for source in step.sources if source not in remote)
        found = {"content": self._source(step.source, local, step)} if local else {}
        return {**found, **{f"remote {url}": step.checksum or "" for url in remote}}

    def _source(self, source: Source, names: tuple[str, ...], step: Copy | None = None) -> str:
        inputs = self._inputs
        match source:
            case FromStage(index):
                return f"stage {self._tips[index].key}"
            case FromImage(name):
                from builda.builder.image.pull import pull_for_build

                return f"image {pull_for_build(self._ctx, name, self._pull).digest}"
            case FromContainer(name) if self._key_of is not None:
                return f"stage {self._key_of(name)}"
            case FromContainer(name):
                from builda.store.containers import new_id

                return f"container {name} {new_id()}"  # it may change at any time, so no key is like another
            case NamedContext(name):
                if name not in inputs.named:
                    raise NotFound(f"no such build context: {name}")
                return self._told(source, names, self._directory(str(inputs.named[name]), names, step, own=False))
            case BuildContext() if inputs.context is None and self._key_of is not None:
                return self._told(source, names, self._of_shell(names, step))
            case BuildContext():
                if inputs.context is None:
                    raise NotFound("there is no build context")
                return self._told(source, names, self._directory(str(inputs.context), names, step, own=True))

    def _told(self, source: Source, names: tuple[str, ...], digest: Digest) -> str:
        self.tell(source, names, digest)
        return str(digest)

    def tell(self, source: Source, names: tuple[str, ...], digest: Digest) -> None:
        """Tell which files a step took, by their content digest."""
        from builda.builder.copy.filesused import files_used

        self._ctx.emit(files_used(source, names, digest, has_context=self._inputs.context is not None))

    def _of_shell(self, names: tuple[str, ...], step: Copy | None) -> Digest:
        from contextlib import ExitStack

        from builda.builder.byteprogress import moving, words
        from builda.builder.copy.copyflags import reading
        from builda.builder.copy.copysources import shell_source
        from builda.fs.trees.walk import content_digest, content_size

        with ExitStack() as stack:
            parents = step is not None and step.parents
            never = self._ctx.store.layout.inodes()
            request = reading(
                tuple(shell_source(self._ctx, name, stack, parents=parents) for name in names), step, never
            )
            with moving(self._ctx.emit, "read", words(names), lambda: content_size(request)) as moved:
                return content_digest(request, remembered=self.digests_of(self._ctx.cwd_or_root), moved=moved)

    def _directory(self, path: str, names: tuple[str, ...], step: Copy | None, *, own: bool) -> Digest:
        from builda.builder.byteprogress import moving, words
        from builda.builder.copy.copyflags import reading
        from builda.builder.copy.ignored import rules_in, rules_of
        from builda.fs.sources import NOTHING, Source
        from builda.fs.trees.walk import content_digest, content_size

        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            ignore, within = rules_of(self._inputs.ignore_file), "the context"
            if not own:  # a mount shows all of a named context
                ignore, within = NOTHING if step is None else rules_in(root, path), "the build context"
            sources = tuple(Source(root, name, None, ignore, within) for name in names)
            request = reading(sources, step, self._ctx.store.layout.inodes())
            with moving(self._ctx.emit, "read", words(names or (within,)), lambda: content_size(request)) as moved:
                return content_digest(request, remembered=self.digests_of(path), moved=moved)
        finally:
            os.close(root)
