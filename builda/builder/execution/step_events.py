"""The events of a build's stages and steps."""

from __future__ import annotations

import time

from builda.errors import BuildaError
from builda.events import BuildStarted, LayerStored, StepFailure, StepFinished, StepMissed, StepStarted, step_name
from builda.plan import FromStage, stages_used
from builda.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.image.layers import StoredLayer
    from builda.events import Emit
    from builda.oci.descriptor import Descriptor
    from builda.plan import Location, Plan, Stage, Step


@dataclass(slots=True)
class Mark:
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


class StepEvents:
    """Emits what happens to the stages of one plan, each at its current instruction."""

    def __init__(self, emit: Emit, plan: Plan, platform: str | None) -> None:
        """`platform` is shown where an image is built for several; None for one."""
        self._emit = emit
        self._plan = plan
        self._platform = platform
        self.marks: dict[int, Mark] = {}

    def begin(self) -> None:
        """Emit that the build starts."""
        needed = self._plan.needed()
        steps = sum(instructions(self._plan.stages[index]) for index in needed)
        self._emit(BuildStarted(stages=len(needed), steps=steps, platform=self._platform))

    def label(self, index: int) -> str | None:
        """The name of a stage in events: platform and position in the file; None if it is the only one."""
        count = len(self._plan.stages)
        words = (self._platform, f"{index + 1}/{count}" if count > 1 else None)
        return " ".join(word for word in words if word) or None

    def name(self, index: int) -> str:
        """The stage's current instruction, as messages call it."""
        mark = self.marks[index]
        return step_name(self.label(index), mark.number, mark.total)

    def coming(self, index: int) -> str:
        """The stage's next instruction, as messages call it."""
        mark = self.marks[index]
        return step_name(self.label(index), mark.number + 1, mark.total)

    def start_stage(self, index: int) -> Mark:
        """Emit that the stage starts with its FROM; the mark of it."""
        stage = self._plan.stages[index]
        base = "scratch"
        if isinstance(stage.base, FromStage):
            base = self._plan.stages[stage.base.index].name or str(stage.base.index)
        elif stage.base is not None:
            base = stage.base.name
        text = f"FROM {base}" + (f" AS {stage.name}" if stage.name else "")
        needs = tuple(filter(None, map(self.label, stages_used(stage))))
        return self._start(index, Mark(1, instructions(stage), stage.at), text, needs)

    def start_step(self, index: int, step: Step, text: str) -> Mark:
        """Emit that the stage starts its next instruction; the mark of it."""
        before = self.marks[index]
        return self._start(index, Mark(before.number + 1, before.total, step.at), text)

    def _start(self, index: int, mark: Mark, text: str, needs: tuple[str, ...] = ()) -> Mark:
        self.marks[index] = mark
        file, line = mark.place
        self._emit(
            StepStarted(
                index=mark.number,
                total=mark.total,
                text=text,
                stage=self.label(index),
                stage_name=self._plan.stages[index].name,
                file=file,
                line=line,
                needs=needs,
            )
        )
        return mark

    def missed(self, index: int, text: str, reason: str, *, is_asked: bool) -> None:
        """Emit why no result of the stage's current instruction is remembered."""
        mark, stage = self.marks[index], self.label(index)
        self._emit(
            StepMissed(index=mark.number, total=mark.total, reason=reason, stage=stage, text=text, is_asked=is_asked)
        )

    def finish(self, index: int, *, cached: bool) -> None:
        """Emit that the stage's current instruction is done."""
        mark = self.marks[index]
        blob = mark.blob
        file, line = mark.place
        self._emit(
            StepFinished(
                index=mark.number,
                total=mark.total,
                cached=cached,
                seconds=time.monotonic() - mark.began,
                stage=self.label(index),
                file=file,
                line=line,
                pending=mark.pending,
                digest=None if blob is None else blob.digest,
                bytes=None if blob is None else blob.size,
            )
        )

    def fail(self, index: int, error: BaseException) -> None:
        """Emit that the stage fails at its current instruction."""
        mark = self.marks[index]
        file, line = mark.place
        self._emit(
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

    def stored(self, mark: Mark, index: int, layer: StoredLayer) -> None:
        """Emit that the layer of an instruction is stored; the stage may be at a later one by now."""
        blob = layer.blob
        digest, size = (None, 0) if blob is None else (blob.digest, blob.size)
        self._emit(
            LayerStored(
                index=mark.number,
                total=mark.total,
                digest=digest,
                bytes=size,
                diff_id=layer.diff_id,
                stage=self.label(index),
            )
        )


def instructions(stage: Stage) -> int:
    """The number of instructions of a stage; FROM is the first."""
    return sum(1 for step in stage.steps if step.text) + 1
