"""Changes owners, and records owners that the kernel does not let this process give.

A user namespace with one id can give nothing away. There an owner is kept aside: in the attribute of files that
`standin` has, and for links and FIFOs, which can have no attribute of users, in one of the directory that holds them. A
process without capabilities (`rights`) keeps modes aside too: its files stay readable and writable for their owner.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Mapping

from builda.errors import Unsupported
from builda.fs import rights, standin, xattrs
from builda.linux.userns import id_map, unmapped

NAMED = "user.builda.owners"
"""Of a directory: owners of links and FIFOs in it. Rows of three numbers: CRC-32 of the name, uid, gid."""
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_HINT = "a larger range in /etc/subuid and /etc/subgid, or another owner"


def keeps_aside() -> bool:
    """Whether this process can give no file to another owner, so that all other owners are kept aside."""
    return sum(size for _, _, size in id_map()) == 1 or rights.lacks_rights()


def fchown(fd: int, uid: int, gid: int) -> None:
    """fchown(2); Unsupported if an id is not mapped in this user namespace."""
    try:
        give(fd, uid, gid)
    except OSError as error:
        explain(error, uid, gid)
        raise


def chown(name: str | bytes, uid: int, gid: int, *, dir_fd: int | None = None) -> None:
    """fchownat(2), following no link; Unsupported if an id is not mapped in this user namespace."""
    try:
        give_at(name, uid, gid, dir_fd=dir_fd)
    except OSError as error:
        explain(error, uid, gid)
        raise


def chown_node(parent: int, name: bytes, path: str, uid: int, gid: int) -> None:
    """Like `chown`, for the node `name` in the directory `parent`, which `path` leads to (see `nodes.pinned`)."""
    try:
        give_node(parent, name, path, uid, gid)
    except OSError as error:
        explain(error, uid, gid)
        raise


def give(fd: int, uid: int, gid: int) -> None:
    """fchown(2). A process with one id records other owners in an attribute instead."""
    try:
        os.fchown(fd, uid, gid)
    except OSError as error:
        if not _is_for_record(error):
            raise
    else:
        if not _own_ids_stand_for_root():
            return
    _keep(fd, uid, gid)


def give_at(name: str | bytes, uid: int, gid: int, *, dir_fd: int | None = None) -> None:
    """fchownat(2), following no link. A process with one id records other owners in an attribute instead."""
    failed: OSError | None = None
    try:
        os.chown(name, uid, gid, dir_fd=dir_fd, follow_symlinks=False)
    except OSError as error:
        if not _is_for_record(error):
            raise
        failed = error
    if failed is None and not _own_ids_stand_for_root():
        return
    info = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if _has_attributes(info):
        _keep_at(name, uid, gid, dir_fd)
    elif dir_fd is not None:
        _note(dir_fd, os.fsencode(name), uid, gid)
    elif failed is not None:
        raise failed


def give_node(parent: int, name: bytes, path: str, uid: int, gid: int) -> None:
    """Like `give_at`, for the node `name` in the directory `parent`, which `path` leads to (see `nodes.pinned`)."""
    try:
        os.chown(path, uid, gid)
    except OSError as error:
        if not _is_for_record(error):
            raise
    else:
        if not _own_ids_stand_for_root():
            return
    if _has_attributes(os.stat(path)):
        _keep_at(path, uid, gid, None, os.O_RDONLY | os.O_CLOEXEC)
    else:
        _note(parent, name, uid, gid)


def _is_for_record(error: OSError) -> bool:
    """Whether an owner that the kernel refused with `error` is recorded in an attribute instead."""
    return error.errno in (errno.EINVAL, errno.EPERM) and keeps_aside()


def _own_ids_stand_for_root() -> bool:
    """Whether a file that the kernel gave to this process's own ids would show as root's.

    A pod's user 1000 may give files to 1000, and must keep that aside as it does for other users.
    """
    return os.geteuid() != 0 and keeps_aside()


def dress(fd: int, uid: int, gid: int, mode: int) -> None:
    """Owner and mode of a file or directory, for a process that `lacks_rights`; what was kept aside of it is gone.

    The mode comes first: a default ACL may have denied the owner to write, and so to set attributes.
    """
    kind = os.fstat(fd).st_mode
    held = mode | rights.needed(kind)
    os.fchmod(fd, held)
    if (uid, gid) != (0, 0) or held != mode:
        standin.record(fd, standin.owned(b"", uid, gid, mode))
    else:
        own(fd)


def own(fd: int) -> None:
    """Remove the recorded owner of a directory, which then has its own again."""
    try:
        os.removexattr(fd, standin.XATTR)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
            raise


def values_of(parent: int, name: bytes) -> dict[str, bytes]:
    """The attributes of a link or FIFO, with the owner that is kept aside of it as a file has it."""
    values = xattrs.recorded(xattrs.place_of(parent, name))
    found = _noted(parent).get(_key(name))
    return values if found is None else {**values, standin.XATTR: b"%d:%d:0777" % found}


def seen(info: os.stat_result, values: Mapping[str, bytes]) -> tuple[int, int]:
    """The owner that a file should have, if `keeps_aside`: the recorded one, else its own, with this user as root."""
    return standin.owner_of(values) or (_pretended(info.st_uid, os.geteuid()), _pretended(info.st_gid, os.getegid()))


def seen_mode(info: os.stat_result, values: Mapping[str, bytes]) -> int:
    """The mode (with the file type) that a file should have, if `keeps_aside`."""
    kept = standin.mode_of(values)
    if kept is None or kept | rights.needed(info.st_mode) != info.st_mode & 0o7777 or not rights.lacks_rights():
        return info.st_mode
    return stat.S_IFMT(info.st_mode) | kept


def without(values: Mapping[str, bytes]) -> dict[str, bytes]:
    """The attributes without those in which owners are kept."""
    return {name: value for name, value in values.items() if name not in (standin.XATTR, NAMED)}


def check(uid: int, gid: int, what: str) -> None:
    """Raise Unsupported, beginning with `what`, if an id is not mapped in this user namespace."""
    lacking = unmapped(uid, gid)
    if lacking is not None:
        raise Unsupported(f"{what}: {lacking}", hint=_HINT)


def _pretended(number: int, own_id: int) -> int:
    """0 for the id of this process, which stands for root."""
    return 0 if number == own_id else number


def _has_attributes(info: os.stat_result) -> bool:
    """Whether the kernel lets users set attributes of it."""
    return stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)


def _keep_at(name: str | bytes, uid: int, gid: int, dir_fd: int | None, flags: int = _FILE) -> None:
    fd = os.open(name, flags, dir_fd=dir_fd)
    try:
        _keep(fd, uid, gid)
    finally:
        os.close(fd)


def _keep(fd: int, uid: int, gid: int) -> None:
    try:
        value = os.getxattr(fd, standin.XATTR)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
        value = b""
    if (uid, gid) == (0, 0) and not value:
        return  # it is this process's own already
    values = {standin.XATTR: value}
    held = None if standin.device_of(values) is None else standin.mode_of(values)  # a device's own counts in `traced`
    mode = os.fstat(fd).st_mode if held is None else held
    standin.record(fd, standin.owned(value, uid, gid, mode))


def _noted(directory: int) -> dict[int, tuple[int, int]]:
    try:
        data = os.getxattr(directory, NAMED)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return {}
        raise
    numbers = memoryview(data[: len(data) // 12 * 12]).cast("I").tolist()
    return {numbers[at]: (numbers[at + 1], numbers[at + 2]) for at in range(0, len(numbers), 3)}


def _key(name: bytes) -> int:
    """The number that stands for a name in the attribute of its directory."""
    import zlib  # few processes keep owners aside

    return zlib.crc32(name)


def _note(directory: int, name: bytes, uid: int, gid: int) -> None:
    rows = _noted(directory)
    if (uid, gid) == (0, 0) and _key(name) not in rows:
        return
    rows[_key(name)] = (uid, gid)
    _set_noted(directory, rows)


def inherit_noted(directory: int, below: int, names: Collection[bytes]) -> None:
    """Note the owners of links and FIFOs that a directory shows of the one below it, which its attribute hides.

    `names` are those that it has itself.
    """
    rows = _noted(below)
    if not rows:
        return
    own, hidden = _noted(directory), set(map(_key, names))
    merged = {key: owner for key, owner in rows.items() if key not in hidden} | own
    if merged != own:
        _set_noted(directory, merged)


def _set_noted(directory: int, rows: Mapping[int, tuple[int, int]]) -> None:
    data = b"".join(number.to_bytes(4, "little") for key, owner in rows.items() for number in (key, *owner))
    try:
        os.setxattr(directory, NAMED, data)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.E2BIG):
            raise Unsupported(
                f"too many links with recorded owners in one directory for this file system: {len(rows)}",
                hint="a range of ids in /etc/subuid needs no such notes",
            ) from error
        if error.errno == errno.ENOTSUP:
            raise xattrs.not_kept(directory) from error
        raise


def explain(error: OSError, uid: int, gid: int) -> None:
    """Raise Unsupported if `error`, of a call that gives a file away, means that an id has no place here."""
    if error.errno == errno.EINVAL:
        lacking = unmapped(uid, gid)
        if lacking is not None:
            raise Unsupported(f"cannot give a file to {uid}:{gid}: {lacking}", hint=_HINT) from error
