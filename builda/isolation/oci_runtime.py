"""Isolation by an OCI runtime: builda writes a bundle (runtime-spec config.md), and crun or runc runs it.

builda's child first makes a mount namespace, mounts the root there, and puts the bundle on a tmpfs. It also makes a pid
namespace: if builda is killed, the kernel ends the runtime and its container with that namespace.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from builda.errors import BuildaError, CommandFailed, IsolationUnavailable
from builda.isolation import rlimits
from builda.isolation.begun import interpreter_environment
from builda.isolation.child.rootfs import BUNDLE, NODES
from builda.isolation.launch import check, run_child
from builda.isolation.wire import Method, shows_devices
from builda.linux import caps, detached
from builda.linux.process import is_alive, process_identity
from builda.linux.userns import in_user_namespace
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from builda.events import Emit
    from builda.isolation.begun import Begun
    from builda.isolation.kinds import Kind
    from builda.isolation.spec import Process, Sandbox, Wanted
    from builda.isolation.wire import Runtime
    from builda.linux.mount import Mount

_RUNTIMES = ("crun", "runc")
_INERT = ["nosuid", "noexec", "nodev"]
_STANDARD_NODES = tuple(f"/dev/{name}" for name in NODES)


class OciIsolation:
    """Runs commands by `runtime`: a name or path, else crun or runc from PATH. `flags` come before its word `run`."""

    def __init__(self, kind: Kind, wanted: Wanted) -> None:
        self._runtime = find_runtime(wanted.runtime)
        # The device cgroup restricts them: a user namespace has none, and crun uses none where cgroup v1 is.
        self.kind = kind._replace(restricts_devices=self._filters_devices() and not in_user_namespace())
        self._flags = tuple(flag if flag.startswith("-") else "--" + flag for flag in wanted.runtime_flags)
        self._cache = wanted.cache

    def run(self, process: Process, sandbox: Sandbox, emit: Emit, begun: Begun | None = None) -> int:
        """See `Isolation.run`."""
        scratch = Path(sandbox.scratch)
        (scratch / "rootfs").mkdir(exist_ok=True)
        (scratch / BUNDLE).mkdir(exist_ok=True)
        (scratch / "log.json").unlink(missing_ok=True)
        identifier = "-".join(("builda", *map(str, process_identity()), os.urandom(4).hex()))
        config = bundle_config(process, sandbox, f"/{identifier}", files=_write_files(sandbox, scratch))
        if in_user_namespace():  # runc fails if it may not make a cgroup that is named, and else goes on without
            del config["linux"]["cgroupsPath"]
        elif not shows_devices(process) and (words := _about_devices(sandbox, filtered=self._filters_devices())):
            config["hooks"] = {"createContainer": [_hook(f"{sandbox.scratch}/rootfs", words)]}
        method = Method(runtime=self._runtime_for(sandbox, identifier, config))
        sandbox = replace(sandbox, namespaces=_outer_namespaces(sandbox.namespaces))
        checked = check(process, sandbox, self.kind, self._cache)
        sweep_cgroups()
        try:
            status = run_child(process, sandbox, emit, checked=checked, method=method, begun=begun)
        finally:
            sweep_cgroups(identifier)
        if status and (failure := _failure(scratch / "log.json", process.args[0])):
            raise failure
        return status

    def _runtime_for(self, sandbox: Sandbox, identifier: str, config: dict[str, Any]) -> Runtime:
        crun = self._is_crun()
        with_cgroups = self._filters_devices()
        manager = ("--cgroup-manager=cgroupfs" if with_cgroups else "--cgroup-manager=disabled",) if crun else ()
        log = f"{sandbox.scratch}/log.json"
        args = (
            self._runtime,
            *("--root", f"{sandbox.scratch}/{BUNDLE}/state"),
            *("--log", f"file:{log}" if crun else log),
            *("--log-format", "json"),
            *manager,
            *(("--rootless=true",) if not crun and in_user_namespace() else ()),
            *self._flags,
            "run",
            *("--bundle", f"{sandbox.scratch}/{BUNDLE}"),
            *(("--no-pivot",) if sandbox.no_pivot else ()),
            *(("--no-new-keyring",) if not crun and sandbox.no_pivot else ()),
            identifier,
        )
        keep = ("PATH", "HOME", "XDG_RUNTIME_DIR", "TMPDIR", "DBUS_SESSION_BUS_ADDRESS")
        return {
            "args": args,
            "env": tuple((name, os.environ[name]) for name in keep if name in os.environ),
            "config": json.dumps(config).encode("utf-8", "surrogateescape"),
            "mountpoints": _mount_points(sandbox),
            "needs_cgroup2": crun and not with_cgroups,
        }

    def _is_crun(self) -> bool:
        return os.path.basename(self._runtime) == "crun"

    def _filters_devices(self) -> bool:
        return not self._is_crun() or _device_filter_works()


def _outer_namespaces(wanted: Mapping[str, str]) -> dict[str, str]:
    """The namespaces around the runtime, which makes those of the command itself: at most a pid namespace, with which
    the runtime and all its container end."""
    own_pids = wanted.get("pid", "private") == "private"
    return {"ipc": "host", "uts": "host", "cgroup": "host", "pid": "private" if own_pids else "host"}


def find_runtime(name: str | None) -> str:
    """The path of the OCI runtime called `name`, or of the first of crun and runc; IsolationUnavailable without.

    runc comes first where crun cannot filter devices: there crun needs a hook that starts a second interpreter.
    """
    from shutil import which

    if name:
        candidates: tuple[str, ...] = (name,)
    else:
        candidates = _RUNTIMES if _device_filter_works() else _RUNTIMES[::-1]
    for candidate in candidates:
        if path := which(candidate):
            return path
    raise IsolationUnavailable(
        f"no OCI runtime found: {name or ' or '.join(_RUNTIMES)}",
        hint="install crun or runc, or use --isolation native, which needs neither",
    )


def bundle_config(
    process: Process, sandbox: Sandbox, cgroups_path: str, *, files: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    """config.json of the bundle; `files` are pairs of a path inside and the file to bind there."""
    config: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": _process(process),
        "root": {"path": f"{sandbox.scratch}/rootfs"},
        "mounts": _system_mounts(sandbox) + [_bind(source, path) for path, source in files],
        "linux": _linux(process, sandbox, cgroups_path),
    }
    config["mounts"] += [
        _bind(f"{sandbox.scratch}/{BUNDLE}/{number}", file.target, "ro")
        for number, file in enumerate(sandbox.memory_files)
    ]
    config["mounts"] += [_mount(_bound(number, mount, sandbox.scratch)) for number, mount in enumerate(sandbox.mounts)]
    if sandbox.hostname is not None and sandbox.namespaces.get("uts", "private") == "private":
        config["hostname"] = sandbox.hostname
    return config


def _process(process: Process) -> dict[str, Any]:
    names = list(process.capabilities)
    effective = names if process.user.uid == 0 else []
    return {
        "terminal": process.terminal,
        "user": {
            "uid": process.user.uid,
            "gid": process.user.gid,
            "additionalGids": list(process.user.additional_gids),
            "umask": process.umask,
        },
        "args": list(process.args),
        "env": [f"{name}={value}" for name, value in process.env],
        "cwd": process.cwd,
        "capabilities": {"bounding": names, "effective": effective, "permitted": effective},
        "rlimits": [
            {"type": name, "soft": _unsigned(soft), "hard": _unsigned(hard)}
            for name, _, soft, hard in rlimits.checked(process.rlimits)
        ],
        "noNewPrivileges": process.no_new_privileges,
    }


def _unsigned(limit: int) -> int:
    return limit if limit >= 0 else 2**64 - 1


def _linux(process: Process, sandbox: Sandbox, cgroups_path: str) -> dict[str, Any]:
    linux: dict[str, Any] = {
        "namespaces": _namespaces(sandbox.namespaces),
        "cgroupsPath": cgroups_path,
        "maskedPaths": list(sandbox.masked_paths),
        "readonlyPaths": list(sandbox.readonly_paths),
        "devices": [_device(device.source, device.target) for device in sandbox.devices],
        "resources": {"devices": [{"allow": False, "access": "rwm"}, *_allowed(sandbox)]},
        "rootfsPropagation": "private",
    }
    if sandbox.seccomp != "unconfined":
        from builda.linux.seccomp import load_filter, to_runtime_spec

        machine = os.uname().machine
        linux["seccomp"] = to_runtime_spec(load_filter(sandbox.seccomp, process.capabilities, machine), machine)
    return linux


def _namespaces(wanted: Mapping[str, str]) -> list[dict[str, str]]:
    """`linux.namespaces` of the configuration. None for the network: the child has entered it before the runtime."""
    entries = [{"type": "mount"}]
    for kind in ("pid", "ipc", "uts", "cgroup"):
        value = wanted.get(kind, "private")
        if value == "private":
            entries.append({"type": kind})
        elif value.startswith("ns:"):
            entries.append({"type": kind, "path": value[3:]})
    return entries


def _system_mounts(sandbox: Sandbox) -> list[dict[str, Any]]:
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    # The kernel makes a new sysfs only where the network namespace belongs to the same user namespace.
    bound = in_user_namespace() and sandbox.network == "host"
    rows = [
        ("/proc", "proc", "proc", _INERT),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", pts),
        ("/dev/shm", "tmpfs", "shm", [*_INERT, "mode=1777", f"size={sandbox.shm_size}"]),
        ("/sys", "bind", "/sys", ["rbind", *_INERT, "ro"]) if bound else ("/sys", "sysfs", "sysfs", [*_INERT, "ro"]),
    ]
    if sandbox.namespaces.get("ipc", "private") == "private":
        rows.append(("/dev/mqueue", "mqueue", "mqueue", _INERT))
    return [
        {"destination": target, "type": kind, "source": source, "options": list(options)}
        for target, kind, source, options in rows
    ]


def _bind(source: str, path: str, *words: str) -> dict[str, Any]:
    options = ["bind", "rprivate", "nosuid", "nodev", *words]
    return {"destination": path, "type": "bind", "source": source, "options": options}


def _mount(mount: tuple[Any, ...]) -> dict[str, Any]:
    kind, source, target, options, lower = mount
    words = [word for word in options if word != "dev"]
    if "dev" not in options:
        words.append("nodev")
    if kind == "overlay":
        words.append("lowerdir=" + ":".join(path.replace("\\", "\\\\").replace(":", "\\:") for path in lower))
    if kind in ("bind", "rbind"):
        words.append(kind)
    return {"destination": target, "type": "bind" if kind == "rbind" else kind, "source": source, "options": words}


def _bound(number: int, mount: Mount, scratch: str) -> tuple[Any, ...]:
    """The mount as the runtime gets it. What it cannot mount itself, the child has mounted in the bundle."""
    if not detached.is_handed(mount):
        return tuple(mount)
    words = tuple(word for word in mount.options if word in detached.ATTRIBUTES)
    return "bind", f"{scratch}/mount-{number}", mount.target, words, ()


def _device(source: str, target: str) -> dict[str, Any]:
    found = _stat(source)
    kind = "b" if stat.S_ISBLK(found.st_mode) else "c"
    return {
        "path": target,
        "type": kind,
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }


def _allowed(sandbox: Sandbox) -> list[dict[str, Any]]:
    rows = [_device(device.source, device.target) | {"access": device.permissions} for device in sandbox.devices]
    return [{"allow": True} | {key: row[key] for key in ("type", "major", "minor", "access")} for row in rows]


def _stat(source: str) -> os.stat_result:
    from builda.errors import InvalidValue, NotFound

    try:
        found = os.stat(source)
    except FileNotFoundError as error:
        raise NotFound(f"no such device: {source}") from error
    if not stat.S_ISBLK(found.st_mode) and not stat.S_ISCHR(found.st_mode):
        raise InvalidValue(f"not a device: {source}")
    return found


def _about_devices(sandbox: Sandbox, *, filtered: bool) -> tuple[str, ...]:
    """What `child.device_hook` has to do, in its words; `filtered`: a device cgroup keeps all others shut."""
    given = tuple(device.target for device in sandbox.devices)
    if filtered:
        return tuple(f"node:{path}" for path in given if not path.startswith("/dev/"))
    mounts = tuple(
        f"open:{mount.target}" if "dev" in mount.options else f"close-all:{mount.target}" for mount in sandbox.mounts
    )
    return ("close:/", "close:/dev", *mounts, *(f"node:{path}" for path in dict.fromkeys((*_STANDARD_NODES, *given))))


def _hook(root: str, words: tuple[str, ...]) -> dict[str, Any]:
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child", "device_hook.py")
    environment = [f"{name}={value}" for name, value in interpreter_environment().items()]
    return {"path": sys.executable, "args": [sys.executable, "-IS", script, root, *words], "env": environment}


def _write_files(sandbox: Sandbox, scratch: Path) -> tuple[tuple[str, str], ...]:
    written = []
    for number, (path, content) in enumerate(sandbox.files.items()):
        file = scratch / f"file-{number}"
        file.write_bytes(content)
        file.chmod(0o644)
        written.append((path, str(file)))
    return tuple(written)


def _mount_points(sandbox: Sandbox) -> tuple[tuple[str, bool], ...]:
    """(path, is a directory) of the mount points in the root. The runtime would make missing ones without a record."""
    points = [(path, True) for path in ("/proc", "/dev", "/sys")]
    points += [(path, False) for path in sandbox.files]
    points += [(file.target, False) for file in sandbox.memory_files]
    for mount in sandbox.mounts:
        part, _ = detached.split_part(mount.options)
        directory = mount.type not in ("bind", "rbind") or os.path.isdir(mount.source)
        if part is not None:
            directory = part.startswith(detached.DIRECTORY_PART)
        points.append((mount.target, directory))
    return tuple((path, directory) for path, directory in points if not path.startswith(("/dev/", "/proc/", "/sys/")))


def _device_filter_works() -> bool:
    """Whether crun's device filter works here: it needs cgroup v2 alone, and the right to raise RLIMIT_MEMLOCK."""
    from builda.linux.syscalls import capget

    may_raise = not caps.missing(capget()[0], "CAP_SYS_RESOURCE")
    return may_raise and os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def _failure(log: Path, command: str) -> BuildaError | None:
    """The error that the runtime logged; None if it logged none, so that the command itself failed."""
    with suppress(FileNotFoundError):
        for line in log.read_text(errors="replace").splitlines():
            with suppress(ValueError):
                entry = json.loads(line)
                if entry.get("level") in ("error", "fatal"):
                    return _read_failure(str(entry.get("msg", "")), command)
    return None


def _read_failure(said: str, command: str) -> BuildaError | None:
    if "not found in $PATH" in said or ("exec" in said and "no such file or directory" in said.lower()):
        return CommandFailed(f"no such command in the container: {command}", status=127, hint=said)
    # The last is what crun says of a directory.
    denied = "permission denied" in said.lower() or said.startswith("open executable: Operation not permitted")
    if "exec" in said and denied:
        return CommandFailed(f"not executable: {command}", status=126, hint=said)
    if "hybrid mode" in said:
        return None  # crun logs this remark about cgroups as an error and goes on
    return IsolationUnavailable(f"the OCI runtime failed: {said}")


def sweep_cgroups(identifier: str | None = None) -> None:
    """Remove cgroups that runtimes left: of the run `identifier`, and of builda processes that have ended."""
    root = Path("/sys/fs/cgroup")
    for path in (*root.glob("builda-*"), *root.glob("*/builda-*")):
        words = path.name.split("-")
        ours = path.name == identifier
        if ours or (len(words) == 4 and words[1].isdigit() and not is_alive(int(words[1]), int(words[2]))):
            with suppress(OSError):
                path.rmdir()
