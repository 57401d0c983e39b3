"""`run`, `copy`, `add` and `workdir` in a working container with a cache: looked up first, remembered afterwards."""

from __future__ import annotations

import os
import shlex

from builda.builder.cached.caching import OUTPUT_LIMIT, takes_output, why_not_looked_up
from builda.builder.cached.working import Wanted, absorbed, cache_of, find, frozen, moved_to, taken_down, wanted
from builda.builder.execution.keys import keyed, seen
from builda.builder.execution.step_inputs import StepInputs
from builda.builder.imageoptions import PullOptions
from builda.builder.mountpoint_cleanup import settle
from builda.builder.records import remembered
from builda.builder.working_tree import occupied
from builda.events import ScriptStep
from builda.isolation.spec import Watch
from builda.oci.digest import Digest
from builda.plan import Copy, MakeDirectory, Run
from builda.store.steps import Told
from builda.values import NamedTuple, dataclass, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeGuard

    from builda.builder.cached.caching import Caching
    from builda.builder.context import Context
    from builda.builder.execution.cachefrom import ImportedSteps
    from builda.builder.imageoptions import Inputs
    from builda.builder.run.command import Surroundings
    from builda.store.containers import WorkingContainer
    from builda.store.steps import StepResult

_SUCCESS = frozenset({0})
_LONGEST = 160  # characters of a step's text


def run(
    ctx: Context,
    container: WorkingContainer,
    step: Run,
    inputs: Inputs,
    valid_statuses: frozenset[int],
    around: Surroundings,
    caching: Caching,
) -> WorkingContainer:
    """Run a command, or use its remembered result; remembered output is written again if the script reads it.

    A command that is looked up runs as in a build: with an empty standard input unless there is a terminal, and without
    names that differ from container to container.
    """

    def run_now(given: Run, read: Inputs, seen: Surroundings) -> None:
        from builda.builder.run.run import run

        run(ctx, container, given, read, valid_statuses, seen)

    takes = takes_output(around, caching.logs)
    watch = Watch(takes_output=takes, limit=OUTPUT_LIMIT)
    why_not = why_not_looked_up(step, step.options.over(container.options), around, takes_output=takes)
    extra = {} if valid_statuses == _SUCCESS else {"statuses": sorted(valid_statuses)}

    def as_ever() -> Told:
        run_now(step, inputs, around)
        return Told()

    def perform(_: StepInputs) -> Told | None:
        given = step
        if step.stdin is None and not around.terminal:
            given = replace(step, stdin=b"", options=replace(step.options, terminal=False))
        run_now(given, replace(inputs, discard_writes=True), replace(around, watch=watch))
        if watch.is_typed:
            return None
        return Told(output=bytes(watch.output) if takes and not watch.is_too_long else None)

    text = f"run {step.text or shlex.join(step.args)}"
    request = _Request(step, text, caching, inputs, extra, why_not, takes, takes and _takes_errors())
    done = _Work(ctx, container, request).done(perform, as_ever)
    if done.is_found and takes and done.told.output:
        _write(done.told.output)
    return ctx.store.containers.load(container.id)


def _takes_errors() -> bool:
    """Whether standard error goes where standard output does."""
    try:
        return os.path.sameopenfile(1, 2)
    except OSError:  # one of them is closed
        return False


def _write(output: bytes) -> None:
    """Write the output of an earlier run to standard output. A reader that went away ends nothing, as with pipes."""
    try:
        while output:
            output = output[os.write(1, output) :]
    except BrokenPipeError:
        return


def copy(
    ctx: Context, container: WorkingContainer, step: Copy, inputs: Inputs, caching: Caching
) -> tuple[WorkingContainer, Digest | None]:
    """Copy files in, or take over what that led to before; with the digest of the content.

    None if nothing was copied, or if the digest of what a build copied from elsewhere was not remembered.
    """

    def copy_now(given: Inputs) -> Told:
        from builda.builder.copy.copying import copy

        return Told(digest=copy(ctx, container, step, given)[1])

    def as_ever() -> Told:
        return copy_now(inputs)

    def perform(read: StepInputs) -> Told:
        known = read.digests_of(str(inputs.context or ctx.cwd_or_root))
        return copy_now(replace(inputs, remembered=known))

    words = " ".join((*step.sources, *(file.name for file in step.inline), step.destination))
    text = f"{'add' if step.extract else 'copy'} {words}"
    done = _Work(ctx, container, _Request(step, text, caching, inputs)).done(perform, as_ever)
    digest = done.told.digest
    if digest is None and not step.extract:
        digest = _digest(done.inputs)
    return ctx.store.containers.load(container.id), digest


def _digest(inputs: Mapping[str, object]) -> Digest | None:
    """The digest of the files that a copy read, if they are all that it read."""
    said = str(inputs.get("content", ""))
    return Digest.parse(said) if list(inputs) == ["content"] and said.startswith("sha256:") else None


def make_directory(
    ctx: Context, container: WorkingContainer, step: MakeDirectory, inputs: Inputs, caching: Caching
) -> WorkingContainer:
    """Make sure that a directory exists, or take over what that led to before."""

    def perform() -> Told:
        from builda.builder.copy.copying import make_directory

        make_directory(ctx, container, step)
        return Told()

    request = _Request(step, f"workdir {step.path}", caching, inputs)
    _Work(ctx, container, request).done(lambda _: perform(), perform)
    return ctx.store.containers.load(container.id)


@dataclass(frozen=True, slots=True)
class _Request:
    """A step of a script: what is performed, how it is looked up, and what makes a result of no use."""

    step: Run | Copy | MakeDirectory
    text: str
    caching: Caching
    inputs: Inputs
    extra: Mapping[str, object] | None = None  # further parts of the key
    why_not: str | None = None  # why it is not looked up
    needs_output: bool = False
    is_silent: bool = False  # nothing may be said of it on standard error, which the script reads

    @property
    def shown(self) -> str:
        """The step as one line for people, shortened."""
        line, *more = self.text.strip().split("\n")
        return line if len(line) <= _LONGEST and not more else f"{line[:_LONGEST]} …"


class _Done(NamedTuple):
    """The result of a step: its output and status, whether it was found, and its inputs if they were computed."""

    told: Told
    is_found: bool = False
    inputs: Mapping[str, object] = {}  # nobody changes it


class _Unknown(Exception):
    """The step cannot be looked up: something that it reads has no key."""


class _Work:
    """One step in one container."""

    def __init__(self, ctx: Context, container: WorkingContainer, request: _Request) -> None:
        self._ctx = ctx
        self._container = container
        self._request = request
        pull = PullOptions(access=request.inputs.access)
        self._read = StepInputs(ctx, request.inputs, pull, {}, self._key_of)

    def done(self, perform: Callable[[StepInputs], Told | None], as_ever: Callable[[], Told]) -> _Done:
        """Find the step, or `perform` it and remember the result. What cannot be remembered is done `as_ever`.

        A `perform` that returns None must not be remembered.
        """
        request = self._request
        if request.why_not is not None or not request.caching.looks:
            self._tell(request.why_not or "--no-cache")
            return _Done(as_ever())
        try:
            read = self._read.of(request.step)
        except _Unknown:
            read = None
        if read is None:
            self._tell("what it reads is known only afterwards")
            return _Done(as_ever())
        with occupied(self._ctx, self._container) as current, taken_down(self._ctx, current) as is_free:
            if not is_free:
                self._tell("a process works below its `builda mount`")
                return _Done(as_ever())
            return self._looked_up(absorbed(self._ctx, current), read, perform)

    def _looked_up(
        self,
        current: WorkingContainer,
        read: Mapping[str, object],
        perform: Callable[[StepInputs], Told | None],
    ) -> _Done:
        ctx, request = self._ctx, self._request
        sought = self._wanted(current, read)
        known = ctx.store.steps.find(sought.key) is not None
        imported = None if known else self._imported(current)
        found = find(ctx, current, sought, imported, max_age=request.caching.max_age)
        if (
            self._is_enough(found)
            and (moved := moved_to(ctx, current, sought.key, found, imported, self._used(read))) is not None
        ):
            return self._found(moved, found.told, read)
        self._tell_miss(sought, found)
        told = perform(self._read)
        self._read.save()
        if told is None:
            return _Done(Told(), inputs=read)
        settle(ctx, current)
        if not known and self._others_did(current, sought):
            return _Done(told, inputs=read)
        frozen(ctx, ctx.store.containers.load(current.id), sought, self._request.shown, self._told(told))
        return _Done(told, inputs=read)

    def _wanted(self, current: WorkingContainer, read: Mapping[str, object]) -> Wanted:
        request = self._request
        inputs = {**read, **seen(request.step, current.config), **(request.extra or {})}
        if request.caching.extra is not None:
            inputs["cache key"] = request.caching.extra
        return wanted(current, keyed(request.step, current.config), inputs)

    def _told(self, told: Told) -> Told:
        return told._replace(text=self._request.shown)

    def _is_enough(self, found: StepResult | None) -> TypeGuard[StepResult]:
        return found is not None and (found.told.output is not None or not self._request.needs_output)

    def _used(self, read: Mapping[str, object]) -> tuple[tuple[str, str, str], ...]:
        """The files that a found copy took, in the form that a performed copy records."""
        from builda.builder.copy.filesused import noted

        step, said = self._request.step, str(read.get("content", ""))
        if not isinstance(step, Copy) or not said.startswith("sha256:"):
            return ()
        return noted(step, Digest.parse(said), has_context=self._request.inputs.context is not None)

    def _found(self, moved: WorkingContainer, told: Told, read: Mapping[str, object]) -> _Done:
        remembered(self._ctx, moved, self._request.step.created_by)
        self._read.save()
        self._emit(ScriptStep(text=self._request.shown, container=moved.name, cached=True))
        return _Done(told, is_found=True, inputs=read)

    def _others_did(self, current: WorkingContainer, sought: Wanted) -> bool:
        """Whether another process remembered the same step meanwhile, and the container took that result over.

        Then both go on upon the same layer, and later runs find all that either of them did.
        """
        ctx = self._ctx
        changed = ctx.store.containers.load(current.id)
        if ctx.store.snapshots.kind_of(changed.snapshot).driver.copies:
            return False
        found = find(ctx, changed, sought, None, max_age=None)
        return self._is_enough(found) and moved_to(ctx, changed, sought.key, found, None) is not None

    def _imported(self, current: WorkingContainer) -> ImportedSteps | None:
        """The caches in registries that the container names."""
        cache = cache_of(current)
        if not cache.sources:
            return None
        from builda.builder.cached.cacheregistries import imported

        return imported(self._ctx, cache, current)

    def _key_of(self, name: str) -> Digest:
        """The key of the state of another working container, which a step copies from."""
        other = self._ctx.store.container(name)
        if other.cache is None or other.id == self._container.id:
            raise _Unknown
        with occupied(self._ctx, other) as current, taken_down(self._ctx, current) as is_free:
            if not is_free:
                raise _Unknown
            return cache_of(absorbed(self._ctx, current)).key

    def _tell(self, reason: str) -> None:
        """Say why the step is performed."""
        is_asked = cache_of(self._container).explains
        event = ScriptStep(
            text=self._request.shown, container=self._container.name, cached=False, reason=reason, is_asked=is_asked
        )
        self._emit(event)

    def _emit(self, event: ScriptStep) -> None:
        if not self._request.is_silent:
            self._ctx.emit(event)

    def _tell_miss(self, sought: Wanted, found: StepResult | None) -> None:
        if found is not None:
            self._tell("its output was not taken down")
        elif cache_of(self._container).explains:
            from builda.builder.execution.explain import explain_miss

            self._tell(explain_miss(self._ctx.store.steps, sought.explanation))
        else:
            self._tell("no result is remembered")
