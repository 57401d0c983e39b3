"""What is kept aside of files because the command's processes have one id and no capability: read, shown and changed.

A file keeps its owner's right to read and write (and to search, for a directory), whatever its mode says: without it
the supervisor, which has no more rights than the command, could not open the file again.
"""

from __future__ import annotations

import errno
import os

from builda.isolation.emulated.credentials import DAC_OVERRIDE, FOWNER, FSETID, Credentials
from builda.isolation.emulated.ownership import (
    ASIDE,
    ATTRIBUTE,
    HIDDEN,
    NAMED,
    S_IFDIR,
    S_IFMT,
    S_IFREG,
    Kept,
    check_attribute_of_users,
    given,
    may_access,
    mode_after_chown,
    mode_of_new,
    owner_of_new,
    parse_kept,
    parse_rows,
    row_key,
    rows_value,
)
from builda.isolation.traced.written import Written
from builda.linux import acl

CAPABILITIES = ASIDE + "security.capability"
ACL = ASIDE + acl.NAMES[0]
_SETFCAP, _SYS_ADMIN = 31, 21
_PRIVILEGED = ("security.", "trusted.")
_MOST_REMEMBERED = 60_000
_S_ISGID = 0o2000
_SET_ID = 0o6000


class Seen:
    """One file as it is (`mode`, `owner` of the kernel) and what is kept aside of it."""

    __slots__ = ("info", "kept", "mode", "owner")

    def __init__(self, info: os.stat_result, kept: Kept | None, ids: tuple[int, int]) -> None:
        self.info = info
        self.kept = kept
        self.mode = shown_mode(info.st_mode, kept)
        self.owner = (kept.uid, kept.gid) if kept is not None else shown_owner(info.st_uid, info.st_gid, ids)


def stored_name(name: str) -> str:
    """The name of the attribute in which the value of another one is stored; ENODATA for one that is not shown."""
    if name in HIDDEN or name.startswith(ASIDE):
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
    return ASIDE + name if name.startswith(_PRIVILEGED) else name


def shown_names(names: list[str]) -> list[str]:
    """The names of the attributes that a process sees, of those that are stored."""
    return [name.removeprefix(ASIDE) for name in names if name not in HIDDEN and not name.startswith(_PRIVILEGED)]


def check_attribute(who: Credentials, name: str) -> None:
    """EPERM if `who` may not set or remove the attribute."""
    if name.startswith(_PRIVILEGED) and not who.has(_SETFCAP if ASIDE + name == CAPABILITIES else _SYS_ADMIN):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def capabilities_of(place: bytes | int) -> bytes:
    """The security.capability of a file; empty without one."""
    try:
        return os.getxattr(place, CAPABILITIES)
    except OSError:
        return b""


def needed(mode: int) -> int:
    """The permission bits that a file of this kind has in any case."""
    kind = mode & S_IFMT
    return 0o700 if kind == S_IFDIR else 0o600 if kind == S_IFREG else 0


def shown_owner(uid: int, gid: int, ids: tuple[int, int]) -> tuple[int, int]:
    """The owner to show of a file without one kept aside: the supervisor's ids (`ids`) stand for root."""
    return 0 if uid == ids[0] else uid, 0 if gid == ids[1] else gid


def shown_mode(mode: int, kept: Kept | None) -> int:
    """The mode to show. A mode that was kept aside counts as long as the file's own is what it was made then."""
    if kept is None:
        return mode
    if kept.kind:
        return kept.kind | kept.mode
    return mode & S_IFMT | kept.mode if kept.mode | needed(mode) == mode & 0o7777 else mode


class Owners:
    """What is kept aside, for all files of a tree. Paths are those of descriptors in /proc/self/fd."""

    def __init__(self, ids: tuple[int, int]) -> None:
        self.ids = ids
        self.written = Written()
        self.plain: set[tuple[int, ...]] = set()
        """Device, inode and ctime of files of which nothing is kept."""
        self._incapable: set[tuple[int, ...]] = set()  # the same of files without capabilities
        self.nameless: set[tuple[int, ...]] = set()
        """Device, inode and ctime of links, FIFOs and sockets of which no directory keeps an owner."""

    def kept(self, place: bytes, device: int, inode: int, changed: int, mode: int) -> Kept | None:
        """What is kept aside of the regular file or directory at `place`; `changed` is its ctime."""
        if mode & S_IFMT not in (S_IFREG, S_IFDIR):
            return None
        key = (device, inode, changed)
        if key in self.plain:
            return None
        try:
            return parse_kept(os.getxattr(place, ATTRIBUTE))
        except OSError:
            _remember(self.plain, key)
            return None

    def capabilities(self, place: bytes | int, info: os.stat_result) -> bytes:
        """The security.capability of the regular file at `place`; empty without one."""
        key = (info.st_dev, info.st_ino, info.st_ctime_ns)
        if key in self._incapable:
            return b""
        found = capabilities_of(place)
        if not found:
            _remember(self._incapable, key)
        return found

    def _look(self, place: bytes, info: os.stat_result) -> None:
        """Remember which attributes a regular file lacks."""
        key = (info.st_dev, info.st_ino, info.st_ctime_ns)
        if key in self.plain and key in self._incapable:
            return
        try:
            names = os.listxattr(place)
        except OSError:
            return
        if ATTRIBUTE not in names:
            _remember(self.plain, key)
        if CAPABILITIES not in names:
            _remember(self._incapable, key)

    def forget(self, info: os.stat_result) -> None:
        """An attribute of a file will be set: look at the file again, although its ctime may stay what it is."""
        key = (info.st_dev, info.st_ino, info.st_ctime_ns)
        self.plain.discard(key)
        self._incapable.discard(key)

    def seen(self, place: bytes, info: os.stat_result | None = None) -> Seen:
        """The file at `place`."""
        info = info or os.stat(place)
        kept = self.kept(place, info.st_dev, info.st_ino, info.st_ctime_ns, info.st_mode)
        return Seen(info, kept, self.ids)

    def _seen_in(self, place: bytes, info: os.stat_result, parent: tuple[int, bytes] | None) -> Seen:
        """The file at `place`, with the owner that its directory keeps if it can have no attribute itself."""
        file = self.seen(place, info)
        if parent is not None and file.info.st_mode & S_IFMT not in (S_IFREG, S_IFDIR):
            file.owner = self.named(parent) or file.owner
        return file

    def note(self, place: bytes | int, info: os.stat_result, kept: Kept) -> None:
        """Keep something aside of a file, or nothing if it can hold all itself.

        `info`: of the file as it is, or before its mode was changed.
        """
        self.plain.discard((info.st_dev, info.st_ino, info.st_ctime_ns))
        mode = kept.mode | needed(info.st_mode)
        if (kept.uid, kept.gid, kept.kind) == (0, 0, 0) and mode == kept.mode:
            try:
                os.removexattr(place, ATTRIBUTE)
            except OSError as error:
                if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                    raise
            return
        os.setxattr(place, ATTRIBUTE, kept.value())

    def change_mode(
        self,
        who: Credentials,
        place: bytes,
        info: os.stat_result,
        mode: int,
        parent: tuple[int, bytes] | None = None,
    ) -> None:
        """chmod(2). `info` is of the file; `parent`: the directory and name of what can have no attribute itself."""
        file = self._seen_in(place, info, parent)
        if who.fsuid != file.owner[0] and not who.has(FOWNER):
            raise OSError(errno.EPERM, "chmod")
        mode &= 0o7777
        if mode & _S_ISGID and not who.has(FSETID) and not who.is_member(file.owner[1]):
            mode &= ~_S_ISGID
        os.chmod(place, mode | needed(info.st_mode))
        self._has_bits(info, mode)
        has_attributes = info.st_mode & S_IFMT in (S_IFREG, S_IFDIR)
        if has_attributes and (file.kept is not None or mode | needed(file.mode) != mode):
            kept = file.kept or Kept(*file.owner, mode)
            self.note(place, info, Kept(kept.uid, kept.gid, mode, kept.kind, kept.device))

    def acl(self, place: bytes) -> bytes:
        """The ACL of a file, with the mode that it shows; ENODATA without one."""
        try:
            value = os.getxattr(place, ACL)
        except OSError:
            value = acl.revealed(os.getxattr(place, acl.NAMES[0]))
        return acl.with_mode(value, self.seen(place).mode)

    def acl_or_none(self, place: bytes) -> bytes:
        """As `acl`; empty without one."""
        try:
            return self.acl(place)
        except OSError:
            return b""

    def set_acl(self, who: Credentials, place: bytes, value: bytes) -> None:
        """Give a file an ACL. The kernel's own one could take away its owner's right to open it."""
        file = self.seen(place)
        if file.info.st_mode & S_IFMT not in (S_IFREG, S_IFDIR):
            self.check_owner(who, file)
            self._set_acl(place, acl.NAMES[0], value)
            return
        self.remove_acl(who, place)
        self.change_mode(who, place, file.info, file.mode & 0o7000 | acl.mode_of(value))
        if acl.says_more_than_a_mode(value):
            os.setxattr(place, ACL, value)

    def default_acl(self, place: bytes) -> bytes:
        """The ACL that what is made in a directory gets; ENODATA without one."""
        return acl.revealed(os.getxattr(place, acl.NAMES[1]))

    def set_default_acl(self, who: Credentials, place: bytes, value: bytes) -> None:
        """Give a directory a default ACL, which the kernel hands down."""
        self.check_owner(who, self.seen(place))
        self._set_acl(place, acl.NAMES[1], value)

    def remove_default_acl(self, who: Credentials, place: bytes) -> None:
        self.check_owner(who, self.seen(place))
        os.removexattr(place, acl.NAMES[1])

    def _set_acl(self, place: bytes, name: str, value: bytes) -> None:
        """Set an ACL of the kernel's; in disguise, if this machine does not have the ids that it names."""
        try:
            if not acl.is_disguise(value):
                os.setxattr(place, name, value)
                return
        except OSError as error:
            if error.errno != errno.EINVAL or not acl.is_acl(value):
                raise
        os.setxattr(place, name, acl.disguised(value, self.ids[0]))

    def check_owner(self, who: Credentials, file: Seen) -> None:
        """EPERM if `who` may not change the ACLs of a file."""
        if who.fsuid != file.owner[0] and not who.has(FOWNER):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def remove_acl(self, who: Credentials, place: bytes) -> None:
        """Remove the ACL of a file, if it has one; its mode stays."""
        file = self.seen(place)
        self.check_owner(who, file)
        for name in (ACL, acl.NAMES[0])[file.info.st_mode & S_IFMT not in (S_IFREG, S_IFDIR) :]:
            try:
                os.removexattr(place, name)
            except OSError as error:
                if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                    raise

    def change_owner(
        self,
        who: Credentials,
        place: bytes,
        info: os.stat_result,
        uid: int,
        gid: int,
        parent: tuple[int, bytes] | None = None,
    ) -> None:
        """chown(2). `info` is of the file; `parent`: the directory and name of what can have no attribute itself."""
        kind = info.st_mode & S_IFMT
        if kind == S_IFREG:
            self._look(place, info)
        file = self._seen_in(place, info, parent)
        owner = given(who, file.owner, uid, gid)
        mode = mode_after_chown(who, file.mode, file.owner, owner[1])
        if kind in (S_IFREG, S_IFDIR):
            if kind == S_IFREG and self.capabilities(place, info):
                os.removexattr(place, CAPABILITIES)  # chown(2) takes them away
            if mode != file.mode:
                os.chmod(place, mode & 0o7777 | needed(info.st_mode))
                self._has_bits(info, mode)
            if file.kept is not None:
                self.note(place, info, Kept(*owner, mode & 0o7777, file.kept.kind, file.kept.device))
            elif owner != (0, 0) or mode | needed(mode) != mode:
                self.note(place, info, Kept(*owner, mode & 0o7777))
        elif parent is not None:
            if mode != file.mode:
                os.chmod(place, mode & 0o7777)
            self.name(parent, owner)

    def opened_to_write(self, who: Credentials, place: bytes | int, info: os.stat_result) -> None:
        """`who` may write to the file at `place`, a path or a descriptor that is no O_PATH one, from now on."""
        if info.st_mode & S_IFMT == S_IFREG and (info.st_mode & _SET_ID or self.capabilities(place, info)):
            file = self.written.watch(b"/proc/self/fd/%d" % place if isinstance(place, int) else place)
            if file is not None:
                file.bits = info.st_mode & _SET_ID
                file.by_root = file.by_root and who.has(FSETID)

    def _has_bits(self, info: os.stat_result, mode: int) -> None:
        """A file has this mode now."""
        file = self.written.known(info) if self.written.files else None
        if file is not None:
            file.bits = mode & _SET_ID

    def settle(self) -> None:
        """Make of files that were written to what write(2) would have made of them.

        It takes capabilities, and set-id bits unless root writes.
        """
        for file in self.written.taken():
            place = b"/proc/self/fd/%d" % file.fd
            self.emptied(place)
            info = os.stat(place)
            taken = file.bits & ~info.st_mode
            if taken and file.by_root:
                os.chmod(place, info.st_mode & 0o7777 | taken)
            elif taken:
                kept = self.kept(place, info.st_dev, info.st_ino, info.st_ctime_ns, info.st_mode)
                if kept is not None:
                    self.note(place, info, kept._replace(mode=kept.mode & ~taken))
                file.bits &= ~taken

    def emptied(self, place: bytes | int) -> None:
        """The content of a file was changed: it has no capabilities any more. `place`: as in `opened_to_write`."""
        if capabilities_of(place):
            os.removexattr(place, CAPABILITIES)

    def new(
        self,
        who: Credentials,
        place: bytes | int,
        info: os.stat_result,
        asked: int,
        umask: int,
        parent: bytes | int,
        node: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        """Note what has to be kept aside of a file that `who` has just made, in the directory `parent`.

        `asked` is the mode that the call had, `place`, `info`: as in `note`. `node` is the kind and number of a device.
        The kernel applied the umask (`Files.take_umask`) or a default ACL.
        """
        uid, gid = self.of_new(who, parent)
        if info.st_mode & S_IFMT not in (S_IFREG, S_IFDIR):
            return
        mode = info.st_mode & (0o7077 | asked & 0o700)
        if asked & _S_ISGID and info.st_mode & S_IFMT == S_IFREG:
            mode &= self.mode_in(who, parent, asked) | ~_S_ISGID
        if asked & umask & 0o700 and not _has_default_acl(parent):
            mode &= ~umask
        held = mode | needed(info.st_mode)
        if held != info.st_mode & 0o7777:
            os.chmod(place, held)
        if (uid, gid) != (0, 0) or node[0] or held != mode:
            self.note(place, info, Kept(uid, gid, mode, node[0], node[1:]))
            return
        key = (info.st_dev, info.st_ino, info.st_ctime_ns)  # a new file has no attributes
        _remember(self.plain, key)
        _remember(self._incapable, key)

    def check_making(self, who: Credentials, directory: bytes) -> None:
        """EACCES if `who` may make nothing in the directory."""
        if who.fsuid and not self.may(who, directory, 3):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    def may(self, who: Credentials, place: bytes, wanted: int) -> bool:
        """Whether the mode and the ACL of a file let `who` read (4), write (2) or execute (1) it."""
        file = self.seen(place)
        return may_access(who, file.mode, file.owner, wanted, acl=lambda: self.acl_or_none(place))

    def check_attribute_of_users(self, who: Credentials, place: bytes, name: str, wanted: int) -> None:
        """EACCES or EPERM if `who` may not read (4) or change (2) an attribute `user.…` of a file."""
        if not name.startswith("user.") or who.has(DAC_OVERRIDE):
            return
        file = self.seen(place)
        if file.info.st_mode & S_IFMT in (S_IFREG, S_IFDIR):
            check_attribute_of_users(who, file.mode, file.owner, wanted, lambda: self.acl_or_none(place))

    def of_new(self, who: Credentials, parent: bytes | int) -> tuple[int, int]:
        """The owner of what `who` makes in the directory `parent`, a path or descriptor."""
        mode = os.stat(parent).st_mode
        if not mode & _S_ISGID:
            return who.fsuid, who.fsgid
        place = b"/proc/self/fd/%d" % parent if isinstance(parent, int) else parent
        return owner_of_new(who, mode, self.seen(place).owner[1])

    def mode_in(self, who: Credentials, parent: bytes | int, mode: int) -> int:
        """The mode for a file, no directory, that `who` makes in the directory `parent` (`mode_of_new`)."""
        return mode_of_new(who, mode, os.stat(parent).st_mode, self.of_new(who, parent)[1]) if mode & _S_ISGID else mode

    def made(self, who: Credentials, fd: int, asked: int, umask: int) -> None:
        """As `new`, for a file that is open, and not only as a path."""
        info = os.fstat(fd)
        try:
            above = os.readlink(b"/proc/self/fd/%d" % fd).rpartition(b"/")[0] or b"/"
            self.new(who, fd, info, asked, umask, above)
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.ENOENT):
                raise
            self.new(who, fd, info, asked, umask, fd)  # deeper than a path can say, or moved: no group is handed down

    def named(self, parent: tuple[int, bytes]) -> tuple[int, int] | None:
        """The owner that a directory keeps of a link or FIFO in it."""
        return self._rows(parent[0]).get(row_key(parent[1]))

    def remember_nameless(self, key: tuple[int, ...]) -> None:
        _remember(self.nameless, key)

    def name(self, parent: tuple[int, bytes], owner: tuple[int, int]) -> None:
        """Keep the owner of a link or FIFO in its directory; root is not kept."""
        rows = self._rows(parent[0])
        key = row_key(parent[1])
        if owner == (0, 0):
            if rows.pop(key, None) is None:
                return
        else:
            rows[key] = owner
        place = b"/proc/self/fd/%d" % parent[0]
        info = os.stat(place)
        self.plain.discard((info.st_dev, info.st_ino, -info.st_ctime_ns))
        self.nameless.clear()
        if rows:
            os.setxattr(place, NAMED, rows_value(rows))
        else:
            os.removexattr(place, NAMED)

    def _rows(self, directory: int) -> dict[int, tuple[int, int]]:
        info = os.fstat(directory)
        key = (info.st_dev, info.st_ino, -info.st_ctime_ns)  # apart from what `kept` remembers of the directory
        if key in self.plain:
            return {}
        try:
            return parse_rows(os.getxattr(b"/proc/self/fd/%d" % directory, NAMED))
        except OSError:
            _remember(self.plain, key)
            return {}


def _has_default_acl(directory: bytes | int) -> bool:
    try:
        os.getxattr(directory if isinstance(directory, bytes) else b"/proc/self/fd/%d" % directory, acl.NAMES[1])
    except OSError:
        return False
    return True


def _remember(keys: set[tuple[int, ...]], key: tuple[int, ...]) -> None:
    if len(keys) > _MOST_REMEMBERED:
        keys.clear()
    keys.add(key)
