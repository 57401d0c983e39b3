"""Bake files in JSON, docker-bake.json: blocks as members of an object, expressions in texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import product

from builda.bake import fields
from builda.bake.declared import TARGET_LIMIT, Declaration, Declared, Group, Variable
from builda.bake.documents import Budget, Node, Place, fault, kind_of, mapping, plain
from builda.bake.expressions import evaluate
from builda.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BLOCKS = ("variable", "group", "target")
_TYPES: Mapping[str, Any] = {
    "string": "",
    "number": 0,
    "bool": False,
    "list(": [],
    "set(": [],
    "tuple(": [],
    "map(": {},
    "object(": {},
}
"""What `type` of a variable begins with, and a value of the kind."""
_CONVERT = "docker buildx bake --print writes the file with all values in it"


class BakeFiles:
    """The bake files of one command, which share their variables."""

    def __init__(self, files: Iterable[Node], environ: Mapping[str, str], given: Mapping[str, str]) -> None:
        """`given` are values of the command line, which count more than those of `environ`."""
        self._files = [(node, mapping(node, "a bake file")) for node in files]
        self._environ = environ
        self._given = given
        self._nodes: dict[str, Node] = {}
        self._values: dict[str, Any] = {}
        self._being_made: list[str] = []
        self._budget = Budget()

    def declare(self, into: Declared) -> None:
        """Add what the files say."""
        for _, top in self._files:
            self._collect(top)
        for name, node in self._nodes.items():
            into.variables[name] = Variable(name, self._variable(name), self._described(node), node.place)
        for name in self._given:
            if name not in self._nodes:
                raise InvalidValue(f"--var names a variable that no file declares: {name}")
        for _, top in self._files:
            for name, node in _blocks(top, "group"):
                self._group(name, node, into)
            for name, node in _blocks(top, "target"):
                self._target(name, node, into)

    def _collect(self, top: Mapping[str, Node]) -> None:
        if "function" in top:
            raise fault(top["function"].place, "functions of a file are not supported", _CONVERT)
        self._nodes.update(_blocks(top, "variable"))
        for name, node in top.items():
            if name not in _BLOCKS:
                self._nodes[name] = Node({"default": node}, node.place)

    # Variables

    def _variable(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        node = self._nodes[name]
        if name in self._being_made:
            circle = " -> ".join((*self._being_made[self._being_made.index(name) :], name))
            raise fault(node.place, f"variables need each other: {circle}")
        if len(self._being_made) > 100:
            raise fault(node.place, f"variables depend on each other through more than 100: {name}")
        self._being_made.append(name)
        block = mapping(node, f"variable {name}")
        self._check_variable(block, name)
        default = block.get("default")
        value = None if default is None else self._plain(default, self._named)
        sample = self._sample(block, name)
        if sample is not None and value is not None and kind_of(value) != kind_of(sample):
            raise fault(node.place, f"variable {name} is {kind_of(sample)}, and its default is {kind_of(value)}")
        said = self._given.get(name, self._environ.get(name))
        in_json = None if f"{name}_JSON" in self._nodes else self._environ.get(f"{name}_JSON")
        if name not in self._given and in_json is not None:
            value = _from_json(in_json, value if sample is None else sample, name, node.place)
        elif said is not None:
            value = _typed(said, value if sample is None else sample, name, node.place)
        self._being_made.pop()
        self._values[name] = value
        return value

    def _check_variable(self, block: Mapping[str, Node], name: str) -> None:
        for key, node in block.items():
            if key == "validation":
                raise fault(node.place, f"variable {name}: validation is not supported", _CONVERT)
            if key not in ("default", "description", "type"):
                raise fault(node.place, f"variable {name} has no {key}")

    def _sample(self, block: Mapping[str, Node], name: str) -> Any:
        """A value of the kind that `type` says; None if it says none. What lists and mappings hold is not compared."""
        node = block.get("type")
        if node is None or node.value is None:
            return None
        said = str(node.value).strip().removeprefix("${").removesuffix("}").strip()
        for word, sample in _TYPES.items():
            if said == word or (word.endswith("(") and said.startswith(word)):
                return sample
        kinds = ", ".join(word.rstrip("(") for word in _TYPES)
        raise fault(node.place, f"variable {name} has a type that is not supported: {said}", f"there are {kinds}")

    def _described(self, node: Node) -> str | None:
        found = node.value.get("description")
        return None if found is None else fields.text(found.value)

    def _named(self, name: str) -> Any:
        if name == "BAKE_LOCAL_PLATFORM" and name not in self._nodes:
            import os

            from builda.oci.descriptor import Platform

            return str(Platform.of_machine(os.uname().machine))
        if name not in self._nodes:
            raise KeyError(name)
        return self._variable(name)

    def _plain(self, node: Node, names: Any) -> Any:
        return plain(node, lambda text, place: evaluate(text, place, names), self._budget)

    # Groups and targets

    def _group(self, name: str, node: Node, into: Declared) -> None:
        block = mapping(node, f"group {name}")
        for key, value in block.items():
            if key not in ("targets", "description"):
                raise fault(value.place, f"group {name} has no {key}")
        what = f"group {name}"
        targets = block.get("targets", Node([], node.place))
        members = _form(fields.texts, self._plain(targets, self._named), targets.place, f"{what}: targets")
        into.add_group(name, Group(tuple(members), node.place, self._described(node)))

    def _target(self, name: str, node: Node, into: Declared) -> None:
        block = mapping(node, f"target {name}")
        matrix = block.get("matrix")
        if matrix is None:
            if "name" in block:
                raise fault(block["name"].place, f"target {name}: name needs a matrix")
            into.add_target(name, self._declaration(name, block, node.place, self._named))
            return
        members = []
        for values in _combinations(self._axes(name, matrix), matrix.place, name):

            def names(wanted: str, values: Mapping[str, Any] = values) -> Any:
                return values[wanted] if wanted in values else self._named(wanted)

            own = self._member(name, block, matrix.place, names)
            if own in members:
                raise fault(block.get("name", matrix).place, f"target {name}: two combinations are called {own}")
            into.add_target(own, self._declaration(own, block, node.place, names))
            members.append(own)
        if name not in members:
            into.add_group(name, Group(tuple(members), node.place))

    def _axes(self, name: str, matrix: Node) -> dict[str, list[Any]]:
        value = self._plain(matrix, self._named)
        if not isinstance(value, dict):
            raise fault(matrix.place, f"target {name}: matrix is a mapping of names to lists, not {kind_of(value)}")
        for axis, values in value.items():
            if not isinstance(values, list):
                raise fault(matrix.place, f"target {name}: {axis} of the matrix is a list, not {kind_of(values)}")
        return value

    def _member(self, name: str, block: Mapping[str, Node], place: Place, names: Any) -> str:
        if "name" not in block:
            raise fault(place, f"target {name}: a matrix needs a name with its variables", 'as in "name": "app-${v}"')
        node = block["name"]
        return str(_form(fields.text, self._plain(node, names), node.place, f"target {name}: name"))

    def _declaration(self, name: str, block: Mapping[str, Node], place: Place, names: Any) -> Declaration:
        said: dict[str, Any] = {}
        inherits: list[str] = []
        for key, node in block.items():
            if key in ("matrix", "name"):
                continue
            value = self._plain(node, names)
            if value is None:
                continue
            if key == "inherits":
                inherits = _form(fields.texts, value, node.place, f"target {name}: inherits")
            else:
                said[key] = fields.value_of(key, value, node.place, f"target {name}")
        return Declaration(said, tuple(inherits), place)


def _blocks(top: Mapping[str, Node], kind: str) -> Iterator[tuple[str, Node]]:
    """The blocks of a kind by their names; one, or a list of them."""
    found = top.get(kind)
    if found is None:
        return
    for each in found.value if isinstance(found.value, list) else [found]:
        for name, node in mapping(each, kind).items():
            if isinstance(node.value, list):
                for one in node.value:
                    mapping(one, f"{kind} {name}")
                    yield name, one
            else:
                mapping(node, f"{kind} {name}")
                yield name, node


def _combinations(axes: Mapping[str, list[Any]], place: Place, name: str) -> Iterator[dict[str, Any]]:
    count = 1
    for values in axes.values():
        count *= len(values)
    if count > TARGET_LIMIT:
        raise fault(place, f"target {name}: matrix has {count} combinations, the limit is {TARGET_LIMIT}")
    for row in product(*axes.values()):
        yield dict(zip(axes, row, strict=True))


def _typed(said: str, default: Any, name: str, place: Place) -> Any:
    """A value from outside, of the type of the default."""
    try:
        if isinstance(default, bool):
            return fields.switch(said)
        if isinstance(default, int | float):
            return float(said) if "." in said else int(said)
        if isinstance(default, list):
            return json.loads(said) if said.lstrip().startswith("[") else [one for one in said.split(",") if one]
        if isinstance(default, dict):
            value = json.loads(said)
            if not isinstance(value, dict):
                raise ValueError(said)
            return value
    except (ValueError, InvalidValue, RecursionError) as error:
        raise fault(
            place, f"variable {name} is {kind_of(default)}, and its value from outside is not: {said}"
        ) from error
    return said


def _from_json(said: str, sample: Any, name: str, place: Place) -> Any:
    """A value from NAME_JSON, of the kind of the sample."""
    try:
        value = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise fault(place, f"{name}_JSON, which is for variable {name}, is no JSON: {said}") from error
    if sample is not None and kind_of(value) != kind_of(sample):
        raise fault(place, f"variable {name} is {kind_of(sample)}, and {name}_JSON is {kind_of(value)}")
    return value


def _form(read: Any, value: Any, place: Place, what: str) -> Any:
    try:
        return read(value)
    except InvalidValue as error:
        raise fault(place, f"{what} is {error}") from error
