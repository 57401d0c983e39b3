"""`commit --change` and `commit --config`: the instructions and the JSON that only change the configuration.

`--change` is a script's way to say one instruction, with the words of the shell; a Containerfile goes through the
frontend, which knows variables, heredocs and the rest of its grammar.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from builda.errors import CorruptContent, InvalidValue, Unsupported
from builda.oci import edits
from builda.oci.config import Healthcheck, ImageConfig, dump_config, parse_config
from builda.oci.document import decode_any
from builda.oci.edits import ConfigEdit, apply_all

if TYPE_CHECKING:
    from collections.abc import Callable

_OWN = ("rootfs", "history", "config")
"""Keys that say what the image holds: a merge leaves them alone."""
_SHELL = ("/bin/sh", "-c")
_HEALTH_TIMES = {"interval", "timeout", "start-period", "start-interval"}
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def change(config: ImageConfig, text: str) -> ImageConfig:
    """`config` after the instruction `text`; Unsupported for one that would touch files."""
    keyword, _, rest = text.strip().partition(" ")
    parse = _TABLE.get(keyword.upper())
    if parse is None:
        raise Unsupported(
            f"not an instruction that changes the configuration: {text}", hint=f"there are {', '.join(sorted(_TABLE))}"
        )
    if not rest.strip():
        raise InvalidValue(f"{keyword.upper()} needs an argument: {text!r}")
    return apply_all(config, parse(rest.strip(), config))


def merge_config(config: ImageConfig, data: bytes) -> ImageConfig:
    """`config` with the fields that the JSON `data` says laid over it; both an image configuration and its bare
    `config` object are understood. Layers and history stay as they are."""
    value = _json_object(data)
    inner = value.get("config", {key: item for key, item in value.items() if key[:1].isupper()})
    if not isinstance(inner, dict):
        raise InvalidValue("config of the configuration to merge is not an object")
    mine: dict[str, Any] = json.loads(dump_config(config))
    top = {key: item for key, item in value.items() if key[:1].islower() and key not in _OWN}
    merged = {**mine, **top, "config": {**mine["config"], **_joined(mine["config"], inner)}}
    return parse_config(json.dumps(merged).encode())


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        value = decode_any(data, "configuration to merge")
    except CorruptContent as error:
        raise InvalidValue(str(error)) from error
    if not isinstance(value, dict):
        raise InvalidValue("configuration to merge is not a JSON object")
    return value


def _joined(mine: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The fields of `other`; maps and the environment are joined with mine, the rest replaces."""
    joined = dict(other)
    for key in ("Labels", "Volumes", "ExposedPorts"):
        if isinstance(other.get(key), dict):
            joined[key] = {**mine.get(key, {}), **other[key]}
    if isinstance(other.get("Env"), list):
        joined["Env"] = [*mine.get("Env", []), *other["Env"]]
    return joined


def _argv(rest: str) -> tuple[str, ...]:
    """Exec form when it is a JSON array of strings, else shell form."""
    if rest.startswith("["):
        try:
            words = decode_any(rest.encode(errors="surrogateescape"), "array")
        except CorruptContent:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return tuple(words)
    return (*_SHELL, rest)


def _words(rest: str) -> tuple[str, ...]:
    if rest.startswith("["):
        argv = _argv(rest)
        if argv[:2] != _SHELL:
            return argv
    try:
        return tuple(shlex.split(rest))
    except ValueError as error:
        raise InvalidValue(f"quotes do not match: {rest}") from error


def _pairs(rest: str) -> tuple[tuple[str, str], ...]:
    words = _words(rest)
    if words and "=" not in words[0]:  # the legacy form: NAME value with spaces
        return ((words[0], rest.split(None, 1)[1] if len(words) > 1 else ""),)
    pairs = [word.partition("=") for word in words]
    if not all(name and equals for name, equals, _ in pairs):
        raise InvalidValue(f"not NAME=VALUE: {rest}")
    return tuple((name, value) for name, _, value in pairs)


def _entrypoint(rest: str, config: ImageConfig) -> tuple[ConfigEdit, ...]:
    return (edits.SetEntrypoint(_argv(rest) or None), edits.SetCmd(None))


def _shell(rest: str, config: ImageConfig) -> tuple[ConfigEdit, ...]:
    argv = _argv(rest)
    if not argv or argv == (*_SHELL, rest):
        raise InvalidValue(f"SHELL needs a JSON array: {rest}")
    return (edits.SetShell(argv),)


def _workdir(rest: str, config: ImageConfig) -> tuple[ConfigEdit, ...]:
    import posixpath

    path = posixpath.normpath(posixpath.join("/", config.working_dir, _words(rest)[0]))
    return (edits.SetText("working_dir", path),)


def _ports(rest: str, config: ImageConfig) -> tuple[ConfigEdit, ...]:
    return tuple(edits.AddPort(word if "/" in word else f"{word}/tcp") for word in _words(rest))


def _healthcheck(rest: str, config: ImageConfig) -> tuple[ConfigEdit, ...]:
    if rest.upper() == "NONE":
        return (edits.SetHealthcheck(Healthcheck(test=("NONE",))),)
    settings: dict[str, int] = {}
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        name, _, value = flag[2:].partition("=")
        if name in _HEALTH_TIMES:
            settings[name.replace("-", "_")] = _duration(value)
        elif name == "retries" and value.isdigit():
            settings["retries"] = int(value)
        else:
            raise InvalidValue(f"unknown option or value of HEALTHCHECK: {flag}")
        rest = rest.strip()
    keyword, _, command = rest.partition(" ")
    if keyword.upper() != "CMD" or not command.strip():
        raise InvalidValue(f"HEALTHCHECK needs NONE or CMD and a command: {rest}")
    argv = _argv(command.strip())
    test = ("CMD-SHELL", argv[2]) if argv == (*_SHELL, command.strip()) else ("CMD", *argv)
    return (edits.SetHealthcheck(Healthcheck(test=test, **settings)),)


def _duration(text: str) -> int:
    """Nanoseconds of a Go duration: 30s, 1m30s, 1.5h."""
    import re

    parts = re.findall(r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidValue(f"not a duration: {text}", hint="write 30s, 1m30s …")
    return int(sum(float(number) * _UNITS[unit] for number, unit in parts))


def _text(field: str) -> Callable[[str, ImageConfig], tuple[ConfigEdit, ...]]:
    return lambda rest, config: (edits.SetText(field, " ".join(_words(rest))),)


_TABLE: dict[str, Callable[[str, ImageConfig], tuple[ConfigEdit, ...]]] = {
    "CMD": lambda rest, config: (edits.SetCmd(_argv(rest)),),
    "ENTRYPOINT": _entrypoint,
    "ENV": lambda rest, config: tuple(edits.SetEnv(name, value) for name, value in _pairs(rest)),
    "EXPOSE": _ports,
    "HEALTHCHECK": _healthcheck,
    "LABEL": lambda rest, config: tuple(edits.SetLabel(name, value) for name, value in _pairs(rest)),
    "MAINTAINER": _text("author"),
    "ONBUILD": lambda rest, config: (edits.AddOnbuild(rest),),
    "SHELL": _shell,
    "STOPSIGNAL": _text("stop_signal"),
    "USER": _text("user"),
    "VOLUME": lambda rest, config: tuple(edits.AddVolume(path) for path in _words(rest)),
    "WORKDIR": _workdir,
}
