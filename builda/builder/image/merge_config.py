"""`commit --config`: a JSON configuration laid over that of a working container."""

from __future__ import annotations

import json

from builda.errors import CorruptContent, InvalidValue
from builda.oci.config import ImageConfig, dump_config, parse_config
from builda.oci.document import decode_any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OWN = ("rootfs", "history", "config")
"""Keys that say what the image holds: a merge leaves them alone."""


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
    """The fields with those of `other` over them; maps and the environment are merged, the rest is replaced."""
    joined = dict(other)
    for key in ("Labels", "Volumes", "ExposedPorts"):
        if isinstance(other.get(key), dict):
            joined[key] = {**mine.get(key, {}), **other[key]}
    if isinstance(other.get("Env"), list):
        joined["Env"] = [*mine.get("Env", []), *other["Env"]]
    return joined
