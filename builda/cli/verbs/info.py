"""`info`: facts about the machine, the store, and on demand builda itself."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping

from builda.oci.descriptor import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session


def facts(session: Session, *, debug: bool) -> Mapping[str, Any]:
    """The blocks `host` and `store`, with `debug` a third one; keys are sorted, as Buildah's are."""
    found: dict[str, Any] = {"host": _host(session), "store": _store(session)}
    if debug:
        from builda import __version__
        from builda.cli.core.versions import IMAGE_SPEC, RUNTIME_SPEC

        found["debug"] = {
            "builda version": __version__,
            "buildah version": __version__,
            "compiler": sys.implementation.name,
            "git commit": "",
            "go version": "",
            "image spec": IMAGE_SPEC,
            "python version": sys.version.split()[0],
            "runtime spec": RUNTIME_SPEC,
        }
    return found


def _host(session: Session) -> Mapping[str, Any]:
    from builda.host.modes import report

    machine = os.uname()
    platform = Platform.of_machine(machine.machine)
    memory = _memory()
    return {
        "CgroupVersion": "v2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "v1",
        "Distribution": _distribution(),
        "MemFree": memory.get("MemFree", 0),
        "MemTotal": memory.get("MemTotal", 0),
        "OCIRuntime": next((name for name in ("crun", "runc") if shutil.which(name)), ""),
        "SwapFree": memory.get("SwapFree", 0),
        "SwapTotal": memory.get("SwapTotal", 0),
        "abilities": report(session.mode, session.settings.runroot),
        "arch": platform.architecture,
        "cpus": len(os.sched_getaffinity(0)),
        "hostname": machine.nodename,
        "kernel": machine.release,
        "mode": session.mode,
        "os": platform.os,
        "rootless": session.settings.uid != 0,
        "uptime": _uptime(time.clock_gettime(time.CLOCK_BOOTTIME)),
        "variant": platform.variant or "",
    }


def _store(session: Session) -> Mapping[str, Any]:
    from builda.host.modes import abilities, room
    from builda.store.drivers import LISTS

    store = session.store
    runs = abilities(str(session.settings.runroot)).why_none(session.mode) is None
    return {
        "ContainerStore": {"number": sum(1 for _ in store.containers.iter())},
        "GraphDriverName": store.snapshots.driver.name if runs else LISTS.name,
        "GraphImageStore": "",
        "GraphOptions": [],
        "GraphRoot": store.root,
        "GraphStatus": room(store.layout.path("ingest"), session.mode),
        "GraphTransientStore": False,
        "ImageStore": {"number": sum(1 for _ in store.images.iter())},
        "RunRoot": os.path.abspath(session.settings.runroot),
    }


def _memory() -> Mapping[str, int]:
    with open("/proc/meminfo", encoding="ascii") as file:
        rows = [line.replace(":", "").split() for line in file]
    return {row[0]: int(row[1]) * 1024 for row in rows if len(row) == 3}


def _distribution() -> Mapping[str, str]:
    values: dict[str, str] = {}
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                values = {key: text.strip("\"'") for key, _, text in (line.strip().partition("=") for line in file)}
            break
    return {"distribution": values.get("ID", "unknown"), "version": values.get("VERSION_ID", "unknown")}


def _uptime(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    days = f" (Approximately {seconds / 86400:.2f} days)" if hours else ""
    return (f"{hours}h " if hours else "") + (f"{minutes}m " if hours or minutes else "") + f"{rest:.2f}s{days}"
