"""The names of images in what a build in a cluster is given, for whose registries its pod gets credentials."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

_IMAGES = ("docker://", "docker-image://", "container-image://")
_FROM = re.compile(r"(?im)^\s*FROM\s+(?:--\S+\s+)*(\S+)")
_FROM_OPTION = re.compile(r"--(?:mount=(?:\S*,)?)?from=([^\s,]+)")
_ARG = re.compile(r"(?im)^\s*ARG\s+(\w+)=(\S*)")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^}]*))?[^}]*\})")
_QUOTES = "\"'"


def in_options(values: Mapping[str, Any]) -> Iterator[str]:
    """The images and repositories that the options of `build` name."""
    if values["context_via"] not in (None, "api"):
        yield values["context_via"]
    for name in ("tag", "cache_mounts_to", "cache_mounts_from", "output"):
        yield from filter(None, map(_in_value, values[name]))
    yield from in_caches(values)
    if values["from_"]:
        yield values["from_"].removeprefix("docker://")
    for item in values["build_context"]:
        value = item.partition("=")[2]
        yield from (value.removeprefix(prefix) for prefix in _IMAGES if value.startswith(prefix))


def in_caches(values: Mapping[str, Any]) -> Iterator[str]:
    """The repositories of --cache-to and --cache-from."""
    for name in ("cache_to", "cache_from"):
        yield from filter(None, map(_in_value, values[name]))


def in_containerfile(text: str, args: Mapping[str, str]) -> Iterator[str]:
    """The images and stages that a Containerfile names in FROM and from=, with the build arguments `args`."""
    known = {**{name: value.strip(_QUOTES) for name, value in _ARG.findall(text)}, **args}

    def meant(found: re.Match[str]) -> str:
        return known.get(found[1] or found[2]) or found[3] or ""

    for name in (*_FROM.findall(text), *_FROM_OPTION.findall(text)):
        yield _VARIABLE.sub(meant, name).strip(_QUOTES).removeprefix("docker://")


def arguments_in(words: Sequence[str]) -> dict[str, str]:
    """The build arguments in the command line of a pod."""
    found = (word.removeprefix("--build-arg=").partition("=") for word in words if word.startswith("--build-arg="))
    return {name: value for name, _, value in found}


def _in_value(text: str) -> str:
    """The name in the value of an option; empty if it names no registry."""
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    name = fields.get("ref") or fields.get("name", "")
    if "type" in fields:
        return "" if fields["type"] in ("local", "claim", "tar") else name.removeprefix("docker://")
    return text.removeprefix("docker://")
