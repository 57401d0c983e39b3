"""Opens the sources of a copy: the caller's files, a context, an image, a container, a URL, a repository.

Everything becomes a root directory's descriptor and a path inside it; `fs.trees.copytree` knows nothing else.
"""

from __future__ import annotations

import os
import posixpath

from builda.builder.copy.git import parse_repository
from builda.builder.copy.ignored import rules_in, rules_of
from builda.builder.copy.temporary import TemporaryDirectory
from builda.errors import CorruptContent, InvalidValue, NotFound
from builda.events import SourceUsed
from builda.fs import paths
from builda.fs.ignore import Matcher
from builda.fs.patterns import has_wildcards
from builda.fs.sources import Source
from builda.linux.mount import mounted
from builda.plan import Context as BuildContext
from builda.plan import FromContainer, FromImage, FromStage, NamedContext
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from pathlib import Path

    from builda.builder.context import Context
    from builda.builder.copy.destination import Destination
    from builda.builder.copy.git import Repository
    from builda.builder.imageoptions import Inputs
    from builda.builder.remote import Download
    from builda.fs.sources import Top
    from builda.oci.digest import Digest
    from builda.plan import Copy
    from builda.store.containers import WorkingContainer

_URL = ("http://", "https://")


class Gathered(NamedTuple):
    """Sources that can be read now. `downloads` are the roots of those that came from URLs."""

    sources: tuple[Source, ...]
    keeps_owners: bool = False
    downloads: frozenset[int] = frozenset()


def gather(ctx: Context, place: Destination, step: Copy, inputs: Inputs, stack: ExitStack) -> Gathered:
    """The sources of the step, opened until `stack` ends; `place` is where they are copied to."""
    local: list[Source] = []
    remote: list[Source] = []
    is_local = isinstance(step.source, BuildContext | NamedContext)
    opener = None
    for path in step.sources:
        if is_local and (repository := parse_repository(path)) is not None:
            remote.append(_repository(ctx, repository, step, inputs, stack))
        elif is_local and path[:8].lower().startswith(_URL):
            remote.append(_download(ctx, path, step, inputs, stack))
        else:
            opener = opener or _Opener(ctx, place, step, inputs, stack)
            local.append(opener.source(path))
    if step.checksum is not None and (local or len(remote) != 1):
        raise InvalidValue("checksum needs exactly one source, a URL or a git repository")
    inline = _inline(ctx, step, stack)
    return Gathered(
        (*local, *remote, *inline),
        keeps_owners=not is_local,
        downloads=frozenset(source.root for source in remote),
    )


class _Opener:
    """The root that a step's paths start in, opened once."""

    def __init__(
        self,
        ctx: Context,
        place: Destination,
        step: Copy,
        inputs: Inputs,
        stack: ExitStack,
    ) -> None:
        self.ctx = ctx
        self.step = step
        self.inputs = inputs
        self.stack = stack
        self.ignore = Matcher(())
        self.shadows = place.shadows
        self.shell = isinstance(step.source, BuildContext) and inputs.context is None
        self.root = -1 if self.shell else self._open(place.container, place.root)

    def source(self, path: str) -> Source:
        """The source that a path of the step names."""
        if self.shell:
            return shell_source(self.ctx, path, self.stack, parents=self.step.parents)
        return Source(self.root, path, None, self.ignore, self._within())

    def _within(self) -> str:
        """The root in words, for errors."""
        match self.step.source:
            case BuildContext():
                return "the context"
            case NamedContext(name):
                return f"the build context {name}"
            case FromStage():
                return "the stage"
            case FromContainer(name):
                return f"the container {name}"
            case FromImage(name):
                return f"the image {name}"

    def _open(self, container: WorkingContainer, own: int) -> int:
        match self.step.source:
            case BuildContext():
                assert self.inputs.context is not None
                self.ignore = rules_of(self.inputs.ignore_file)
                return open_directory(self.inputs.context, self.stack)
            case NamedContext(name):
                if name not in self.inputs.named:
                    raise NotFound(f"no such build context: {name}")
                directory = open_directory(self.inputs.named[name], self.stack)
                self.ignore = rules_in(directory, self.inputs.named[name])
                return directory
            case FromStage(index):
                return self._of_container(self.inputs.stages[index], container, own)
            case FromContainer(name):
                return self._of_container(self.ctx.store.container(name), container, own)
            case FromImage(name):
                from builda.builder.image.pull import pull_for_build
                from builda.builder.imageoptions import PullOptions
                from builda.builder.mounting import viewed

                image = pull_for_build(self.ctx, name, PullOptions(access=self.inputs.access))
                if self.ctx.store.snapshots.is_list(container.snapshot):
                    return self._shadow(self.ctx.store.snapshots.unpack(image, self.ctx.emit, as_list=True))
                return self.stack.enter_context(mounted(self.stack.enter_context(viewed(self.ctx, image))))

    def _of_container(self, other: WorkingContainer, container: WorkingContainer, own: int) -> int:
        from builda.builder.materialize import with_tree
        from builda.builder.working_tree import reading

        store = self.ctx.store
        if store.snapshots.is_list(container.snapshot) and store.snapshots.is_list(other.snapshot):
            from builda.builder.copy.listsource import on_base

            return self._shadow(on_base(self.ctx, other).snapshot)
        if other.id == container.id:
            return own
        return self.stack.enter_context(mounted(reading(self.ctx, with_tree(self.ctx, other))))

    def _shadow(self, snapshot: str | None) -> int:
        from builda.builder.copy.listsource import shadow

        return shadow(self.ctx, snapshot, self.step.sources, self.shadows, self.stack)


def shell_source(ctx: Context, path: str, stack: ExitStack, *, parents: bool = False) -> Source:
    """A path as the caller's shell means it: links may lead anywhere on the host. `parents` is that of the copy."""
    if path.startswith("/"):
        return Source(open_directory("/", stack), path)
    here = ctx.cwd
    if has_wildcards(here):  # names, not patterns: so they stay out of the path
        return Source(open_directory(here, stack), path)
    pivot = "/./" if parents and "/./" not in path else "/"
    return Source(open_directory("/", stack), f"{here}{pivot}{path}")


def open_directory(path: Path | str, stack: ExitStack) -> int:
    """A descriptor of a directory of the host, closed with `stack`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"no such file or directory: {path}") from error
    except NotADirectoryError as error:
        raise InvalidValue(f"not a directory: {path}") from error
    stack.callback(os.close, fd)
    return fd


def is_archive(top: Top) -> bool:
    """Whether it is a regular file that holds a tar archive, compressed or not, by its content."""
    import stat

    from builda.fs.archivekinds import archive_compression

    if not stat.S_ISREG(top.info.st_mode) or not top.info.st_size:
        return False
    fd = paths.open_regular(top.source.root, top.path)
    with open(fd, "rb") as file:
        return archive_compression(file) is not None


def _inline(ctx: Context, step: Copy, stack: ExitStack) -> tuple[Source, ...]:
    """Heredocs as files; ignore rules do not reach them."""
    if not step.inline:
        return ()
    directory = stack.enter_context(TemporaryDirectory(ctx.store))
    for number, file in enumerate(step.inline):
        with open(os.open(str(number), os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=directory), "wb") as out:
            os.fchmod(out.fileno(), 0o644)
            out.write(file.data)
    return tuple(Source(directory, str(number), name=file.name) for number, file in enumerate(step.inline))


def _download(ctx: Context, url: str, step: Copy, inputs: Inputs, stack: ExitStack) -> Source:
    """The file behind a URL: mode 0600 and, when the server says when it changed, that time."""
    directory = stack.enter_context(TemporaryDirectory(ctx.store))
    with ctx.remote.fetch(url, inputs.access) as response:
        name = response.filename
        if name is None and step.destination.endswith("/"):
            raise InvalidValue(f"URL has no file name: {url}", hint="write a destination that is a file")
        name = name or posixpath.basename(step.destination)
        fd = os.open("file", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
        with open(fd, "wb") as file:
            digest = _receive(response, file.write, step.checksum)
            ctx.emit(SourceUsed(kind="url", name=url, algorithm=digest.algorithm, digest=digest.encoded))
            file.flush()
            changed = int(response.last_modified or 0)
            os.utime(fd, (changed, changed))
    _check(step.checksum, digest, url)
    return Source(directory, "file", name=name)


def _receive(response: Download, write: Callable[[bytes], object], checksum: str | None) -> Digest:
    """The digest of what was received, by the algorithm of the checksum, else sha256."""
    import hashlib

    from builda.oci.digest import Digest

    algorithm = "sha256" if checksum is None else _digest(checksum).algorithm
    hasher = hashlib.new(algorithm)
    while data := response.read(1 << 20):
        write(data)
        hasher.update(data)
    return Digest(algorithm, hasher.hexdigest())


def _digest(text: str) -> Digest:
    from builda.oci.digest import Digest

    try:
        return Digest.parse(text)
    except InvalidValue as error:
        raise InvalidValue(f"checksum is {error}", hint="write it as sha256:…") from error


def _check(wanted: str | None, found: Digest, url: str) -> None:
    if wanted is not None and str(found) != wanted:
        raise CorruptContent(f"checksum does not match, {url} has: {found}")


def _repository(ctx: Context, source: Repository, step: Copy, inputs: Inputs, stack: ExitStack) -> Source:
    """The tree of one commit, fetched by git."""
    from builda.builder.copy.git import Credentials, fetch_repository

    temporary = TemporaryDirectory(ctx.store)
    directory = stack.enter_context(temporary)
    checksum = step.checksum or source.checksum
    keep = step.keep_git_dir or source.keep_git_dir
    given = Credentials(inputs.ssh.get("default"), inputs.secrets) if inputs.discard_writes else None
    commit = fetch_repository(source._replace(checksum=checksum, keep_git_dir=keep), temporary.path, given)
    ctx.emit(SourceUsed(kind="git", name=source.url, algorithm="gitCommit", digest=commit))
    return Source(directory, source.subdirectory)
