"""`RUN --mount` and `builda run --mount`: one comma-separated specification to a RunMount (Dockerfile reference)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from builda.errors import InvalidValue
from builda.plan import PROPAGATIONS, Context, RunMount, Source

_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_ALIASES = {
    "dst": "target",
    "destination": "target",
    "src": "source",
    "readonly": "ro",
    "readwrite": "rw",
    "tmpfs-size": "size",
    "tmpfs-mode": "mode",
}
_KEYS = {
    "bind": {"target", "source", "from", "ro", "rw", "z", "Z", "U", "bind-propagation", "relabel"},
    "cache": {"id", "target", "ro", "rw", "sharing", "from", "source", "mode", "uid", "gid", "z", "Z", "U"},
    "tmpfs": {"target", "size", "mode", "ro", "rw"},
    "secret": {"id", "target", "env", "required", "mode", "uid", "gid", "source"},
    "ssh": {"id", "target", "required", "mode", "uid", "gid"},
}
_BOOLEAN = frozenset({"ro", "rw", "required", "z", "Z", "U"})
_LARGEST_ID = (1 << 32) - 2
_SIZE = r"(?i)([0-9]{1,18})\s*([bkmgt]?)(?:i?b)?"


def parse_mount(
    text: str, source_of: Callable[[str], Source], working_dir: str = "/", *, default_target: bool = False
) -> RunMount:
    """The mount that `text` asks for; `source_of` resolves a `from=`. InvalidValue names what is wrong with it.

    With `default_target` one that names no target is mounted over the working directory, as in a Containerfile.
    """
    fields = _fields(text)
    kind = fields.pop("type", "bind")
    if kind not in _TYPES:
        raise InvalidValue(f"unsupported mount type {kind!r}: {text}", hint=f"there are {', '.join(_TYPES)}")
    for key in fields:
        if key not in _KEYS[kind]:
            raise InvalidValue(f"unexpected key {key!r} for mount type {kind}: {text}")
    flags = {key: _boolean(fields[key], key, text) for key in _BOOLEAN & fields.keys()}
    if fields.get("sharing", "shared") not in ("shared", "private", "locked"):
        raise InvalidValue(f"unsupported sharing value: {fields['sharing']}", hint="it is shared, private or locked")
    if fields.get("bind-propagation", "private") not in PROPAGATIONS:
        hint = f"it is one of {', '.join(sorted(PROPAGATIONS))}"
        raise InvalidValue(f"unsupported bind-propagation: {fields['bind-propagation']!r} in {text}", hint=hint)
    identity = fields.get("id", "")
    if kind == "secret":
        identity = identity or fields.get("source", "") or posixpath.basename(fields.get("target", ""))
        if not identity:
            raise InvalidValue(f"secret mount has neither id nor target: {text}", hint="write id=NAME")
    return RunMount(
        type=kind,  # type: ignore[arg-type]  # it is one of _TYPES
        target=_target(kind, fields, identity, working_dir, text, default_target=default_target),
        source="" if kind == "secret" else fields.get("source", ""),
        from_=source_of(fields["from"]) if fields.get("from") else Context(),
        id=identity or ("default" if kind == "ssh" else ""),
        read_only=_read_only(flags),
        sharing=fields.get("sharing", "shared"),  # type: ignore[arg-type]  # checked above
        mode=_number(fields, "mode", 8, text),
        uid=_number(fields, "uid", 10, text),
        gid=_number(fields, "gid", 10, text),
        size=parse_size(fields["size"]) if "size" in fields else None,
        required=flags.get("required", False),
        env=fields.get("env"),
        options=tuple(key for key in ("z", "Z", "U") if flags.get(key))
        + ((fields["bind-propagation"],) if "bind-propagation" in fields else ()),
    )


def mount_text(mount: RunMount, source: str | None = None) -> str:
    """The text that `parse_mount` makes `mount` of; `source` is what its `from=` says (None: nothing)."""
    said: list[tuple[str, str | None]] = [
        ("type", mount.type),
        ("target", mount.target or None),
        ("source", mount.source or None),
        ("id", mount.id or None),
        ("env", mount.env),
        ("sharing", mount.sharing if mount.type == "cache" else None),
        ("mode", None if mount.mode is None else f"{mount.mode:o}"),
        ("uid", None if mount.uid is None else str(mount.uid)),
        ("gid", None if mount.gid is None else str(mount.gid)),
        ("size", None if mount.size is None else str(mount.size)),
        ("required", "true" if mount.required else None),
    ]
    if mount.read_only is not None:
        said.append(("ro" if mount.read_only else "rw", "true"))
    for option in mount.options:
        said.append((option, "true") if option in ("z", "Z", "U") else ("bind-propagation", option))
    said.append(("from", source))
    return ",".join(_csv(f"{name}={value}") for name, value in said if value is not None)


def _csv(value: str) -> str:
    """One part of a specification, quoted if a comma or a quote is in it."""
    if not any(character in value for character in ',"\r\n'):
        return value
    return '"' + value.replace('"', '""') + '"'


def parse_size(text: str) -> int:
    """Bytes of `64m`, `1g`, `100`: units of 1024, as Docker reads them."""
    match = re.fullmatch(_SIZE, text.strip())
    if match is None:
        raise InvalidValue(f"not a size: {text}", hint="write a number with b, k, m or g")
    power = " kmgt".index(match[2].lower().replace("b", "") or " ")
    return int(match[1]) << (10 * power)


def _fields(text: str) -> dict[str, str]:
    import csv

    try:
        parts = next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration) as error:
        raise InvalidValue(f"mount cannot be read: {text!r}") from error
    fields: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        key = name.strip() if name.strip() in ("Z", "U") else name.strip().lower()
        key = _ALIASES.get(key, key)
        if not key or (not equals and key not in _BOOLEAN):
            raise InvalidValue(f"mount field has no value: {part!r} in {text}")
        fields[key] = value
    return fields


def _boolean(value: str, key: str, text: str) -> bool:
    if value.lower() in ("", "true", "1"):
        return True
    if value.lower() in ("false", "0"):
        return False
    raise InvalidValue(f"invalid value for {key}: {value!r} in {text}")


def _read_only(flags: dict[str, bool]) -> bool | None:
    if "rw" in flags:
        return not flags["rw"]
    return flags.get("ro")


def _number(fields: dict[str, str], key: str, base: int, text: str) -> int | None:
    if key not in fields:
        return None
    value = fields[key]
    digits = "01234567" if base == 8 else "0123456789"
    limit = 0o7777 if base == 8 else _LARGEST_ID
    if not value or value.strip(digits) or len(value) > 12 or int(value, base) > limit:
        raise InvalidValue(f"invalid {key}: {value!r} in {text}")
    return int(value, base)


def _target(
    kind: str, fields: dict[str, str], identity: str, working_dir: str, text: str, *, default_target: bool
) -> str:
    target = fields.get("target", "")
    if not target:
        if kind == "secret":
            return "" if "env" in fields else f"/run/secrets/{posixpath.basename(identity)}"
        if kind == "ssh":
            return ""
        if not default_target:
            raise InvalidValue(f"mount has no target: {text}")
    path = posixpath.normpath(posixpath.join("/", working_dir, target))
    if path.strip("/") == "":
        raise InvalidValue(f"mount cannot have the target /: {text}", hint="write target=DIRECTORY")
    return "/" + path.lstrip("/")
