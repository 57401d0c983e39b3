"""Volumes and mounts of a run, prepared on the host: from --volume and --mount to mounts, variables and locks."""

from __future__ import annotations

import os
import posixpath
import stat
from contextlib import ExitStack, contextmanager, suppress

from builda.builder.materialize import with_tree
from builda.builder.mounting import viewed
from builda.builder.run.clone_tree import duplicate
from builda.builder.run.subtree import is_directory, part_of, shown, subtree, writable
from builda.builder.working_tree import rootfs
from builda.errors import InvalidValue, NotFound, Unsupported
from builda.fs import owners, paths
from builda.isolation.spec import MemoryFile
from builda.linux.detached import split_part
from builda.linux.mount import Mount
from builda.linux.userns import in_user_namespace
from builda.plan import PROPAGATIONS, FromContainer, FromImage, FromStage, NamedContext
from builda.plan import Context as BuildContext
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builda.builder.context import Context
    from builda.builder.imageoptions import Inputs
    from builda.builder.run.usernamespace import Users
    from builda.isolation.spec import User
    from builda.plan import Run, RunMount, RunOptions, Source

SCRIPT = "/run/.builda-script"
_PLAIN_OPTIONS = frozenset("ro rw nosuid suid nodev dev noexec exec noatime relatime nodiratime".split())
_LABELS = frozenset({"z", "Z"})  # SELinux: nothing to do on a kernel without it, and refused labels elsewhere
_SECRET_MODE = 0o400


class Attachments(NamedTuple):
    """Mounts, files and variables that volumes and mounts give to a command."""

    mounts: tuple[Mount, ...] = ()
    files: tuple[MemoryFile, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    script: str | None = None  # path inside of the script to append to the arguments


@contextmanager
def attached(
    ctx: Context, step: Run, options: RunOptions, inputs: Inputs, user: User, users: Users | None, scratch: str
) -> Iterator[Attachments]:
    """The attachments that a run asks for; locks of cache mounts are held during the block.

    Sockets are made in `scratch`, which the caller removes. `users` is the command's own user namespace, if any.
    """
    with ExitStack() as stack:
        work = _Work(ctx, inputs, user, users, scratch, stack)
        if not ctx.store.can_mount:
            work.take_caches(step.mounts)
        mounts = [work.volume(text) for text in options.volumes]
        env: list[tuple[str, str]] = []
        for mount in step.mounts:
            made, variables = work.mount(mount)
            mounts.extend(made)
            env.extend(variables)
        if step.script is not None:
            work.file(step.script, SCRIPT, 0o755)
        script = SCRIPT if step.script is not None else None
        yield Attachments(tuple(mounts), tuple(work.files), tuple(env), script)


def parse_volume(text: str) -> tuple[str, str, tuple[str, ...]]:
    """Source, target and option words of `host:container[:options]`; NotFound if there is no such source."""
    source, _, rest = text.partition(":")
    target, _, words = rest.partition(":")
    if not target.startswith("/"):
        raise InvalidValue(f"a volume is host:container[:options]: {text}", hint="both paths are absolute")
    if not source.startswith("/"):
        raise InvalidValue(f"path of the volume on the host is not absolute: {text}")
    if not os.path.exists(source):
        raise NotFound(f"no such file or directory on the host: {source}")
    options = tuple(word for word in words.split(",") if word)
    _check_words(options, text)
    return source, target, options


def _check_words(words: tuple[str, ...], text: str) -> None:
    known = _PLAIN_OPTIONS | PROPAGATIONS | _LABELS | {"O", "U", "bind", "rbind", "nocopy", "cached", "delegated"}
    for word in words:
        if word.partition("=")[0] in ("upperdir", "workdir", "idmap"):
            raise Unsupported(f"volume option is not supported: {word} in {text}")
        if word not in known:
            raise InvalidValue(f"unknown volume option: {word} in {text}")


class _Work:
    """Prepares the mounts of one run, one after the other."""

    def __init__(
        self, ctx: Context, inputs: Inputs, user: User, users: Users | None, scratch: str, stack: ExitStack
    ) -> None:
        self.ctx = ctx
        self.inputs = inputs
        self.user = user
        self.users = users
        self.scratch = scratch
        self.stack = stack
        self.count = 0
        self.agents = 0
        self.caches: dict[str, str] = {}
        self.files: list[MemoryFile] = []

    def place(self, name: str) -> str:
        """A new path in the scratch directory."""
        self.count += 1
        return os.path.join(self.scratch, f"{name}-{self.count}")

    def directory(self, name: str) -> str:
        path = self.place(name)
        os.mkdir(path, 0o755)
        return path

    def file(self, data: bytes, target: str, mode: int, owner: tuple[int, int] = (0, 0)) -> None:
        """Add a file that exists in memory only: a secret must not outlive a killed builda."""
        if self.users is not None:
            self.outside(owner, target)  # an error for one that the command's namespace has not
        elif owners.keeps_aside():
            owner = (0, 0)  # the one id there is; the command has it whatever it is called
        elif in_user_namespace():
            owners.check(*owner, f"cannot give {target} to {owner[0]}:{owner[1]}")
        self.files.append(MemoryFile(target=target, data=data, mode=mode, owner=owner))

    def outside(self, owner: tuple[int, int], what: str) -> tuple[int, int]:
        """The owner outside the command's user namespace that the command sees as `owner`."""
        if self.users is None:
            return owner
        from builda.builder.run.usernamespace import check_ids

        check_ids(self.users, *owner, f"cannot give {what} to {owner[0]}:{owner[1]}")
        return self.users.outside(*owner)

    def mapped(self, mount: Mount, word: str = "idmap") -> Mount:
        """The mount with ids mapped, so that the command sees the same owners as the caller."""
        return mount if self.users is None else mount._replace(options=(*mount.options, word))

    def volume(self, text: str) -> Mount:
        """`host:container[:options]`, a bind of the host's directory."""
        source, target, options = parse_volume(text)
        given = "O" in options and "U" in options and self.users is not None
        words = tuple(word for word in options if not given or word != "U")
        mount = Mount("rbind", source, target, self.options(words, source, text) or ("rw",))
        if "O" not in options:
            return mount
        made = self.over(mount)
        if given:  # the overlay is mapped to the command's ids, so what it covers cannot have them
            made = self.owned(made, (self.user.uid, self.user.gid), read_only=False)
        return self.mapped(made)

    def options(self, words: tuple[str, ...], source: str, text: str) -> tuple[str, ...]:
        """The mount options among `words`. U is carried out at once."""
        _check_words(words, text)
        if "U" in words:
            _chown_tree(source, *self.outside((self.user.uid, self.user.gid), text))
        return tuple(word for word in words if word in _PLAIN_OPTIONS or word in PROPAGATIONS)

    def over(self, mount: Mount) -> Mount:
        """The mount made writable; what is written goes to the store, as /run may be small, and is thrown away."""
        store = self.ctx.store
        source = (mount.lower or (mount.source,))[0]
        if not store.can_mount:  # what is read-only is put into the tree as a copy
            return mount if mount.lower else mount._replace(type="bind", options=("ro", *_part(mount)))
        place = self.stored()
        if is_directory(mount) and store.snapshots.driver.stacks:
            stacked = store.snapshots.stacked(mount.lower or (source,), place)
            _start_upper(stacked, source)
            return writable(mount, stacked)
        return Mount("bind", self.copied(mount, place), mount.target, ("rw", *_limits(mount.options)))

    def copied(self, mount: Mount, place: str) -> str:
        """Copy what a mount shows into the directory `place`; the path of the copy."""
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with shown(mount) as source:
                duplicate(f"/proc/self/fd/{source}", directory, "copy")
        finally:
            os.close(directory)
        return f"{place}/copy"

    def stored(self) -> str:
        """A new private directory on the store's file system, gone after the run."""
        from builda.store.layout import temporary

        store = self.ctx.store
        store.lease()
        path = temporary(store.layout)
        os.mkdir(path, 0o700)
        self.stack.callback(paths.discard, path)
        return path

    def mount(self, mount: RunMount) -> tuple[tuple[Mount, ...], tuple[tuple[str, str], ...]]:
        """The mounts and the variables that one `--mount` brings."""
        match mount.type:
            case "bind":
                return (self.bind(mount),), ()
            case "cache":
                return (self.cache(mount),), ()
            case "tmpfs":
                return (_tmpfs(mount),), ()
            case "secret":
                return self.secret(mount)
            case "ssh":
                return self.ssh(mount)

    def bind(self, mount: RunMount) -> Mount:
        """Read-only unless said otherwise; writes reach the source only when it is the user's own directory."""
        _check_words(mount.options, mount.target)
        propagation = tuple(word for word in mount.options if word in PROPAGATIONS)
        found = self.source(mount.from_, mount.source, mount.target)
        callers = isinstance(mount.from_, BuildContext | NamedContext)
        if "U" in mount.options:
            if not callers or self.inputs.discard_writes or found.type != "rbind":
                user = (self.user.uid, self.user.gid)
                return self.mapped(self.owned(self.over(found), user, read_only=mount.read_only is not False))
            _chown_shown(found, *self.outside((self.user.uid, self.user.gid), mount.target))
        elif callers and self.inputs.discard_writes and (made := self.of_root(found)) is not None:
            return self.mapped(made if mount.read_only is False else _read_only(made))
        if mount.read_only is not False:
            found = found._replace(options=(*found.options, *propagation))
            return self.mapped(found, "idmap?" if callers else "idmap")
        if callers and not self.inputs.discard_writes and found.type == "rbind":
            return found._replace(options=("rw", *propagation, *_part(found)))
        return self.mapped(self.over(found))

    def owned(self, made: Mount, owner: tuple[int, int], *, read_only: bool) -> Mount:
        """A mount that `over` made, with all its files given to `owner`."""
        if not self.ctx.store.can_mount:
            raise Unsupported(f"mount option U needs a mode that can mount: {made.target}")
        if made.type == "bind":
            _chown_tree(made.source, *owner)
        else:
            _chown_shown(made, *owner)
        return _read_only(made) if read_only else made

    def of_root(self, found: Mount) -> Mount | None:
        """The mount of a context with all files owned by root, as BuildKit has it.

        None if they are root's already, or if only a copy could be.
        """
        store = self.ctx.store
        if not store.can_mount or in_user_namespace() or not _has_other_owners(found):
            return None
        if not is_directory(found):
            return self.owned(self.over(found), (0, 0), read_only=False)
        if not store.snapshots.driver.stacks:
            return None
        made = self.over(found)
        if "userxattr" in made.options:
            return None
        words = {"metacopy=off": "metacopy=on", "redirect_dir=off": "redirect_dir=on"}  # owners change, data stays
        try:
            return self.owned(
                made._replace(options=tuple(words.get(word, word) for word in made.options)), (0, 0), read_only=False
            )
        except OSError:  # a file system that cannot be below such an overlay
            return None

    def source(self, source: Source, path: str, target: str) -> Mount:
        """A read-only mount at `target` of what a `--mount` names."""
        match source:
            case BuildContext():
                return self.local(self.inputs.context, path, target)
            case NamedContext(name):
                if name not in self.inputs.named:
                    raise NotFound(f"no such build context: {name}")
                return self.local(self.inputs.named[name], path, target)
            case FromStage(index):
                container = with_tree(self.ctx, self.inputs.stages[index])
                return subtree(rootfs(self.ctx, container), path, target, name=f"stage {index}")
            case FromContainer(name):
                container = with_tree(self.ctx, self.ctx.store.container(name))
                return subtree(rootfs(self.ctx, container), path, target, name=name)
            case FromImage(name):
                from builda.builder.image.pull import pull_for_build
                from builda.builder.imageoptions import PullOptions

                image = pull_for_build(self.ctx, name, PullOptions(access=self.inputs.access))
                return subtree(self.stack.enter_context(viewed(self.ctx, image)), path, target, name=name)

    def local(self, context: Path | str | None, path: str, target: str) -> Mount:
        """Inside the context; without one a path of the caller's shell."""
        if context is None:
            here = os.path.join(self.ctx.cwd, path)
            if not os.path.exists(here):
                raise NotFound(f"no such file or directory to mount: {here}")
            return Mount("rbind", here, target, ("ro",))
        root = os.open(context, os.O_PATH | os.O_DIRECTORY)
        try:
            return Mount("rbind", str(context), target, ("ro", *part_of(root, path, "the context")))
        finally:
            os.close(root)

    def cache(self, mount: RunMount) -> Mount:
        """A directory that lives on between runs: the same one for the same id and owner, as in Buildah."""
        owner = (mount.uid or 0, mount.gid or 0)
        path = self.cache_directory(mount)
        self.fill(path, mount, owner)
        part = self.part_of_cache(path, mount, owner) if isinstance(mount.from_, BuildContext) else ()
        return self.mapped(Mount("bind", path, mount.target, ("ro" if mount.read_only else "rw", *part)))

    def part_of_cache(self, path: str, mount: RunMount, owner: tuple[int, int]) -> tuple[str, ...]:
        """The `source` of a cache that starts empty is a part of the cache; the directory is made if it is missing."""
        from builda.fs.trees.directory import TreeTarget
        from builda.fs.trees.target import Looks, make_directories

        source = posixpath.normpath(f"/{mount.source}")
        if source == "/":
            return ()
        if not self.ctx.store.can_mount:
            raise Unsupported(
                f"a part of a cache needs a mode that can mount: {mount.target}", hint="leave out source="
            )
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with suppress(NotFound):
                return part_of(root, source, "the cache")
            make_directories(TreeTarget(root), source, Looks(owner))
            return part_of(root, source, "the cache")
        finally:
            os.close(root)

    def cache_directory(self, mount: RunMount) -> str:
        store, identity = self.ctx.store, _cache_identity(mount)
        if store.can_mount or mount.sharing == "private":
            return self.stack.enter_context(store.cache_mount(identity, mount.sharing))
        if identity not in self.caches:
            raise Unsupported(
                f"without mounts a cache can be at one path only: {mount.target}",
                hint="sharing=private gives it a directory of its own",
            )
        return self.caches.pop(identity)

    def take_caches(self, mounts: tuple[RunMount, ...]) -> None:
        """Caches that are moved to where they are used have one user at a time, whatever `sharing` says.

        All runs take their locks in the same order, which rules out a deadlock.
        """
        shared = {_cache_identity(mount) for mount in mounts if mount.type == "cache" and mount.sharing != "private"}
        for identity in sorted(shared):
            self.caches[identity] = self.stack.enter_context(self.ctx.store.cache_mount(identity, "locked"))

    def fill(self, path: str, mount: RunMount, owner: tuple[int, int]) -> None:
        """Give a cache directory its owner and mode, and what it holds at first, the first time it is used."""
        if os.listdir(path):
            return
        if not isinstance(mount.from_, BuildContext):
            found = self.source(mount.from_, mount.source, "/")
            if not is_directory(found):
                raise InvalidValue(f"a cache starts from a directory: {mount.source}")
            _copy_content(found, path)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            owners.fchown(fd, *owner)
            os.fchmod(fd, 0o755 if mount.mode is None else mount.mode)
        finally:
            os.close(fd)

    def secret(self, mount: RunMount) -> tuple[tuple[Mount, ...], tuple[tuple[str, str], ...]]:
        data = self.inputs.secrets.get(mount.id)
        if data is None:
            if mount.required:
                raise NotFound(f"no such secret: {mount.id}", hint=f"give it with --secret id={mount.id},src=FILE")
            return (), ()
        variables = ((mount.env, data.decode("utf-8", "surrogateescape")),) if mount.env else ()
        if not mount.target:
            return (), variables
        mode = _SECRET_MODE if mount.mode is None else mount.mode
        self.file(data, mount.target, mode, (mount.uid or 0, mount.gid or 0))
        return (), variables

    def ssh(self, mount: RunMount) -> tuple[tuple[Mount, ...], tuple[tuple[str, str], ...]]:
        socket = self.inputs.ssh.get(mount.id or "default")
        if socket is None:
            if mount.required:
                raise NotFound(f"no such ssh agent: {mount.id}", hint="give it with --ssh default or --ssh ID=SOCKET")
            return (), ()
        target = mount.target or f"/run/buildkit/ssh_agent.{self.agents}"
        variables = (("SSH_AUTH_SOCK", target),) if self.agents == 0 else ()
        self.agents += 1
        from builda.builder.run.ssh_agent import relayed

        mode, owner = 0o600 if mount.mode is None else mount.mode, (mount.uid or 0, mount.gid or 0)
        owner = self.outside(owner, target)
        own = self.stack.enter_context(relayed(socket, self.socket_directory(), owner=owner, mode=mode))
        return (Mount("bind", own, target, ("rw",)),), variables

    def socket_directory(self) -> str:
        """A directory for a socket: in the store if nothing can be mounted, as it is renamed into the tree then."""
        return self.directory("agent") if self.ctx.store.can_mount else self.stored()


def _start_upper(stacked: Mount, source: str) -> None:
    """Give the upper directory of an overlay the owner, mode and times of the one below, whose place it takes."""
    from builda.fs.trees.directory import look_like

    (upper,) = (word.partition("=")[2] for word in stacked.options if word.startswith("upperdir="))
    with ExitStack() as stack:
        fds = []
        for path in (upper, source):
            fds.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            stack.callback(os.close, fds[-1])
        with suppress(Unsupported):  # an owner that this user namespace does not have
            look_like(*fds)


def _cache_identity(mount: RunMount) -> str:
    """The name of a cache: its id, by default the target, and its owner."""
    name = mount.id or posixpath.normpath(mount.target)
    return f"{name}\0{mount.uid or 0}\0{mount.gid or 0}"


def _part(mount: Mount) -> tuple[str, ...]:
    part, _ = split_part(mount.options)
    return () if part is None else (part,)


def _limits(options: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in options if word in ("nosuid", "nodev", "noexec"))


def _tmpfs(mount: RunMount) -> Mount:
    options = ["nosuid", "nodev", f"mode={0o1777 if mount.mode is None else mount.mode:o}"]
    if mount.size is not None:
        options.append(f"size={mount.size}")
    if mount.read_only:
        options.append("ro")
    return Mount("tmpfs", "tmpfs", mount.target, tuple(options))


def _copy_content(source: Mount, path: str) -> None:
    from builda.fs.sources import Source
    from builda.fs.trees.copytree import copy_tree
    from builda.fs.trees.directory import TreeTarget
    from builda.fs.trees.walk import CopyRequest

    with shown(source) as root:
        target = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            copy_tree(CopyRequest((Source(root, "."),), "/"), TreeTarget(target))
        finally:
            os.close(target)


def _read_only(mount: Mount) -> Mount:
    return mount._replace(options=("ro", *(word for word in mount.options if word != "rw")))


def _has_other_owners(found: Mount) -> bool:
    """Whether a file that the mount shows has an owner other than root."""
    with shown(found) as top:
        if _is_others(os.fstat(top)):
            return True
        if not stat.S_ISDIR(os.fstat(top).st_mode):
            return False
        directory = os.open(f"/proc/self/fd/{top}/.", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return any(
                _is_others(os.stat(name, dir_fd=parent, follow_symlinks=False))
                for parent, name in paths.walk(directory)
            )
        finally:
            os.close(directory)


def _is_others(status: os.stat_result) -> bool:
    return (status.st_uid, status.st_gid) != (0, 0)


def _chown_shown(mount: Mount, uid: int, gid: int) -> None:
    """As `_chown_tree`, for what a mount shows, which may be a part of a larger directory."""
    with shown(mount._replace(options=tuple(word for word in mount.options if word != "ro"))) as fd:
        if is_directory(mount):
            _chown_tree(f"/proc/self/fd/{fd}/.", uid, gid)
        else:
            owners.chown_node(fd, b"", f"/proc/self/fd/{fd}", uid, gid)


def _chown_tree(path: str, uid: int, gid: int) -> None:
    """Option U: give the tree to this owner. Links are changed themselves, never their targets."""
    owners.chown(path, uid, gid)
    try:
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        return
    try:
        for parent, name in paths.walk(top):
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if (found.st_uid, found.st_gid) != (uid, gid):  # in an overlay each change costs a copy
                owners.chown(name, uid, gid, dir_fd=parent)
    finally:
        os.close(top)
