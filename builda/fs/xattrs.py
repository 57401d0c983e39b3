"""Extended attributes: which of them belong to an image, and how they are read and written.

A layer records capabilities, `user.*` and POSIX ACLs. SELinux labels belong to the host, overlay's own to the kernel.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from builda.errors import Unsupported
from builda.fs import rights
from builda.linux import acl, filecaps
from builda.linux.userns import id_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

OVERLAY = ("trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.")
OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque")
"""What says of a directory that it hides what is below it."""
ORIGIN = frozenset(("trusted.overlay.origin", "user.overlay.origin", "user.fuseoverlayfs.origin"))
"""What says of a file that it was copied from a layer below, to be changed."""
ACLS = acl.NAMES
_CAPABILITY = filecaps.NAME
STAND_IN = "user.containers.override_stat"
"""What a file is that stands in for another (`fs.standin`)."""
ASIDE = "user.builda.aside."
"""Before the name of an attribute that a process without capabilities cannot set, and keeps instead."""
_SETTABLE = ("security.", "user.", "trusted.")

Place: TypeAlias = "int | str"
"""An open descriptor, or the path of something that cannot be opened (a link, a device): not followed."""


def place_of(parent: int, name: bytes) -> str:
    """The path of `name` in the directory `parent`, for calls that take no directory descriptor."""
    return f"/proc/self/fd/{parent}/{os.fsdecode(name)}"


def recorded(place: Place) -> dict[str, bytes]:
    """The attributes at `place` that a layer records, by sorted names."""
    try:
        names = os.listxattr(place) if isinstance(place, int) else os.listxattr(place, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOENT, errno.ELOOP):
            return {}
        raise
    if not names:
        return {}
    kept = {name.removeprefix(ASIDE): _value(place, name) for name in names if name.startswith(ASIDE)}
    found = {name: value for name, value in kept.items() if is_recorded(name)}
    found |= {name: _value(place, name) for name in names if is_recorded(name)}
    if ACLS[0] in found or ACLS[1] in found:
        found |= _acls(place, found)
    if _CAPABILITY in found and filecaps.revealed(found[_CAPABILITY]) != found[_CAPABILITY] and _hides_names():
        found[_CAPABILITY] = filecaps.revealed(found[_CAPABILITY])
    return dict(sorted(found.items()))


def _acls(place: Place, values: Mapping[str, bytes]) -> dict[str, bytes]:
    """The ACLs to record: without a disguise, and with the present mode of the file, which may be newer."""
    found = {name: values[name] for name in ACLS if name in values}
    if any(acl.is_disguise(value) for value in found.values()) and _hides_names():
        found = {name: acl.revealed(value) for name, value in found.items()}
    if ACLS[0] in found:
        found[ACLS[0]] = acl.with_mode(found[ACLS[0]], _mode(place, values.get(STAND_IN, b"")))
    return found


def _mode(place: Place, stand_in: bytes) -> int:
    """The mode that a file should have: one that is kept aside counts as long as the file's own is what it was then."""
    mode = os.stat(place, follow_symlinks=isinstance(place, int)).st_mode
    try:
        kept = int(stand_in.split(b":")[2], 8)
    except (IndexError, ValueError):
        return mode
    return kept if rights.lacks_rights() and kept | rights.needed(mode) == mode & 0o7777 else mode


def is_recorded(name: str) -> bool:
    """Whether a layer records this attribute."""
    own = name.startswith("user.") and not name.startswith((*OVERLAY, ASIDE))
    return own or name == _CAPABILITY or name in ACLS


def is_settable(name: str) -> bool:
    """Whether an image may set this attribute: never what the kernel's overlay, or the host's SELinux, acts upon."""
    if name.startswith((*OVERLAY, ASIDE)) or name == "security.selinux":
        return False
    return name.startswith(_SETTABLE) or name in ACLS


def write(place: Place, values: Mapping[str, bytes], *, follow: bool = False) -> tuple[str, ...]:
    """Set what an image may set; the names of those that this file system, or this process, cannot keep.

    `follow` is for the path of an open descriptor (/proc/self/fd/N), which is a symbolic link.

    A capability that cannot be set is an error: without it the program would not work. So is what a file stands in for.
    """
    skipped = []
    for name, value in values.items():
        if not is_settable(name):
            continue
        try:
            if name == ACLS[0] and _is_hindered_by_acls(place):
                _keep_acl(place, value, follow=follow)
                continue
            _set(place, name, value, follow=follow)
        except OSError as error:
            if name == STAND_IN and error.errno == errno.EPERM:
                raise stands_for_nothing() from error
            if name == _CAPABILITY and error.errno == errno.EPERM and rights.lacks_rights():
                _set(place, ASIDE + name, value, follow=follow)
                continue
            if error.errno == errno.EINVAL and _hides_names():
                disguise = _disguised(name, value)
                if disguise:
                    _set(place, name, disguise, follow=follow)
                    continue
            if error.errno == errno.ENOTSUP and name in (STAND_IN, _CAPABILITY):
                raise not_kept(place) from error
            if name == _CAPABILITY or error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise
            skipped.append(name)
    return tuple(skipped)


def _disguised(name: str, value: bytes) -> bytes:
    """What this process sets instead of an attribute that names ids which it lacks; empty for others."""
    if name in ACLS and acl.is_acl(value):
        return acl.disguised(value, os.geteuid())
    return filecaps.disguised(value) if name == _CAPABILITY and filecaps.is_valid(value) else b""


def _is_hindered_by_acls(place: Place) -> bool:
    """Whether an ACL could take away this process's right to open a file or directory, which it must keep."""
    return rights.needed(os.stat(place).st_mode) != 0 and rights.lacks_rights()


def mode_given(mode: int, values: Mapping[str, bytes]) -> int:
    """The mode of a file with this one that is given these attributes: an ACL has permissions of its own."""
    value = values.get(ACLS[0], b"")
    return mode & 0o7000 | acl.mode_of(value) if acl.is_acl(value) else mode


def _keep_acl(place: Place, value: bytes, *, follow: bool) -> None:
    """Keep the ACL of a file aside, if the kernel would keep it. It replaces one that the file has from its directory.

    EINVAL for what is none, as setxattr(2) has it. `mode_given` has the mode that belongs to it.
    """
    if not acl.is_acl(value) and not acl.is_removal(value):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    for name in (ACLS[0], ASIDE + ACLS[0]):
        try:
            _remove(place, name, follow=follow)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                raise
    if not acl.is_removal(value) and acl.says_more_than_a_mode(value):
        _set(place, ASIDE + ACLS[0], value, follow=follow)


def take_default_acl(directory: int) -> bytes:
    """Remove the default ACL of an open directory, and return it; empty if it has none."""
    try:
        found = os.getxattr(directory, ACLS[1])
    except OSError:
        return b""
    os.removexattr(directory, ACLS[1])
    return found


def _hides_names() -> bool:
    """Whether this process disguises what names ids: it has no rights, or one id only."""
    return sum(size for _, _, size in id_map()) == 1 or rights.lacks_rights()


def not_kept(place: Place) -> Unsupported:
    """The error if an owner, a device or a capability cannot be recorded as an attribute of a file."""
    from builda.linux.userattributes import WHERE

    path = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else os.fspath(place)
    what = "the file system keeps no attributes, in which owners, devices and capabilities are recorded"
    return Unsupported(f"{what}: {path}", hint=WHERE)


def stands_for_nothing() -> Unsupported:
    """The error if the attribute of a file that stands in for a device cannot be set."""
    return Unsupported(
        "a device node cannot be copied here: fuse-overlayfs refuses the file that would represent it",
        hint="a store on a volume (--root) needs no fuse-overlayfs",
    )


def _set(place: Place, name: str, value: bytes, *, follow: bool) -> None:
    if isinstance(place, int):
        os.setxattr(place, name, value)
    else:
        os.setxattr(place, name, value, follow_symlinks=follow)


def _remove(place: Place, name: str, *, follow: bool) -> None:
    if isinstance(place, int):
        os.removexattr(place, name)
    else:
        os.removexattr(place, name, follow_symlinks=follow)


def _value(place: Place, name: str) -> bytes:
    if isinstance(place, int):
        return os.getxattr(place, name)
    return os.getxattr(place, name, follow_symlinks=False)


def is_opaque(directory: int) -> bool:
    """Whether overlayfs or fuse-overlayfs hides everything that lower layers have in the open directory."""
    for name in OPAQUE:
        try:
            if os.getxattr(directory, name) == b"y":
                return True
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise
    return False
