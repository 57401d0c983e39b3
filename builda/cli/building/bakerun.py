"""Many builds at once on this machine: a process forks for each, and this one shows what all of them do.

Processes that fork are made before anything else, while this process has one thread. What builds share is found in the
store: while one of them performs a step, the others wait for its result (`builder/execution/turns.py`).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from builda.cli.building.bakewords import Planned
from builda.cli.core.output import print_words
from builda.errors import BuildaError
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.cli.core.verbsession import Session
    from builda.cli.progress.buildview import BuildView
    from builda.cli.progress.observer import Observer
    from builda.cluster.frames import Frame, Reader
    from builda.events import ImageBuilt

_LINE = 1 << 16
_FIRST = tuple(
    f"builda.{name}"
    for name in """api containerfile host.modes builder.execution.execute builder.execution.perform builder.image.commit
    builder.image.push builder.image.pull builder.run.run builder.copy.copying cli.verbs.build cli.building.buildinput
    cli.verbs.buildresult store.store""".split()
)
"""Modules that every build needs: imported once, before processes fork."""
_KILLED = 137


class Result(NamedTuple):
    """The image that a build made, and whether all of it was there already."""

    name: str
    image: ImageBuilt


class Shown:
    """One view of all builds."""

    def __init__(self, session: Session, *, live: bool) -> None:
        self._session = session
        self._live = live
        self._view: BuildView | None = None
        session.watch(self._made)

    def _made(self, others: Observer) -> BuildView:
        from builda.cli.progress.buildview import build_view

        self._view = build_view(
            others,
            live=self._live,
            quiet=self._session.quiet,
            mixed=True,
            remembers=True,
            warnings=self._session.settings.warnings,
            environ=self._session.environ,
        )
        return self._view

    def show(self, name: str, frame: Frame) -> None:
        """Show what the build `name` does; its image and its end are shown elsewhere."""
        from builda.cluster.frames import Awaiting, Closed, Ended, Exited, Printed, Returned, Wrote
        from builda.events import BuildFailed, ImageBuilt

        match frame:
            case Printed(text):
                if not self._session.quiet:
                    _print_prefixed(name, text)
            case Closed() | Ended() | Awaiting() | Returned() | Wrote() | Exited() | BuildFailed():
                pass
            case ImageBuilt():
                self._session.emit(frame)
            case event:
                self._session.emit(event)

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Nothing more happens."""
        if self._view is not None:
            interrupted = kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit)
            view, self._view = self._view, None
            view.close("built" if kind is None else "interrupted" if interrupted else "failed")


def _print_prefixed(name: str, text: str) -> None:
    for line in text.splitlines():
        print_words(line if line.startswith(f"[{name}]") else f"[{name}] {line}")


def named(error: BuildaError, name: str) -> BuildaError:
    """The error, saying which target it is of."""
    if error.args and not str(error).startswith(f"target {name}: "):
        error.args = (f"target {name}: {error}",)
    return error


def build_all(
    session: Session, builds: Sequence[Planned], jobs: int, common: Sequence[str], since: float, *, live: bool
) -> dict[str, Result]:
    """Build all, at most `jobs` at a time, with the options `common` for each; the first failure ends the others.

    Steps that were done before `since` (seconds since the epoch) do not count as done where a build has no cache.
    """
    workers = _started(session, min(jobs, len(builds)), common, since, live=live)
    try:
        with Shown(session, live=live) as shown:
            return _Conductor(builds, workers, shown).run()
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process that performs builds one after the other: the pipe of its requests, and the pipe of its events."""

    def __init__(self, pid: int, asked: int, told: int) -> None:
        self.pid = pid
        self.told = told
        self.build: str | None = None
        self.reader: Reader | None = None
        self._asked = asked

    def ask(self, build: Planned) -> None:
        """Have it build."""
        from builda.cluster.frames import Reader

        self.build, self.reader = build.name, Reader()
        data = json.dumps([*build[:5]]).encode() + b"\n"
        while data:
            data = data[os.write(self._asked, data) :]

    def end(self) -> None:
        """End the worker's build, and wait for the worker's end."""
        with suppress(OSError):
            os.close(self._asked)
        if self.build is not None:
            self._signal()
        while True:
            try:
                while os.read(self.told, _LINE):  # what it still tells, until it is gone
                    pass
                os.waitpid(self.pid, 0)
            except (KeyboardInterrupt, SystemExit):
                self._signal()
                continue
            except ChildProcessError:
                pass
            os.close(self.told)
            return

    def _signal(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


class _Conductor:
    """Gives builds to workers as soon as what they need is there."""

    def __init__(self, builds: Sequence[Planned], workers: Sequence[_Worker], shown: Shown) -> None:
        self._waiting = list(builds)
        self._idle = list(workers)
        self._busy: dict[int, _Worker] = {}
        self._shown = shown
        self._results: dict[str, Result] = {}
        self._images: dict[str, ImageBuilt] = {}

    def run(self) -> dict[str, Result]:
        """Run all builds; their results. Raises the first failure."""
        import select

        waiting = select.poll()
        while self._waiting or self._busy:
            while self._idle and (build := self._ready()) is not None:
                worker = self._idle.pop()
                worker.ask(build)
                self._busy[worker.told] = worker
                waiting.register(worker.told, select.POLLIN)
            for descriptor, _ in waiting.poll():
                if self._heard(self._busy[descriptor]):
                    waiting.unregister(descriptor)
                    self._idle.append(self._busy.pop(descriptor))
        return self._results

    def _ready(self) -> Planned | None:
        """A build whose needs are there, with the names of their images."""
        for build in self._waiting:
            if all(other in self._results for other in build.needs.values()):
                self._waiting.remove(build)
                ids = {other: str(self._results[other].image.id) for other in build.needs.values()}
                return build.with_images(ids)
        return None

    def _heard(self, worker: _Worker) -> bool:
        """Take what a worker tells; whether its build is done."""
        from builda.cluster.frames import Ended
        from builda.events import ImageBuilt

        assert worker.reader is not None, "it has a build"
        assert worker.build is not None, "it has a build"
        name = worker.build
        data = os.read(worker.told, _LINE)
        if not data:
            worker.build = None
            raise named(BuildaError("the process of the build was killed"), name)
        for frame in worker.reader.take(data):
            if isinstance(frame, ImageBuilt):
                self._images[name] = frame
            if isinstance(frame, Ended):
                worker.build = None
                if frame.error is not None:
                    raise named(frame.error, name)
                self._results[name] = Result(name, self._images[name])
                return True
            self._shown.show(name, frame)
        return False


def _started(session: Session, count: int, common: Sequence[str], since: float, *, live: bool) -> list[_Worker]:
    from builda.host.forked import forked

    workers: list[_Worker] = []
    for _ in range(count):
        asked_read, asked_write = os.pipe()
        told_read, told_write = os.pipe()
        others = [asked_write, told_read, *(each for one in workers for each in (one.told, one._asked))]

        def work(asked: int = asked_read, told: int = told_write, others: Sequence[int] = tuple(others)) -> int:
            for descriptor in others:
                os.close(descriptor)
            return _Serving(session, common, since, told, live=live).serve(asked)

        pid = forked(work)
        os.close(asked_read)
        os.close(told_write)
        workers.append(_Worker(pid, asked_write, told_read))
    return workers


class _Serving:
    """The life of a worker: it forks for each build, and waits for that."""

    def __init__(self, session: Session, common: Sequence[str], since: float, told: int, *, live: bool) -> None:
        self._session = session
        self._common = common
        self._since = since
        self._told = told
        self._live = live
        self._child: int | None = None
        self._ends = False

    def serve(self, asked: int) -> int:
        """Build what is asked for until nothing more is."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # builds get it themselves from a terminal
        signal.signal(signal.SIGTERM, self._end)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        for name in _FIRST:
            import_module(name)
        with open(asked, "rb") as lines:
            for line in lines:
                self._build(Planned(*json.loads(line)))
                if self._ends:
                    break
        return 0

    def _end(self, number: int, _frame: object) -> None:
        self._ends = True
        if self._child is None:
            os._exit(128 + number)
        with suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGTERM)

    def _build(self, build: Planned) -> None:
        from builda.host.forked import forked

        self._child = forked(lambda: self._inside(build))
        _, status = os.waitpid(self._child, 0)
        self._child = None
        if os.waitstatus_to_exitcode(status) < 0 or os.waitstatus_to_exitcode(status) == _KILLED:
            self._tell_of_kill(os.waitstatus_to_exitcode(status))

    def _tell_of_kill(self, status: int) -> None:
        from builda.cluster.frames import Ended, to_line

        error = BuildaError(f"the process of the build was killed by signal {abs(status)}")
        with suppress(OSError):
            os.write(self._told, b"\n" + to_line(1 << 50, Ended(error)).encode() + b"\n")

    def _inside(self, build: Planned) -> int:
        """The process of one build."""
        from builda.cli.core.invoke import end_cleanly

        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, end_cleanly)
        return relayed(self._session, build, self._common, self._since, self._told, live=self._live)


def relayed(session: Session, build: Planned, common: Sequence[str], since: float, told: int, *, live: bool) -> int:
    """Build, and write what happens to the descriptor `told`; the exit status."""
    from builda.cli.core.reports import internal
    from builda.cli.core.verbsession import Session as NewSession
    from builda.cli.progress.relayedview import Relay, RelayedOutput, Unseen

    relay = Relay(told, live=live, platform=build.name)
    sys.stdout = RelayedOutput(relay)
    error: BuildaError | None = None
    try:
        with NewSession(session.settings._replace(events=None), session.environ) as own:
            own.relay = relay
            own.watch(lambda others: Unseen())
            own.record(relay)
            own.quiet = session.quiet
            _build(own, build, common, since)
    except BuildaError as failure:
        error = failure
    except (KeyboardInterrupt, SystemExit) as ended:
        error = BuildaError("interrupted")
        error.exit_status = ended.code if isinstance(ended, SystemExit) and isinstance(ended.code, int) else 130
    except OSError as failure:
        from builda.errors import of_system

        error = of_system(failure)
    except Exception as failure:
        error = internal(failure, ())
    relay.ended(error)
    return 0 if error is None else error.exit_status


def _build(session: Session, build: Planned, common: Sequence[str], since: float) -> None:
    from builda.cli.core.verb import COMPOSING
    from builda.cli.verbs import verb_named

    verb = verb_named("build")
    own = [f"--cache-since={since}" if word == "--no-cache" else word for word in build.words]
    values = verb.read([*common, *own], {}, path="builda build").values(verb.rows)
    session.enter(composing=verb.name in COMPOSING)
    values["context"] = build.context if build.inline is None else inline_context(build)
    values["quiet"] = session.quiet
    values["on"] = ""
    verb.function(session, **values)


def inline_context(build: Planned) -> object:
    """The context of a build whose Containerfile stands in the bake file."""
    from builda.cli.building.bakewords import is_directory
    from builda.cli.building.contexts import BuildContext
    from builda.containerfile import find_ignore_file
    from builda.errors import NotFound, Unsupported

    if not is_directory(build.context):
        raise Unsupported(f"{build.place}: dockerfile-inline needs a context that is a directory: {build.context}")
    if not os.path.isdir(build.context):
        raise NotFound(f"no such file or directory for the context: {build.context}")
    name = f"{build.place} (dockerfile-inline)"
    ignore = find_ignore_file(build.context, "Dockerfile")
    return BuildContext(build.context, ((name, str(build.inline).encode()),), ignore)
