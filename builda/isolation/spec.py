"""What a caller says of one process to run and of its sandbox, in the words of the OCI runtime-spec (config.md)."""

from __future__ import annotations

from collections.abc import Mapping

from builda.values import NamedTuple, Protocol, dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from builda.events import Emit
    from builda.isolation.begun import Begun
    from builda.isolation.kinds import Kind
    from builda.linux.mount import Mount
    from builda.linux.stopping import Stop
    from builda.linux.userns import IdMap


# The paths that container engines hide (masked), and those that they make read-only.
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/selinux",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Numeric identity, resolved inside the rootfs."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...] = ()
    keep_groups: bool = False  # keep the caller's groups, also those without a number in the user namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit:
    """One resource limit; -1 means unlimited."""

    type: str  # RLIMIT_NOFILE …
    soft: int
    hard: int


@dataclass(slots=True)
class Watch:
    """What builda notes of the streams of a command while it passes their bytes on."""

    takes_output: bool = False  # of standard output, and of standard error if both go to the same place
    limit: int = 0  # of bytes of output; one that is longer is not kept
    output: bytearray = field(default_factory=bytearray)
    is_too_long: bool = False
    is_typed: bool = False  # whether the user typed something on the terminal

    def take(self, data: bytes) -> None:
        """Note what the command wrote."""
        self.is_too_long = self.is_too_long or len(self.output) + len(data) > self.limit
        if self.is_too_long:
            self.output.clear()
        else:
            self.output += data


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The command and its identity. `args[0]` is looked up in the PATH of `env`, inside the root file system."""

    args: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    user: User
    capabilities: tuple[str, ...]  # CAP_… names: bounding, effective and permitted
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    terminal: bool = False
    stdin: bytes | None = None  # None: the caller's stdin
    capture: bool = False  # send output to `emit` as CommandOutput instead of the caller's stdout and stderr
    copy_output: bool = False  # send output to `emit` and to the caller's stdout and stderr
    stage: str | None = None
    umask: int = 0o022
    stop: Stop | None = None  # a request that ends the command; None: only signals to builda end it
    watch: Watch | None = None  # what notes its output and whether the user typed something; None: nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device of the host that the command gets at `target`."""

    source: str
    target: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFile:
    """A read-only file on a tmpfs of the sandbox, such as a secret: it is gone when the command has ended.

    Where nothing can be mounted it is a file in the tree, which is emptied and removed when the command ends.
    """

    target: str
    data: bytes
    mode: int
    owner: tuple[int, int] | None  # uid and gid inside; None: root


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """The surroundings of the command. `rootfs` describes the mounts that make the root, `mounts` those on top of it.

    Targets of `mounts` are paths inside the root. They are resolved inside it: no link leads out.
    """

    rootfs: tuple[Mount, ...]
    mounts: tuple[Mount, ...] = ()
    files: Mapping[
        str, bytes
    ]  # path inside → content, bound read-write over the image's: /etc/hosts, /etc/resolv.conf …
    memory_files: tuple[MemoryFile, ...] = ()
    devices: tuple[Device, ...] = ()
    namespaces: Mapping[str, str]  # pid, ipc, uts, cgroup, network → "private", "host" or "ns:PATH"
    network: str  # host, none, private or ns:PATH
    emulates_ids: bool = False  # let the command see ids that this user namespace lacks (`single.emulator`)
    users: tuple[IdMap, IdMap, str | None] | None = None  # user namespace: uid map, gid map, path of one to join
    hostname: str | None
    seccomp: str | None  # None: builda's default filter; "unconfined"; else the path of a profile
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    shm_size: int = 64 << 20
    no_pivot: bool = False
    cgroup_parent: str | None = None
    resources: Mapping[str, int | str] = field(default_factory=dict)
    scratch: str  # an existing private directory for files, sockets and bundles; the caller removes it
    mountpoint_record: str | None = None  # file that notes the mount points made in the root; see made_mountpoints


class Wanted(NamedTuple):
    """What an isolation is made from: `state` is a volatile directory of builda's own (the run root)."""

    state: Path
    runtime: str | None = None  # name or path of an OCI runtime; None: look for one
    runtime_flags: tuple[str, ...] = ()

    @property
    def cache(self) -> Path:
        """The directory where compiled seccomp filters are kept."""
        return self.state / "cache"


class Isolation(Protocol):
    """A way to run one process. Nothing that the process started outlives `run`."""

    @property
    def kind(self) -> Kind:
        """Its row in the table of isolations: its name, and what it can do."""

    def run(self, process: Process, sandbox: Sandbox, emit: Emit, begun: Begun | None = None) -> int:
        """Run the command and return its exit status, 128 + N if signal N ended it. `begun` makes that quicker.

        CommandFailed, naming the command, has status 127 if there is no such command and 126 if it cannot be executed.
        IsolationUnavailable names what the sandbox needs and the kernel refuses.
        """
