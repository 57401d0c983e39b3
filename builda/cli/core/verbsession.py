"""The objects that verbs of one command line share: settings, store, builder, observer; each made at its first use."""

from __future__ import annotations

import gc
import sys
from contextlib import ExitStack, suppress
from functools import cached_property

from builda.store.layout import iter_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self, TextIO

    from builda.api import NamedFiles
    from builda.builder.builder import Builder
    from builda.cli.core.settings import Settings
    from builda.cli.core.verbtrace import VerbTrace
    from builda.cli.progress.observer import Observer, Together
    from builda.cli.progress.relayedview import Relay
    from builda.containersconf import Defaults
    from builda.errors import BuildaError
    from builda.events import Event
    from builda.host.modes import Mode, Place
    from builda.store.containers import WorkingContainer
    from builda.store.store import Store


_NEW_OBJECTS = 20_000
"""So many new objects before a collection looks at them: a verb makes thousands while it imports modules."""


class Session:
    """One command line at work. A context manager: leaving it closes whatever was opened."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], trace: VerbTrace | None = None) -> None:
        self.settings = settings
        self._trace_file = trace
        self._has_dead = True  # sessions that were killed, as far as was looked
        self.environ = environ
        self.quiet = False
        self.builds = False
        """Whether all is done in this process, so that trees may end with it."""
        self.relay: Relay | None = None
        """What takes the place of all output, where another process shows it."""
        self._place: Place | None = None
        self._lacking: list[str] = []  # what the machine does not allow, if that is traced
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        gc.freeze()  # what was imported stays: no collection need look at it
        gc.set_threshold(_NEW_OBJECTS)
        gc.enable()
        if self.settings.verbose:
            _log_to(sys.stderr)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def enter(self, *, composing: bool = False) -> None:
        """This process is where its mode builds; before anything else is opened, as it must have one thread."""
        self._end_processes()
        from builda.host.modes import abilities, enter

        if self.settings.verbose:  # asked before, as more is possible inside
            found = abilities(self.settings.runroot)._asdict()
            self._lacking = [
                f"{name.replace('_', ' ')}: {why}" for name, why in found.items() if why not in (None, "not tried")
            ]
        self._place = enter(self.settings.mode, self.settings.runroot, composing=composing)
        self.mode = self._place.mode

    @property
    def keeps_output(self) -> bool:
        """Whether the trace of a session is to have what commands print."""
        return self._trace_file is not None and self._trace_file.keeps_output

    @cached_property
    def mode(self) -> Mode:
        """The mode that this command line works in, entered or not."""
        from builda.host.modes import decide

        return decide(self.settings.mode, self.settings.runroot)

    @cached_property
    def store(self) -> Store:
        """The store alone: enough for verbs that run, mount and fetch nothing."""
        settings = self.settings
        if self._place is None:
            from builda.store.store import Store

            store = Store.open(settings.root, settings.runroot, driver=settings.driver, warn=self._warn)
        else:
            from builda.api import open_store

            store = open_store(
                settings.root, settings.runroot, driver=settings.driver, place=self._place, warn=self._warn
            )
        self._stack.enter_context(store)
        store.waits.tell = self.emit
        self._join(store)
        if settings.verbose:
            self._trace(store)
        if self._place is not None:
            self._warn_of_options()
        in_memory = self.builds and self._keeps_in_memory(store)
        if store.is_first:
            self._warn_of_foreign_store(store)
        if store.no_overlay is not None and not in_memory:
            self.emit(_copying(store, None if self._place is None else self._place.not_shown))
        if store.is_first and self._place is not None and self._place.no_others is not None:
            self.emit(_alone(self._place.no_others, self._place.not_shown))
        return store

    def _end_processes(self) -> None:
        """End processes that killed sessions left running; their notes in the store name them."""
        try:
            found = next(iter_names(f"{self.settings.root}/sessions"), None)
        except PermissionError:  # the store is another user's, which opening it says
            return
        if found is None:
            return
        from builda.session.lease import end_processes
        from builda.store.layout import Layout

        self._has_dead = end_processes(Layout(self.settings.root, self.settings.runroot))

    def _join(self, store: Store) -> None:
        """Remove what killed sessions left, then work in the session that this command is in, if any."""
        if self._has_dead and next(iter_names(store.layout.path("sessions")), None) is not None:
            self._reclaim(store)
        if self.environ.get("BUILDA_SESSION"):
            from builda.session.lease import membership

            session = membership(store.layout, self.environ)
            if session is not None:
                store.join(session)

    @property
    def is_joined(self) -> bool:
        """Whether this command is in a session of the same store."""
        return self.store.session is not None

    @property
    def keeps_failed(self) -> bool:
        """Whether this command is in a session that keeps failed steps."""
        return self.store.session is not None and self.store.session.keeps_failed

    def _reclaim(self, store: Store) -> None:
        """Remove what sessions made that were killed: here if this process works in trees, else in one that does."""
        from builda.session import lease

        if self._place is not None:
            for error in lease.reclaim(store, self._write_trace):
                self._warn(error)
        elif lease.has_dead(store.layout):
            lease.apart(self._reclaim_inside)

    def _write_trace(self, place: str) -> None:
        """Write the trace of a session that was killed, if one was asked for."""
        from builda.cli.verbs.tracing import write_killed

        try:
            write_killed(place)
        except OSError as error:
            from builda.errors import of_system

            self._warn(of_system(error))

    def _reclaim_inside(self) -> int:
        from builda.errors import BuildaError

        with suppress(BuildaError), Session(self.settings, self.environ) as inside:  # the next command tries it again
            inside.enter(composing=True)
            _ = inside.store
        return 0

    def _trace(self, store: Store) -> None:
        """Trace the mode, the driver and the store that this command line works with."""
        from builda.events import Decided

        if self._place is not None:
            cannot = f"; not possible: {'; '.join(self._lacking)}" if self._lacking else ""
            asked = self.settings.mode or "auto"
            self.emit(Decided(subject="mode", message=f"{self.mode}, asked for: {asked}{cannot}"))
        why = f", because {store.no_overlay}" if store.no_overlay is not None else ""
        where = f"{self.settings.root}, run root {self.settings.runroot}"
        self.emit(Decided(subject="store", message=f"{where}, driver {store.snapshots.driver.name}{why}"))

    def _warn_of_options(self) -> None:
        from builda.events import Warned

        for option in self.settings.storage_options:
            hint = "builda's drivers have no options; `builda info` shows the driver"
            self.emit(Warned(message=f"storage option has no effect: {option}", hint=hint))

    def _warn_of_foreign_store(self, store: Store) -> None:
        """Say, when a store is made, that storage.conf is about another one."""
        from builda.containersconf import foreign_store
        from builda.events import Warned
        from builda.places import Places

        said = foreign_store(Places(self.environ, self.settings.uid))
        if said:
            self.emit(
                Warned(
                    message=f"nothing is taken of {', '.join(said)}: that is another program's store, builda's is "
                    f"{store.root}",
                    hint="--root or BUILDA_ROOT, and --storage-driver, say another one",
                )
            )

    @property
    def is_configured(self) -> bool:
        """Whether there is a file that `defaults` are read from."""
        from builda.places import Places

        return Places(self.environ, self.settings.uid).says_how_to_run()

    @cached_property
    def defaults(self) -> Defaults:
        """The values of containers.conf, for options that the command line lacks."""
        from builda.containersconf import load
        from builda.places import Places

        return load(Places(self.environ, self.settings.uid))

    def _warn(self, error: BuildaError) -> None:
        from builda.events import Warned

        self.emit(Warned(message=str(error), hint=error.hint))

    def _keeps_in_memory(self, store: Store) -> bool:
        if self.settings.driver is not None or self._place is None:
            return False
        from builda.api import keep_in_memory

        return keep_in_memory(store)

    @cached_property
    def builder(self) -> Builder:
        """The primitives over `store`."""
        from builda.api import builder_over

        return self._stack.enter_context(
            builder_over(
                self.store,
                emit=self.emit,
                environ=self.environ,
                files=self._named_files,
                uid=self.settings.uid,
                tracing=self.settings.verbose,
            )
        )

    @property
    def _named_files(self) -> NamedFiles:
        from builda.api import NamedFiles

        settings = self.settings
        return NamedFiles(
            settings.registries_conf, settings.registries_conf_dir, settings.short_name_aliases, settings.mounts_conf
        )

    def container(self, name: str) -> WorkingContainer:
        """The working container of this name or ID."""
        return self.store.container(name)

    def emit(self, event: Event) -> None:
        """Show what happens; safe to call from any thread."""
        self._observer.show(event)

    def warn(self, message: str) -> None:
        """Warn of something; safe to call from any thread."""
        from builda.events import Warned

        self.emit(Warned(message=message))

    def record(self, program: Observer) -> None:
        """Give all events to `program`, too."""
        self._observer.add(program)

    def watch(self, make: Callable[[Observer], Observer]) -> None:
        """Replace the observer that shows events to people by `make` of it."""
        self._observer.replace(make)

    @cached_property
    def _observer(self) -> Together:
        from builda.cli.progress.observer import observer

        found = self._stack.enter_context(
            observer(
                sys.stderr,
                quiet=self.quiet,
                warnings=self.settings.warnings,
                events=self.settings.events,
                environ=self.environ,
                traces=self.settings.verbose,
                place=self._place_in_script,
            )
        )
        if self._trace_file is not None:
            found.add(self._trace_file)
        return found

    def _place_in_script(self) -> str | None:
        from builda.session.scriptplace import place_of

        return place_of(self.environ, sys.argv[1:])


def _log_to(stream: TextIO) -> None:
    """Write everything that is logged, as text that acts on no terminal and has no passwords or signed URLs."""
    import logging
    import re

    from builda.display import displayed

    query = re.compile(r"\?[^\s\"]+")

    class Shown(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return query.sub("?…", displayed(super().format(record)))

    handler = logging.StreamHandler(stream)
    handler.setFormatter(Shown("%(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG, handlers=[handler])


def _alone(lacking: BuildaError, not_shown: str | None) -> Event:
    from builda.events import Warned

    if not_shown is None:
        what = "builda answers their calls about other users and owners, and records the owners of files"
    else:
        what = (
            "they can become no other user and give files to nobody, while owners that images and COPY bring are kept "
            f"({not_shown})"
        )
    return Warned(message=f"commands here have one id: {what}: {lacking}", hint=lacking.hint)


def _copying(store: Store, no_calls: str | None) -> Event:
    from builda.events import Warned

    if not store.can_chroot:
        return Warned(
            message="the kernel gives commands no root directory here: their calls are answered by tracing, ids and "
            "owners are pretended, and the network and processes are this pod's",
            hint="`builda doctor` says what a better mode needs",
            note=not store.is_first,
        )
    if not store.can_mount:
        return Warned(
            message="nothing can be mounted here: a command runs by chroot in its container's one tree, and can "
            "read all that this process can" + (f"; it has no /proc ({no_calls})" if no_calls else ""),
            hint="`builda doctor` says what a better mode needs",
            note=not store.is_first,
        )
    return Warned(
        message="every working tree in this store is a copy, as overlay cannot be written in it: "
        f"{store.no_overlay}; a store on a volume (--root, BUILDA_ROOT) is faster and smaller",
        note=not store.is_first,
    )
