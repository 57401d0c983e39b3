"""execute: a Plan to primitives, stage by stage, with every step's result remembered under its key.

The cached prefix of a stage costs nothing: no container, no mount, no unpacking. At the first step that is not
remembered a working container is made on what was found, and from there each step is performed, frozen and remembered;
its layer is written and compressed on another thread while the next steps run.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from signal import SIGINT
from typing import TYPE_CHECKING

from builda.builder.build.cachefrom import ImportedSteps, LayerLost, fetched
from builda.builder.build.keys import explained, image_key, step_key
from builda.builder.build.output_tail import Tails
from builda.builder.build.plan_needs import check_no_runs, first_run, is_unpacked
from builda.builder.build.stageimages import StageImages, stage_commit, stage_labels
from builda.builder.from_image import base_annotations, image_name
from builda.builder.image.layers import LayerOptions, StoredLayer
from builda.builder.image.platforms import check_runs
from builda.builder.image.pull import machine_platform, pull
from builda.builder.options import CommitOptions, Inputs, PullOptions
from builda.builder.records import timestamp
from builda.builder.run.usernamespace import checked
from builda.errors import BuildaError, ContainerfileError, NotFound, StepFailed, TreeNeeded, of_system
from builda.events import (
    BlobProgress,
    BuildStarted,
    LayerStored,
    StageSaved,
    StepFailure,
    StepFinished,
    StepStarted,
    Warned,
    WorkProgress,
    step_name,
)
from builda.linux.stopping import Stop, Stopped
from builda.oci import edits
from builda.oci.config import History, ImageConfig, empty_config
from builda.oci.digest import Digest
from builda.oci.docker import without_bookkeeping
from builda.permissions import NO_PERMISSIONS, Permissions
from builda.plan import (
    Configure,
    Copy,
    FromContainer,
    FromImage,
    FromStage,
    Location,
    MakeDirectory,
    NamedContext,
    Plan,
    Run,
    RunMount,
    RunOptions,
    Source,
    Stage,
    Step,
    stages_used,
)
from builda.plan import Context as BuildContext
from builda.store import digests as file_digests
from builda.store.containers import FrozenLayer, WorkingContainer, new_id
from builda.store.digests import FileKey
from builda.store.steps import ELSEWHERE, StepResult
from builda.values import dataclass, field, replace

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from builda.builder.build.cachefrom import CachePlace
    from builda.builder.build.cacheto import Export, Remembered
    from builda.builder.context import Context
    from builda.builder.options import ImageFormat
    from builda.events import Event
    from builda.oci.descriptor import Descriptor
    from builda.store.drivers.protocol import Snapshots
    from builda.store.store import Image, Store

_INPUTS, _PULL, _RUN, _COMMIT = Inputs(), PullOptions(), RunOptions(), CommitOptions()
_UNCACHED = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteOptions:
    """How a plan is performed."""

    inputs: Inputs = _INPUTS
    pull: PullOptions = _PULL
    run: RunOptions = _RUN
    permissions: Permissions = NO_PERMISSIONS  # what RUN instructions may ask for
    mounts: tuple[RunMount, ...] = ()  # for every Run, before its own
    stdin: bool = False  # commands read the caller's standard input; else an empty one
    format: ImageFormat = "oci"
    layers: bool = True  # a layer for each step that changes files; False: one for the whole stage
    cache: bool = True  # look for remembered steps; they are remembered anyway
    cache_ttl: float | None = None  # seconds; older results count as forgotten
    cache_from: tuple[CachePlace, ...] = ()  # where steps are looked for that this store does not remember
    export: bool = False  # the result says what every step led to, for `cacheto`
    commit: CommitOptions = _COMMIT  # its clamp decides what layers record, so it is part of every key
    stage_images: StageImages | None = None  # also make an image of each stage below the target
    jobs: int = 1  # stages at a time
    explain: bool = False
    platform_label: str | None = None  # the platform, where several are built
    capture: bool = False  # commands' output goes to `emit`, as it does with several jobs
    hidden: frozenset[str] = frozenset()  # of "stdout" and "stderr", what `emit` does not show of it: errors repeat it


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """Why a step was not found: what differs from the nearest remembered one."""

    text: str
    reason: str


@dataclass(slots=True)
class Tip:
    """Where a stage stands: what is below, what is pending, and the key of it all."""

    image: Image | None
    key: Digest
    edited: edits.Edited
    layers: tuple[FrozenLayer, ...] = ()
    history: tuple[History, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    base: str | None = None
    name: str = ""

    @property
    def config(self) -> ImageConfig:
        """The configuration so far."""
        return self.edited.read()


@dataclass(slots=True)
class _Mark:
    """The instruction that a stage is at: its number, when it began, and what is known of its layer."""

    number: int
    total: int
    at: Location | None
    began: float = field(default_factory=time.monotonic)
    pending: bool = False
    blob: Descriptor | None = None
    found: bool | None = None  # whether all of it was remembered; None where nothing was looked up

    @property
    def place(self) -> tuple[str | None, int | None]:
        """File and line."""
        return (None, None) if self.at is None else (self.at.file, self.at.line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The target stage's image, whether it was there already, and why steps were missed."""

    image: Image
    cached: bool
    misses: tuple[Miss, ...]
    stage: str | None = None  # what events call the target, where there are several stages
    export: Export | None = None  # what every step led to, if that was asked for


def execute(ctx: Context, plan: Plan, options: ExecuteOptions) -> Built:
    """Perform the plan and commit its target; StepFailed with the place of the step that fails.

    All working containers that it makes are gone afterwards, whatever happens.
    """
    check_runs(plan)
    check_no_runs(ctx, plan)
    checked(ctx, options.run)
    imported = _imported(ctx, plan, options)
    if not _composes(ctx, plan, options):
        if ctx.store.memory is not None:
            ctx.emit(_kept_in_memory(ctx.store, ctx.store.memory))
        return _try(ctx, plan, options, imported, as_list=False)
    try:
        return _try(ctx, plan, options, imported, as_list=True)
    except TreeNeeded as error:
        ctx.emit(Warned(message=f"beginning again, with the base image unpacked: {error}"))
        return _try(ctx, plan, options, imported, as_list=False)


def _composes(ctx: Context, plan: Plan, options: ExecuteOptions) -> bool:
    """Whether the build makes its layers without trees: it runs nothing, nobody wants to see its files, and trees would
    have to be unpacked first."""
    if not ctx.store.driver.has_trees:
        return True
    if not ctx.store.composes or options.commit.squash or first_run(plan) is not None:
        return False
    return not is_unpacked(ctx.store, plan)


def _kept_in_memory(store: Store, limit: int) -> Warned:
    return Warned(
        message=f"what this build writes is kept in memory until it ends, up to {limit >> 20} MiB, as no overlay can "
        f"be written in the store's file system: {store.root}",
        hint="a store on a volume (--root, BUILDA_ROOT) needs none; --storage-driver plain copies trees on the disk",
    )


def _try(ctx: Context, plan: Plan, options: ExecuteOptions, imported: ImportedSteps, *, as_list: bool) -> Built:
    try:
        return _execute(ctx, plan, options, imported, as_list=as_list)
    except LayerLost as lost:
        ctx.emit(Warned(message=f"{lost}; going on without it"))
        imported.drop()
        return _execute(ctx, plan, options, imported, as_list=as_list)


def _imported(ctx: Context, plan: Plan, options: ExecuteOptions) -> ImportedSteps:
    places = options.cache_from if options.cache and options.layers else ()
    target = _cache_target(plan, options)
    return ImportedSteps(ctx, tuple(place.reference(target) for place in places), options.inputs.access)


def _cache_target(plan: Plan, options: ExecuteOptions) -> str:
    """What the tag of a cache is derived from: the platform, and the target where it has a name."""
    platform, name = options.pull.platform or machine_platform(), plan.stages[plan.target].name
    words = [platform.os, platform.architecture, platform.variant, name]
    return "-".join(word for word in words if word)[:100]


def _execute(ctx: Context, plan: Plan, options: ExecuteOptions, imported: ImportedSteps, *, as_list: bool) -> Built:
    with ExitStack() as stack:
        work = stack.enter_context(_Execution(ctx, plan, options, imported, as_list=as_list))
        work.begin()
        work.stages()
        built = work.commit()
        return replace(built, export=work.export()) if options.export else built


class _Execution:
    def __init__(
        self, ctx: Context, plan: Plan, options: ExecuteOptions, imported: ImportedSteps, *, as_list: bool
    ) -> None:
        self.ctx = replace(ctx, emit=self.show)
        self.as_list = as_list
        self.imported = imported
        self.done: list[Remembered] = []
        self.fetching: dict[Digest, StepResult] = {}  # found in a registry; remembered here once its layer is
        self.store = ctx.store
        self.kind: Snapshots = self.store.lists if as_list else self.store.snapshots
        self.plan = plan
        self.options = options
        self.tips: dict[int, Tip] = {}
        self.images: dict[int, Digest] = {}  # IDs of the stages that were made images
        self.containers: dict[int, WorkingContainer] = {}
        self.behind: set[int] = set()  # stages whose container does not have the configuration and history yet
        self.marks: dict[int, _Mark] = {}
        self.misses: list[Miss] = []
        # Stages whose layers are stored: those that the target has, or all where later builds have nothing else.
        # A squashed image has none of them.
        all_stages = options.export or options.stage_images is not None or ctx.store.memory is not None
        lineage = frozenset[int]() if options.commit.squash else _lineage(plan)
        self.kept = frozenset(plan.needed()) if all_stages else lineage
        bases = (plan.stages[index].base for index in plan.needed())
        self.below_others = frozenset(base.index for base in bases if isinstance(base, FromStage))
        self.tails = Tails(ctx.emit, hidden=options.hidden)
        self.stop = Stop()  # a stage failed, or a signal came: all others end at once
        self.failure: BaseException | None = None  # the first one's
        self.lock = threading.RLock()
        self.digests: dict[str, dict[FileKey, bytes]] = {}  # of context files, by context
        self.known: dict[str, int] = {}  # how many of them were remembered

    def __enter__(self) -> _Execution:
        self.store.lease()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.close()
        if self.containers:
            self.remove_containers()
        for context, found in self.digests.items():
            if len(found) != self.known[context]:
                file_digests.save(self.store.layout, context, found, self.ctx.now())

    def remove_containers(self) -> None:
        from builda.builder.removal import remove

        for container in self.containers.values():
            remove(self.ctx, container)

    def begin(self) -> None:
        needed = self.plan.needed()
        steps = sum(_steps(self.plan.stages[index]) for index in needed)
        platform = self.options.platform_label
        self.ctx.emit(BuildStarted(stages=len(needed), steps=steps, platform=platform))

    def show(self, event: Event) -> None:
        """Pass an event on; a download or a long copy ends here if all is to end."""
        if isinstance(event, BlobProgress | WorkProgress):
            self.stop.check()
        self.tails.show(event)

    # Stages

    def stages(self) -> None:
        """Perform the needed stages, those that do not wait for each other side by side.

        When one fails, or a signal asks for it, the commands of all are ended. The first failure is raised.
        """
        needed = self.plan.needed()
        try:
            if self.options.jobs == 1 or len(needed) == 1:
                for index in needed:
                    self.stage(index)
            else:
                self.side_by_side(needed)
        except Stopped:
            if self.stop.signal is None:
                raise
            if self.stop.signal == SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + self.stop.signal) from None

    def side_by_side(self, needed: tuple[int, ...]) -> None:
        from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

        pool = ThreadPoolExecutor(self.options.jobs or len(needed), "builda-stage")
        try:
            waiting: dict[int, Future[None]] = {}
            for index in needed:
                waiting[index] = pool.submit(self.stage_after, index, {i: waiting[i] for i in self.below(index)})
            wait(waiting.values(), return_when=FIRST_EXCEPTION)
        except BaseException:  # a signal
            self.stop.ask()
            raise
        finally:
            _ended(pool, self.stop)
        if self.failure is not None:
            raise self.failure

    def below(self, index: int) -> tuple[int, ...]:
        return stages_used(self.plan.stages[index])

    def stage_after(self, index: int, others: Mapping[int, Future[None]]) -> None:
        try:
            for other in others.values():
                other.result()
            self.stage(index)
        except BaseException as error:
            with self.lock:
                self.failure = self.failure or error
            self.stop.ask()
            raise

    def stage(self, index: int) -> None:
        try:
            self.steps(index)
        except BaseException as error:
            if not isinstance(error, TreeNeeded | LayerLost):  # after these the build begins again
                self.failed(index, error)
            raise
        self.save(index)

    def steps(self, index: int) -> None:
        stage = self.plan.stages[index]
        texts = _steps(stage)
        mark = self.marks[index] = _Mark(1, texts, stage.at)
        self.announce(mark, self.from_text(stage), index)
        tip = self.tips[index] = self.start(index, stage)
        self.finished(mark, index, cached=True)
        if self.options.stage_images is not None and self.options.stage_images.labelled and texts > 1:
            self.configure(index, tip, stage_labels(stage.name or str(index), self.base_text(stage)))
        started = False
        for step in stage.steps:
            self.stop.check()
            if isinstance(step, Run) and self.options.mounts:
                step = replace(step, mounts=(*self.options.mounts, *step.mounts))
            if not started and (step.text or not isinstance(step, Configure)):
                mark = self.marks[index] = _Mark(mark.number + 1, texts, step.at)
                self.announce(mark, step.text or _following(stage.steps, step), index)
                started = True
            found = self.step(index, stage, tip, step)
            self.stop.check()
            mark.found = mark.found if found is None else found and mark.found is not False
            if step.text:
                started = False
                self.finished(mark, index, cached=bool(mark.found))
        self.settle(index, tip)
        if not self.options.layers and (index in self.below_others or self.is_saved(index)):
            self.close(index, tip)

    def close(self, index: int, tip: Tip) -> None:
        """Make one layer of all that a stage changed: other stages or an image stand on it."""
        if index not in self.containers:
            return
        from builda.builder.image.commit import DEFAULT_HISTORY

        layer, empty = self.freeze(index, tip, DEFAULT_HISTORY)
        if not empty and index in self.kept:
            self.write(index, None, layer)

    def is_saved(self, index: int) -> bool:
        """Whether an image is made of a stage: one below the target that does something."""
        below = self.options.stage_images is not None and index != self.plan.target
        return below and _steps(self.plan.stages[index]) > 1

    def save(self, index: int) -> None:
        """Make an image of a finished stage if that is asked for."""
        wanted = self.options.stage_images
        if wanted is None or not self.is_saved(index):
            return
        image, cached = self.image_of(index, stage_commit(wanted, self.options.commit, self.tips[index].config))
        self.images[index] = image.id
        name = self.plan.stages[index].name
        self.ctx.emit(
            StageSaved(id=image.id, digest=image.digest, cached=cached, stage=self.label(index), stage_name=name)
        )

    def base_text(self, stage: Stage) -> str:
        """The base of a stage as its label has it: the name of an image, or the ID of the stage's."""
        base = stage.base
        if isinstance(base, FromImage):
            return base.name
        while isinstance(base, FromStage):
            if base.index in self.images:
                return self.images[base.index].encoded
            image, base = self.tips[base.index].image, self.plan.stages[base.index].base
            if image is not None and not isinstance(base, FromStage):
                return image.id.encoded
        return "scratch"

    def announce(self, mark: _Mark, text: str, index: int) -> None:
        file, line = mark.place
        self.ctx.emit(
            StepStarted(
                index=mark.number,
                total=mark.total,
                text=text,
                stage=self.label(index),
                stage_name=self.plan.stages[index].name,
                file=file,
                line=line,
            )
        )

    def finished(self, mark: _Mark, index: int, *, cached: bool) -> None:
        seconds, blob = time.monotonic() - mark.began, mark.blob
        file, line = mark.place
        self.ctx.emit(
            StepFinished(
                index=mark.number,
                total=mark.total,
                cached=cached,
                seconds=seconds,
                stage=self.label(index),
                file=file,
                line=line,
                pending=mark.pending,
                digest=None if blob is None else blob.digest,
                bytes=None if blob is None else blob.size,
            )
        )

    def failed(self, index: int, error: BaseException) -> None:
        mark = self.marks[index]
        file, line = mark.place
        self.ctx.emit(
            StepFailure(
                index=mark.number,
                total=mark.total,
                seconds=time.monotonic() - mark.began,
                message=str(error) if isinstance(error, BuildaError | OSError) else None,
                stage=self.label(index),
                file=file,
                line=line,
            )
        )

    def label(self, index: int) -> str | None:
        """What tells the stages apart: platform and position among all of the file, where there are several."""
        count = len(self.plan.stages)
        words = (self.options.platform_label, f"{index + 1}/{count}" if count > 1 else None)
        return " ".join(word for word in words if word) or None

    def from_text(self, stage: Stage) -> str:
        base = "scratch"
        if isinstance(stage.base, FromStage):
            base = self.plan.stages[stage.base.index].name or str(stage.base.index)
        elif stage.base is not None:
            base = stage.base.name
        return f"FROM {base}" + (f" AS {stage.name}" if stage.name else "")

    def start(self, index: int, stage: Stage) -> Tip:
        """The tip of a stage before its first step."""
        if isinstance(stage.base, FromStage):
            below = self.tips[stage.base.index]
            return replace(below, edited=edits.Edited(below.config))
        said = self.ctx.run_options(self.options.run)  # keys leave out volumes that a machine gives to all
        settings = {
            "run": _identity(replace(said, volumes=self.options.run.volumes)),
            "clamp": str(self.options.commit.clamp),
            "exact": str(self.options.commit.timestamp),
            "compression": f"{self.options.commit.compression} {self.options.commit.compression_level}",
        }
        if said.env:
            settings["env"] = repr(said.env)
        if not self.kind.driver.is_exact:  # docs/rootless.md says what it loses
            settings["driver"] = self.kind.driver.name
        image: Image | None = None
        name = ""
        if isinstance(stage.base, FromImage):
            name = stage.base.name
            options = replace(self.options.pull, platform=stage.platform or self.options.pull.platform)
            image = pull(self.ctx, name, options)
            name = image_name(name, image)
        start = empty_config(stage.platform or machine_platform())
        config = start if image is None else without_bookkeeping(image.config)
        base = {"base": "scratch" if image is None else str(image.digest), "platform": str(config.platform)}
        key = step_key(None, Configure(), {**settings, **base})
        return Tip(
            image=image, key=key, edited=edits.Edited(config), name=name, annotations=base_annotations(name, image)
        )

    # Steps

    def step(self, index: int, stage: Stage, tip: Tip, step: Step) -> bool | None:
        """Perform one step, or find it; whether it was found, None where nothing was looked up."""
        try:
            if isinstance(step, Configure):
                self.configure(index, tip, step)
                return None
            return self.change(index, tip, step)
        except (BuildaError, OSError) as error:
            if self.stop.asked:  # which ended the command
                raise Stopped from error
            if isinstance(error, ContainerfileError | StepFailed):
                raise
            if isinstance(error, TreeNeeded) and self.store.driver.has_trees:
                raise
            from builda.builder.build.step_failure import step_failed

            cause = of_system(error) if isinstance(error, OSError) else error
            raise step_failed(step, cause, self.tails.of(self.label(index))) from error

    def configure(self, index: int, tip: Tip, step: Configure) -> None:
        tip.edited.change(step.edits)
        tip.key = step_key(tip.key, step, {})
        if step.created_by is not None:
            entry = History(created=self.moment(), created_by=step.created_by, empty_layer=True)
            tip.history = (*tip.history, entry)
        if index in self.containers:
            self.behind.add(index)

    def settle(self, index: int, tip: Tip) -> None:
        """The stage's container says what instructions without files have said; written once for many of them."""
        if index in self.behind:
            self.behind.discard(index)
            with self.store.locked(self.containers[index]) as current:
                updated = replace(current, config=tip.config, history=tip.history)
                self.containers[index] = self.store.update(updated)

    def moment(self) -> str:
        epoch = self.options.commit.epoch
        return timestamp(self.ctx.now() if epoch is None else epoch)

    def change(self, index: int, tip: Tip, step: Run | Copy | MakeDirectory) -> bool:
        """A step that may change files."""
        looking = self.options.cache and self.options.layers and index not in self.containers
        late = not looking and _tells_its_content(step)  # the copy hashes anyhow; nobody needs the key before
        inputs = None if late else self.inputs_of(index, step)
        keyed = _keyed(step)
        key = None if inputs is None else step_key(tip.key, keyed, inputs)
        if key is not None and looking:
            found = self.find(key, tip, explained(tip.key, keyed, inputs or {}))
            self.trace(index, key, tip.key, keyed, inputs or {}, found)
            if found is not None:
                tip.layers = (*tip.layers, *_pending(tip), _layer_of(found, step))
                self.marks[index].blob = tip.layers[-1].blob
                tip.history = ()
                tip.key = key
                self.note_done(key, found.created, tip)
                return True
            self.note_miss(step, tip.key, keyed, inputs or {})
        self.settle(index, tip)
        container = self.container(index)
        content = self.perform(index, container, step)
        if late:
            inputs = {"content": str(content)}
            key = step_key(tip.key, keyed, inputs)
        if self.options.layers:
            self.freeze_step(index, tip, step, key, keyed, inputs)
        elif step.created_by is not None:
            entry = History(created=self.moment(), created_by=step.created_by, empty_layer=True)
            tip.history = (*tip.history, entry)
            self.update(index, history=tip.history)
        if key is not None and self.options.layers:
            self.note_done(key, self.ctx.now(), tip)
        tip.key = key if key is not None else Digest.of(str(tip.key).encode() + new_id().encode())
        return False

    def trace(
        self, index: int, key: Digest, parent: Digest, keyed: Step, inputs: Mapping[str, str], found: StepResult | None
    ) -> None:
        """Tell whether a step was found, for who traces that."""
        mark = self.marks[index]

        def message() -> str:
            name = step_name(self.label(index), mark.number, mark.total)
            read = "".join(f", {what} {digest}" for what, digest in inputs.items())
            if found is not None:
                outcome = f"found, layer {'none' if found.empty else found.diff_id or found.snapshot}"
            else:
                outcome = f"not found: {explain_miss(self.ctx, explained(parent, keyed, inputs))}"
            return f"{name} key {key.encoded[:12]} (on {parent.encoded[:12]}{read}): {outcome}"

        self.ctx.decided("cache", message)

    def find(self, key: Digest, tip: Tip, explanation: bytes) -> StepResult | None:
        """What is remembered of a step, here or in a registry."""
        above = next((layer for layer in reversed(tip.layers) if not layer.empty), None)
        found = self.find_here(key, on_tree=above is None or above.snapshot != ELSEWHERE)
        if found is not None:
            return found
        ttl = self.options.cache_ttl
        step = self.imported.find(key, _diff_ids(tip), 0 if ttl is None else self.ctx.now() - ttl)
        if step is None:
            return None
        below = ELSEWHERE if step.layer is not None or above is None else above.snapshot
        readable = explanation.decode("utf-8", "surrogateescape")
        blob = None if step.layer is None else step.layer.to_json()
        result = StepResult(below, step.diff_id, blob, step.layer is None, readable, step.created)
        self.fetching[key] = result
        return result

    def find_here(self, key: Digest, *, on_tree: bool) -> StepResult | None:
        """What this store remembers of a step: its tree if what it stands on is one, else the layer's blob.

        In a build of lists, its list; a step that was done as the other is found by its blob.
        """
        found = self.store.steps.find(key)
        if found is None or self.is_stale(found):
            return None
        on_tree = on_tree and self.is_of_kind(found.snapshot)
        if not on_tree and (found.blob is not None or found.empty):
            found = found._replace(snapshot=ELSEWHERE)
        if found.snapshot != ELSEWHERE:
            return found if on_tree else None
        if self.imported.dropped and not found.empty:
            return None
        self.fetching[key] = found
        return found

    def is_of_kind(self, snapshot: str) -> bool:
        """Whether the snapshots that this build makes can stand on it."""
        return snapshot == ELSEWHERE or self.store.kind_of(snapshot).driver is self.kind.driver

    def note_done(self, key: Digest, created: float, tip: Tip) -> None:
        if self.options.export:
            from builda.builder.build.cacheto import Remembered

            self.done.append(Remembered(key, created, tip.layers, _base_diff_ids(tip)))

    def export(self) -> Export:
        """All that the steps led to."""
        from builda.builder.build.cacheto import Export

        target, how = _cache_target(self.plan, self.options), LayerOptions.of(self.options.commit)
        return Export(target, tuple(self.done), how, self.imported)

    def is_stale(self, found: StepResult) -> bool:
        ttl = self.options.cache_ttl
        return ttl is not None and self.ctx.now() - found.created > ttl

    def note_miss(self, step: Step, parent: Digest, keyed: Step, inputs: Mapping[str, str]) -> None:
        if self.options.explain:
            reason = explain_miss(self.ctx, explained(parent, keyed, inputs))
            self.misses.append(Miss(text=step.text or step.created_by or "", reason=reason))

    def perform(self, index: int, container: WorkingContainer, step: Run | Copy | MakeDirectory) -> Digest | None:
        """Perform a step; the digest of what a copy copied."""
        inputs = replace(self.options.inputs, stages=_Lazily(self))
        plain = replace(step, created_by=None)
        match plain:
            case Run():
                network = self.ctx.default_network(self.options.run)
                self.options.permissions.check(plain.options, host_is_default=network == "host")
                if plain.stdin is None and not self.options.stdin:
                    plain = replace(plain, stdin=b"", options=replace(plain.options, terminal=False))
                capture = self.options.capture or self.options.jobs != 1
                self.run(container, plain, inputs, capture=capture, stage=self.label(index))
            case Copy():
                from builda.builder.copy.copying import copy

                if isinstance(plain.source, BuildContext) and inputs.context is not None:
                    inputs = replace(inputs, remembered=self.digests_of(str(inputs.context)))
                return copy(self.ctx, container, plain, inputs, may_make_tree=False)[1]
            case MakeDirectory():
                from builda.builder.copy.copying import make_directory

                make_directory(self.ctx, container, plain)
        return None

    def run(self, container: WorkingContainer, step: Run, inputs: Inputs, *, capture: bool, stage: str | None) -> None:
        from builda.builder.run.command import surroundings
        from builda.builder.run.run import SUCCESS, run

        run(
            self.ctx,
            container,
            step,
            inputs,
            SUCCESS,
            surroundings(self.ctx, capture=capture, stage=stage, stop=self.stop),
        )

    def container(self, index: int) -> WorkingContainer:
        """The stage's working container, made when first needed."""
        with self.lock:
            if index not in self.containers:
                self.containers[index] = self.make_container(self.tips[index])
            return self.containers[index]

    def fetch(self, tip: Tip) -> None:
        """Have the layers here that a registry has: something stands on them now."""
        if all(layer.snapshot != ELSEWHERE for layer in tip.layers):
            return
        base = None if tip.image is None else self.store.unpack(tip.image, self.ctx.emit, as_list=self.as_list)
        wanted = {layer.blob.digest for layer in tip.layers if layer.blob and layer.snapshot == ELSEWHERE}
        below = _base_diff_ids(tip)
        tip.layers = fetched(self.ctx, self.imported, tip.layers, base, below, as_list=self.as_list)
        here = {layer.blob.digest: layer.snapshot for layer in tip.layers if layer.blob is not None}
        for key, result in self.fetching.items():
            digest = None if result.blob is None else Digest.parse(result.blob["digest"])
            if digest in wanted:
                self.store.steps.put(key, result._replace(snapshot=here[digest]))

    def make_container(self, tip: Tip) -> WorkingContainer:
        self.fetch(tip)
        if tip.layers:
            top = tip.layers[-1].snapshot or None
            base, key = tip.base, self.store.prepare_on(tip.image, top, as_list=self.as_list)
        else:
            base, key = self.store.prepare_for(tip.image, self.ctx.emit, as_list=self.as_list)
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
            layers=tip.layers,
            history=tip.history,
            annotations=tip.annotations,
            options=self.options.run,
            format=self.options.format,
            created=self.ctx.now(),
        )
        return self.store.create_container(made, name=None, prefix="build-working-container")

    def update(self, index: int, *, history: tuple[History, ...]) -> None:
        with self.store.locked(self.containers[index]) as current:
            self.containers[index] = self.store.update(replace(current, history=history))

    def freeze_step(
        self,
        index: int,
        tip: Tip,
        step: Run | Copy | MakeDirectory,
        key: Digest | None,
        keyed: Step,
        inputs: Mapping[str, str] | None,
    ) -> None:
        """Close what the step changed as a layer, remember it, and begin to write it."""
        below, empty = self.freeze(index, tip, step.created_by)
        if key is not None:
            self.remember(key, tip.key, keyed, inputs or {}, below, empty)
        if not empty and index in self.kept:
            self.write(index, key, below)

    def freeze(self, index: int, tip: Tip, created_by: str | None) -> tuple[str, bool]:
        """Close what was changed as a layer: the topmost snapshot now, and whether nothing was changed."""
        with self.store.locked(self.containers[index]) as current:
            before = (tip.layers[-1].snapshot if tip.layers else tip.base) or None
            cut = self.store.cut(current.snapshot, before, even_empty=before is None)
            below, empty = cut.layer or before or "", cut.empty
            history = History(created=self.moment(), created_by=created_by, empty_layer=empty)
            own = () if created_by is None and empty else (FrozenLayer(snapshot=below, history=history, empty=empty),)
            tip.layers = (*tip.layers, *_pending(tip, below if empty else None), *own)
            tip.history = ()
            updated = replace(current, snapshot=cut.fresh, layers=tip.layers, history=())
            self.containers[index] = self.store.update(updated)
            if cut.layer is not None:
                self.store.freeze(cut.layer)
        return below, empty

    def remember(
        self, key: Digest, parent: Digest, keyed: Step, inputs: Mapping[str, str], snapshot: str, empty: bool
    ) -> None:
        readable = explained(parent, keyed, inputs).decode("utf-8", "surrogateescape")
        result = StepResult(snapshot, None, None, empty, readable, self.ctx.now())
        self.store.steps.put(key, result)

    def write(self, index: int, key: Digest | None, snapshot: str) -> None:
        """Begin to store a frozen layer of the target, and note it with the remembered step when that is done."""
        mark, stage = self.marks[index], self.label(index)
        mark.pending = True

        def note(stored: StoredLayer) -> None:
            blob = stored.blob
            digest, size = (None, 0) if blob is None else (blob.digest, blob.size)
            self.tails.show(
                LayerStored(
                    index=mark.number,
                    total=mark.total,
                    digest=digest,
                    bytes=size,
                    diff_id=stored.diff_id,
                    stage=stage,
                )
            )
            found = None if key is None else self.store.steps.find(key)
            if key is not None and found is not None and blob is not None:
                self.store.steps.put(key, found._replace(blob=blob.to_json(), diff_id=stored.diff_id))

        name = step_name(stage, mark.number, mark.total)
        self.ctx.layers().start(snapshot, LayerOptions.of(self.options.commit), self.ctx.emit, note, name=name)

    # Keys

    def inputs_of(self, index: int, step: Run | Copy | MakeDirectory) -> Mapping[str, str] | None:
        """What the step reads, by digest; None when that cannot be told before it is done."""
        match step:
            case MakeDirectory():
                return {}
            case Run():
                return self.run_inputs(step)
            case Copy():
                return self.copy_inputs(step)

    def run_inputs(self, step: Run) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for mount in step.mounts:
            if mount.type == "bind" or mount.from_ != BuildContext():
                found[f"mount {mount.target}"] = self.source_digest(mount.from_, (mount.source or ".",))
        return found

    def copy_inputs(self, step: Copy) -> Mapping[str, str] | None:
        remote = [source for source in step.sources if "://" in source or source.startswith("git@")]
        if remote and step.checksum is None:
            return None
        local = tuple(source for source in step.sources if source not in remote)
        found = {"content": self.source_digest(step.source, local, step)} if local else {}
        return {**found, **{f"remote {url}": step.checksum or "" for url in remote}}

    def source_digest(self, source: Source, names: tuple[str, ...], step: Copy | None = None) -> str:
        match source:
            case FromStage(index):
                return f"stage {self.tips[index].key}"
            case FromImage(name):
                return f"image {pull(self.ctx, name, self.options.pull).digest}"
            case FromContainer(name):
                return f"container {name} {new_id()}"
            case NamedContext(name):
                if name not in self.options.inputs.named:
                    raise NotFound(f"no such build context: {name}")
                return str(self.directory_digest(str(self.options.inputs.named[name]), names, step, own=False))
            case BuildContext():
                context = self.options.inputs.context
                if context is None:
                    raise NotFound("there is no build context")
                return str(self.directory_digest(str(context), names, step, own=True))

    def directory_digest(self, path: str, names: tuple[str, ...], step: Copy | None, *, own: bool) -> Digest:
        from builda.builder.byteprogress import moving, words
        from builda.builder.copy.ignored import rules_in, rules_of
        from builda.fs.sources import NOTHING
        from builda.fs.tree import CopyRequest, Source, content_digest, content_size

        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            ignore, within = rules_of(self.options.inputs.ignore_file), "the context"
            if not own:  # a mount shows all of a named context
                ignore, within = NOTHING if step is None else rules_in(root, path), "the build context"
            request = CopyRequest(
                sources=tuple(Source(root, name, None, ignore, within) for name in names),
                destination="/",
                owner=(0, 0),
                excludes=() if step is None else step.excludes,
                parents=step is not None and step.parents,
                wildcards=step is not None and step.allow_wildcard,
                allow_empty_wildcard=step is not None and (step.allow_empty_wildcard or step.as_containerfile),
            )
            with moving(self.ctx.emit, "read", words(names or (within,)), lambda: content_size(request)) as moved:
                return content_digest(request, remembered=self.digests_of(path), moved=moved)
        finally:
            os.close(root)

    def digests_of(self, context: str) -> dict[FileKey, bytes]:
        """The digests of a context's files that earlier builds took, and this one adds to."""
        place = os.path.realpath(context)
        with self.lock:
            if place not in self.digests:
                self.digests[place] = file_digests.load(self.store.layout, place)
                self.known[place] = len(self.digests[place])
            return self.digests[place]

    # Commit

    def commit(self) -> Built:
        """The target's image: the one of an earlier build when nothing differs, else a new one."""
        target = self.plan.target
        tip = self.tips[target]
        if tip.image is not None and self.is_base(tip):
            return Built(image=tip.image, cached=True, misses=(), stage=self.label(target))
        image, cached = self.image_of(target, self.options.commit)
        return Built(image=image, cached=cached, misses=tuple(self.misses), stage=self.label(target))

    def image_of(self, index: int, options: CommitOptions) -> tuple[Image, bool]:
        """The image of a finished stage, and whether it is that of an earlier build."""
        tip = self.tips[index]
        known = None if index in self.containers else self.known_image(tip, options)
        if known is not None:
            return known, True
        container = self.container(index)
        with self.store.locked(container) as current:
            container = self.store.update(replace(current, layers=tip.layers, config=tip.config))
        from builda.builder.image.commit import commit

        image = commit(self.ctx, container, replace(options, destination=None))
        self.store.steps.put_image(self.image_key(tip, options), image.digest)
        return image, False

    def is_base(self, tip: Tip) -> bool:
        """Whether the result is the base image itself, as in Buildah: nothing is done with it, nor said of it."""
        stage = self.plan.stages[self.plan.target]
        options = self.options.commit
        plain = CommitOptions(
            format=options.format,
            compression=options.compression,
            compression_level=options.compression_level,
            access=options.access,
        )
        return isinstance(stage.base, FromImage) and not stage.steps and options == plain

    def image_key(self, tip: Tip, options: CommitOptions) -> Digest:
        """What the image follows from: the last step, what the commit adds, and what is only written in it."""
        history = (*(layer.history for layer in tip.layers), *tip.history)
        said = {
            "format": self.options.format,
            "layers": self.options.layers,
            "base": tip.name,
            "history": [entry.created_by for entry in history],
            "version": self.ctx.version,
        }
        return image_key(tip.key, options, said)

    def known_image(self, tip: Tip, options: CommitOptions) -> Image | None:
        if not self.options.cache:
            return None
        digest = self.store.steps.find_image(self.image_key(tip, options))
        return None if digest is None else self.store.find_image(str(digest))


def _ended(pool: ThreadPoolExecutor, stop: Stop) -> None:
    """No thread of the pool runs any more. A signal meanwhile kills their commands, and all is waited for."""
    while True:
        try:
            pool.shutdown(cancel_futures=True)
            return
        except (KeyboardInterrupt, SystemExit):
            stop.kill()


class _Lazily(Mapping[int, WorkingContainer]):
    """The stages' working containers, each made when something is copied from it."""

    def __init__(self, execution: _Execution) -> None:
        self._execution = execution

    def __getitem__(self, index: int) -> WorkingContainer:
        if index not in self._execution.tips:
            raise KeyError(index)
        return self._execution.container(index)

    def __iter__(self) -> Iterator[int]:
        return iter(self._execution.tips)

    def __len__(self) -> int:
        return len(self._execution.tips)


def explain_miss(ctx: Context, wanted: bytes) -> str:
    """In words, what differs between the key of a step and the nearest remembered one of the same kind."""
    import json

    mine = _flat(json.loads(wanted))
    best: tuple[int, str] | None = None
    for _, result in ctx.store.steps.iter():
        other = _flat(json.loads(result.explained))
        if other.get("step.type") != mine.get("step.type"):
            continue
        differing = sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))
        told = [name for name in differing if str(other.get(name)) != str(mine.get(name))] or differing
        text = "; ".join(f"{name} was {other.get(name)}, is {mine.get(name)}" for name in told)
        if best is None or len(differing) < best[0]:
            best = (len(differing), text)
    if best is None:
        return "no step of this kind was remembered"
    return best[1] or "the remembered result was removed"


def _flat(value: object, prefix: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        items = ((f"{prefix}.{key}" if prefix else str(key), item) for key, item in value.items())
        return {name: text for path, item in items for name, text in _flat(item, path).items()}
    if isinstance(value, list):
        return {name: text for i, item in enumerate(value) for name, text in _flat(item, f"{prefix}[{i}]").items()}
    return {prefix: str(value)}


def _keyed(step: Run | Copy | MakeDirectory) -> Step:
    """The step as it counts: without what only history shows, and without proxies."""
    plain = replace(step, created_by=None)
    if isinstance(plain, Run):
        return replace(plain, env=tuple(pair for pair in plain.env if pair[0].upper() not in _UNCACHED))
    return plain


def _tells_its_content(step: Step) -> bool:
    """Whether the digest that a copy returns is the one that its key is made of."""
    if not isinstance(step, Copy) or step.extract or step.inline:
        return False
    return isinstance(step.source, BuildContext | NamedContext)


def _pending(tip: Tip, snapshot: str | None = None) -> tuple[FrozenLayer, ...]:
    """History without layers since the last one, as entries among the layers."""
    below = snapshot or (tip.layers[-1].snapshot if tip.layers else tip.base or "")
    return tuple(FrozenLayer(snapshot=below, history=entry, empty=True) for entry in tip.history)


def _layer_of(found: StepResult, step: Step) -> FrozenLayer:
    from builda.oci.descriptor import Descriptor

    return FrozenLayer(
        snapshot=found.snapshot,
        history=History(created=timestamp(found.created), created_by=step.created_by, empty_layer=found.empty),
        diff_id=found.diff_id,
        blob=None if found.blob is None else Descriptor.from_json(found.blob, where="remembered step"),
        empty=found.empty,
    )


def _steps(stage: Stage) -> int:
    """How many instructions a stage has, FROM being the first."""
    return sum(1 for step in stage.steps if step.text) + 1


def _following(steps: tuple[Step, ...], step: Step) -> str:
    """The text of the instruction that `step` is the first part of."""
    index = steps.index(step)
    return next((other.text for other in steps[index:] if other.text), "")


def _identity(options: RunOptions) -> str:
    """What of the options may change what a command does to files."""
    return repr(replace(options, isolation=None, runtime=None, runtime_flags=(), terminal=None, cgroup_parent=None))


def _base_diff_ids(tip: Tip) -> tuple[Digest, ...]:
    return () if tip.image is None else tip.image.config.diff_ids


def _diff_ids(tip: Tip) -> tuple[Digest, ...] | None:
    """Those of all layers below; None when one is not computed."""
    own = tuple(layer.diff_id for layer in tip.layers if not layer.empty)
    known = tuple(diff_id for diff_id in own if diff_id is not None)
    return (*_base_diff_ids(tip), *known) if len(known) == len(own) else None


def _lineage(plan: Plan) -> frozenset[int]:
    """The target and the stages that it begins with, one on the other."""
    found = {plan.target}
    base = plan.stages[plan.target].base
    while isinstance(base, FromStage):
        found.add(base.index)
        base = plan.stages[base.index].base
    return frozenset(found)
