"""The events of a build, put together by step."""

from __future__ import annotations

import time
from collections.abc import Callable

from builda.events import (
    BuildFailed,
    BuildStarted,
    CommandOutput,
    Event,
    ImageBuilt,
    LayerStored,
    StepFailure,
    StepFinished,
    StepMissed,
    StepStarted,
    Warned,
)
from builda.values import NamedTuple, dataclass, field

OUTPUT_LIMIT = 256 << 10
"""Bytes of a step's output that are kept: its last ones."""


@dataclass(slots=True, kw_only=True)
class Step:
    """One instruction. Times are seconds since the recording began; `seconds` is None while the step goes on."""

    started: StepStarted
    began: float
    seconds: float | None = None
    cached: bool = False
    failure: str | None = None
    reason: str | None = None  # why its result was not found
    digest: str | None = None  # of its layer
    size: int | None = None  # bytes of its layer as it is stored
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
    """A layer of the image: the instruction that made it, its stored bytes, and its biggest files with their bytes."""

    created_by: str
    digest: str
    size: int
    files: tuple[tuple[str, int], ...]


@dataclass(slots=True, kw_only=True)
class Build:
    """What is known of a build: its steps in the order in which they began, and how it ended."""

    steps: list[Step] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    ended: ImageBuilt | BuildFailed | None = None
    seconds: float = 0.0
    layers: tuple[LayerFiles, ...] = ()

    @property
    def stages(self) -> list[str | None]:
        """The stages by name, in the order in which they began."""
        return list(dict.fromkeys(step.started.stage for step in self.steps))


class Recorder:
    """An observer that puts the events of a build together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.build = Build()
        self._clock = clock
        self._start = clock()
        self._current: dict[str | None, Step] = {}

    def show(self, event: Event) -> None:
        """Note one event."""
        build = self.build
        build.seconds = now = self._clock() - self._start
        match event:
            case BuildStarted() if event.platform is None:
                build.steps.clear()  # a build that begins again
                self._current.clear()
            case StepStarted():
                self._current[event.stage] = step = Step(started=event, began=now)
                build.steps.append(step)
            case StepFinished():
                if (step_ := self._current.get(event.stage)) is not None:
                    step_.seconds, step_.cached = event.seconds, event.cached
                    step_.digest, step_.size = event.digest and str(event.digest), event.bytes
            case StepFailure():
                if (step_ := self._current.get(event.stage)) is not None:
                    step_.seconds, step_.failure = event.seconds, event.message or "stopped"
            case StepMissed():
                if (step_ := self._current.get(event.stage)) is not None:
                    step_.reason = event.reason
            case LayerStored():
                for step_ in build.steps:
                    if (step_.started.stage, step_.started.index) == (event.stage, event.index):
                        step_.digest, step_.size = event.digest and str(event.digest), event.bytes
            case CommandOutput():
                if (step_ := self._current.get(event.stage)) is not None:
                    step_.say(event.data)
            case Warned():
                build.warnings.append(event)
            case ImageBuilt() | BuildFailed():
                build.ended = event
            case _:
                pass
