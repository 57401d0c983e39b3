"""Parses `--cache-from` and `--cache-to`: repositories for remembered steps."""

from __future__ import annotations

from builda.builder.execution.cachefrom import CachePlace
from builda.errors import InvalidValue, Unsupported
from builda.oci.reference import Reference, parse_short

_HINT = "write REPOSITORY, or type=registry,ref=REPOSITORY[:TAG]"
_KNOWN = {"--cache-from": ("type", "ref"), "--cache-to": ("type", "ref", "mode", "ignore-error")}


def places(items: tuple[str, ...], option: str) -> tuple[CachePlace, ...]:
    """The repositories meant, as Buildah's users write them (without a tag) or BuildKit's."""
    return tuple(_place(item, option) for item in items)


def _place(item: str, option: str) -> CachePlace:
    fields = _fields(item, option)
    text = fields["ref"]
    short = parse_short(text)
    if short.digest is not None or (short.tag is not None and "=" not in item):
        raise InvalidValue(f"{option} takes a repository, without tag or digest: {text}", hint=_HINT)
    reference = Reference.parse(text)
    ignore = fields.get("ignore-error", "false") == "true"
    return CachePlace(registry=reference.registry, repository=reference.repository, tag=short.tag, ignore_error=ignore)


def _fields(item: str, option: str) -> dict[str, str]:
    if "=" not in item:
        return {"ref": item}
    fields = dict(part.partition("=")[::2] for part in item.split(","))
    if unknown := [name for name in fields if name not in _KNOWN[option]]:
        raise Unsupported(f"{option} has no field {unknown[0]}: {item}", hint=_HINT)
    if fields.get("type", "registry") != "registry":
        raise Unsupported(f"{option} supports type=registry only: {item}", hint=_HINT)
    if fields.get("mode", "max") != "max":
        raise Unsupported(f"{option} pushes the steps of all stages, which is mode=max: {item}")
    if fields.get("ignore-error", "false") not in ("true", "false"):
        raise InvalidValue(f"ignore-error must be true or false: {item}")
    if not fields.get("ref"):
        raise InvalidValue(f"{option} names no repository: {item}", hint=_HINT)
    return fields
