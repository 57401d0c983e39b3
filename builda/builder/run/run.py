"""`run`: one command in a working container. Afterwards the container differs only by what the command did."""

from __future__ import annotations

import os
from contextlib import suppress

from builda.builder.materialize import treed
from builda.builder.mountpoint_cleanup import settle
from builda.builder.records import remembered
from builda.builder.run import command
from builda.builder.run.runmounts import Attachments, attached
from builda.builder.run.usernamespace import check_ids, users_for
from builda.builder.working_tree import occupied
from builda.builder.working_tree import rootfs as rootfs_of
from builda.errors import CommandFailed, InvalidValue, IsolationUnavailable, NetworkUnavailable, Unsupported
from builda.events import Warned
from builda.fs import owners, paths, rights
from builda.isolation.accounts import home_directory, resolve_user
from builda.isolation.begun import Begun
from builda.isolation.kinds import find_kind
from builda.linux.mount import mounted
from builda.linux.userns import in_user_namespace
from builda.store.scratch import scratch
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.builder.imageoptions import Inputs
    from builda.builder.run.usernamespace import Users
    from builda.isolation.spec import Process, Sandbox, User
    from builda.linux.mount import Mount
    from builda.plan import Run, RunOptions
    from builda.store.containers import WorkingContainer
    from builda.store.store import Store


_OF_PROCESSES = frozenset("fd cwd root exe map_files ns".split())  # below /proc
_OF_THE_PROCESS = frozenset("fd stdin stdout stderr".split())  # in /dev


SUCCESS = frozenset({0})


def run(
    ctx: Context,
    container: WorkingContainer,
    step: Run,
    inputs: Inputs,
    valid_statuses: frozenset[int],
    around: command.Surroundings,
) -> WorkingContainer:
    """Run the step; CommandFailed when its status is none of `valid_statuses`."""
    with occupied(ctx, container) as current, Begun(around.stop) as begun, ctx.store.containers.running(current):
        settle(ctx, current)
        current = treed(ctx, current)
        options = ctx.run_options(step.options.over(current.options))
        seen = current
        if inputs.discard_writes:
            options = replace(options, hostname=options.hostname or command.BUILD_HOSTNAME)
            seen = command.nameless(current)
        rootfs = rootfs_of(ctx, current)
        users = users_for(ctx, current, options, rootfs)
        emulates = users is None and _emulates_ids(ctx, options)
        user, home = _identity(rootfs, current, step, options, users, emulates=emulates)
        with (
            scratch(ctx.store.layout) as place,
            attached(ctx, step, options, inputs, user, users, place) as attachments,
        ):
            # Without mounts (nodev) a node that a command made would open its device; without rights it is a file.
            nodes = ctx.store.can_mount or rights.lacks_rights()
            process = command.process_of(seen, step, options, user, home, attachments, around, nodes=nodes)
            try:
                status = _perform(
                    ctx, current, seen, options, rootfs, users, attachments, place, process, emulates, begun
                )
            except CommandFailed as error:
                if error.status not in valid_statuses:
                    raise
                status = error.status
            finally:
                settle(ctx, current)
        if status not in valid_statuses:
            raise _failure(step, status, ctx.store, emulates=emulates)
        return remembered(ctx, current, step.created_by)


def check_namespaces(ctx: Context, options: RunOptions) -> None:
    """IsolationUnavailable if the options ask for a namespace that a command cannot have here; as `check_network`."""
    check_network(ctx, options)
    kind = ctx.isolation(options).kind
    for name, (option, value) in command.asked_namespaces(options).items():
        if name in kind.shares and value not in (None, "", "host"):
            raise IsolationUnavailable(
                f"a command has the {name} namespace of this process with --isolation {kind.name}: {option} {value}",
                hint=f"leave {option} out; `builda doctor` says what a mode with namespaces needs",
            )


def check_network(ctx: Context, options: RunOptions) -> None:
    """InvalidValue or IsolationUnavailable if the options ask for a network that a command cannot have here."""
    asked = command.network_name(options)
    kind = ctx.isolation(options).kind
    if kind.own_network or asked in (None, "host"):
        return
    if ctx.store.can_mount:
        raise InvalidValue(f"cannot set --network other than host with --isolation {kind.name}: {asked}")
    raise IsolationUnavailable(
        f"commands have the network of this process, and no other: --network {asked}",
        hint="leave --network out; `builda doctor` says what a mode with networks needs",
    )


def _perform(
    ctx: Context,
    container: WorkingContainer,
    seen: WorkingContainer,  # what the command is told of the container
    options: RunOptions,
    rootfs: tuple[Mount, ...],
    users: Users | None,
    attachments: Attachments,
    place: str,
    process: Process,
    emulates: bool,
    begun: Begun,
) -> int:
    check_namespaces(ctx, options)
    isolation = ctx.isolation(options)
    asked = command.network_name(options)

    def sandbox(network: str) -> Sandbox:
        return command.sandbox_of(
            seen,
            options,
            rootfs,
            attachments,
            users=users,
            network=network,
            scratch=_inner(place),
            mountpoint_record=ctx.store.containers.path(container.id, "stubs"),
            version=ctx.version,
            emulates_ids=emulates,
            shares_hostname="uts" in isolation.kind.shares,
        )

    def perform(network: str) -> int:
        outer = sandbox(network)
        ctx.decided("run", lambda: _described(isolation.kind.name, process, outer))
        if ctx.store.can_mount:
            return isolation.run(process, outer, ctx.emit, begun)
        from builda.builder.run.emulated_mounts import placed

        snapshots = ctx.store.snapshots.kind_of(container.snapshot)
        tree, aside = snapshots.upper(container.snapshot), snapshots.path(container.snapshot, "placed")
        with placed(tree, aside, outer, caches=ctx.store.layout.path("cache")) as inner:
            return isolation.run(process, inner, ctx.emit, begun)

    network = asked or ctx.default_network(options)
    if network != "private" or not (asked is None or in_user_namespace()):
        return perform(network)
    if asked is not None and ctx.network.relay_failed:
        return perform("host")
    try:
        return perform("private")
    except NetworkUnavailable as error:  # before the command was started
        ctx.network.private, ctx.network.relay_failed = False, True
        ctx.emit(Warned(message=f"commands have the host's network: {error}", hint="--network host asks for that"))
    return perform("host")


def _described(isolation: str, process: Process, sandbox: Sandbox) -> str:
    """The isolation of a command, for the log; without arguments and environment, which may contain secrets."""
    mounts = [f"{mount.type} {mount.source} at {mount.target or '/'}" for mount in (*sandbox.rootfs, *sandbox.mounts)]
    files = [f"file at {path}" for path in (*sandbox.files, *(file.target for file in sandbox.memory_files))]
    devices = [f"device at {device.target}" for device in sandbox.devices]
    return (
        f"isolation {isolation}, network {sandbox.network}, uid {process.user.uid}, gid {process.user.gid}, "
        f"in {process.cwd}; mounts: {'; '.join([*mounts, *files, *devices])}"
    )


def _identity(
    rootfs: tuple[Mount, ...],
    container: WorkingContainer,
    step: Run,
    options: RunOptions,
    users: Users | None,
    *,
    emulates: bool,
) -> tuple[User, str]:
    """The user that the command runs as, and the home directory. Makes the working directory if it is missing."""
    directory = command.working_dir(container, step)
    with mounted(rootfs) as root:
        user = resolve_user(root, step.user or container.config.user, _group_names(options))
        if users is not None:
            for gid in (user.gid, *user.additional_gids):
                check_ids(users, user.uid, gid, f"cannot run as {user.uid}:{gid}")
        if in_user_namespace() and not emulates:
            for gid in (user.gid, *user.additional_gids):
                owners.check(user.uid, gid, f"cannot run as {user.uid}:{gid}")
        if "keep-groups" in options.group_add:
            user = _with_our_groups(user, options, apart=users is not None or in_user_namespace())
        _check_directory(root, directory)
        _make_volumes(root, container.config.volumes)
        try:
            _make_directory(root, directory, (user.uid, user.gid))
        except NotADirectoryError as error:
            raise InvalidValue(f"working directory is not a directory in the container: {directory}") from error
        return user, home_directory(root, user.uid)


def _emulates_ids(ctx: Context, options: RunOptions) -> bool:
    """Whether a supervisor shows the command the ids that this process lacks."""
    if (
        not owners.keeps_aside()
        or not find_kind(options.isolation, can_mount=ctx.store.can_mount, can_chroot=ctx.store.can_chroot).emulates_ids
    ):
        return False
    from builda.linux.notifications import notifications_refused

    return notifications_refused() is None


def _make_volumes(root: int, volumes: tuple[str, ...]) -> None:
    """Make the directories of the image's volumes; a file at such a path stays."""
    for path in volumes:
        with suppress(NotADirectoryError):
            _make_directory(root, path, (0, 0))


def _make_directory(root: int, path: str, owner: tuple[int, int]) -> None:
    from builda.fs.trees.directory import TreeTarget
    from builda.fs.trees.target import Looks, make_directories

    make_directories(TreeTarget(root), path, Looks(owner))


def _check_directory(root: int, directory: str) -> None:
    """InvalidValue for a working directory below a process in /proc: a runtime would open its own (CVE-2024-21626)."""
    first, *others = os.fsdecode(paths.resolved(root, directory)).split("/")
    if (first == "proc" and not _OF_PROCESSES.isdisjoint(others)) or (
        first == "dev" and others and others[0] in _OF_THE_PROCESS
    ):
        raise InvalidValue(f"working directory is a link of /proc, which the command cannot start in: {directory}")


def _with_our_groups(user: User, options: RunOptions, *, apart: bool) -> User:
    """The user with builda's supplementary groups, for --group-add keep-groups.

    In a user namespace (`apart`) most of them are not mapped and cannot be set: they are inherited, and no other.
    """
    if not apart:
        return replace(user, additional_gids=tuple(dict.fromkeys((*user.additional_gids, *os.getgroups()))))
    if _group_names(options):
        raise InvalidValue(f"--group-add keep-groups excludes other groups here: {','.join(_group_names(options))}")
    if not find_kind(options.isolation).keeps_groups:
        raise Unsupported("--group-add keep-groups needs native isolation in a user namespace")
    return replace(user, additional_gids=(), keep_groups=True)


def _group_names(options: RunOptions) -> tuple[str, ...]:
    return tuple(name for name in options.group_add if name != "keep-groups")


def _failure(step: Run, status: int, store: Store, *, emulates: bool) -> CommandFailed:
    if status == 0:
        what = "command succeeded, and 0 is not among the valid exit codes"
        return CommandFailed(what, status=125, command=step.args)
    hint = None
    full = store.snapshots.full_memory()
    if full is not None:
        hint = f"{full}; {full.hint}"
    elif store.no_others is not None and not emulates:  # a command says the kernel's "Invalid argument"
        hint = (
            f"commands have one id here, and can neither become others nor give files to them; {store.no_others.hint}"
        )
    return CommandFailed(f"command {ending(status)}", status=status, command=step.args, hint=hint)


def ending(status: int) -> str:
    """How a command ended, in words: its status, or the signal for a status above 128, as shells report it."""
    if not 128 < status < 160:
        return f"failed with exit status {status}"
    import signal
    from contextlib import suppress

    with suppress(ValueError):
        return f"was ended by signal {status - 128} ({signal.Signals(status - 128).name})"
    return f"was ended by signal {status - 128}"


def _inner(place: str) -> str:
    """A directory for isolation in the scratch directory: it may mount there without hiding builda's files."""
    path = os.path.join(place, "sandbox")
    os.makedirs(path, mode=0o700, exist_ok=True)
    return path
