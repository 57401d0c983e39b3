"""Finds the files of a call: its caller's memory, paths and descriptors as descriptors of the supervisor."""

from __future__ import annotations

import errno
import os

from builda.isolation.child.notification import Listener
from builda.isolation.emulated.processes import Processes
from builda.isolation.traced.calling import signed
from builda.isolation.traced.kept_aside import Owners
from builda.isolation.traced.outside import Outside
from builda.isolation.traced.tree import Place, State, Tree, open_inside
from builda.linux.ptrace import Memory

_PATH = os.O_PATH | os.O_CLOEXEC
_LINK = _PATH | os.O_NOFOLLOW
_DIRECTORY = _PATH | os.O_DIRECTORY


class Files:
    """Finds the files that calls name. `identity` is the call that is being answered."""

    def __init__(self, listener: Listener, tree: Tree, processes: Processes, states: dict[int, State]) -> None:
        self.listener = listener
        self.tree = tree
        self.processes = processes
        self.states = states
        self.memory = Memory()
        self.owners = Owners((os.getuid(), os.getgid()))
        self.outside = Outside(tree, states, processes)
        self.identity = 0

    def path(self, tid: int, address: int) -> bytes:
        """The path at an address; ENOENT for an empty one."""
        path = self.memory.text(tid, address)
        if not path:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return path

    def write(self, tid: int, address: int, data: bytes) -> None:
        """Write into the caller's memory if the call still waits: its number may be another thread's by now."""
        self.listener.check(self.identity)
        self.memory.write(tid, address, data)

    def at(self, tid: int, directory: int, address: int) -> tuple[State, bytes]:
        """The caller's state, and the path of a call from the caller's root on."""
        state = self.states[tid]
        path = self.path(tid, address)
        return state, path if path[:1] == b"/" else self.tree.absolute(state, tid, signed(directory), path)

    def open_place(self, state: State, tid: int, path: bytes, *, follow: bool) -> int:
        """An O_PATH descriptor of what is at `path`, in the tree or in the part of the pod that the command may see."""
        try:
            return open_inside(state.root.fd, path, _PATH if follow else _LINK)
        except PermissionError:
            place = self.tree.walk(state, tid, path, follow=follow)
        if place.outside:
            self.outside.check_seen(state, tid, place.path)
            return os.open(place.path, _PATH if follow else _LINK)
        return open_inside(state.root.fd, place.path, _LINK)

    def in_tree(self, tid: int, directory: int, address: int, *, follow: bool) -> int:
        """An O_PATH descriptor of a file of the tree; EPERM for what lies outside it."""
        state, path = self.at(tid, directory, address)
        try:
            return open_inside(state.root.fd, path, _PATH if follow else _LINK)
        except PermissionError:
            place = self.tree.walk(state, tid, path, follow=follow)
        if place.outside:
            return self.descriptor_in_tree(state, place)
        return open_inside(state.root.fd, place.path, _LINK)

    def descriptor_in_tree(self, state: State, place: Place) -> int:
        """The file of the tree that a path such as /proc/self/fd/3 leads to."""
        fd = os.open(place.path, _PATH)
        if state.root.inside(os.readlink(b"/proc/self/fd/%d" % fd)) is None and not self.is_of_caller(place.path):
            os.close(fd)
            raise PermissionError(errno.EPERM, "")
        return fd

    def is_of_caller(self, path: bytes) -> bool:
        """Whether a path is that of a descriptor of one of the command's processes that is no file with a path."""
        parts = path.split(b"/")
        if len(parts) != 5 or parts[3] != b"fd" or not parts[2].isdigit() or int(parts[2]) not in self.states:
            return False
        return not os.readlink(path).startswith(b"/") or b" (deleted)" in os.readlink(path)

    def parent(self, tid: int, directory: int, address: int) -> tuple[int, bytes]:
        """An open directory of the tree and the name in it that a path means; links at the end are not followed."""
        state, path = self.at(tid, directory, address)
        whole = path.rstrip(b"/")
        above, _, name = whole.rpartition(b"/")
        if not name:
            return open_inside(state.root.fd, b"/", _DIRECTORY), b"."
        try:
            fd = open_inside(state.root.fd, above or b"/", _DIRECTORY)
        except PermissionError:
            place = self.tree.walk(state, tid, above, follow=True)
            if place.outside:
                raise
            fd = open_inside(state.root.fd, place.path, _DIRECTORY)
        return fd, name + path[len(whole) :]

    def held(self, tid: int, number: int) -> bytes:
        """The path in /proc of a descriptor of the caller; EBADF if it has no such descriptor."""
        path = b"/proc/%d/fd/%d" % (tid, signed(number))
        try:
            os.readlink(path)
        except OSError as error:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from error
        return path

    def held_in_tree(self, tid: int, number: int) -> int:
        return os.open(self.held(tid, number), _PATH)
