"""Volumes and mounts of a run, prepared on the host: from --volume and --mount to mounts, variables and locks."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager

from builda.builder.materialize import with_tree
from builda.builder.mounting import viewed
from builda.builder.run.cachemounts import Caches, fill
from builda.builder.run.mountowners import chown_shown, chown_tree
from builda.builder.run.subtree import part_of, subtree
from builda.builder.run.throwaway import Throwaway, part_option, read_only_mount
from builda.builder.run.volumetext import check_words, mount_options, parse_volume
from builda.builder.working_tree import rootfs
from builda.errors import NotFound
from builda.fs import owners
from builda.isolation.spec import MemoryFile
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
        work.caches.take(step.mounts)
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
        self.caches = Caches(ctx, stack, inputs.caches)
        self.throwaway = Throwaway(ctx, stack)
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
        elif in_user_namespace() and not owners.keeps_aside():
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
        made = self.throwaway.over(mount)
        if given:  # the overlay is mapped to the command's ids, so what it covers cannot have them
            made = self.throwaway.owned(made, (self.user.uid, self.user.gid), read_only=False)
        return self.mapped(made)

    def options(self, words: tuple[str, ...], source: str, text: str) -> tuple[str, ...]:
        """The mount options among `words`. U is carried out at once."""
        check_words(words, text)
        if "U" in words:
            chown_tree(source, *self.outside((self.user.uid, self.user.gid), text))
        return mount_options(words)

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
        check_words(mount.options, mount.target)
        propagation = tuple(word for word in mount.options if word in PROPAGATIONS)
        found = self.source(mount.from_, mount.source, mount.target)
        callers = isinstance(mount.from_, BuildContext | NamedContext)
        if "U" in mount.options:
            if not callers or self.inputs.discard_writes or found.type != "rbind":
                user = (self.user.uid, self.user.gid)
                return self.mapped(
                    self.throwaway.owned(self.throwaway.over(found), user, read_only=mount.read_only is not False)
                )
            chown_shown(found, *self.outside((self.user.uid, self.user.gid), mount.target))
        elif callers and self.inputs.discard_writes and (made := self.throwaway.of_root(found)) is not None:
            return self.mapped(made if mount.read_only is False else read_only_mount(made))
        if mount.read_only is not False:
            found = found._replace(options=(*found.options, *propagation))
            return self.mapped(found, "idmap?" if callers else "idmap")
        if callers and not self.inputs.discard_writes and found.type == "rbind":
            return found._replace(options=("rw", *propagation, *part_option(found)))
        return self.mapped(self.throwaway.over(found))

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
        path = self.caches.directory(mount)
        starts_empty = isinstance(mount.from_, BuildContext)
        fill(path, mount, owner, None if starts_empty else lambda: self.source(mount.from_, mount.source, "/"))
        part = self.caches.part(path, mount, owner) if starts_empty else ()
        made = Mount("bind", path, mount.target, ("ro" if mount.read_only else "rw", *part))
        return self.mapped(made if mount.read_only or self.inputs.keeps_caches else self.throwaway.over(made))

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
        return self.directory("agent") if self.ctx.store.can_mount else self.throwaway.directory()


def _tmpfs(mount: RunMount) -> Mount:
    options = ["nosuid", "nodev", f"mode={0o1777 if mount.mode is None else mount.mode:o}"]
    if mount.size is not None:
        options.append(f"size={mount.size}")
    if mount.read_only:
        options.append("ro")
    return Mount("tmpfs", "tmpfs", mount.target, tuple(options))
