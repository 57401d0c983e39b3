"""Options that stand before or after the verb, and the settings that they and the environment make.

Nothing here needs click: `Settings` is what the rest of the command line asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from builda.errors import InvalidValue, Unsupported
from builda.store.layout import default_places

LEVELS = ("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic")
_ENVIRONMENT = {
    "storage_driver": ("BUILDA_STORAGE_DRIVER", "STORAGE_DRIVER"),
    "storage_opt": ("BUILDA_STORAGE_OPTS", "STORAGE_OPTS"),
    "log_level": ("BUILDA_LOG_LEVEL",),
    "registries_conf": ("BUILDA_REGISTRIES_CONF",),
    "events": ("BUILDA_EVENTS",),
}


class Settings(NamedTuple):
    """Where the store is and how much is said."""

    root: str
    runroot: str
    driver: str | None
    log_level: str
    registries_conf: str | None
    events: int | None

    @property
    def verbose(self) -> bool:
        """Whether decisions are traced."""
        return self.log_level in ("trace", "debug")

    @property
    def warnings(self) -> bool:
        """Whether warnings are printed."""
        return self.log_level not in ("error", "fatal", "panic")


def settings(given: Mapping[str, tuple[str, ...]], environ: Mapping[str, str], uid: int) -> Settings:
    """What the global options in `given` (name → values) and `environ` say; options win, then BUILDA_ variables."""

    def said(name: str) -> str | None:
        if given.get(name):
            return given[name][-1]
        return environment(environ, *_ENVIRONMENT[name])

    level = said("log_level") or ("debug" if given.get("debug") else "warn")
    if level not in LEVELS:
        raise InvalidValue(f"unknown log level: {level}", hint=f"it is one of {', '.join(LEVELS)}")
    options = ",".join(given["storage_opt"]) if given.get("storage_opt") else said("storage_opt")
    root, runroot = default_places(environ, uid)
    return Settings(
        root=given["root"][-1] if given.get("root") else root,
        runroot=given["runroot"][-1] if given.get("runroot") else runroot,
        driver=_driver(said("storage_driver"), options),
        log_level=level,
        registries_conf=said("registries_conf"),
        events=_descriptor(said("events")),
    )


def environment(environ: Mapping[str, str], *names: str) -> str | None:
    """The first of the variables `names` that is set and not empty."""
    return next((environ[name] for name in names if environ.get(name)), None)


def _driver(name: str | None, options: str | None) -> str | None:
    """The store's driver by its own name; Unsupported for any storage option, as no driver has one."""
    for option in (options or "").split(","):
        if option.strip():
            raise Unsupported(
                f"storage option is not supported: {option.strip()}",
                hint="builda's drivers have no options; where overlay cannot be mounted, use --storage-driver plain",
            )
    return {"overlay2": "overlay", "vfs": "plain"}.get(name or "", name)


def _descriptor(value: str | None) -> int | None:
    if value is None:
        return None
    if not value.isdecimal():
        raise InvalidValue(f"--events wants the number of an open file descriptor: {value}")
    return int(value)
