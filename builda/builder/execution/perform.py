"""Perform the steps that are not remembered, each in the working container of its stage, and freeze the results.

A stage has a container only once something has to be done in it, or is copied from it. Layers that only a registry or a
blob holds are unpacked at that moment.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

from builda.builder.execution.tip import Layer, Tip
from builda.builder.image.layers import LayerOptions, StoredLayer
from builda.errors import CommandFailed
from builda.events import Warned
from builda.oci.config import History
from builda.plan import Context as BuildContext
from builda.plan import Copy, MakeDirectory, Run
from builda.store.containers import WorkingContainer, new_id
from builda.store.steps import Blob, Empty, Remote, Tree
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.builder.debug.keptstep import KeptStep
    from builda.builder.execution.buildoptions import ExecuteOptions
    from builda.builder.execution.cachefrom import ImportedSteps
    from builda.builder.execution.step_events import StepEvents
    from builda.builder.execution.step_inputs import StepInputs
    from builda.builder.imageoptions import Inputs
    from builda.builder.run.command import Surroundings
    from builda.linux.stopping import Stop
    from builda.oci.digest import Digest
    from builda.store.steps import Content


class Performer:
    """The working containers of one build's stages, and what is done in them. Threads may share it."""

    def __init__(
        self,
        ctx: Context,
        options: ExecuteOptions,
        tips: Mapping[int, Tip],
        *,
        imported: ImportedSteps | None,
        events: StepEvents,
        stop: Stop,
        as_list: bool,
    ) -> None:
        self._ctx = ctx
        self._options = options
        self._tips = tips
        self._imported = imported
        self._events = events
        self._stop = stop
        self._as_list = as_list
        self._lock = threading.RLock()
        self._containers: dict[int, WorkingContainer] = {}
        self._kept: set[int] = set()  # stages whose containers stay when the build ends

    def close(self) -> None:
        """Remove all containers but those that were kept."""
        from builda.builder.removal import remove

        for index, container in self._containers.items():
            if index not in self._kept:
                remove(self._ctx, container)

    def keep(self, index: int, kept: KeptStep) -> WorkingContainer:
        """The stage's container. It stays when the build ends, as do those of stages that the step's mounts show."""
        from builda.builder.debug.keeping import keep

        shown: set[int] = set()

        def stage(other: int) -> WorkingContainer:
            shown.add(other)
            return self.container(other)

        self.container(index)
        self.update(index)
        made = keep(self._ctx, self._containers[index], kept, stage)
        with self._lock:
            self._containers[index] = made
            self._kept |= {index, *shown}
        return made

    def has(self, index: int) -> bool:
        """Whether the stage has a working container."""
        return index in self._containers

    def container(self, index: int) -> WorkingContainer:
        """The stage's working container, made when first needed."""
        with self._lock:
            if index not in self._containers:
                self._containers[index] = self._made(self._tips[index])
            return self._containers[index]

    def update(self, index: int) -> None:
        """Write the configuration, layers and history of the stage's tip into its container's record."""
        tip = self._tips[index]
        with self._ctx.store.containers.locked(self.container(index)) as current:
            updated = replace(current, config=tip.config, layers=tip.frozen(), history=tip.history)
            self._containers[index] = self._ctx.store.update(updated)

    def perform(self, index: int, step: Run | Copy | MakeDirectory, inputs: StepInputs) -> Digest | None:
        """Perform the step with the primitive that verbs use; the content digest of a copy."""
        container = self.container(index)
        given = replace(self._options.inputs, stages=_Lazily(self, self._tips))
        plain = replace(step, created_by=None)  # history is written when it is known whether there is a layer
        match plain:
            case Run():
                self._run(container, plain, given, self._events.label(index))
            case Copy():
                from builda.builder.copy.copying import copy

                if isinstance(plain.source, BuildContext) and given.context is not None:
                    given = replace(given, remembered=inputs.digests_of(str(given.context)))
                return copy(self._ctx, container, plain, given, may_make_tree=False)[1]
            case MakeDirectory():
                from builda.builder.copy.copying import make_directory

                make_directory(self._ctx, container, plain)
        return None

    def freeze(self, index: int, created_by: str | None, moment: str) -> Content:
        """Freeze what was changed in the stage as a layer of its tip; the layer. `moment` goes into the history."""
        tip, store = self._tips[index], self._ctx.store
        with store.containers.locked(self._containers[index]) as current:
            before = tip.top
            cut = store.snapshots.cut(current.snapshot, before, even_empty=before is None)
            below = cut.layer or before
            content: Content = Empty(below) if cut.empty or below is None else Tree(below)
            history = History(created=moment, created_by=created_by, empty_layer=cut.empty)
            own = () if created_by is None and cut.empty else (Layer(history, content),)
            tip.layers = (*tip.layers, *tip.pending(below if cut.empty else None), *own)
            tip.history = ()
            updated = replace(current, snapshot=cut.fresh, layers=tip.frozen(), history=())
            self._containers[index] = store.update(updated)
            if cut.layer is not None:
                store.snapshots.freeze(cut.layer)
        return content

    def write(self, index: int, key: Digest | None, snapshot: str) -> None:
        """Begin to store a frozen layer of the stage, and note it with the remembered step when that is done."""
        mark, steps = self._events.marks[index], self._ctx.store.steps
        mark.pending = True

        def note(stored: StoredLayer) -> None:
            self._events.stored(mark, index, stored)
            found = None if key is None else steps.find(key)
            if key is not None and found is not None and stored.blob is not None and isinstance(found.content, Tree):
                content = replace(found.content, diff_id=stored.diff_id, blob=stored.blob)
                steps.put(key, found._replace(content=content))

        how = LayerOptions.of(self._options.commit)
        self._ctx.layers().start(snapshot, how, self._ctx.emit, note, name=self._events.name(index))

    def _run(self, container: WorkingContainer, step: Run, inputs: Inputs, stage: str | None) -> None:
        from builda.builder.run.command import surroundings
        from builda.builder.run.run import SUCCESS, run

        network = self._ctx.default_network(self._options.run)
        self._options.permissions.check(step.options, host_is_default=network == "host")
        if step.stdin is None and not self._options.stdin:
            step = replace(step, stdin=b"", options=replace(step.options, terminal=False))
        capture = self._options.capture or self._options.jobs != 1
        around = surroundings(
            self._ctx, capture=capture, copy_output=self._options.copy_output, stage=stage, stop=self._stop
        )
        try:
            run(self._ctx, container, step, inputs, SUCCESS, around)
        except CommandFailed as error:
            if self._options.looks_around:
                self._look_around(container, step, inputs, error, around)
            raise

    def _look_around(
        self, container: WorkingContainer, step: Run, inputs: Inputs, error: CommandFailed, around: Surroundings
    ) -> None:
        """Run a shell with all that the failed step had, until the user ends it."""
        from builda.builder.debug.looking import Look, look

        hint = "the build ends with this error when the shell ends"
        self._ctx.emit(Warned(message=f"{error}; a shell begins where it failed", hint=hint))
        try:
            look(self._ctx, container, step, inputs, around, Look())
        except CommandFailed as none:
            self._ctx.emit(Warned(message=f"the shell: {none}"))

    def _made(self, tip: Tip) -> WorkingContainer:
        self._fetch(tip)
        store = self._ctx.store
        if tip.layers:
            base, key = tip.base, store.snapshots.prepare_on(tip.image, tip.top, as_list=self._as_list)
        else:
            base, key = store.snapshots.prepare_for(tip.image, self._ctx.emit, as_list=self._as_list)
            tip.base = base
        made = WorkingContainer(
            id=new_id(),
            name="",
            image=tip.name,
            image_id=None if tip.image is None else tip.image.id,
            image_digest=None if tip.image is None else tip.image.digest,
            base=base,
            snapshot=key,
            config=tip.config,
            layers=tip.frozen(),
            history=tip.history,
            annotations=tip.annotations,
            options=self._options.run,
            format=self._options.format,
            created=self._ctx.now(),
        )
        return store.create_container(made, name=None, prefix="build-working-container")

    def _fetch(self, tip: Tip) -> None:
        """Unpack the layers of the tip that have no snapshot here, as a working container needs them now."""
        if tip.is_here:
            return
        store = self._ctx.store
        base = None if tip.image is None else store.snapshots.unpack(tip.image, self._ctx.emit, as_list=self._as_list)
        from builda.builder.execution.cachefrom import fetched

        before = tip.layers
        tip.layers = fetched(self._ctx, self._imported, before, base, tip.base_diff_ids, as_list=self._as_list)
        for old, new in zip(before, tip.layers, strict=True):
            if old.found is not None and isinstance(old.content, Blob | Remote):
                key, result = old.found
                store.steps.put(key, result._replace(content=new.content))


class _Lazily(Mapping[int, WorkingContainer]):
    """The stages' working containers, each made when something is copied from it."""

    def __init__(self, performer: Performer, tips: Mapping[int, Tip]) -> None:
        self._performer = performer
        self._tips = tips

    def __getitem__(self, index: int) -> WorkingContainer:
        if index not in self._tips:
            raise KeyError(index)
        return self._performer.container(index)

    def __iter__(self) -> Iterator[int]:
        return iter(self._tips)

    def __len__(self) -> int:
        return len(self._tips)
