"""One step of a stage: found under its key, or performed, frozen and remembered."""

from __future__ import annotations

from builda.builder.execution.keys import explained, keyed, seen, step_key, turn_of
from builda.builder.execution.tip import Layer
from builda.builder.records import timestamp
from builda.oci.config import History
from builda.oci.digest import Digest
from builda.plan import Configure, Copy, FromStage, NamedContext
from builda.plan import Context as BuildContext
from builda.store.steps import Empty, Told, Tree, blob_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builda.builder.context import Context
    from builda.builder.debug.keptstep import KeptStep
    from builda.builder.execution.buildoptions import ExecuteOptions
    from builda.builder.execution.cacheto import Remembered
    from builda.builder.execution.lookup import Lookup
    from builda.builder.execution.perform import Performer
    from builda.builder.execution.step_events import StepEvents
    from builda.builder.execution.step_inputs import StepInputs
    from builda.builder.execution.tip import Tip
    from builda.builder.execution.turns import Turns
    from builda.plan import MakeDirectory, Plan, Run, Step
    from builda.store.containers import WorkingContainer
    from builda.store.steps import StepResult


class StepRunner:
    """Takes the tips of one build's stages from step to step. Threads may share it; each works on its own stage."""

    def __init__(
        self,
        ctx: Context,
        plan: Plan,
        options: ExecuteOptions,
        tips: Mapping[int, Tip],
        *,
        events: StepEvents,
        inputs: StepInputs,
        lookup: Lookup,
        performer: Callable[[], Performer],
        turns: Turns,
    ) -> None:
        self._ctx = ctx
        self._options = options
        self._tips = tips
        self._events = events
        self._inputs = inputs
        self._lookup = lookup
        self._performer = performer
        self._turns = turns
        self._takes_turns = options.cache and options.layers and not options.looks_around
        self._changed: set[int] = set()  # stages of which something was performed: they have a container
        self._behind: set[int] = set()  # stages whose container does not have the configuration and history yet
        self._kept = stored_stages(plan, options, in_memory=ctx.store.snapshots.memory is not None)
        self.done: list[Remembered] = []  # what every step led to, if that is exported

    def run(self, index: int, step: Step) -> bool | None:
        """Take the stage one step further; whether it was found, None for one that is never looked up."""
        if isinstance(step, Configure):
            self._configure(index, step)
            return None
        return self._change(index, step)

    def is_changed(self, index: int) -> bool:
        """Whether a step of the stage was performed rather than found."""
        return index in self._changed

    def settle(self, index: int) -> None:
        """Write pending configuration and history into the record of the stage's container."""
        if index in self._behind:
            self._behind.discard(index)
            self._performer().update(index)

    def keep(self, index: int, kept: KeptStep) -> WorkingContainer:
        """The working container that the stage is at, under a name of its own; it stays when the build ends."""
        self._behind.discard(index)
        return self._performer().keep(index, kept)

    def leave(self, index: int) -> None:
        """No other build waits for the stage any more."""
        self._turns.give_up(index)

    def close(self, index: int) -> None:
        """Freeze all changes of the stage as one layer: with --layers=false, when another stage needs its files."""
        if index not in self._changed:
            return
        from builda.builder.image.commit import DEFAULT_HISTORY

        content = self._performer().freeze(index, DEFAULT_HISTORY, self._moment())
        if isinstance(content, Tree) and index in self._kept:
            self._performer().write(index, None, content.snapshot)

    def _configure(self, index: int, step: Configure) -> None:
        tip = self._tips[index]
        tip.edited.change(step.edits)
        self._note(tip, step.created_by)
        if index in self._changed:
            self._behind.add(index)

    def _note(self, tip: Tip, created_by: str | None) -> None:
        if created_by is not None:
            entry = History(created=self._moment(), created_by=created_by, empty_layer=True)
            tip.history = (*tip.history, entry)

    def _moment(self) -> str:
        epoch = self._options.commit.epoch
        return timestamp(self._ctx.now() if epoch is None else epoch)

    def _change(self, index: int, step: Run | Copy | MakeDirectory) -> bool:
        """Find or perform a step that may change files; whether it was found."""
        tip = self._tips[index]
        looking = self._options.cache and self._options.layers and index not in self._changed
        late = not looking and _tells_its_content(step)  # the copy hashes the files; hashing before would read twice
        inputs = None if late else _with(self._inputs.of(step), step, tip)
        if looking and inputs is not None and self._find(index, tip, step, inputs, is_last=not self._takes_turns):
            return True
        if self._takes_turns:
            self._turns.take(index, turn_of(tip.key, keyed(step, tip.config)), step.text or step.created_by or "")
            if looking and inputs is not None and self._find(index, tip, step, inputs, is_last=True):
                self._turns.give_up(index)
                return True
        self.settle(index)
        self._changed.add(index)
        content = self._performer().perform(index, step, self._inputs)
        if late and isinstance(step, Copy) and content is not None:
            self._inputs.tell(step.source, step.sources, content)
        self._finish(index, tip, step, _with({"content": str(content)}, step, tip) if late else inputs, content)
        return False

    def _find(
        self,
        index: int,
        tip: Tip,
        step: Run | Copy | MakeDirectory,
        inputs: Mapping[str, object],
        *,
        is_last: bool,
    ) -> bool:
        """Look the step up and, if it is remembered, move the tip past it; whether it was found.

        Not `is_last`: if it is not found, it is looked up again.
        """
        counted = keyed(step, tip.config)
        explanation = explained(tip.key, counted, inputs)
        key = Digest.of(explanation)
        found = self._lookup.find(key, tip, explanation)
        if found is None and not is_last:
            return False
        self._ctx.decided("cache", lambda: self._said(index, key, tip.key, inputs, explanation, found))
        if found is None:
            if self._options.explain or self._options.tells_misses:
                from builda.builder.execution.explain import explain_miss

                reason = explain_miss(self._ctx.store.steps, explanation)
                text = step.text or step.created_by or ""
                self._events.missed(index, text, reason, is_asked=self._options.explain)
            return False
        empty = isinstance(found.content, Empty)
        history = History(created=timestamp(found.created), created_by=step.created_by, empty_layer=empty)
        tip.layers = (*tip.layers, *tip.pending(), Layer(history, found.content, (key, found)))
        tip.history = ()
        tip.key = key
        self._events.marks[index].blob = blob_of(found.content)
        self._export(key, found.created, tip)
        return True

    def _finish(
        self,
        index: int,
        tip: Tip,
        step: Run | Copy | MakeDirectory,
        inputs: Mapping[str, object] | None,
        copied: Digest | None,
    ) -> None:
        """Move the tip past a step that was performed. Without `inputs` its result is never found again.

        `copied` is the digest of what it copied.
        """
        counted = keyed(step, tip.config)
        key = None if inputs is None else step_key(tip.key, counted, inputs)
        if not self._options.layers:
            self._note(tip, step.created_by)
            if step.created_by is not None:
                self._performer().update(index)
        else:
            content = self._performer().freeze(index, step.created_by, self._moment())
            if key is not None and inputs is not None:
                told = Told(text=step.text or step.created_by or "", digest=copied)
                self._lookup.remember(key, tip.key, counted, inputs, content, told)
            if isinstance(content, Tree) and index in self._kept:
                self._performer().write(index, key, content.snapshot)
            if key is not None:
                self._export(key, self._ctx.now(), tip)
        tip.key = key if key is not None else _unique(tip.key)

    def _export(self, key: Digest, created: float, tip: Tip) -> None:
        if self._options.export:
            from builda.builder.execution.cacheto import Remembered

            self.done.append(Remembered(key, created, tip.layers, tip.base_diff_ids))

    def _said(
        self,
        index: int,
        key: Digest,
        parent: Digest,
        inputs: Mapping[str, object],
        explanation: bytes,
        found: StepResult | None,
    ) -> str:
        """Whether a step was found, for --log-level debug."""
        read = "".join(f", {what} {digest}" for what, digest in inputs.items())
        if found is None:
            from builda.builder.execution.explain import explain_miss

            outcome = f"not found: {explain_miss(self._ctx.store.steps, explanation)}"
        else:
            outcome = f"found, layer {_described(found)}"
        return f"{self._events.name(index)} key {key.encoded[:12]} (on {parent.encoded[:12]}{read}): {outcome}"


def _described(found: StepResult) -> str:
    match found.content:
        case Empty():
            return "none"
        case Tree(snapshot, None, _):
            return snapshot
        case content:
            return str(content.diff_id)


def _with(
    inputs: Mapping[str, object] | None, step: Run | Copy | MakeDirectory, tip: Tip
) -> Mapping[str, object] | None:
    """The inputs, and what the step sees of the configuration."""
    return None if inputs is None else {**inputs, **seen(step, tip.config)}


def _unique(parent: Digest) -> Digest:
    """A key that no other step has."""
    from builda.store.containers import new_id

    return Digest.of(str(parent).encode() + new_id().encode())


def _tells_its_content(step: Step) -> bool:
    """Whether the digest that a copy returns is the content digest in its key."""
    if not isinstance(step, Copy) or step.extract or step.inline:
        return False
    return isinstance(step.source, BuildContext | NamedContext)


def stored_stages(plan: Plan, options: ExecuteOptions, *, in_memory: bool) -> frozenset[int]:
    """The stages whose layers are stored while others are performed.

    These are the target and the stages that it begins with; or all where later builds have nothing else. A squashed
    image has no layer of theirs.
    """
    if options.export or options.stage_images is not None or in_memory:
        return frozenset(plan.needed())
    if options.commit.squash:
        return frozenset()
    found = {plan.target}
    base = plan.stages[plan.target].base
    while isinstance(base, FromStage):
        found.add(base.index)
        base = plan.stages[base.index].base
    return frozenset(found)
