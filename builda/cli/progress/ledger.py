"""Which steps of a build are done, and what they took: events put together, in each stage's own order.

A step's seconds are known when it ends, its bytes when a thread has stored its layer; it is told when both are.
"""

from __future__ import annotations

from builda.cli.format.table import human_size, human_time
from builda.events import Event, LayerStored, StepFailure, StepFinished, StepStarted, step_name
from builda.values import NamedTuple


class Done(NamedTuple):
    """A step that is over. `bytes` are those of its stored layer, None when it has none or it is not known.

    `lost` says why it has no result: it `failed`, or was `stopped`; "" if it has one.
    """

    stage: str | None
    number: int
    total: int
    text: str
    seconds: float
    cached: bool
    bytes: int | None
    lost: str = ""

    @property
    def head(self) -> str:
        """`[stage] number/total`."""
        return step_name(self.stage, self.number, self.total)

    @property
    def works(self) -> bool:
        """Whether it is an instruction that may take time."""
        return self.text.partition(" ")[0] in ("RUN", "COPY", "ADD", "WORKDIR")

    @property
    def cost(self) -> str:
        """Seconds and bytes in words; "" for what took neither."""
        if self.lost:
            return f"{self.lost} after {human_time(self.seconds, 2)}"
        if self.cached and self.number > 1:
            return "cached"
        size = f", {human_size(self.bytes)}" if self.bytes else ""
        return f"{human_time(self.seconds, 2)}{size}" if self.works or self.seconds >= 0.1 else ""


class Ledger:
    """Takes events and gives back the steps that can be told."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str | None, int], str] = {}
        self._waiting: dict[str | None, list[tuple[Done, bool]]] = {}  # with whether their bytes are to come
        self._early: dict[tuple[str | None, int], int] = {}  # layers stored before their instruction was over

    def note(self, event: Event) -> list[Done]:
        """The steps that `event` lets be told, in order."""
        match event:
            case StepStarted():
                self._texts[event.stage, event.index] = event.text
            case StepFinished():
                self._finish(event)
                return self._ready(event.stage)
            case LayerStored():
                self._store(event)
                return self._ready(event.stage)
            case StepFailure():
                return [*self._rest_of(event.stage), self._lost(event)]
            case _:
                pass
        return []

    def storing(self) -> list[str]:
        """The headings of steps that wait for their layer."""
        return [done.head for waiting in self._waiting.values() for done, pending in waiting if pending]

    def rest(self) -> list[Done]:
        """The steps that are done and whose sizes will not become known; they are no longer waited for."""
        return [done for stage in list(self._waiting) for done in self._rest_of(stage)]

    def _rest_of(self, stage: str | None) -> list[Done]:
        return [done for done, _ in self._waiting.pop(stage, [])]

    def _lost(self, event: StepFailure) -> Done:
        text = self._texts.pop((event.stage, event.index), "")
        why = "stopped" if event.message is None else "failed"
        return Done(event.stage, event.index, event.total, text, event.seconds, False, None, why)

    def _finish(self, event: StepFinished) -> None:
        key = event.stage, event.index
        size = self._early.pop(key, event.bytes)
        text = self._texts.pop(key, "")
        done = Done(event.stage, event.index, event.total, text, event.seconds, event.cached, size)
        self._waiting.setdefault(event.stage, []).append((done, event.pending and size is None))

    def _store(self, event: LayerStored) -> None:
        waiting = self._waiting.get(event.stage, [])
        for position, (done, _) in enumerate(waiting):
            if done.number == event.index:
                waiting[position] = done._replace(bytes=event.bytes), False
                return
        self._early[event.stage, event.index] = event.bytes

    def _ready(self, stage: str | None) -> list[Done]:
        waiting = self._waiting.get(stage, [])
        count = next((i for i, (_, pending) in enumerate(waiting) if pending), len(waiting))
        ready = [done for done, _ in waiting[:count]]
        del waiting[:count]
        return ready
