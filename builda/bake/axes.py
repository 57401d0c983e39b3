"""A matrix for `build --matrix`: lists of values for build arguments, and what is left out of their combinations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product

from builda.bake.declared import TARGET_LIMIT
from builda.bake.documents import SIZE_LIMIT, Node, Place, fault, kind_of, mapping, read_json, read_yaml
from builda.errors import InvalidValue, NotFound
from builda.inputfile import read_input
from builda.values import NamedTuple

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_USE = re.compile(r"\$\{([^}]*)\}")
_HINT = 'write a list for each axis: axes: {PYTHON: ["3.12", "3.13"], DISTRO: [bookworm]}'


class Combination(NamedTuple):
    """One build of a matrix: its name, and a value for each axis, which is a build argument."""

    name: str
    args: Mapping[str, str]
    tags: tuple[str, ...]


def read_matrix(path: str, tags: Sequence[str]) -> tuple[Combination, ...]:
    """The builds that a file asks for, `tags` of the command line and of the file being those of each."""
    try:
        data = read_input(path, "matrix", SIZE_LIMIT)
    except FileNotFoundError as error:
        raise NotFound(f"no such file or directory for the matrix: {path}") from error
    node = read_json(data, path) if data.lstrip()[:1] == b"{" else read_yaml(data, path)
    top = mapping(node, "a matrix")
    for key, value in top.items():
        if key in ("target", "services", "group"):
            raise fault(value.place, "file has targets and is no matrix", "builda bake -f FILE builds it")
        if key not in ("axes", "exclude", "include", "tags"):
            raise fault(value.place, f"a matrix has no {key}", "it has axes, exclude, include and tags")
    if "axes" not in top:
        raise fault(node.place, "a matrix has axes", _HINT)
    axes = {name: _values(name, one) for name, one in mapping(top["axes"], "axes").items()}
    for name in axes:
        if _NAME.fullmatch(name) is None:
            raise fault(top["axes"].place, f"axis is no name of a build argument: {name!r}")
    if not axes:
        raise fault(top["axes"].place, "a matrix has an axis", _HINT)
    rows = _rows(axes, top, node.place)
    both = [(tag, None) for tag in tags] + [(_text(one, "tag"), one.place) for one in _items(top.get("tags"), "tags")]
    return _named(rows, both)


def _rows(axes: Mapping[str, tuple[str, ...]], top: Mapping[str, Node], place: Place) -> list[dict[str, str]]:
    count = 1
    for values in axes.values():
        count *= len(values)
    if count > TARGET_LIMIT:
        raise fault(place, f"matrix has {count} combinations, the limit is {TARGET_LIMIT}")
    left_out = [_part(one, axes, whole=False) for one in _items(top.get("exclude"), "exclude")]
    rows = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    rows = [row for row in rows if not any(part.items() <= row.items() for part in left_out)]
    rows += [_part(one, axes, whole=True) for one in _items(top.get("include"), "include")]
    if not rows:
        raise fault(place, "matrix has no combination")
    return rows


def _items(node: Node | None, what: str) -> Sequence[Node]:
    if node is None or node.value is None:
        return ()
    if isinstance(node.value, str) and what == "tags":
        return (node,)
    if not isinstance(node.value, list):
        raise fault(node.place, f"{what} is a list, not {kind_of(node.value)}")
    return node.value


def _values(name: str, node: Node) -> tuple[str, ...]:
    if not isinstance(node.value, list):
        raise fault(node.place, f"axis {name} is a list of texts, not {kind_of(node.value)}", _HINT)
    found = tuple(_text(one, f"value of {name}") for one in node.value)
    if len(set(found)) < len(found):
        raise fault(node.place, f"axis {name} has a value twice")
    return found


def _text(node: Node, what: str) -> str:
    from builda.bake import fields

    try:
        return fields.text(node.value)
    except InvalidValue as error:
        raise fault(node.place, f"{what} is {error}") from error


def _part(node: Node, axes: Mapping[str, object], *, whole: bool) -> dict[str, str]:
    found = {name: _text(one, f"value of {name}") for name, one in mapping(node, "a combination").items()}
    for name in found:
        if name not in axes:
            raise fault(node.place, f"there is no axis {name}")
    lacking = [name for name in axes if name not in found]
    if whole and lacking:
        raise fault(node.place, f"combination has no {lacking[0]}")
    return found


def _named(rows: Sequence[Mapping[str, str]], tags: Sequence[tuple[str, Place | None]]) -> tuple[Combination, ...]:
    found: list[Combination] = []
    names: set[str] = set()
    owners: dict[str, str] = {}
    for row in rows:
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join(row.values())) or "build"
        while name in names:
            name += "_"
        names.add(name)
        own = tuple((_filled(tag, row, place), place) for tag, place in tags)
        for tag, place in own:
            if tag in owners:
                raise _tag_fault(
                    place,
                    f"combinations {owners[tag]} and {name} have the same tag: {tag}",
                    "name the axes in it, as in -t 'app:${" + next(iter(row)) + "}'",
                )
            owners[tag] = name
        found.append(Combination(name, row, tuple(tag for tag, _ in own)))
    return tuple(found)


def _tag_fault(place: Place | None, text: str, hint: str | None = None) -> InvalidValue:
    """The error about a tag of a file, or of the command line, which has no place."""
    return InvalidValue(f"--tag: {text}", hint=hint) if place is None else fault(place, text, hint)


def _filled(tag: str, row: Mapping[str, str], place: Place | None) -> str:
    """A tag with the values of the axes that it names."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in row:
            raise _tag_fault(place, f"tag names no axis of the matrix, {found[1]}: {tag}")
        return row[found[1]]

    return _USE.sub(value, tag)
