"""Options that stand before or after the verb, and the settings that they and the environment make.

Nothing here needs click: `Settings` is what the rest of the command line asks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from builda.errors import InvalidValue, Unsupported
from builda.store.layout import default_places
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.host.modes import Mode

LEVELS = ("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic")
_ENVIRONMENT = {
    "storage_driver": ("BUILDA_STORAGE_DRIVER", "STORAGE_DRIVER"),
    "storage_opt": ("BUILDA_STORAGE_OPTS", "STORAGE_OPTS"),
    "log_level": ("BUILDA_LOG_LEVEL",),
    "registries_conf": ("BUILDA_REGISTRIES_CONF",),
    "events": ("BUILDA_EVENTS",),
    "mode": ("BUILDA_MODE",),
}
_CALLER = "BUILDA_CALLER_UID"
"""What `unshare` tells the commands in its namespace, where their own uid is 0."""


class Settings(NamedTuple):
    """The global options: where the store is, how much is logged, and so on."""

    root: str
    runroot: str
    driver: str | None
    log_level: str
    registries_conf: str | None
    events: int | None
    mode: Mode | None = None
    uid: int = 0
    uid_map: str | None = None
    gid_map: str | None = None
    registries_conf_dir: str | None = None
    short_name_aliases: str | None = None
    mounts_conf: str | None = None
    storage_options: tuple[str, ...] = ()  # those that have no effect here, to be said

    @property
    def verbose(self) -> bool:
        """Whether decisions are traced."""
        return self.log_level in ("trace", "debug")

    @property
    def warnings(self) -> bool:
        """Whether warnings are printed."""
        return self.log_level not in ("error", "fatal", "panic")


_CGROUP = "a command stays in the cgroup of its caller; --cgroup-parent of run says another one"


def settings(given: Mapping[str, tuple[str, ...]], environ: Mapping[str, str], uid: int) -> Settings:
    """The settings from the global options in `given` (name → values) and from BUILDA_ variables; options win."""

    def said(name: str) -> str | None:
        if given.get(name):
            return given[name][-1]
        return environment(environ, *_ENVIRONMENT[name])

    if set(given.get("cgroup_manager", ())) - {"cgroupfs"}:
        raise Unsupported(f"--cgroup-manager is not supported: {_CGROUP}")
    level = said("log_level") or ("debug" if given.get("debug") else "warn")
    if level not in LEVELS:
        raise InvalidValue(f"unknown log level: {level}", hint=f"it is one of {', '.join(LEVELS)}")
    options = ",".join(given["storage_opt"]) if given.get("storage_opt") else said("storage_opt")
    maps = [",".join(given.get(name, ())) or None for name in ("userns_uid_map", "userns_gid_map")]
    if maps[1] and not maps[0]:
        raise InvalidValue("--userns-gid-map needs --userns-uid-map")
    root, runroot = default_places(environ, uid)
    return Settings(
        root=given["root"][-1] if given.get("root") else root,
        runroot=given["runroot"][-1] if given.get("runroot") else runroot,
        driver=_driver(said("storage_driver")),
        log_level=level,
        registries_conf=said("registries_conf"),
        events=_descriptor(said("events")),
        mode=_mode(said("mode")),
        uid=uid,
        uid_map=maps[0],
        gid_map=maps[1],
        registries_conf_dir=given.get("registries_conf_dir", (None,))[-1],
        mounts_conf=given.get("default_mounts_file", (None,))[-1],
        short_name_aliases=given.get("short_name_alias_conf", (None,))[-1],
        storage_options=_without_effect(options or ""),
    )


def caller(environ: Mapping[str, str], uid: int) -> int:
    """The uid of the user of builda: `uid`, but in `builda unshare` that of its caller."""
    said = environ.get(_CALLER, "")
    return int(said) if uid == 0 and said.isdecimal() else uid


def for_inside(settings: Settings) -> dict[str, str]:
    """The variables by which commands in a namespace of builda's find the store and the user they belong to.

    They find out their mode anew: the one that led here would lead into another namespace.
    """
    return {
        "BUILDA_ROOT": settings.root,
        "BUILDA_RUNROOT": settings.runroot,
        "BUILDA_MODE": "auto",
        _CALLER: str(settings.uid),
    }


def for_session(settings: Settings, mode: Mode) -> dict[str, str]:
    """The environment variables that give the commands of a session the options of the session."""
    said = {
        "BUILDA_STORAGE_DRIVER": settings.driver,
        "BUILDA_REGISTRIES_CONF": settings.registries_conf,
    }
    inside = for_inside(settings)
    if not mode.unshares:
        inside["BUILDA_MODE"] = settings.mode or "auto"
    return inside | {name: value for name, value in said.items() if value is not None}


def environment(environ: Mapping[str, str], *names: str) -> str | None:
    """The first of the variables `names` that is set and not empty."""
    return next((environ[name] for name in names if environ.get(name)), None)


def _driver(name: str | None) -> str | None:
    """The store's driver by its own name."""
    if name is None:
        return None
    from builda.store.drivers import own_name

    return own_name(name)


_AS_BUILDA_DOES = ("ignore_chown_errors", "skip_mount_home")
"""Storage options that ask for what builda does anyhow: it records owners that it cannot give, and mounts no home."""


def _without_effect(options: str) -> tuple[str, ...]:
    """The `driver.key=value` parts of `options` that change nothing here and ask for something that builda lacks.

    A mount_program of fuse-overlayfs asks for trees where the kernel's overlay cannot be had, which builda always has.
    """
    found = []
    for option in filter(None, map(str.strip, options.split(","))):
        name, equals, value = option.partition("=")
        if not equals:
            raise InvalidValue(f"storage option is not written KEY=VALUE: {option}")
        key = name.rpartition(".")[2]
        if key in _AS_BUILDA_DOES or (key == "mount_program" and value.rpartition("/")[2] == "fuse-overlayfs"):
            continue
        found.append(option)
    return tuple(found)


def _descriptor(value: str | None) -> int | None:
    if value is None:
        return None
    if not value.isdecimal():
        raise InvalidValue(f"--events needs the number of an open file descriptor: {value}")
    number = int(value)
    try:
        os.fstat(number)
    except OSError as error:
        hint = f"open one in the shell, as in: builda --events {number} … {number}>events.json"
        raise InvalidValue(f"descriptor of --events is not open: {number}", hint=hint) from error
    return number


def _mode(name: str | None) -> Mode | None:
    if name in (None, "", "auto"):
        return None
    from builda.host.modes import parse_mode

    return parse_mode(name)
