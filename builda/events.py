"""What happens while builda works, as values handed to an observer. docs/events.md says how they look as JSON.

`Emit` is an argument of everything that takes time; its default is `ignore`. Events flow upwards only.
"""

from __future__ import annotations

from collections.abc import Callable

from builda.oci.digest import Digest
from builda.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildStarted:
    """A build for one platform (None: the only one) begins; it has so many stages, and steps in all of them."""

    stages: int
    steps: int
    platform: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted:
    """Step `index` of `total` (both from 1) of a stage begins; `text` is what the user wrote.

    `stage` is the stage's position among all, as in 1/3, None where there is one only; `stage_name` is what AS says.
    The first step of a stage says in `needs` which stages, by position, must be finished before it begins.
    """

    index: int
    total: int
    text: str
    stage: str | None = None
    stage_name: str | None = None
    file: str | None = None
    line: int | None = None
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMissed:
    """No result of a step is remembered, so that it is performed; `reason` says what differs from the nearest one.

    Only builds that explain their cache have this event. It is for people only if they asked for it (`is_asked`).
    """

    index: int
    total: int
    reason: str
    stage: str | None = None
    text: str = ""
    is_asked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptStep:
    """A step of a script in a working container with a cache: `cached` when its result was found and nothing was done.

    Otherwise `reason` says why it is performed; it is for people only if they asked for it (`is_asked`).
    """

    text: str
    container: str
    cached: bool
    reason: str | None = None
    is_asked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished:
    """A step ended well; `cached` when its result was found and nothing was done.

    With `pending`, a thread is still storing the layer, and LayerStored follows. `digest` and `bytes` describe the
    layer if known already.
    """

    index: int
    total: int
    cached: bool
    seconds: float
    stage: str | None = None
    file: str | None = None
    line: int | None = None
    pending: bool = False
    digest: Digest | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailure:
    """A step ended without a result. `message` says why; None if it was stopped because something else ended."""

    index: int
    total: int
    seconds: float
    message: str | None
    stage: str | None = None
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStored:
    """The layer of step `index` is stored as a blob of this digest and size; None and 0 if it changed nothing."""

    index: int
    total: int
    digest: Digest | None
    bytes: int
    diff_id: Digest | None = None
    stage: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSaved:
    """A stage below the target was kept as an image without a name; `cached` when an earlier build made it."""

    id: Digest
    digest: Digest
    cached: bool
    stage: str | None = None
    stage_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOutput:
    """Bytes that the user's command wrote, as they came; `shown` if they also went where the caller's streams go."""

    data: bytes
    stream: Literal["stdout", "stderr"]
    stage: str | None = None
    shown: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobProgress:
    """`offset` of `total` bytes (None when unknown) of a blob moved; `done` comes once, last."""

    action: Literal["pull", "push", "unpack", "commit"]
    digest: Digest | None
    offset: int
    total: int | None
    done: bool = False
    reused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMoved:
    """An image or list is where it was to go: `blobs` of `size` bytes together moved, `reused` were there already."""

    action: Literal["pull", "push"]
    blobs: int
    size: int
    reused: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkProgress:
    """`offset` of `total` bytes (None when unknown) of local work are done; `done` comes once, last.

    `work` is what happens: files are read to look for the result of a step, files are copied, an archive is extracted,
    a layer is written and compressed. `subject` tells apart what goes on at the same time. Work that takes less than a
    second has no such event.
    """

    work: Literal["read", "copy", "extract", "store"]
    subject: str
    offset: int
    total: int | None
    done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LockWaited:
    """This thread waits, or has waited so many seconds, for something that another step or process was using.

    It comes twice: when the wait begins, with `done` false, and when it is over.

    `pid` is the process that had it, which `program` names; None if that is not known.
    """

    what: str
    seconds: float
    pid: int | None = None
    program: str = ""
    done: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """Something the user should know that does not stop the work; a `note` is for a person and not for a log."""

    message: str
    hint: str | None = None
    check: str | None = None  # the build check that found it, in a Containerfile at:
    file: str | None = None
    line: int | None = None
    note: bool = False


Subject: TypeAlias = "Literal['mode', 'store', 'name', 'image', 'cache', 'run', 'request']"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision and its reason, for debugging; only with --log-level debug."""

    subject: Subject
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceUsed:
    """What a build took from outside: an image, a file behind a URL, a commit of a repository, or files of a context.

    `digest` is that of an image's manifest, of the file, of the commit, or of all that a step reads of a context;
    `algorithm` is sha256, sha512, gitCommit or builda_content (docs/attestations.md says how that is computed).
    `platform` is the one that an image is for.
    """

    kind: Literal["image", "url", "git", "files"]
    name: str
    algorithm: str
    digest: str
    platform: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBuilt:
    """A build ended well: the image's ID, its manifest's digest, its names; `cached` when nothing had to be done."""

    id: Digest
    digest: Digest
    names: tuple[str, ...]
    cached: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFailed:
    """A build ended with an error, which builda exits with `status` for."""

    message: str
    status: int
    seconds: float
    hint: str | None = None
    file: str | None = None
    line: int | None = None


Event: TypeAlias = (
    BuildStarted
    | StepStarted
    | StepMissed
    | ScriptStep
    | StepFinished
    | StepFailure
    | LayerStored
    | StageSaved
    | CommandOutput
    | BlobProgress
    | ImageMoved
    | WorkProgress
    | LockWaited
    | Warned
    | Decided
    | SourceUsed
    | ImageBuilt
    | BuildFailed
)
Emit: TypeAlias = Callable[[Event], None]


def step_name(stage: str | None, index: int, total: int) -> str:
    """The name of a step in events and printed lines: `[stage] index/total`."""
    return f"[{stage}] {index}/{total}" if stage else f"{index}/{total}"


def ignore(event: Event) -> None:
    """The observer that ignores every event."""
