"""The stages of a Containerfile: where it is cut, what their names mean, and which of them the target needs."""

from __future__ import annotations

import re
from contextlib import suppress

from builda.errors import BuildaError
from builda.frontend import words
from builda.frontend.instructions import Arg, Command, From, Transfer, fail
from builda.plan import stages_in_order
from builda.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.frontend.compileoptions import CompileOptions
    from builda.frontend.instructions import Typed

_FROM = r"(?:^|,)from=([^,]*)"


@dataclass(frozen=True, slots=True)
class Stages:
    """A Containerfile cut at its FROMs."""

    arguments: tuple[Arg, ...]
    bodies: tuple[tuple[From, tuple[Typed, ...]], ...]


def split_stages(listed: tuple[Typed, ...]) -> Stages:
    starts = [index for index, item in enumerate(listed) if isinstance(item, From)]
    before = listed[: starts[0]] if starts else listed
    for item in before:
        if not isinstance(item, Arg):
            fail(item.at, "no build stage yet: the first instruction must be FROM (or ARG)")
    if not starts:
        fail(listed[-1].at, "no build stage: there is no FROM")
    bodies = []
    for start, end in zip(starts, [*starts[1:], len(listed)], strict=True):
        head = listed[start]
        assert isinstance(head, From)
        bodies.append((head, listed[start + 1 : end]))
    return Stages(tuple(item for item in before if isinstance(item, Arg)), tuple(bodies))


class StageNames:
    """The meaning of names in a Containerfile: a context or image given by the caller, else an earlier stage."""

    def __init__(self, stages: Stages, options: CompileOptions, escape: str, lookup: words.Lookup) -> None:
        self._stages = stages
        self._options = options
        self._escape = escape
        self._lookup = lookup  # of the arguments before the first FROM
        self._by_name: dict[str, list[int]] = {}  # the stages of each name, in order
        for index, (head, _) in enumerate(stages.bodies):
            if head.name is not None:
                self._by_name.setdefault(head.name, []).append(index)

    def target(self) -> int:
        """The index that `--target` names: a stage's name, else its number; the last stage without one."""
        wanted, bodies = self._options.target, self._stages.bodies
        if wanted is None:
            return len(bodies) - 1
        found = self.stage_named(wanted, len(bodies))
        if found is None:
            names = [head.name for head, _ in bodies if head.name]
            from difflib import get_close_matches  # which is for errors only

            near = get_close_matches(wanted.lower(), names, 1)
            hint = f"did you mean {near[0]}?" if near else f"stages: {', '.join(names) or len(bodies)}"
            fail(bodies[-1][0].at, f"no such target stage: {wanted}", hint)
        return found

    def needed(self, target: int) -> tuple[int, ...]:
        """The stages that the target needs as far as their text says so, each after those that it needs itself."""
        return stages_in_order(target, self.named_in, unused=self._options.unused_stages)

    def named_in(self, index: int) -> tuple[int, ...]:
        """The earlier stages that a stage names without variables of its own."""
        head, body = self._stages.bodies[index]
        with suppress(BuildaError):  # the stage itself will say what is wrong
            names = [words.expand(head.image, self._lookup, self._escape)]
            for item in body:
                flags = item.flags if isinstance(item, Transfer | Command) else ()
                names += [value for name, value in flags if name == "from"]
                names += [found[1] for name, value in flags if name == "mount" for found in re.finditer(_FROM, value)]
            given = (self.given_for(name, index) for name in names)
            earlier = (self.stage_named(name, index) for name in given if not self._is_given(name))
            return tuple(dict.fromkeys(number for number in earlier if number is not None))
        return ()

    def given_for(self, name: str, before: int) -> str:
        """The context or image that is given in place of the stage with this number; else the name itself."""
        number = None if self._is_given(name) or not name.isdigit() else self.stage_named(name, before)
        stage = None if number is None else self._stages.bodies[number][0].name
        return name if stage is None or not self._is_given(stage) else stage

    def _is_given(self, name: str) -> bool:
        return name in self._options.images or name in self._options.contexts

    def stage_named(self, name: str, before: int) -> int | None:
        """The last earlier stage of this name; a number names it by position."""
        if found := self._by_name.get(name.lower()):
            from bisect import bisect_left

            if at := bisect_left(found, before):
                return found[at - 1]
        number = int(name) if name.isascii() and name.isdigit() and len(name) < 6 else before
        return number if number < before else None

    def meant(self, index: int, name: str) -> str | None:
        """A hint about a later stage of this name, or a similar name; None if there is neither."""
        heads = [head for head, _ in self._stages.bodies]
        for head in heads[index:]:
            if head.name == name.lower():
                where = "this stage itself" if head is heads[index] else f"the stage in line {head.at.line}"
                return f"{where} is called {head.name}, and a stage can use only those above it"
        known = [head.name for head in heads[:index] if head.name] + [*self._options.contexts, *self._options.images]
        from difflib import get_close_matches  # which is for errors only

        near = get_close_matches(name.lower(), known, 1, cutoff=0.7)
        return f"did you mean {near[0]}?" if near else None
