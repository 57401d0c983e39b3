"""Sessions of Python scripts: what `builda session` is for scripts of commands.

with builda.session() as s:
    container = s.from_("docker.io/library/debian:bookworm")
    s.run(container, "apt-get", "update")
    s.copy(container, "app", "/usr/bin/app")
    s.commit(container, "app:1")

Working containers and mounts are gone when the block is left. Names are seen by others, and pushes performed, if no
exception left it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from builda.api import NamedFiles, builder_over, open_store
from builda.builder.imageoptions import (
    CacheChoice,
    CommitOptions,
    FromOptions,
    Inputs,
    PullOptions,
    PushOptions,
    RegistryAccess,
)
from builda.errors import BuildaError, CommandFailed, InvalidValue, Unsupported
from builda.events import Emit, Warned, ignore
from builda.plan import Configure, Copy, Run
from builda.session import lease, pushes
from builda.store import sessions
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from builda.builder.builder import Builder
    from builda.host.modes import Place
    from builda.oci.edits import ConfigEdit
    from builda.session.lease import Lease
    from builda.store.containers import WorkingContainer
    from builda.store.layout import Damaged
    from builda.store.store import Image, Store

_FROM, _PULL, _PUSH, _INPUTS = FromOptions(), PullOptions(), PushOptions(), Inputs()
_SUCCESS = frozenset({0})
_OUTER: ContextVar[Session | None] = ContextVar("builda session", default=None)
"""The session that this thread or task is in: one that begins inside it in the same store is part of it."""


class Session:
    """A session. `builder` has all primitives; what is made by it belongs to the session as well.

    Threads may share it.
    """

    def __init__(
        self,
        builder: Builder,
        environ: Mapping[str, str],
        *,
        is_transaction: bool,
        outer: str | None = None,
        cache: CacheChoice | None = None,
    ) -> None:
        self._builder: Builder | None = builder
        self._cache = cache
        self.environ = environ
        """The environment in which builda commands that the script starts are part of this session."""
        self._is_transaction = is_transaction
        self._outer = outer  # the directory of the session whose process performs pushes; None: this one does
        self._pushes: list[tuple[str, str, PushOptions]] = []

    @property
    def builder(self) -> Builder:
        """The builder with all primitives. InvalidValue if the session has ended."""
        if self._builder is None:
            raise InvalidValue("session has ended, and what it made is gone")
        return self._builder

    def end(self) -> None:
        """From now on nothing can be made in the session."""
        self._builder = None

    def from_(self, image: str, options: FromOptions = _FROM) -> WorkingContainer:
        """A new working container on the image that `image` means; `scratch` is the empty one.

        Its steps are looked up as the options say, or else the session.
        """
        if options.cache is None:
            options = replace(options, cache=self._cache)
        return self.builder.from_image(image, options)

    def run(
        self,
        container: WorkingContainer,
        *command: str | Run,
        inputs: Inputs = _INPUTS,
        valid_statuses: frozenset[int] = _SUCCESS,
        capture: bool = False,
    ) -> WorkingContainer:
        """Run a command, given as words or as one Run; CommandFailed when its status is none of `valid_statuses`.

        `capture` sends its output to `emit` instead of this process's standard streams.
        """
        step = _step(command)
        return self.builder.run(container, step, inputs=inputs, valid_statuses=valid_statuses, capture=capture)

    def copy(
        self, container: WorkingContainer, *paths: str | os.PathLike[str] | Copy, inputs: Inputs = _INPUTS
    ) -> WorkingContainer:
        """Copy files in: sources and the destination behind them, or one Copy."""
        return self.builder.copy(container, _copy_of(paths), inputs=inputs)[0]

    def config(self, container: WorkingContainer, *edits: ConfigEdit) -> WorkingContainer:
        """Edit the pending configuration."""
        return self.builder.config(container, Configure(edits=edits))

    def mount(self, container: WorkingContainer) -> Path:
        """Mount the root file system until `umount` or the end of the session."""
        return self.builder.mount(container)

    def umount(self, container: WorkingContainer) -> bool:
        """Undo `mount`; False when it was not mounted."""
        return self.builder.umount(container)

    def commit(self, container: WorkingContainer, name: str | CommitOptions | None = None) -> Image:
        """Make an image of the working container; `name` is its name, or all that can be said of it."""
        options = name if isinstance(name, CommitOptions) else CommitOptions(destination=name)
        image = self.builder.commit(container, options)
        self._push_steps(container)
        return image

    def tag(self, image: Image | str, *names: str) -> None:
        """Give an image further names."""
        from builda.builder.image.push import local_name

        found = self.builder.store.image(image) if isinstance(image, str) else image
        for name in names:
            self.builder.store.images.tag(found, local_name(name))

    def pull(self, name: str, options: PullOptions = _PULL) -> Image:
        """The image that `name` means, fetched as the policy says; a name in a registry is seen by others at once."""
        return self.builder.pull(name, options)

    def push(self, image: Image | str, destination: str | None = None, options: PushOptions = _PUSH) -> None:
        """Push the image that is meant now, to a registry when the session has succeeded, elsewhere at once."""
        from builda.builder.image.push import destination_of

        text = image if isinstance(image, str) else str(image.id)
        found, location = destination_of(self.builder.context, text, destination)
        if self._outer is not None and location.in_registry:
            pushes.note(self._outer, _noted(str(found.digest), str(location), options, self.environ))
        elif self._is_transaction and location.in_registry:
            self._pushes.append((str(found.digest), str(location), options))
        else:
            self.builder.push(text, destination, options)

    def remove(self, container: WorkingContainer) -> None:
        """Remove a working container before the session ends."""
        self._push_steps(container)
        self.builder.remove(container)

    def _push_steps(self, container: WorkingContainer) -> None:
        """Push the steps of a container to the caches that it names."""
        if container.cache is None or not container.cache.targets:
            return
        from builda.builder.cached.cacheregistries import push_steps

        push_steps(self.builder.context, self.builder.store.containers.load(container.id))

    def perform_pushes(self) -> None:
        """Push what was put off, in order. The error of one that fails says in a note what became of the others."""
        for number, (image, destination, options) in enumerate(self._pushes):
            try:
                self.builder.push(image, destination, options)
            except BuildaError as error:
                done = ", ".join(place for _, place, _ in self._pushes[:number]) or "nothing"
                error.add_note(f"the session's push failed, so no name was changed; pushed before it: {done}")
                raise
        self._pushes.clear()


@contextmanager
def open_session(
    root: Path | str | None = None,
    runroot: Path | str | None = None,
    *,
    driver: str | None = None,
    emit: Emit = ignore,
    environ: Mapping[str, str] | None = None,
    registries_conf: str | None = None,
    mode: str | None = None,
    keep: bool = False,
    transaction: bool = True,
    cache: CacheChoice | None = None,
) -> Iterator[Session]:
    """A session over a store, with the arguments of `open_builder`; it ends with the block.

    With `cache` the steps of its working containers are looked up, and their results remembered, as builds do it.
    With `keep` working containers stay; without `transaction` names are seen, and pushes performed, at once. A session
    inside another one of the same store, or in a script that `builda session` runs, is part of that: it ends nothing
    itself.
    """
    from builda.store.layout import default_places

    env = os.environ if environ is None else environ
    places = default_places(env, os.geteuid())
    where, volatile = str(root or places[0]), str(runroot or places[1])
    outer = _OUTER.get()
    if outer is not None and outer.builder.store.root == os.path.realpath(where):
        yield outer
        return
    uid = os.geteuid()
    place = _entered(mode, volatile)

    def warn(error: Damaged) -> None:
        emit(Warned(message=str(error), hint=error.hint))

    @contextmanager
    def opened() -> Iterator[Builder]:
        with (
            open_store(where, volatile, driver=driver, place=place, warn=warn) as store,
            builder_over(store, emit=emit, environ=env, files=NamedFiles(registries_conf), uid=uid) as builder,
        ):
            yield builder

    with open_store(where, volatile, driver=driver, place=place, warn=warn) as holder:
        membership = lease.membership(holder.layout, env)
        if membership is not None:
            with opened() as builder:
                builder.store.join(membership)
                outside = env[lease.VARIABLE] if membership.is_transaction else None
                joined = Session(builder, env, is_transaction=membership.is_transaction, outer=outside, cache=cache)
                with _current(joined) as found:
                    yield found
            return
        for error in lease.reclaim(holder):
            emit(Warned(message=str(error), hint=error.hint))
        holder.lease()
        with lease.held(holder, transaction=transaction) as held, _ending(holder, held, emit, keep=keep):
            with opened() as builder:
                builder.store.join(sessions.join(holder.layout, held.id))
                inside = _environ_inside(env, holder, held, uid if place is not None else None)
                with _current(Session(builder, inside, is_transaction=transaction, cache=cache)) as found:
                    yield found
                    found.perform_pushes()
            _push_for_commands(held)
            lease.publish(holder, held)


session = open_session


def _entered(mode: str | None, runroot: str) -> Place | None:
    """The place that this process is in from now on; None if no mode is asked for."""
    if mode is None:
        return None
    from builda.host.modes import enter, parse_mode

    return enter(parse_mode(mode), runroot, composing=True)


@contextmanager
def _current(session: Session) -> Iterator[Session]:
    before = _OUTER.get()
    _OUTER.set(session)
    try:
        yield session
    finally:
        session.end()
        _OUTER.set(before)  # no reset, which refuses a block that another context leaves


@contextmanager
def _ending(store: Store, held: Lease, emit: Emit, *, keep: bool) -> Iterator[None]:
    try:
        yield
    finally:
        for error in lease.end(store, held, keep=keep):
            emit(Warned(message=str(error), hint=error.hint))


def _environ_inside(environ: Mapping[str, str], store: Store, held: Lease, uid: int | None) -> dict[str, str]:
    """The environment of commands; `uid` is the user's outside of the namespace that this process entered."""
    found = {
        **environ,
        "BUILDA_ROOT": store.root,
        "BUILDA_RUNROOT": store.layout.runroot,
        lease.VARIABLE: held.place,
    }
    if uid is not None:
        found |= {"BUILDA_MODE": "auto", "BUILDA_CALLER_UID": str(uid)}
    return found


def _push_for_commands(held: Lease) -> None:
    """Perform the pushes that commands of the session asked for; CommandFailed if one fails."""
    for push in pushes.noted(held.place):
        done = subprocess.run(
            [sys.executable, "-m", "builda", *push.arguments],
            cwd=push.directory,
            env={**push.environ, pushes.VARIABLE: f"{push.image} {push.destination}"},
            umask=push.umask,
        )
        if done.returncode:
            raise CommandFailed(
                f"the session's push failed, so no name was changed: {push.destination}", status=done.returncode
            )


def _noted(image: str, destination: str, options: PushOptions, environ: Mapping[str, str]) -> pushes.Push:
    """A push as a command line of builda's, for the process that performs it; Unsupported for most options."""
    access = options.access
    if replace(options, access=RegistryAccess()) != _PUSH or access != RegistryAccess(
        authfile=access.authfile, creds=access.creds, cert_dir=access.cert_dir, tls_verify=access.tls_verify
    ):
        raise Unsupported(
            f"a push that is put off in an outer session can have options of the registry only: {destination}",
            hint="run builda push in the script",
        )
    said = {"--authfile": access.authfile, "--creds": access.creds, "--cert-dir": access.cert_dir}
    words = ["push", *(f"{name}={value}" for name, value in said.items() if value is not None)]
    if access.tls_verify is not None:
        words.append(f"--tls-verify={str(access.tls_verify).lower()}")
    return pushes.Push([*words, image, destination], image, destination, dict(environ), os.getcwd(), 0o022)


def _step(command: tuple[str | Run, ...]) -> Run:
    if len(command) == 1 and isinstance(command[0], Run):
        return command[0]
    words = tuple(word for word in command if isinstance(word, str))
    if not words or len(words) != len(command):
        raise TypeError(f"run takes the words of a command, or one Run: {command!r}")
    return Run(args=words, text=" ".join(words))


def _copy_of(paths: tuple[str | os.PathLike[str] | Copy, ...]) -> Copy:
    if len(paths) == 1 and isinstance(paths[0], Copy):
        return paths[0]
    words = [os.fspath(path) for path in paths if isinstance(path, str | os.PathLike)]
    if len(words) < 2 or len(words) != len(paths):
        raise TypeError(f"copy takes sources and a destination, or one Copy: {paths!r}")
    *sources, destination = words
    return Copy(sources=tuple(sources), destination=destination)
