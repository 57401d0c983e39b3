"""containers.conf, mounts.conf and storage.conf: the configuration that container tools share (containers.conf(5)).

Functions that read files come first; those they call are pure. Keys that say nothing about a builder are read over;
keys that do, and that builda cannot honour, are named in `Defaults.unheard`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from builda.errors import InvalidValue
from builda.places import Places
from builda.runoptions import RunOptions
from builda.tomlfile import read_text, read_toml
from builda.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

WHAT = "configuration file"
_PING = "net.ipv4.ping_group_range=0 0"
"""The sysctl that distributions' files set; without it ping needs CAP_NET_RAW, which commands have."""
_LISTS = {
    "default_ulimits": "ulimits",
    "devices": "devices",
    "volumes": "volumes",
    "env": "env",
    "dns_servers": "dns",
    "dns_options": "dns_options",
    "dns_searches": "dns_search",
}
_SWITCHES = {"http_proxy": "http_proxy", "no_hosts": "no_hosts"}
_TEXTS = {"netns": "network", "pidns": "pid", "ipcns": "ipc", "utsns": "uts", "cgroupns": "cgroupns"}
_DEFAULTS: Mapping[str, tuple[object, ...]] = {
    "umask": ("0022", "022", ""),
    "userns": ("host", ""),
}
"""Keys that would change commands and are not honoured, with the values that change nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Defaults for options that the command line does not give; None and () if the files have none either."""

    run: RunOptions = RunOptions()
    retry: int | None = None
    retry_delay: float | None = None  # seconds
    compression: str | None = None
    compression_level: int | None = None
    capabilities: tuple[str, ...] | None = None  # instead of builda's own default set
    env: Mapping[str, str] = field(default_factory=dict)  # below builda's own environment: for registries and proxies
    unheard: Mapping[str, str] = field(default_factory=dict)  # file and value of keys that have no effect


def load(places: Places) -> Defaults:
    """The defaults of this user and machine; NotFound, InvalidValue or BuildaError naming a file that cannot be used.

    The first of the user's and the machine's containers.conf counts, then drop-ins in the order of their names;
    $CONTAINERS_CONF stands instead of all of them, $CONTAINERS_CONF_OVERRIDE comes last. What distributions put below
    /usr/share is the default of other programs and is not read.
    """
    if not places.says_how_to_run():
        return Defaults()
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for file in _files(places):
        _merge(merged, read_toml(file, WHAT), str(file), origins)
    return _defaults(merged, origins)


def subscriptions(places: Places, path: Path | None = None) -> tuple[str, ...]:
    """The volumes that mounts.conf gives to every command: directories of the host, whose copies may be written to.

    `path`, else the first of the user's file (not root's), the machine's and the distribution's counts; sources that
    do not exist are left out, as on a machine without a subscription.
    """
    own = (places.user_configuration(),) if places.uid else ()
    directories = (*own, places.system / "etc/containers", places.system / "usr/share/containers")
    file = path or next((d / "mounts.conf" for d in directories if (d / "mounts.conf").is_file()), None)
    if file is None:
        return ()
    pairs = [line.strip().partition(":") for line in read_text(file, WHAT).splitlines()]
    named = [(source, target or source) for source, _, target in pairs if source and not source.startswith("#")]
    for source, target in named:
        if not source.startswith("/") or not target.startswith("/"):
            raise InvalidValue(f"a line is /SOURCE[:/TARGET] in {file}: {source}")
    return tuple(f"{source}:{target}:O" for source, target in named if os.path.exists(source))


def foreign_store(places: Places) -> tuple[str, ...]:
    """The `key=value` of the user's or the machine's storage.conf that place or shape a store, unless they are usual.

    They describe the store of other programs, which builda does not use.
    """
    named = places.path("CONTAINERS_STORAGE_CONF")
    own = (directory / "storage.conf" for directory in places.configuration()[:2])
    file = named or next((path for path in own if path.is_file()), None)
    table = {} if file is None else read_toml(file, WHAT).get("storage", {})
    if not isinstance(table, dict):
        return ()
    keys = ("driver", "graphroot", "runroot", "rootless_storage_path", "imagestore")
    usual = ("", "overlay", "/var/lib/containers/storage", "/run/containers/storage")
    said = tuple(f"{key}={table[key]}" for key in keys if table.get(key, "") not in usual)
    return tuple(f"{word} ({file})" for word in said)


def _files(places: Places) -> Iterable[Path]:
    named, override = places.path("CONTAINERS_CONF"), places.path("CONTAINERS_CONF_OVERRIDE")
    own = places.configuration()[:2]
    if named is not None:
        yield named
    else:
        yield from [d / "containers.conf" for d in own if (d / "containers.conf").is_file()][:1]
        found: dict[str, Path] = {}
        for directory in own:
            for file in sorted((directory / "containers.conf.d").glob("*.conf")):
                found.setdefault(file.name, file)
        yield from (found[name] for name in sorted(found))
    if override is not None:
        yield override


def _merge(merged: dict[str, Any], value: Mapping[str, Any], file: str, origins: dict[str, str]) -> None:
    """Lay `value` over `merged`, by table and key; an array with `{append=true}` at its end is put behind the other."""
    for name, table in value.items():
        if not isinstance(table, dict):
            raise InvalidValue(f"{name} is not a table in {file}")
        for key, item in table.items():
            place = merged.setdefault(name, {})
            origins[f"{name}.{key}"] = file
            if isinstance(item, list) and item and isinstance(item[-1], dict):
                before = place.get(key, []) if item[-1].get("append") else []
                item = [*before, *item[:-1]]
            place[key] = item


def _defaults(merged: Mapping[str, Any], origins: Mapping[str, str]) -> Defaults:
    containers, engine = _Table("containers", merged, origins), _Table("engine", merged, origins)
    run: dict[str, Any] = {option: containers.strings(key) for key, option in _LISTS.items()}
    run |= {option: containers.switch(key) for key, option in _SWITCHES.items()}
    run |= {option: containers.text(key) or None for key, option in _TEXTS.items()}
    for option in ("pid", "ipc", "uts", "cgroupns"):
        if run[option] == "private" or (option, run[option]) == (
            "ipc",
            "shareable",
        ):  # the default, where the isolation can give it
            run[option] = None
    run["shm_size"] = _size(containers)
    run["add_hosts"] = _hosts(containers)
    run["security_opts"] = tuple(f"seccomp={path}" for path in (containers.text("seccomp_profile"),) if path)
    run["runtime"] = _runtime(engine)
    volumes, others = _mounts(containers)
    run["volumes"] = (*run["volumes"], *volumes)
    delay = engine.text("retry_delay")
    return Defaults(
        run=RunOptions(**run),
        retry=engine.number("retry"),
        retry_delay=None if not delay else _seconds(delay, engine),
        compression=engine.text("compression_format").removesuffix(":chunked") or None,  # which is zstd, in pieces
        compression_level=engine.number("compression_level"),
        capabilities=containers.strings("default_capabilities") if containers.has("default_capabilities") else None,
        env=_environment(engine),
        unheard=_unheard(containers, others),
    )


def _environment(engine: _Table) -> dict[str, str]:
    """The variables of `[engine] env`; InvalidValue for one without a value."""
    found = {}
    for text in engine.strings("env"):
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InvalidValue(f"a variable is NAME=VALUE in env of [engine] in {engine.file('env')}: {text!r}")
        found[name] = value
    return found


def _hosts(containers: _Table) -> tuple[str, ...]:
    """The rows that the keys about /etc/hosts add to it, in the form of `--add-host`."""
    found = []
    base = containers.text("base_hosts_file")
    if base not in ("", "none", "image"):
        rows = (line.partition("#")[0].split() for line in read_text(base, WHAT).splitlines())
        found += [f"{';'.join(names)}:{address}" for address, *names in filter(None, rows) if names]
    address = containers.text("host_containers_internal_ip")
    if address not in ("", "none"):
        found.append(f"host.containers.internal;host.docker.internal:{address}")
    return tuple(found)


def _unheard(containers: _Table, mounts: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for key, usual in _DEFAULTS.items():
        if containers.has(key) and containers.value(key) not in usual:
            found[f"containers.{key}"] = containers.file(key)
    if any(" ".join(text.split()) != _PING for text in containers.strings("default_sysctls")):
        found["containers.default_sysctls"] = containers.file("default_sysctls")
    if containers.text("base_hosts_file") == "image":
        found["containers.base_hosts_file"] = containers.file("base_hosts_file")
    if mounts:
        found["containers.mounts"] = containers.file("mounts")
    return found


def _mounts(containers: _Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The volumes that `mounts` asks for, and its entries of other types than bind."""
    volumes, others = [], []
    for text in containers.strings("mounts"):
        fields = dict(part.strip().partition("=")[::2] for part in text.split(","))
        source = fields.get("source") or fields.get("src")
        target = fields.get("destination") or fields.get("dst") or fields.get("target")
        if fields.get("type", "bind") != "bind" or not source or not target:
            others.append(text)
            continue
        read_only = next((fields[key] for key in ("ro", "readonly") if key in fields), "false") in ("", "true")
        volumes.append(f"{source}:{target}:{'ro' if read_only else 'rw'}")
    return tuple(volumes), tuple(others)


def _runtime(engine: _Table) -> str | None:
    """The first existing path of the runtime in the table of runtimes, else its name."""
    name = engine.text("runtime")
    known = engine.value("runtimes") if engine.has("runtimes") else {}
    paths = known.get(name, []) if isinstance(known, dict) else []
    return next((path for path in paths if isinstance(path, str) and os.path.exists(path)), name or None)


def _size(containers: _Table) -> int | None:
    from builda.mounts import parse_size

    text = containers.text("shm_size")
    try:
        return parse_size(text) if text else None
    except InvalidValue as error:
        raise InvalidValue(f"{error}, for shm_size in {containers.file('shm_size')}", hint=error.hint) from error


def _seconds(text: str, engine: _Table) -> float:
    from builda.oci.duration import nanoseconds

    found = nanoseconds(text)
    if found is None:
        raise InvalidValue(f"not a duration: {text}, for retry_delay in {engine.file('retry_delay')}")
    return found / 10**9


class _Table:
    """One table of the merged files; its methods raise InvalidValue naming key and file for a wrong type."""

    def __init__(self, name: str, merged: Mapping[str, Any], origins: Mapping[str, str]) -> None:
        self._name = name
        self._values: Mapping[str, Any] = merged.get(name, {})
        self._origins = origins

    def has(self, key: str) -> bool:
        return key in self._values

    def value(self, key: str) -> object:
        return self._values.get(key)

    def file(self, key: str) -> str:
        return self._origins[f"{self._name}.{key}"]

    def strings(self, key: str) -> tuple[str, ...]:
        value = self._values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InvalidValue(f"{key} is not an array of strings in {self.file(key)}")
        return tuple(value)

    def text(self, key: str) -> str:
        value = self._values.get(key, "")
        if not isinstance(value, str):
            raise InvalidValue(f"{key} is not a string in {self.file(key)}: {value!r}")
        return value

    def switch(self, key: str) -> bool | None:
        value = self._values.get(key)
        if value is not None and not isinstance(value, bool):
            raise InvalidValue(f"{key} is not true or false in {self.file(key)}: {value!r}")
        return value

    def number(self, key: str) -> int | None:
        value = self._values.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise InvalidValue(f"{key} is not a number in {self.file(key)}: {value!r}")
        return value
