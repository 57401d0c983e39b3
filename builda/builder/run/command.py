"""Makes the Process and the Sandbox of a command from a working container and a Run."""

from __future__ import annotations

import os
import posixpath
import sys

from builda.builder.run.rootfiles import files
from builda.builder.run.security import Security, capabilities, rlimits, security
from builda.errors import InvalidValue, NotFound, Unsupported
from builda.fs import owners, rights
from builda.isolation.spec import Device, Process, Sandbox
from builda.oci.config import DEFAULT_PATH, check_hostname
from builda.plan import PROXIES
from builda.values import dataclass, field, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builda.builder.context import Context
    from builda.builder.run.runmounts import Attachments
    from builda.builder.run.usernamespace import Users
    from builda.isolation.spec import MemoryFile, User, Watch
    from builda.linux.mount import Mount
    from builda.linux.stopping import Stop
    from builda.plan import Run, RunOptions
    from builda.store.containers import WorkingContainer

BUILD_HOSTNAME = "buildkitsandbox"
"""The host name of commands of a build unless another is said: BuildKit's, the same in every build."""
SHM_SIZE = 64 << 20
_NAMESPACES = ("pid", "ipc", "uts", "cgroup")
_RESOURCES = ("memory", "memory_swap", "cpu_period", "cpu_quota", "cpu_shares", "cpuset_cpus", "cpuset_mems")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The settings of a run that come from the caller, not from the container."""

    environ: Mapping[str, str] = field(default_factory=dict)
    terminal: bool = False  # whether stdin and stdout are one
    capture: bool = False
    copy_output: bool = False  # output goes to `emit`, and where it goes without
    stage: str | None = None
    stop: Stop | None = None
    watch: Watch | None = None


def surroundings(
    ctx: Context, *, capture: bool, stage: str | None, stop: Stop | None, copy_output: bool = False
) -> Surroundings:
    """The surroundings of a command that this process runs. The caller's environment overrides containers.conf's."""
    terminal = _is_terminal(sys.stdin) and _is_terminal(sys.stdout)
    environ = {**ctx.configured_environ(), **ctx.environ}
    return Surroundings(
        environ=environ, terminal=terminal, capture=capture, copy_output=copy_output, stage=stage, stop=stop
    )


def _is_terminal(stream: object) -> bool:
    """Whether a standard stream is a terminal; False if it is closed or replaced."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]  # None, or an object without it
    except (AttributeError, ValueError):
        return False


def process_of(
    container: WorkingContainer,
    step: Run,
    options: RunOptions,
    user: User,
    home: str,
    attachments: Attachments,
    around: Surroundings,
    *,
    nodes: bool,
) -> Process:
    """The program, its arguments and its user. `options` are the container's and the step's, merged.

    `nodes`: whether commands may make device nodes by default.
    """
    script = (attachments.script,) if attachments.script is not None else ()
    args = (*step.args, *script)
    if not args:
        raise InvalidValue("no command to run", hint="the image's ENTRYPOINT and CMD are never run by a build")
    terminal = around.terminal if options.terminal is None else options.terminal
    return Process(
        args=args,
        env=environment(container, step, options, home, attachments.env, terminal, around.environ),
        cwd=working_dir(container, step),
        user=user,
        capabilities=capabilities(options, nodes=nodes),
        rlimits=rlimits(options.ulimits),
        no_new_privileges=security(options.security_opts).no_new_privileges,
        terminal=terminal and not around.capture,
        stdin=step.stdin,
        capture=around.capture,
        copy_output=around.copy_output,
        stage=around.stage,
        stop=around.stop,
        watch=around.watch,
    )


def sandbox_of(
    container: WorkingContainer,
    options: RunOptions,
    rootfs: tuple[Mount, ...],
    attachments: Attachments,
    *,
    users: Users | None = None,
    network: str,
    scratch: str,
    mountpoint_record: str,
    version: str,
    emulates_ids: bool = False,
    shares_hostname: bool = False,
) -> Sandbox:
    """The environment of the command: file system, mounts, namespaces, limits.

    `shares_hostname`: the isolation gives no command a host name of its own.
    """
    confined: Security = security(options.security_opts)
    hostname = hostname_of(container, options)
    machine = os.uname().nodename if shares_hostname or namespaces(options)["uts"] == "host" else ""
    return Sandbox(
        rootfs=rootfs,
        mounts=attachments.mounts,
        memory_files=attachments.files if emulates_ids else _in_this_namespace(attachments.files),
        files=files(container, options, network=network, hostname=hostname, machine=machine, version=version),
        devices=tuple(device for text in options.devices for device in devices(text)),
        namespaces=namespaces(options),
        network=network,
        emulates_ids=emulates_ids,
        users=users,
        hostname=hostname if namespaces(options)["uts"] == "private" else None,
        seccomp=confined.seccomp,
        masked_paths=confined.masked,
        readonly_paths=confined.read_only,
        shm_size=SHM_SIZE if options.shm_size is None else options.shm_size,
        no_pivot=bool(options.no_pivot),
        cgroup_parent=options.cgroup_parent,
        resources=resources(options),
        scratch=scratch,
        mountpoint_record=mountpoint_record,
    )


def _in_this_namespace(files: tuple[MemoryFile, ...]) -> tuple[MemoryFile, ...]:
    """The files, of root if it is the one id there is: the command has that id whatever it is called."""
    if not files or not owners.keeps_aside() or rights.lacks_rights():  # the last: `emulated_mounts` records owners
        return files
    return tuple(replace(file, owner=(0, 0)) for file in files)


def hostname_of(container: WorkingContainer, options: RunOptions) -> str:
    """The host name that the command sees."""
    if not options.hostname and container.config.hostname:
        check_hostname(container.config.hostname, "host name in the image's configuration")
    return options.hostname or container.config.hostname or container.id[:12]


def nameless(container: WorkingContainer) -> WorkingContainer:
    """The container as commands of a build see it: without names and IDs, which differ from build to build."""
    return replace(container, id="", name="", image="", image_id=None)


def working_dir(container: WorkingContainer, step: Run) -> str:
    """The absolute path of the directory that the command starts in."""
    return posixpath.normpath(posixpath.join("/", container.config.working_dir, step.working_dir or "."))


def environment(
    container: WorkingContainer,
    step: Run,
    options: RunOptions,
    home: str,
    attached: tuple[tuple[str, str], ...],
    terminal: bool,
    environ: Mapping[str, str],
) -> tuple[tuple[str, str], ...]:
    """The image's variables over defaults, the step's over both."""
    env = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname_of(container, options), "HOME": home}
    if terminal:
        env["TERM"] = environ.get("TERM", "xterm")
    if options.http_proxy is not False:
        env.update(proxies(environ))
    env.update((name, value) for name, equals, value in (text.partition("=") for text in options.env) if equals)
    env.update(container.config.env)
    env.update(attached)
    env.update(step.env)
    return tuple(env.items())


def proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables of the caller, in both cases; they reach the command and nothing that is recorded."""
    return {name: environ[name] for name in PROXIES if name in environ}


def namespaces(options: RunOptions) -> dict[str, str]:
    """The namespaces of the command, by kind: private, host or ns:PATH."""
    asked = asked_namespaces(options)
    return {kind: namespace(kind, asked[kind][1]) for kind in _NAMESPACES}


def asked_namespaces(options: RunOptions) -> dict[str, tuple[str, str | None]]:
    """The option for each kind of namespace, and its value (None: not given)."""
    return {
        "pid": ("--pid", options.pid),
        "ipc": ("--ipc", options.ipc),
        "uts": ("--uts", options.uts),
        "cgroup": ("--cgroupns", options.cgroupns),
    }


def namespace(kind: str, value: str | None) -> str:
    """The namespace that an option asks for: private, host or ns:PATH; InvalidValue for anything else."""
    if value in (None, "", "private", "container"):
        return "private"
    assert value is not None
    path = value.removeprefix("ns:")
    if value == "host":
        return value
    if not path.startswith("/"):
        raise InvalidValue(f"{kind} namespace must be private, host or ns:PATH: {value}")
    return f"ns:{path}"


def network_name(options: RunOptions) -> str | None:
    """The network that the options ask for, as `Sandbox.network` has it; None if they ask for none."""
    value = options.network
    if value in (None, "", "default"):
        return None
    assert value is not None
    if value in ("host", "none"):
        return value
    if value in ("private", "container", "bridge"):
        return "private"
    path = value.removeprefix("ns:")
    if path.startswith("/"):
        return f"ns:{path}"
    if value.partition(":")[0] in ("pasta", "slirp4netns"):
        raise Unsupported(f"network is not supported: {value}", hint="as root, private gives a network of its own")
    raise NotFound(f"no such network: {value}", hint="there are host, none, private and ns:PATH")


def devices(text: str) -> tuple[Device, ...]:
    """The devices that `src[:dst[:rwm]]` means; every one below it for a directory."""
    source, _, rest = text.partition(":")
    target, _, permissions = rest.partition(":")
    if target and not target.startswith("/") and not permissions:
        target, permissions = "", target
    if not source.startswith("/"):
        raise Unsupported(f"CDI devices are not supported: {text}", hint="name a device by its path")
    if permissions.strip("rwm") or len(set(permissions)) != len(permissions):
        raise InvalidValue(f"device permissions must be letters of rwm: {text}")
    target = target or source
    if not os.path.isdir(source):
        _check_device(source, text)
        return (Device(source=source, target=target, permissions=permissions or "rwm"),)
    return tuple(
        Device(source=path, target=target + path.removeprefix(source), permissions=permissions or "rwm")
        for path in _nodes_below(source)
    )


def _check_device(path: str, text: str) -> None:
    import stat

    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise NotFound(f"no such device: {path}") from error
    if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
        raise InvalidValue(f"not a device: {text}", hint="a file or directory goes in with --volume")


def _nodes_below(directory: str) -> Iterator[str]:
    for head, _, names in os.walk(directory):  # noqa: TID251  # a directory of the host: /dev
        for name in sorted(names):
            path = os.path.join(head, name)
            if not os.path.islink(path) and not os.path.isfile(path):
                yield path


def resources(options: RunOptions) -> dict[str, int | str]:
    """The limits of the command's cgroup that were asked for."""
    return {name: getattr(options, name) for name in _RESOURCES if getattr(options, name) is not None}
