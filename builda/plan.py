"""Steps: one primitive call each, as a value. A step *is* the argument of a primitive.

`builda copy`, `Builder.copy` and `COPY` all make a `Copy`; nothing else describes the work of a primitive.
`text` is what a user reads while the step runs ("" for a part of the next one), `created_by` what history records;
neither `text` nor `at` belongs to a step's identity.
"""

from __future__ import annotations

from collections.abc import Mapping

from builda.oci.descriptor import Platform
from builda.oci.edits import ConfigEdit
from builda.runoptions import NO_OPTIONS as NO_OPTIONS
from builda.runoptions import RunOptions as RunOptions
from builda.values import NamedTuple, dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Location:
    """The file and line of a step; never part of its identity."""

    file: str
    line: int
    origin: str = field(default="", compare=False)  # what the line stands for: an ONBUILD trigger of its image


@dataclass(frozen=True, slots=True)
class Context:
    """COPY's default source: the build context (or `--contextdir`, or the current directory of a script)."""


@dataclass(frozen=True, slots=True)
class NamedContext:
    """A `--build-context` of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class FromStage:
    """The file system of an earlier stage, by its index in the plan."""

    index: int


@dataclass(frozen=True, slots=True)
class FromImage:
    """The file system of an image, pulled when missing."""

    name: str


@dataclass(frozen=True, slots=True)
class FromContainer:
    """The file system of a working container, by name or ID."""

    name: str


Source: TypeAlias = Context | NamedContext | FromStage | FromImage | FromContainer


PROPAGATIONS = frozenset("private rprivate shared rshared slave rslave unbindable runbindable".split())
"""How mounts reach other mount namespaces, as mount(8) names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMount:
    """One `--mount` of a run (Dockerfile reference, `RUN --mount`)."""

    type: Literal["bind", "cache", "tmpfs", "secret", "ssh"]
    target: str
    source: str = ""
    from_: Source = Context()
    id: str = ""
    read_only: bool | None = None  # None: the type's own default
    sharing: Literal["shared", "private", "locked"] = "shared"
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None  # bytes, tmpfs
    required: bool = False
    env: str | None = None  # secret: expose as this variable
    options: tuple[str, ...] = ()  # further mount options: z, U, rprivate, …


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Run `args` in the working container; already shell-wrapped and expanded."""

    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()  # for this command only, over the configuration's
    user: str | None = None
    working_dir: str | None = None
    mounts: tuple[RunMount, ...] = ()
    options: RunOptions = NO_OPTIONS
    stdin: bytes | None = None  # None: the caller's own stdin
    script: bytes | None = None  # a heredoc with a #! line: a file whose path is appended to `args`
    created_by: str | None = None
    text: str = field(default="", compare=False)
    at: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class InlineFile:
    """A heredoc as a source of COPY or ADD."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Copy `sources` of `source` to `destination`; ADD is `extract=True` and URL sources.

    A destination that ends in `/`, or several sources, means a directory. Relative ones start at the working directory.
    """

    sources: tuple[str, ...]
    destination: str
    source: Source = Context()
    inline: tuple[InlineFile, ...] = ()
    chown: str | None = None
    chmod: str | None = None
    excludes: tuple[str, ...] = ()
    extract: bool = False
    unpack: bool | None = None  # ADD --unpack: also for URLs; None is the default of each kind
    parents: bool = False
    link: bool = False
    checksum: str | None = None
    keep_git_dir: bool = False
    follow_symlinks: bool = True
    allow_wildcard: bool = True
    allow_empty_wildcard: bool = False
    as_containerfile: bool = False  # as BuildKit where it and Buildah differ (docs/buildah.md)
    timestamp: int | None = None  # seconds since the epoch
    created_by: str | None = None
    text: str = field(default="", compare=False)
    at: Location | None = field(default=None, compare=False)


class CopyFlag(NamedTuple):
    """A flag of COPY and ADD: the field of Copy that it sets, and what its value is."""

    field: str
    of: tuple[str, ...] = ("COPY", "ADD")
    kind: Literal["text", "switch", "list"] = "text"


COPY_FLAGS: Mapping[str, CopyFlag] = {
    "chown": CopyFlag("chown"),
    "chmod": CopyFlag("chmod"),
    "link": CopyFlag("link", kind="switch"),
    "parents": CopyFlag("parents", ("COPY",), "switch"),
    "checksum": CopyFlag("checksum", ("ADD",)),
    "keep-git-dir": CopyFlag("keep_git_dir", ("ADD",), "switch"),
    "unpack": CopyFlag("unpack", ("ADD",), "switch"),
    "exclude": CopyFlag("excludes", kind="list"),
}
"""The flags that are one field of Copy each: the compiler reads them by this table, scripts are written by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDirectory:
    """Make `path` a directory, as WORKDIR does besides setting the configuration."""

    path: str
    user: str | None = None
    created_by: str | None = None
    text: str = field(default="", compare=False)
    at: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configure:
    """Edit the pending configuration and manifest annotations; touches no file."""

    edits: tuple[ConfigEdit, ...] = ()
    set_annotations: Mapping[str, str] = field(default_factory=dict)
    unset_annotations: tuple[str, ...] = ()  # "" drops all
    created_by: str | None = None  # set: one history entry without a layer
    history_comment: str | None = None
    text: str = field(default="", compare=False)
    at: Location | None = field(default=None, compare=False)


PROXIES = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
"""Variables that reach commands without being declared, and are kept out of history and step keys."""

Step: TypeAlias = Run | Copy | MakeDirectory | Configure


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One FROM and the steps below it; `base` is an image, an earlier stage or None for scratch."""

    name: str | None
    base: FromImage | FromStage | None
    steps: tuple[Step, ...]
    platform: Platform | None = None
    at: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All stages of a Containerfile compiled; `target` is the index of the one to build."""

    stages: tuple[Stage, ...]
    target: int
    unused: bool = False  # stages before the target are performed whether it depends on them or not

    def needed(self) -> tuple[int, ...]:
        """Indexes of the stages to perform, the target last, each after what it needs."""
        return stages_in_order(self.target, lambda index: stages_used(self.stages[index]), unused=self.unused)


def stages_in_order(target: int, below: Callable[[int], Iterable[int]], *, unused: bool) -> tuple[int, ...]:
    """The stages that `target` needs, the target last, each after those that `below` names for it.

    With `unused` all stages before the target are among them.
    """
    order: dict[int, None] = {}
    pending = [(target, iter((*below(target), *range(target if unused else 0))))]
    while pending:
        index, others = pending[-1]
        other = next((other for other in others if other not in order), None)
        if other is not None:
            pending.append((other, iter(below(other))))
        else:
            order[index] = None
            pending.pop()
    return tuple(order)


def stages_used(stage: Stage) -> tuple[int, ...]:
    """Indexes of the earlier stages that `stage` starts from, copies from or mounts."""
    sources: list[object] = [stage.base]
    for step in stage.steps:
        if isinstance(step, Copy):
            sources.append(step.source)
        elif isinstance(step, Run):
            sources.extend(mount.from_ for mount in step.mounts)
    return tuple(sorted({source.index for source in sources if isinstance(source, FromStage)}))
