"""What tells a stage from others without asking the world: so it is seen which stages several builds have in common.

Two stages with one mark lead to the same steps. The reverse does not hold, and need not: marks decide what is built
first, and the keys of steps what is found.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

from builda.errors import BuildaError
from builda.frontend import words
from builda.frontend.compileoptions import CompileOptions, global_platforms
from builda.frontend.instructions import Arg, Command, From, Transfer, Typed, typed
from builda.frontend.parse import Parsed
from builda.frontend.stages import StageNames, split_stages
from builda.plan import PROXIES
from builda.values import NamedTuple

_PLACE = re.compile(r"\bat=Location\([^)]*\)")


class StageMark(NamedTuple):
    """A stage that a build needs."""

    number: int
    name: str
    """Its name, or its number: what --target calls it."""
    mark: str
    below: tuple[int, ...]
    """The stages that it begins with or copies from."""
    base: int | None
    """The one that it begins with."""
    works: bool
    """Whether it has steps that take time."""


def stage_marks(parsed: Parsed, options: CompileOptions, others: str) -> tuple[StageMark, ...]:
    """The stages that the target needs, each after those below it; the target is the last.

    `others` is what else counts for all stages: the context and options. ContainerfileError as compiling raises it.
    """
    listed = tuple(typed(instruction, parsed.escape) for instruction in parsed.instructions)
    stages = split_stages(listed)
    given = _globals(stages.arguments, options, parsed.escape)
    names = StageNames(stages, options, parsed.escape, given.get)
    found: dict[int, StageMark] = {}
    for index in names.needed(names.target()):
        head, body = stages.bodies[index]
        below = tuple(other for other in names.named_in(index) if other in found)
        base = next((other for other in below if _is_base(names, index, head, given, parsed.escape, other)), None)
        said = (
            others,
            _written(head, given, parsed.escape),
            [_PLACE.sub("", repr(item)) for item in body],
            _arguments(body, options.build_args, given),
            [found[other].mark for other in below],
        )
        mark = hashlib.sha256(repr(said).encode("utf-8", "surrogateescape")).hexdigest()
        works = any(
            isinstance(item, Transfer) or (isinstance(item, Command) and item.keyword == "RUN") for item in body
        )
        found[index] = StageMark(index, head.name or str(index), mark, below, base, works)
    return tuple(found.values())


def _is_base(
    names: StageNames, index: int, head: From, given: Mapping[str, str | None], escape: str, other: int
) -> bool:
    with suppress(BuildaError):
        return names.stage_named(words.expand(head.image, given.get, escape), index) == other
    return False


def _globals(arguments: Sequence[Arg], options: CompileOptions, escape: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name, value in global_platforms(options.platform, options.build_platform, options.target or "").items():
        if name != "TARGETSTAGE":
            found[name] = options.build_args.get(name, value)
    for item in arguments:
        for name, default in item.pairs:
            if name in options.build_args:
                found[name] = options.build_args[name]
            elif default is not None:
                with suppress(BuildaError):
                    found[name] = words.expand(default, found.get, escape)
            else:
                found.setdefault(name, None)
    return found


def _written(head: From, given: Mapping[str, str | None], escape: str) -> tuple[str, str | None]:
    """Base and platform of a stage with the arguments put in; as they stand where that cannot be."""
    try:
        platform = None if head.platform is None else words.expand(head.platform, given.get, escape)
        return words.expand(head.image, given.get, escape), platform
    except BuildaError:
        return head.image, head.platform


def _arguments(
    body: Sequence[Typed], build_args: Mapping[str, str], given: Mapping[str, str | None]
) -> list[tuple[str, str | None]]:
    """The build arguments that a stage declares, and proxies, which need no declaration."""
    declared = {name for item in body if isinstance(item, Arg) for name, _ in item.pairs}
    names = sorted(declared | (set(PROXIES) & build_args.keys()))
    return [(name, build_args.get(name, given.get(name))) for name in names]
