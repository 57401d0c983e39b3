"""Which Jobs many builds become: stages that several of them have are Jobs of their own, done first and once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from builda.values import NamedTuple


class Need(NamedTuple):
    """A stage that a build needs. Stages of different builds with the same `mark` are the same."""

    mark: str
    name: str
    below: tuple[str, ...]
    """The marks of the stages that it begins with or copies from."""
    base: str | None
    works: bool


class StageJob(NamedTuple):
    """A stage that is built by itself, as part of the build `build`; later Jobs find its steps in the registry."""

    mark: str
    name: str
    build: str
    reads: tuple[str, ...]
    """The marks of the stages whose steps it finds there."""


class Graph(NamedTuple):
    """The Jobs of stages, each after those that it reads, and what the Job of each build reads."""

    stages: tuple[StageJob, ...]
    reads: Mapping[str, tuple[str, ...]]


def graph(builds: Mapping[str, Sequence[Need]], *, side_by_side: bool) -> Graph:
    """The Jobs for builds whose needs are given in order, the target last.

    `side_by_side`: stages of one build are Jobs of their own, too, if it has several that need not wait for each other.
    """
    users: dict[str, set[str]] = {}
    above: dict[str, set[str]] = {}
    first: dict[str, tuple[str, Need]] = {}
    targets = {needs[-1].mark for needs in builds.values() if needs}
    for build, needs in builds.items():
        for need in needs:
            users.setdefault(need.mark, set()).add(build)
            first.setdefault(need.mark, (build, need))
            for other in need.below:
                above.setdefault(other, set()).add(need.mark)
    wanted = {mark for mark, names in users.items() if len(names) > 1 and first[mark][1].works}
    if side_by_side:
        for needs in builds.values():
            wanted |= _independent(needs)
    wanted = {mark for mark in wanted if not _is_part(mark, above, wanted, targets, first)}
    reads = {mark: _read_by(need.below, wanted, first) for mark, (_, need) in first.items()}
    stages = [StageJob(mark, need.name, build, reads[mark]) for mark, (build, need) in first.items() if mark in wanted]
    of_builds = {build: _read_by((needs[-1].mark,), wanted, first) if needs else () for build, needs in builds.items()}
    return Graph(tuple(stages), of_builds)


def _independent(needs: Sequence[Need]) -> set[str]:
    """Stages of a build that are worth a Job each: those below the target that work, if several can begin at once."""
    below = [need for need in needs[:-1] if need.works]
    reached = {need.mark: set(need.below) for need in needs}
    for need in needs:
        for other in need.below:
            reached[need.mark] |= reached.get(other, set())
    apart = any(
        one.mark not in reached[other.mark] and other.mark not in reached[one.mark]
        for at, one in enumerate(below)
        for other in below[at + 1 :]
    )
    return {need.mark for need in below} if apart else set()


def _is_part(
    mark: str,
    above: Mapping[str, set[str]],
    wanted: set[str],
    targets: set[str],
    first: Mapping[str, tuple[str, Need]],
) -> bool:
    """Whether one stage alone needs this one and has a Job, so that its Job performs this stage, too."""
    users = above.get(mark, set())
    return mark not in targets and len(users) == 1 and users <= wanted


def _read_by(marks: Iterable[str], wanted: set[str], first: Mapping[str, tuple[str, Need]]) -> tuple[str, ...]:
    """The Jobs' stages that are at or below these."""
    found: dict[str, None] = {}
    seen: set[str] = set()
    waiting = list(marks)
    while waiting:
        mark = waiting.pop()
        if mark in seen:
            continue
        seen.add(mark)
        if mark in wanted:
            found[mark] = None
        waiting += first[mark][1].below
    return tuple(found)
