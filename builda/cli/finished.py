"""Which steps of a build are done, and what they took: events put together, in each stage's own order.

A step's seconds are known when it ends, its bytes when a thread has stored its layer; it is told when both are.
"""

from __future__ import annotations

from typing import NamedTuple

from builda.cli.table import human_size
from builda.events import Event, LayerStored, StepFinished, StepStarted


class Done(NamedTuple):
    """A finished step. `bytes` are those of its stored layer, None when it has none or it is not known."""

    stage: str | None
    number: int
    total: int
    text: str
    seconds: float
    cached: bool
    bytes: int | None

    @property
    def head(self) -> str:
        """`[stage] number/total`."""
        return heading(self.stage, self.number, self.total)

    @property
    def works(self) -> bool:
        """Whether it is an instruction that may take time."""
        return self.text.partition(" ")[0] in ("RUN", "COPY", "ADD", "WORKDIR")

    @property
    def cost(self) -> str:
        """Seconds and bytes in words; "" for what took neither."""
        if self.cached and self.number > 1:
            return "cached"
        size = f", {human_size(self.bytes)}" if self.bytes else ""
        return f"{self.seconds:.2f}s{size}" if self.works or self.seconds >= 0.1 else ""


def heading(stage: str | None, number: int, total: int) -> str:
    """How a step is called in lines about it."""
    return f"[{stage}] {number}/{total}" if stage else f"{number}/{total}"


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
            case _:
                pass
        return []

    def storing(self) -> list[str]:
        """The headings of steps that wait for their layer."""
        return [done.head for waiting in self._waiting.values() for done, pending in waiting if pending]

    def rest(self) -> list[Done]:
        """Those whose bytes will not be known any more."""
        left = [done for waiting in self._waiting.values() for done, _ in waiting]
        self._waiting.clear()
        return left

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
