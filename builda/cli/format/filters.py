"""`images --filter`: conditions on images. Values of one key are alternatives, and all keys are demanded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from builda.errors import InvalidValue
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from builda.store.store import Image, Store

Condition: TypeAlias = "Callable[[Image], bool]"


class _Part(NamedTuple):
    key: str
    value: str
    negated: bool


def condition(written: Sequence[str], store: Store, now: float) -> Condition:
    """Parse `--filter` texts (`key=value` or `key!=value`), which must all hold; InvalidValue for an unknown key."""
    parts = [_part(item) for item in written]
    made: dict[tuple[str, bool], list[Condition]] = {}
    for part in parts:
        if part.key not in _MAKERS:
            raise InvalidValue(f"unsupported image filter: {part.key}", hint=f"there are {', '.join(_MAKERS)}")
        test = _MAKERS[part.key](part.value, store, now)
        # several labels are all demanded, as Docker has it; of any other key one value is enough
        group = part.key if part.key != "label" else f"label {part.value}"
        made.setdefault((group, part.negated), []).append(test)

    def meets(image: Image) -> bool:
        return all(any(test(image) for test in tests) != negated for (_, negated), tests in made.items())

    return meets


def _part(item: str) -> _Part:
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise InvalidValue(f"invalid filter, which is written key=value: {item}")
    return _Part(key.removesuffix("!"), value, key.endswith("!"))


def _since(value: str, store: Store, now: float) -> Condition:
    limit = store.image(value).created
    return lambda image: image.created > limit


def _before(value: str, store: Store, now: float) -> Condition:
    limit = store.image(value).created
    return lambda image: image.created < limit


def _until(value: str, store: Store, now: float) -> Condition:
    limit = _moment(value, now)
    return lambda image: image.created < limit


def moment_of_prune(written: Sequence[str], now: float) -> float | None:
    """Parse `--filter until=…` of `prune`: seconds since the epoch; InvalidValue for another key."""
    moments = []
    for part in map(_part, written):
        if part.key != "until" or part.negated:
            raise InvalidValue(
                f"unsupported filter of prune: {part.key}", hint="there is until=24h or until=2026-01-31"
            )
        moments.append(_moment(part.value, now))
    return min(moments, default=None)


def _moment(value: str, now: float) -> float:
    """Seconds since the epoch of a time stamp, a date, or a duration before now."""
    from datetime import UTC, datetime

    from builda.cli.core.options import parse_duration

    if value.isdecimal():
        return float(value)
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        return now - parse_duration(value) / 10**9


def _boolean(key: str, value: str) -> bool:
    if value.lower() in ("true", "1", "t"):
        return True
    if value.lower() in ("false", "0", "f"):
        return False
    raise InvalidValue(f"filter {key} must be true or false: {value}")


def _dangling(value: str, store: Store, now: float) -> Condition:
    wanted = _boolean("dangling", value)
    return lambda image: (not image.names) == wanted


def _intermediate(value: str, store: Store, now: float) -> Condition:
    wanted = _boolean("intermediate", value)
    return lambda image: not wanted  # the build cache holds steps, never images


def _readonly(value: str, store: Store, now: float) -> Condition:
    wanted = _boolean("readonly", value)
    return lambda image: not wanted  # there is one store, and it is ours


def _manifest(value: str, store: Store, now: float) -> Condition:
    wanted = _boolean("manifest", value)
    return lambda image: image.is_index == wanted


def _containers(value: str, store: Store, now: float) -> Condition:
    if value == "external":
        return lambda image: False  # every container in the store is builda's
    wanted = _boolean("containers", value)
    used = {container.image_digest for container in store.containers.iter()}
    return lambda image: (image.digest in used) == wanted


def _id(value: str, store: Store, now: float) -> Condition:
    prefix = value.removeprefix("sha256:")
    return lambda image: image.id.encoded.startswith(prefix)


def _digest(value: str, store: Store, now: float) -> Condition:
    return lambda image: str(image.digest).startswith(value)


def _label(value: str, store: Store, now: float) -> Condition:
    name, equals, wanted = value.partition("=")

    def has(image: Image) -> bool:
        labels = {} if image.is_index else image.config.labels
        return name in labels and (not equals or labels[name] == wanted)

    return has


def _reference(value: str, store: Store, now: float) -> Condition:
    pattern = re.compile(_regex(value))
    return lambda image: any(pattern.fullmatch(form) for name in image.names for form in _forms(name))


def _regex(pattern: str) -> str:
    """A regular expression for Go's path.Match, where `*` and `?` stop at a slash."""
    import fnmatch

    pieces = re.split(r"(\*|\?|\[[^\]]+\])", pattern)
    known = {"*": "[^/]*", "?": "[^/]"}
    return "".join(
        known[piece] if piece in known else fnmatch.translate(piece)[4:-3] if i % 2 else re.escape(piece)
        for i, piece in enumerate(pieces)
    )


def _forms(name: str) -> set[str]:
    """The ways in which a user may write this name: with and without tag, registry and `library`."""
    untagged = name.partition("@")[0]
    if ":" in untagged.rpartition("/")[2]:
        untagged = untagged.rpartition(":")[0]
    short = [full.removeprefix("docker.io/library/").removeprefix("docker.io/") for full in (name, untagged)]
    local = [full.removeprefix("localhost/") for full in (name, untagged)]
    last = [full.rpartition("/")[2] for full in (name, untagged)]
    return {name, untagged, *short, *local, *last}


_MAKERS: Mapping[str, Callable[[str, Store, float], Condition]] = {
    "since": _since,
    "after": _since,
    "before": _before,
    "until": _until,
    "dangling": _dangling,
    "id": _id,
    "digest": _digest,
    "intermediate": _intermediate,
    "label": _label,
    "readonly": _readonly,
    "reference": _reference,
    "containers": _containers,
    "manifest": _manifest,
}
