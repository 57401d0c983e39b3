"""The files of a bake: which are read when none is named, what kind each is, and what they declare together."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence

from builda.bake import compose
from builda.bake.bakejson import BakeFiles
from builda.bake.declared import Declared
from builda.bake.documents import SIZE_LIMIT, Node, read_json, read_yaml
from builda.bake.dotenv import variables
from builda.errors import InvalidValue, NotFound, Unsupported
from builda.inputfile import read_input

DEFAULT = (
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
)
"""Files that are read where none is named, those that are there; a later one counts more."""
_HCL = "docker buildx bake -f FILE --print > docker-bake.json writes it as JSON"


def declared_in(
    files: Sequence[str], environ: Mapping[str, str], variables: Mapping[str, str] | None = None
) -> Declared:
    """What the files declare, or those of `DEFAULT` in the current directory."""
    names = list(files) or [name for name in DEFAULT if os.path.exists(name)]
    if not names:
        raise NotFound("no bake file is here: docker-bake.json or compose.yaml", hint="name one with -f")
    found = Declared()
    bake_files: list[Node] = []
    for name in names:
        node, is_compose = _read(name, names)
        if is_compose:
            compose.declare(node, {**_dotenv(name, environ, found), **environ}, found, _env_file)
        else:
            bake_files.append(node)
    BakeFiles(bake_files, environ, variables or {}).declare(found)
    return found


def _read(name: str, names: Iterable[str]) -> tuple[Node, bool]:
    """The content of a file, and whether it is a compose file."""
    if name.endswith(".hcl"):
        others = "" if list(names) == [name] else ", and it may change what the others say"
        raise Unsupported(f"bake file in HCL cannot be read{others}: {name}", hint=_HCL)
    if name == "-":
        data = sys.stdin.buffer.read(SIZE_LIMIT + 1)
        if len(data) > SIZE_LIMIT:
            raise InvalidValue(f"bake file has more bytes than the limit, {SIZE_LIMIT}: {name}")
    else:
        try:
            data = read_input(name, "bake file", SIZE_LIMIT)
        except FileNotFoundError as error:
            raise NotFound(f"no such file or directory for the bake file: {name}") from error
    looks_json = data.lstrip()[:1] == b"{"
    if name.endswith((".yaml", ".yml")) and not looks_json:
        return _compose(read_yaml(data, name))
    if looks_json or name.endswith(".json"):
        node = read_json(data, name)
        is_compose = isinstance(node.value, dict) and "services" in node.value and "target" not in node.value
        return node, is_compose
    if name.endswith(".json") or not _is_yaml(data):
        raise InvalidValue(f"file is neither a bake file in JSON nor a compose file: {name}", hint=_HCL)
    return _compose(read_yaml(data, name))


def _compose(node: Node) -> tuple[Node, bool]:
    if isinstance(node.value, dict) and "axes" in node.value:
        raise InvalidValue(f"{node.place}: file is a matrix", hint="builda build --matrix FILE builds it")
    if isinstance(node.value, dict) and "services" not in node.value:
        raise InvalidValue(f"{node.place}: compose file has no services")
    return node, True


def _is_yaml(data: bytes) -> bool:
    return b"services:" in data


def _dotenv(file: str, environ: Mapping[str, str], into: Declared) -> dict[str, str]:
    """The variables of the `.env` file beside a compose file; those without a value are a warning."""
    path = os.path.join(os.path.dirname(file), ".env")
    if file == "-" or not os.path.isfile(path):
        return {}
    unset: set[str] = set()
    found = variables(_env_file(path) or "", path, environ, unset)
    if unset:
        into.warnings.append(f"variables of {path} have no value and stand for nothing: {', '.join(sorted(unset))}")
    return found


def _env_file(path: str) -> str | None:
    """The text of a file of variables; None if it is not there."""
    try:
        return read_input(path, "file of variables", SIZE_LIMIT).decode(errors="replace")
    except FileNotFoundError:
        return None
