"""Shows the output and events of the pod of a build as those of this command."""

from __future__ import annotations

import sys

from builda.cli.building.clusterrequest import NO_VALUES, RETURNED
from builda.cli.core.output import say, write, write_bytes, write_file
from builda.errors import BuildaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TextIO

    from builda.cli.core.verbsession import Session
    from builda.cli.progress.buildview import BuildView
    from builda.cli.progress.observer import Observer
    from builda.cluster.connection import Cluster
    from builda.cluster.frames import Frame
    from builda.events import ImageBuilt


def show(
    session: Session,
    cluster: Cluster,
    job: str,
    local: Mapping[str, str],
    values: Mapping[str, Any],
    *,
    live: bool,
    feed: Callable[[str], None] | None = None,
) -> tuple[int, ImageBuilt | None]:
    """Show what a Job does: an error if its build fails, the exit status of its script, the image of its build.

    `feed` sends contexts to a pod that waits for them.
    """
    from builda.cluster.follow import follow

    view = View(session, values, local, live=live)
    try:
        for frame in follow(cluster, job, session.warn, feed):
            view.show(frame)
    finally:
        view.close("interrupted")
    if view.error is not None:
        raise view.error
    for name in RETURNED:
        if values.get(name) and name not in view.written:
            option = f"--{name.replace('_', '-')}"
            session.warn(
                f"{option} was not among the options when the Job was made, so it is not written: {values[name]}"
            )
    if view.image is not None:
        if values["iidfile"] is not None:
            write_file(values["iidfile"], str(view.image.id))
        elif values["iidfile_raw"] is not None:
            write_file(values["iidfile_raw"], view.image.id.encoded)
    return view.status, view.image


def local_names(job: Mapping[str, Any]) -> Mapping[str, str]:
    import json

    found = (job["metadata"].get("annotations") or {}).get("builda.io/local")
    value = json.loads(found) if found else {}
    return {str(pod): str(here) for pod, here in value.items()}


def feed_only(session: Session, cluster: Cluster, job: str, feed: Callable[[str], None]) -> None:
    """Wait until the first pod of a Job has its contexts. An error if the Job ends before."""
    from builda.cluster.follow import follow
    from builda.cluster.frames import Awaiting, Ended

    for frame in follow(cluster, job, session.warn, feed):
        if isinstance(frame, Awaiting):
            return
        if isinstance(frame, Ended) and frame.error is not None:
            raise frame.error


class View:
    """The frames of a build as this command's output."""

    def __init__(self, session: Session, values: Mapping[str, Any], local: Mapping[str, str], *, live: bool) -> None:
        self.error: BuildaError | None = None
        self.image: ImageBuilt | None = None
        self.status = 0
        """The exit status of a script."""
        self.written: set[str] = set()
        """The options whose files came from the pod."""
        self._files: dict[str, list[bytes]] = {}
        self._values = values
        self._session = session
        self._mixed = values["jobs"] != 1 or len(values["platform"]) > 1
        self._remembers = values["layers"] is not False
        self._live = live
        self._localized = localizing(local)
        self._view: BuildView | None = None
        self._open()

    def show(self, frame: Frame) -> None:
        """Show one."""
        from builda.cluster.frames import Awaiting, Closed, Ended, Exited, Printed, Returned, Wrote
        from builda.events import BuildFailed, ImageBuilt

        match frame:
            case Awaiting():
                pass
            case Wrote(stream, data):
                _write_raw(sys.stderr if stream == "stderr" else sys.stdout, data)
            case Returned(name, data, done):
                self._returned(name, data, done=done)
            case Exited(status):
                self.status = status
            case Printed(text):
                self.prints(self._localized(text))
            case Closed(outcome):
                self.close(outcome)
            case Ended(error):
                self.error = None if error is None else self.localized(error)
            case _:
                from builda.cli.progress.observer import with_texts

                if self._view is None and type(frame).__name__ == "BuildStarted":
                    self._open()
                if isinstance(frame, ImageBuilt):
                    self.image = frame
                if not isinstance(frame, BuildFailed):  # who runs this command tells of its failure
                    self._session.emit(with_texts(frame, self._localized))

    def localized(self, error: BuildaError) -> BuildaError:
        """An error of the pod's with the names of this machine's files."""
        return localized_error(error, self._localized)

    def _returned(self, name: str, data: bytes, *, done: bool) -> None:
        """A piece of a file that was made in the pod; the last one writes it to where this command line says."""
        here = self._values.get(name) if name in RETURNED else None
        if here is None:
            return
        pieces = self._files.setdefault(name, [])
        pieces.append(data)
        if done:
            write_bytes(here, b"".join(self._files.pop(name)))
            self.written.add(name)

    def prints(self, text: str) -> None:
        """Print what the build prints."""
        write(text)
        sys.stdout.flush()

    def close(self, outcome: str) -> None:
        """Nothing more moves in the view of the steps."""
        if self._view is not None:
            view, self._view = self._view, None
            view.close(outcome)

    def _open(self) -> None:
        from builda.cli.progress.buildview import build_view

        def make(others: Observer) -> BuildView:
            self._view = build_view(
                others,
                live=self._live,
                quiet=self._session.quiet,
                mixed=self._mixed,
                remembers=self._remembers,
                warnings=self._session.settings.warnings,
                environ=self._session.environ,
            )
            return self._view

        self._session.watch(make)


def _write_raw(stream: TextIO, data: bytes) -> None:
    """Write the output of a script unchanged."""
    stream.flush()
    stream.buffer.write(data)
    stream.buffer.flush()


def localizing(local: Mapping[str, str]) -> Callable[[str], str]:
    """A function that replaces the pod's paths in a text by the names of this machine's files."""
    names = sorted(local.items(), reverse=True)

    def change(text: str) -> str:
        for pod, here in names:
            text = text.replace(pod, here)
        return text

    return change


def localized_error(error: BuildaError, change: Callable[[str], str]) -> BuildaError:
    """An error of the pod's with texts changed so."""
    error.args = (change(str(error)),)
    error.hint = None if error.hint is None else change(error.hint)
    if getattr(error, "file", None) is not None:
        error.file = change(error.file)  # type: ignore[attr-defined]  # of those that have a place
    return error


def show_again(session: Session, cluster: Cluster, job: str) -> None:
    """Show a build from its beginning on; how it ended makes no difference to this command."""
    found = cluster.get("jobs", job)
    try:
        show(session, cluster, job, local_names(found), NO_VALUES, live=False)
    except BuildaError as error:
        from builda.cli.core.reports import report_of

        say(report_of(error).rstrip("\n"))
