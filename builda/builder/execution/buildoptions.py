"""The options and the result of performing a plan, as values."""

from __future__ import annotations

from builda.builder.imageoptions import CommitOptions, Inputs, PullOptions
from builda.permissions import NO_PERMISSIONS, Permissions
from builda.plan import NO_OPTIONS, RunMount, RunOptions
from builda.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.execution.cachefrom import CachePlace
    from builda.builder.execution.cacheto import Export
    from builda.builder.execution.stageimages import StageImages
    from builda.builder.imageoptions import ImageFormat
    from builda.plan import Step
    from builda.store.store import Image

_INPUTS, _PULL, _COMMIT = Inputs(), PullOptions(), CommitOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteOptions:
    """The options of performing a plan."""

    inputs: Inputs = _INPUTS
    pull: PullOptions = _PULL
    run: RunOptions = NO_OPTIONS
    permissions: Permissions = NO_PERMISSIONS  # what RUN instructions may ask for
    mounts: tuple[RunMount, ...] = ()  # for every Run, before its own
    looks_around: bool = False  # after a command that fails, a shell begins where it failed, on the caller's terminal
    keeps_failed: bool = False  # the working container of a step that fails stays, with a note of the step
    stops_before: Step | None = None  # a step of the target that nothing is done from on
    stdin: bool = False  # commands read the caller's standard input; else an empty one
    format: ImageFormat = "oci"
    layers: bool = True  # a layer for each step that changes files; False: one for the whole stage
    cache: bool = True  # look for remembered steps; they are remembered anyway
    cache_ttl: float | None = None  # seconds; older results count as forgotten
    cache_since: float = 0.0  # seconds since the epoch; older results count as forgotten
    cache_from: tuple[CachePlace, ...] = ()  # where steps are looked for that this store does not remember
    export: bool = False  # the result says what every step led to, for `cacheto`
    commit: CommitOptions = _COMMIT  # its clamp decides what layers record, so it is part of every key
    stage_images: StageImages | None = None  # also make an image of each stage below the target
    jobs: int = 1  # stages at a time; 0: as many as there are
    explain: bool = False  # events say why steps were not found, for people to read
    tells_misses: bool = False  # events say so for a record
    platform_label: str | None = None  # the platform, where several are built
    capture: bool = False  # commands' output goes to `emit`, as it does with several jobs
    copy_output: bool = False  # it goes to `emit` besides, where it is not captured
    hidden: frozenset[str] = frozenset()  # of "stdout" and "stderr", what `emit` does not show: errors repeat it


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The target stage's image, and whether it was there already."""

    image: Image
    cached: bool
    stage: str | None = None  # what events call the target, where there are several stages
    export: Export | None = None  # what every step led to, if that was asked for
