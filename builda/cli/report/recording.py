"""The values that a page shows; and a recorder that groups the events of a build by step."""

from __future__ import annotations

import os
import time
from _thread import get_ident  # threading takes a millisecond to import
from collections.abc import Callable

from builda.events import (
    BuildFailed,
    BuildStarted,
    CommandOutput,
    Event,
    ImageBuilt,
    LayerStored,
    LockWaited,
    StepFailure,
    StepFinished,
    StepMissed,
    StepStarted,
    Warned,
    step_name,
)
from builda.values import NamedTuple, dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.image.describe import Weight

SHORTEST = 0.01
"""Seconds of waiting that are worth showing."""
OUTPUT_LIMIT = 256 << 10
"""Bytes of a step's output that are kept: its last ones."""


class Wait(NamedTuple):
    """Time in which a step waited, since when, and in words what for."""

    began: float
    seconds: float
    text: str


@dataclass(slots=True, kw_only=True)
class Step:
    """One instruction of a build, or one command of a script.

    Times are seconds since the recording began; `seconds` is None while the step goes on.
    """

    text: str
    name: str  # its number among the others
    began: float
    row: str | None = None  # of the time axis
    needs: tuple[str, ...] = ()  # what its row waited for
    place: str | None = None  # where it is written
    seconds: float | None = None
    cached: bool = False
    failure: str | None = None
    reason: str | None = None  # why its result was not found
    facts: tuple[str, ...] = ()  # what else is known of it, a line each
    digest: str | None = None  # of its layer
    size: int | None = None  # bytes of its layer as it is stored
    waits: list[Wait] = field(default_factory=list)
    output: bytearray = field(default_factory=bytearray)
    lost: int = 0  # bytes of output before it

    def say(self, data: bytes) -> None:
        """Take output of its command."""
        self.output += data
        if len(self.output) > OUTPUT_LIMIT:
            over = len(self.output) - OUTPUT_LIMIT
            self.lost += over
            del self.output[:over]


class LayerFiles(NamedTuple):
    """A layer of an image: the instruction that made it, its stored bytes, its biggest files, and their directories."""

    created_by: str
    digest: str
    size: int
    files: tuple[Weight, ...]
    directories: tuple[Weight, ...] = ()


class ImageLayers(NamedTuple):
    """An image that was made: its name, "" if it is the only one, and its layers from the base up."""

    name: str
    layers: tuple[LayerFiles, ...]


class Ending(NamedTuple):
    """The end of a build or session: one word, whether it is a success, and further facts."""

    word: str
    is_good: bool
    facts: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Build:
    """The record of a build or a session: its steps in the order in which they began, and its end."""

    steps: list[Step] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    ended: Ending = Ending("interrupted", is_good=False)
    seconds: float = 0.0
    images: tuple[ImageLayers, ...] = ()
    noun: str = "steps"  # what its steps are
    row_names: dict[str | None, str] = field(default_factory=dict)
    waits: list[Wait] = field(default_factory=list)  # of no step

    @property
    def rows(self) -> list[str | None]:
        """The rows of the time axis, in the order in which they began."""
        return list(dict.fromkeys(step.row for step in self.steps))


class Recorder:
    """An observer that puts the events of a build together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.build = Build()
        self.image: ImageBuilt | None = None
        """What was built, when it was."""
        self._clock = clock
        self._start = clock()
        self._current: dict[str | None, Step] = {}
        self._steps: dict[int, Step] = {}  # by the thread that performs each

    def show(self, event: Event) -> None:
        """Note one event."""
        build = self.build
        build.seconds = now = self._clock() - self._start
        match event:
            case BuildStarted() if event.platform is None:
                build.steps.clear()  # a build that begins again
                self._current.clear()
            case StepStarted():
                self._begin(event, now)
            case StepFinished():
                if (step_ := self._current.get(event.stage)) is not None:
                    step_.seconds, step_.cached = event.seconds, event.cached
                    step_.reason = step_.reason or self._inherited(step_)
                    step_.digest, step_.size = event.digest and str(event.digest), event.bytes
            case StepFailure():
                if (step_ := self._current.get(event.stage)) is not None:
                    step_.seconds, step_.failure = event.seconds, event.message or "stopped"
            case StepMissed():
                if (step_ := self._current.get(event.stage)) is not None:
                    step_.reason = event.reason
            case LayerStored():
                name = step_name(event.stage, event.index, event.total)
                for step_ in build.steps:
                    if step_.name == name:
                        step_.digest, step_.size = event.digest and str(event.digest), event.bytes
            case CommandOutput():
                if (step_ := self._current.get(event.stage)) is not None:
                    step_.say(event.data)
            case LockWaited(done=True, seconds=seconds) if seconds >= SHORTEST:
                self._wait(event, now)
            case Warned():
                build.warnings.append(event)
            case ImageBuilt(id=image, names=names):
                self.image = event
                build.ended = Ending("built", is_good=True, facts=(f"image {image.encoded[:12]}", *names))
            case BuildFailed(message=message):
                build.ended = Ending("failed", is_good=False, facts=(message,))
            case _:
                pass

    def _inherited(self, step: Step) -> str | None:
        """Why a step was not looked for: only the first of a stage that is done again is."""
        before = (one for one in self.build.steps if one.row == step.row and one is not step)
        is_upon = not step.cached and any(one.reason is not None for one in before)
        return "a step before it was done again" if is_upon else None

    def _wait(self, event: LockWaited, now: float) -> None:
        """Note a wait of this thread that is over."""
        user = "another step" if event.pid == os.getpid() else user_of(event.pid, event.program)
        wait = Wait(now - event.seconds, event.seconds, f"{event.what}, used by {user}")
        step = self._steps.get(get_ident())
        (self.build if step is None else step).waits.append(wait)

    def _begin(self, event: StepStarted, now: float) -> None:
        step = Step(
            text=event.text,
            name=step_name(event.stage, event.index, event.total),
            began=now,
            row=event.stage,
            needs=event.needs,
            place=None if event.file is None else f"{event.file}:{event.line}",
        )
        self._current[event.stage] = self._steps[get_ident()] = step
        self.build.steps.append(step)
        names = " ".join(filter(None, (event.stage, event.stage_name)))
        self.build.row_names.setdefault(event.stage, names or "the only stage")


def user_of(pid: int | None, program: str) -> str:
    """The process that had a lock, in words."""
    if pid is None:
        return "another process"
    return f"process {pid} ({program})" if program else f"process {pid}"
