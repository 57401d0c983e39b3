"""The image configuration as one flat value (image-spec, config.md, and Docker's extensions of it).

Unknown keys survive in `extra` (top level) and `extra_config` (inside `config`). Edits are in `edits.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from builda.errors import CorruptContent, InvalidValue
from builda.oci.descriptor import Platform, string_map, string_tuple
from builda.oci.digest import Digest
from builda.oci.document import decode, encode
from builda.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CONFIG_LIMIT = 8 << 20
"""Bytes that an image configuration may have."""
_HOSTNAME_LIMIT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One entry of `history`; exactly the entries without `empty_layer` have a layer each."""

    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The spec's object, empty fields left out."""
        value: dict[str, Any] = {}
        for key in ("created", "created_by", "author", "comment"):
            if getattr(self, key):
                value[key] = getattr(self, key)
        if self.empty_layer:
            value["empty_layer"] = True
        value.update(sorted(self.extra.items()))
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """Docker's HEALTHCHECK: `test` as Docker writes it, times in nanoseconds, 0 means inherit."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """The configuration of an image; `env` keeps its order, None means the key is absent."""

    platform: Platform
    created: str | None = None
    author: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    user: str = ""
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    stop_signal: str = ""
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()
    # Docker's, not OCI's:
    shell: tuple[str, ...] | None = None
    onbuild: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    hostname: str = ""
    domainname: str = ""
    comment: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    extra_config: Mapping[str, Any] = field(default_factory=dict)

    def environ(self) -> dict[str, str]:
        """`env` as a mapping."""
        return dict(self.env)


def empty_config(platform: Platform) -> ImageConfig:
    """The configuration of FROM scratch: like BuildKit and Buildah, with a PATH."""
    return ImageConfig(platform=platform, env=(("PATH", DEFAULT_PATH),))


def check_hostname(name: str, what: str) -> None:
    """InvalidValue, beginning with `what`, for a host name that is longer than the kernel takes."""
    if len(name.encode("utf-8", "surrogateescape")) > _HOSTNAME_LIMIT:
        raise InvalidValue(f"{what} has more than {_HOSTNAME_LIMIT} bytes: {name}")


def chain_ids(diff_ids: tuple[Digest, ...]) -> tuple[Digest, ...]:
    """The ChainID of each prefix of `diff_ids` (image-spec, config.md, "Layer ChainID")."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)


def parse_config(data: bytes) -> ImageConfig:
    """The configuration in `data`; CorruptContent if it is malformed."""
    value = decode(data, "image configuration", CONFIG_LIMIT)
    inner = value.get("config")
    if inner is None:
        inner = {}
    if not isinstance(inner, dict):
        raise CorruptContent("config of the image configuration is not an object")
    return ImageConfig(
        platform=Platform(
            os=_text(value, "os") or "linux",
            architecture=_text(value, "architecture") or "",
            variant=_text(value, "variant") or None,
            os_version=_text(value, "os.version") or None,
            os_features=string_tuple(value.get("os.features"), where="os.features"),
        ),
        created=_text(value, "created") or None,
        author=_text(value, "author") or None,
        env=_env(_strings(inner, "Env")),
        entrypoint=_argv(inner, "Entrypoint"),
        cmd=_argv(inner, "Cmd"),
        user=_text(inner, "User"),
        working_dir=_text(inner, "WorkingDir"),
        labels=string_map(inner.get("Labels"), where="config.Labels"),
        volumes=_keys(inner, "Volumes"),
        exposed_ports=_keys(inner, "ExposedPorts"),
        stop_signal=_text(inner, "StopSignal"),
        diff_ids=_diff_ids(value.get("rootfs")),
        history=parse_history(value.get("history")),
        shell=_argv(inner, "Shell"),
        onbuild=_strings(inner, "OnBuild"),
        healthcheck=_healthcheck(inner.get("Healthcheck")),
        args_escaped=inner.get("ArgsEscaped") is True,
        hostname=_text(inner, "Hostname"),
        domainname=_text(inner, "Domainname"),
        comment=_text(value, "comment"),
        extra=MappingProxyType({key: item for key, item in value.items() if key not in _KNOWN}),
        extra_config=MappingProxyType({key: item for key, item in inner.items() if key not in _KNOWN_INNER}),
    )


def dump_config(config: ImageConfig) -> bytes:
    """The canonical bytes of an OCI image configuration that also carries Docker's extensions when set."""
    return encode(config_to_json(config))


def config_to_json(config: ImageConfig) -> dict[str, Any]:
    """The JSON object that `dump_config` writes: spec field order, sorted maps, empty fields left out."""
    value: dict[str, Any] = {}
    _put(value, "created", config.created)
    _put(value, "author", config.author)
    value["architecture"] = config.platform.architecture
    value["os"] = config.platform.os
    _put(value, "os.version", config.platform.os_version)
    _put(value, "os.features", list(config.platform.os_features))
    _put(value, "variant", config.platform.variant)
    _put(value, "comment", config.comment)
    value["config"] = _inner_to_json(config)
    value["rootfs"] = {"type": "layers", "diff_ids": [str(diff_id) for diff_id in config.diff_ids]}
    _put(value, "history", [entry.to_json() for entry in config.history])
    value.update(sorted(config.extra.items()))
    return value


def _inner_to_json(config: ImageConfig) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    _put(inner, "Hostname", config.hostname)
    _put(inner, "Domainname", config.domainname)
    _put(inner, "User", config.user)
    _put(inner, "ExposedPorts", {port: {} for port in sorted(config.exposed_ports)})
    _put(inner, "Env", [f"{name}={value}" for name, value in config.env])
    if config.entrypoint is not None:
        inner["Entrypoint"] = list(config.entrypoint)
    if config.cmd is not None:
        inner["Cmd"] = list(config.cmd)
    if config.healthcheck is not None:
        inner["Healthcheck"] = _healthcheck_to_json(config.healthcheck)
    _put(inner, "ArgsEscaped", config.args_escaped)
    _put(inner, "Volumes", {path: {} for path in sorted(config.volumes)})
    _put(inner, "WorkingDir", config.working_dir)
    _put(inner, "Labels", dict(sorted(config.labels.items())))
    _put(inner, "StopSignal", config.stop_signal)
    _put(inner, "OnBuild", list(config.onbuild))
    if config.shell is not None:
        inner["Shell"] = list(config.shell)
    inner.update(sorted(config.extra_config.items()))
    return inner


_KNOWN = frozenset(
    "created author architecture variant os os.version os.features comment config rootfs history".split()
)
_KNOWN_INNER = frozenset(
    "Hostname Domainname User ExposedPorts Env Entrypoint Cmd Healthcheck ArgsEscaped Volumes WorkingDir Labels "
    "StopSignal OnBuild Shell".split()
)
_HEALTHCHECK_TIMES = {
    "Interval": "interval",
    "Timeout": "timeout",
    "StartPeriod": "start_period",
    "StartInterval": "start_interval",
    "Retries": "retries",
}


def _put(value: dict[str, Any], key: str, item: Any) -> None:
    if item:
        value[key] = item


def _text(value: Mapping[str, Any], key: str) -> str:
    item = value.get(key)
    if item is None:
        return ""
    if not isinstance(item, str):
        raise CorruptContent(f"{key} of the image configuration is not text")
    return _checked(item, key)


def _checked(text: str, where: str) -> str:
    if "\0" in text:  # it would end the text early wherever the kernel reads it
        raise CorruptContent(f"{where} of the image configuration holds a NUL character")
    return text


def _strings(value: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(_checked(item, key) for item in string_tuple(value.get(key), where=f"config.{key}"))


def _argv(value: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    return None if value.get(key) is None else _strings(value, key)


def _env(items: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs: dict[str, str] = {}
    for item in items:
        name, _, text = item.partition("=")
        pairs[name] = text
    return tuple(pairs.items())


def _keys(value: Mapping[str, Any], key: str) -> tuple[str, ...]:
    item = value.get(key)
    if item is None:
        return ()
    if not isinstance(item, dict):
        raise CorruptContent(f"config.{key} is not an object")
    return tuple(sorted(item))


def _diff_ids(rootfs: object) -> tuple[Digest, ...]:
    if not isinstance(rootfs, dict):
        raise CorruptContent("image configuration has no rootfs")
    if rootfs.get("type", "layers") != "layers":  # config.md: an unknown value must be an error
        raise CorruptContent(f"rootfs of the image configuration is not made of layers: {rootfs['type']!r}")
    try:
        return tuple(Digest.parse(text) for text in string_tuple(rootfs.get("diff_ids"), where="rootfs.diff_ids"))
    except InvalidValue as error:
        raise CorruptContent(f"rootfs.diff_ids: {error}") from error


def parse_history(value: object) -> tuple[History, ...]:
    """The entries of a decoded `history` (null means none); CorruptContent if it is malformed."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise CorruptContent("history of the image configuration is not an array of objects")
    return tuple(
        History(
            created=_text(item, "created") or None,
            created_by=_text(item, "created_by") or None,
            author=_text(item, "author") or None,
            comment=_text(item, "comment") or None,
            empty_layer=item.get("empty_layer") is True,
            extra=MappingProxyType({key: unknown for key, unknown in item.items() if key not in _KNOWN_HISTORY}),
        )
        for item in value
    )


_KNOWN_HISTORY = frozenset({"created", "created_by", "author", "comment", "empty_layer"})


def _healthcheck(value: object) -> Healthcheck | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise CorruptContent("config.Healthcheck is not an object")
    times = {field_name: value.get(key) or 0 for key, field_name in _HEALTHCHECK_TIMES.items()}
    if not all(isinstance(item, int) for item in times.values()):
        raise CorruptContent("config.Healthcheck holds a time that is not a number")
    return Healthcheck(test=_strings(value, "Test"), **times)


def _healthcheck_to_json(check: Healthcheck) -> dict[str, Any]:
    value: dict[str, Any] = {"Test": list(check.test)}
    for key, field_name in _HEALTHCHECK_TIMES.items():
        _put(value, key, getattr(check, field_name))
    return value
