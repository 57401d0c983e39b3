"""A session on disk and in the environment: its directory in the run root, its notes in the store, and its end.

A verb inside finds the session by BUILDA_SESSION, the path of that directory, whose name is the session's ID. The
directory holds `root`, a link to the store, and what the session's commands reach the warm process by.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from builda.errors import BuildaError, NotFound, StoreUnavailable
from builda.fs.paths import discard
from builda.oci.digest import Digest
from builda.session import trace
from builda.store import failedsteps, layout, leases, locks, sessions
from builda.store.layout import Damaged
from builda.store.names import Pending
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.store.containers import WorkingContainer
    from builda.store.layout import Layout
    from builda.store.sessions import Membership
    from builda.store.store import Store

VARIABLE = "BUILDA_SESSION"
_ROOT = "root"


class Lease(NamedTuple):
    """The session that this process runs: its ID, and its directory in the run root."""

    id: str
    place: str


@contextmanager
def held(store: Store, *, transaction: bool, keeps_failed: bool = False) -> Iterator[Lease]:
    """A new session in the store, alive during the block; `end` it there, else the next command does.

    In a `transaction` others see the names that its commands give when `publish` is called. With `keeps_failed` its
    commands note the steps that fail, for `keep_failed`.
    """
    where = store.layout
    parent = where.volatile("s")
    _sweep(parent)
    place = f"{parent}/{os.urandom(4).hex()}"
    with ExitStack() as stack:
        name, held_notes = sessions.begin(where, place, transaction=transaction, keeps_failed=keeps_failed)
        stack.callback(os.close, held_notes)
        try:
            stack.callback(os.close, locks.hold_directory(place))
            os.symlink(where.root, f"{place}/{_ROOT}")
        except BaseException:
            sessions.remove(where, name)
            raise
        yield Lease(name, place)


def _sweep(parent: str) -> None:
    """Remove directories of sessions that were killed and whose store is gone."""
    for name in layout.iter_names(parent):
        with suppress(FileNotFoundError, NotADirectoryError, BlockingIOError):
            path = f"{parent}/{name}"
            with locks.directory_alone(path):
                if not os.path.exists(f"{path}/{_ROOT}/{sessions.DIRECTORY}/{name}"):
                    discard(path)


def membership(where: Layout, environ: Mapping[str, str]) -> Membership | None:
    """The session that a command in this environment works in; None outside of one, and in another store than its.

    InvalidValue if the session has ended.
    """
    place = environ.get(VARIABLE)
    if not place:
        return None
    name = os.path.basename(place)
    try:
        root = os.readlink(f"{place}/{_ROOT}")
    except OSError:
        raise sessions.ended(name) from None
    return sessions.join(where, name) if root == where.root else None


def has_dead(where: Layout) -> bool:
    """Whether there are sessions that were killed and not yet dissolved."""
    return bool(sessions.dead(where))


def reclaim(store: Store, before: Callable[[str], None] | None = None) -> Iterator[BuildaError]:
    """Dissolve the sessions in this store that were killed; what cannot be removed is yielded.

    `before` gets the directory in the run root of each; without it, sessions that are traced are left to a process that
    can write their traces.
    """
    for name in sessions.dead(store.layout):
        lock = store.layout.path(sessions.DIRECTORY, name, "lock")
        with (
            suppress(BlockingIOError, FileNotFoundError),
            locks.alone(lock),
            sessions.without_members(store.layout, name),
        ):
            place = sessions.place_of(store.layout, name)
            if place is not None and before is not None:
                before(place)
            elif place is not None and trace.wanted(place) is not None:
                continue
            yield from _dissolve(store, name)
            store.sweep()  # working trees of containers that were half made


def apart(action: Callable[[], int]) -> None:
    """Call `action` in a forked process because it enters another mode, like `reclaim` in a process without rights."""
    from builda.linux import fork

    os.waitpid(fork.start(action), 0)


def changed_names(store: Store, lease: Lease) -> tuple[str, ...]:
    """The names that the session's commands gave or took off, and that others do not see yet."""
    return tuple(Pending(store.layout, lease.id).changes())


def publish(store: Store, lease: Lease) -> None:
    """Have others see all names that the session's commands changed, in one step.

    NotFound, and nothing is changed, if an image was removed meanwhile.
    """
    pending = Pending(store.layout, lease.id)
    if (changes := pending.changes()) or pending.hidden():
        store.images.publish(changes, pending.hidden())


def keep_failed(store: Store, lease: Lease) -> Iterator[str]:
    """Keep the containers whose last step failed, and yield the names that they have from now on.

    A kill on the way leaves the rest to be removed with the session.
    """
    for container_id in sessions.notes(store.layout, lease.id, "containers"):
        with suppress(NotFound, Damaged):
            failed = failedsteps.read(store.layout, container_id)
            if failed is None or failed.shown_in is not None:
                continue
            container = _named_freely(store, store.containers.load(container_id))
            for kept in (*failed.others, container_id):
                sessions.forget(store.layout, lease.id, "containers", kept)
            yield container.name


def _named_freely(store: Store, container: WorkingContainer) -> WorkingContainer:
    """The container by a name of failed steps; by its own if the disk is full, which may be why its step failed."""
    if container.name.startswith(failedsteps.PREFIX):
        return container
    try:
        return store.containers.rename_freely(container, failedsteps.PREFIX)
    except (StoreUnavailable, OSError) as error:
        if not layout.is_full(error):
            raise
        return container


def end(store: Store, lease: Lease, *, keep: bool) -> Iterator[BuildaError]:
    """Dissolve a session of this process; with `keep` what it made stays. What cannot be removed is yielded."""
    store.close()  # its own lease would keep the content of the images that go
    yield from _dissolve(store, lease.id, keep=keep)


def _dissolve(store: Store, name: str, *, keep: bool = False) -> Iterator[BuildaError]:
    """Remove what a session made, or only the notes of it. What cannot be removed now stays noted and is yielded."""
    for container_id in sessions.notes(store.layout, name, "containers"):
        try:
            if not keep:
                _remove_container(store, container_id)
            sessions.forget(store.layout, name, "containers", container_id)
        except BuildaError as error:
            yield error
    _end_image_mounts(store, name)
    leases.remove_dead(store.layout)
    is_freed = False
    for encoded in sessions.notes(store.layout, name, "images"):
        if not keep:
            gone = store.images.discard(Digest("sha256", encoded), named=False, horizon=float("inf"))
            is_freed = is_freed or gone is not None
        sessions.forget(store.layout, name, "images", encoded)
    sessions.remove(store.layout, name)
    if is_freed:
        store.sweep()


def _remove_container(store: Store, container_id: str) -> None:
    from builda.linux.mount import detach

    try:
        container = store.containers.load(container_id)
    except NotFound:  # removed by the script, or never made; either may have been half done
        store.containers.remove_remains(container_id)
    else:
        store.remove_container(container, detach=detach)


def _end_image_mounts(store: Store, name: str) -> None:
    """Undo what `image mount` did in a session: mounts would end with its namespace, copies of trees would stay."""
    if not (mounts := store.image_mounts.of_session(name)):
        return
    from builda.linux.mount import detach

    with store.image_mounts.locked():
        for mount in mounts:
            if mount.namespace:
                detach(mount.place)
            store.image_mounts.remove(mount)
    for mount in mounts:
        if mount.tree is not None:
            with suppress(NotFound, FileNotFoundError):
                store.snapshots.remove(mount.tree)


def own_mounts() -> None:
    """Give this process and its children a mount namespace, so that only they see their mounts.

    Mounts that others make and remove are still seen here.
    """
    from builda.linux import syscalls as sys_

    sys_.unshare(sys_.CLONE_NEWNS)
    sys_.mount(None, "/", None, sys_.MS_REC | sys_.MS_SLAVE)


def end_processes(where: Layout) -> bool:
    """End what still runs of the scripts of sessions that were killed: each such process has the session's variable.

    False if no session was killed. Must be called before this process enters a user namespace: in one it may not look
    into the others.
    """
    names = sessions.dead(where)
    places = {place for name in names if (place := sessions.place_of(where, name)) is not None}
    if not places:
        return bool(names)
    marks = [f"{VARIABLE}={place}".encode() for place in places]
    killed = [
        process
        for pid in os.listdir("/proc")
        if pid.isdecimal() and int(pid) != os.getpid() and (process := _killed(int(pid), marks)) is not None
    ]
    deadline = time.monotonic() + sessions.ENDING
    for process in killed:
        ending = select.poll()
        ending.register(process, select.POLLIN)
        ending.poll(max(0, deadline - time.monotonic()) * 1000)
        os.close(process)
    return True


def _killed(pid: int, marks: list[bytes]) -> int | None:
    """Kill a process that has one of the variables; a descriptor of it. None if it has none, or cannot be asked."""
    with suppress(OSError):  # it has ended, or is another user's
        process = os.pidfd_open(pid)
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                variables = file.read().split(b"\0")
            if any(mark in variables for mark in marks):
                signal.pidfd_send_signal(process, signal.SIGKILL)
                return process
        except OSError:
            pass
        os.close(process)
    return None
