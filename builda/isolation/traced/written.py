"""Notices that files were written to, as no supervisor sees write(2): by inotify(7).

The kernel then takes capabilities, and set-id bits unless the writer is root (`file_remove_privs`). It knows nothing of
the capabilities that are kept aside, and takes set-id bits also where the command pretends to be root.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_MODIFY, _OVERFLOW = 0x2, 0x4000  # IN_…
_EVENT = struct.Struct("=iIII")
_MOST = 64
_libc = ctypes.CDLL(None, use_errno=True)


class Watched:
    """A file that may be written to: `fd` is an O_PATH descriptor of it, `key` its device and inode.

    `bits` are its set-id bits. With `by_root` each process that opened it to write may keep them (CAP_FSETID).
    """

    __slots__ = ("bits", "by_root", "fd", "key")

    def __init__(self, fd: int, key: tuple[int, int]) -> None:
        self.fd = fd
        self.key = key
        self.bits = 0
        self.by_root = True


class Written:
    """Watches files until they are written to. Beyond 64 the oldest is forgotten."""

    def __init__(self) -> None:
        self.files: dict[int, Watched] = {}
        self._notices = -1

    def watch(self, place: bytes) -> Watched | None:
        """What is known of the file at `place`, which is watched from now on; None if the kernel watches no more."""
        if self._notices < 0:
            self._notices = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        number = _libc.inotify_add_watch(self._notices, place, _MODIFY)
        if number < 0:
            return None
        if number not in self.files:
            if len(self.files) >= _MOST:
                oldest = next(iter(self.files))
                _libc.inotify_rm_watch(self._notices, oldest)
                os.close(self.files.pop(oldest).fd)
            fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
            info = os.fstat(fd)
            self.files[number] = Watched(fd, (info.st_dev, info.st_ino))
        return self.files[number]

    def known(self, info: os.stat_result) -> Watched | None:
        """What is known of a file, if it is watched."""
        key = info.st_dev, info.st_ino
        return next((file for file in self.files.values() if file.key == key), None)

    def taken(self) -> list[Watched]:
        """The watched files that were written to since the last call."""
        if not self.files:
            return []
        numbers: set[int] = set()
        while True:
            try:
                data = os.read(self._notices, 65536)
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    break
                raise
            at = 0
            while at < len(data):
                number, mask, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size + length
                if mask & _OVERFLOW:
                    numbers.update(self.files)
                elif mask & _MODIFY:
                    numbers.add(number)
        return [file for number, file in self.files.items() if number in numbers]

    def close(self) -> None:
        """Watch nothing more."""
        for file in self.files.values():
            os.close(file.fd)
        self.files.clear()
        if self._notices >= 0:
            os.close(self._notices)
            self._notices = -1
