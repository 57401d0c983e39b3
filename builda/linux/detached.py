"""Detached mounts: file systems that exist only as a descriptor, made from plain values.

A description is a tuple (type, source, target, options, lower): the fields of `linux.mount.Mount`. The child of
`isolation` uses this module too and must start in milliseconds, so nothing but os and syscalls is imported.
"""

from __future__ import annotations

import errno
import os

from builda.linux import syscalls as sys_

Description = tuple[str, str, str, tuple[str, ...], tuple[str, ...]]

# Per-mount attributes by their mount(8) names: (bits to set, bits to clear).
ATTRIBUTES = {
    "ro": (sys_.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, sys_.MOUNT_ATTR_RDONLY),
    "nosuid": (sys_.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, sys_.MOUNT_ATTR_NOSUID),
    "nodev": (sys_.MOUNT_ATTR_NODEV, 0),
    "dev": (0, sys_.MOUNT_ATTR_NODEV),
    "noexec": (sys_.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, sys_.MOUNT_ATTR_NOEXEC),
    "relatime": (sys_.MOUNT_ATTR_RELATIME, sys_.MOUNT_ATTR__ATIME),
    "noatime": (sys_.MOUNT_ATTR_NOATIME, sys_.MOUNT_ATTR__ATIME),
    "strictatime": (sys_.MOUNT_ATTR_STRICTATIME, sys_.MOUNT_ATTR__ATIME),
    "nodiratime": (sys_.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, sys_.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (sys_.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, sys_.MOUNT_ATTR_NOSYMFOLLOW),
}
PROPAGATION = {
    "private": sys_.MS_PRIVATE,
    "slave": sys_.MS_SLAVE,
    "shared": sys_.MS_SHARED,
    "unbindable": sys_.MS_UNBINDABLE,
}
FUSE = "fuse-overlayfs"
"""An overlay that the program of this name serves. `linux.fuse` makes it, so `clone` here does not know it."""
DETACHED = "detached"
"""A mount that exists already. Its source is the number of a descriptor of this process, which `clone` takes over."""

DIRECTORY_PART, FILE_PART = "directory=", "file="
"""Options that name the part to mount: the directory or file at a path in the whole. The path holds no links."""

# Options that say which kind of mount is meant, and set no attribute.
KINDS = frozenset({"bind", "rbind", "defaults", "idmap", "idmap?", ""})

_MARKS = (
    (os.unlink, "work/incompat/volatile/dirty"),
    (os.rmdir, "work/incompat/volatile"),
    (os.rmdir, "work/incompat"),
)
"""What a mount with `volatile` leaves in its workdir. The kernel mounts no such workdir again."""


def clone(mount: Description, userns: int = -1) -> int:
    """A descriptor of a detached mount of what `mount` describes; closing it ends the mount.

    An overlay is mounted whole, also if its options name a part (see `part_at`). `userns`, if given, is a descriptor of
    the user namespace by which the mount's directories are id-mapped.
    """
    kind, source, _, options, lower = mount
    part, options = split_part(options)
    if part is not None and kind in ("bind", "rbind"):
        return _clone_part(source, part, recursive=kind == "rbind", options=options, userns=userns)
    if kind in ("bind", "rbind", "none") or "bind" in options or "rbind" in options:
        return clone_bind(source, recursive=kind == "rbind" or "rbind" in options, options=options, userns=userns)
    if kind == "overlay":
        return clone_overlay(lower, options, userns)
    if kind == DETACHED:
        set_options(int(source), options)
        return int(source)
    return clone_filesystem(kind, source, options)


def clone_bind(source: str, *, recursive: bool, options: tuple[str, ...], userns: int = -1) -> int:
    """A detached copy of the mount at `source`, a directory or file, with the attributes of `options`."""
    flags = sys_.OPEN_TREE_CLONE | (sys_.AT_RECURSIVE if recursive else 0)
    return _adjusted(sys_.open_tree(sys_.AT_FDCWD, source, flags), recursive, options, userns)


def split_part(options: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """(the option that names the part to mount or None, the other options)."""
    found = [word for word in options if word.startswith((DIRECTORY_PART, FILE_PART))]
    return found[0] if found else None, tuple(word for word in options if word not in found)


def is_handed(mount: Description) -> bool:
    """Whether an OCI runtime cannot make this mount itself: the child makes it in the bundle."""
    return mount[0] in (DETACHED, FUSE) or split_part(mount[3])[0] is not None


def part_at(root: int, part: str) -> int:
    """An O_PATH descriptor of the part of the directory `root` that the option `part` names. No link is followed."""
    resolve = sys_.RESOLVE_IN_ROOT | sys_.RESOLVE_NO_SYMLINKS
    return sys_.openat2(root, part.partition("=")[2].lstrip("/"), os.O_PATH, resolve=resolve)


def _clone_part(source: str, part: str, *, recursive: bool, options: tuple[str, ...], userns: int) -> int:
    root = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        place = part_at(root, part)
    finally:
        os.close(root)
    try:
        flags = sys_.OPEN_TREE_CLONE | sys_.AT_EMPTY_PATH | (sys_.AT_RECURSIVE if recursive else 0)
        fd = sys_.open_tree(place, "", flags)
    finally:
        os.close(place)
    return _adjusted(fd, recursive, options, userns)


def _adjusted(fd: int, recursive: bool, options: tuple[str, ...], userns: int) -> int:
    """Set attributes and the id map of the detached mount `fd`. Returns it; closes it on failure."""
    try:
        if userns >= 0:
            deep = sys_.AT_EMPTY_PATH | (sys_.AT_RECURSIVE if recursive else 0)
            sys_.mount_setattr(fd, "", deep, attr_set=sys_.MOUNT_ATTR_IDMAP, userns=userns)
        set_options(fd, options)
    except BaseException:
        os.close(fd)
        raise
    return fd


def clone_filesystem(kind: str, source: str, options: tuple[str, ...]) -> int:
    """A detached new file system: tmpfs, proc, sysfs, devpts, mqueue …"""
    attributes, settings = split_options(options)
    context = sys_.fsopen(kind)
    try:
        if source:
            sys_.fsconfig(context, sys_.FSCONFIG_SET_STRING, "source", source)
        for setting in settings:
            _configure(context, setting)
        sys_.fsconfig(context, sys_.FSCONFIG_CMD_CREATE)
        return sys_.fsmount(context, attributes)
    finally:
        os.close(context)


def clone_overlay(lower: tuple[str, ...], options: tuple[str, ...], userns: int = -1) -> int:
    """A detached overlay of `lower` (topmost first) and the upperdir and workdir of `options`.

    The kernel refuses an overlay of one lower directory without an upper one: that is a read-only bind instead.
    """
    attributes, settings = split_options(options)
    if len(lower) == 1 and not any(setting.startswith("upperdir=") for setting in settings):
        words = tuple(word for word in options if word in ATTRIBUTES)
        return clone_bind(lower[0], recursive=False, options=(*words, "ro"), userns=userns)
    _forget_mount(options)  # of a process that was killed before it did
    mapped: list[int] = []
    context = sys_.fsopen("overlay")
    try:
        if userns >= 0:
            lower, settings = _mapped_layers(lower, settings, userns, mapped)
        _configure_overlay(context, lower, settings)
        sys_.fsconfig(context, sys_.FSCONFIG_CMD_CREATE)
        _forget_mount(options)
        return sys_.fsmount(context, attributes)
    finally:
        for fd in (context, *mapped):
            os.close(fd)


def _forget_mount(options: tuple[str, ...]) -> None:
    """Remove the mark of a mount with `volatile` from the workdir of `options`, if they ask for such a mount.

    The kernel has no use for it. It would refuse the workdir, and a user could not remove it without a namespace.
    """
    if "volatile" not in options:  # then the mark is somebody else's, who is to be told
        return
    for workdir in (word.partition("=")[2] for word in options if word.startswith("workdir=")):
        for remove, name in _MARKS:
            try:
                remove(f"{workdir}/{name}")
            except FileNotFoundError:
                continue


def _mapped_layers(
    lower: tuple[str, ...], settings: list[str], userns: int, mapped: list[int]
) -> tuple[tuple[str, ...], list[str]]:
    """Replace the layers by id-mapped mounts of them: an overlay itself cannot be id-mapped.

    The mounts' descriptors are appended to `mapped`. The upper and the work directory must be on one mount, so the
    directory above both is mounted.
    """

    def name(path: str) -> str:
        mapped.append(clone_bind(path, recursive=False, options=(), userns=userns))
        return f"/proc/self/fd/{mapped[-1]}"

    below = tuple(map(name, lower))
    places = dict(word.split("=", 1) for word in settings if word.startswith(("upperdir=", "workdir=")))
    if not places:
        return below, settings
    above = {os.path.dirname(path) for path in places.values()}
    if len(above) != 1:
        raise OSError(errno.EXDEV, "upper and work directory have no common parent")
    (parent,) = above
    top = name(parent)
    others = [word for word in settings if word.partition("=")[0] not in places]
    return below, [*others, *(f"{key}={top}/{os.path.basename(path)}" for key, path in places.items())]


def attached_overlay(lower: tuple[str, ...], options: tuple[str, ...], userns: int = -1) -> int:
    """As `clone_overlay`, for kernels whose overlay takes its options as one page, or no detached layers.

    The layers are attached below /dev in this process's mount namespace, which must be a temporary one.
    """
    mapped: list[int] = []
    settings = split_options(options)[1]
    words = tuple(word for word in options if word not in settings)
    if userns >= 0:
        lower, settings = _mapped_layers(lower, settings, userns, mapped)
    try:
        sys_.mount("tmpfs", "/dev", "tmpfs", 0)
        for number, fd in enumerate(mapped):
            os.mkdir(f"/dev/{number}")
            sys_.move_mount(fd, "", sys_.AT_FDCWD, f"/dev/{number}", sys_.MOVE_MOUNT_F_EMPTY_PATH)
        os.mkdir("/dev/whole")
        mount_by_page(lower, (*words, *settings), "/dev/whole")
        return sys_.open_tree(sys_.AT_FDCWD, "/dev/whole", sys_.OPEN_TREE_CLONE)
    finally:
        for fd in mapped:
            os.close(fd)


class NoLowerPlus(OSError):
    """This kernel's overlay takes its layers only as one page of options (before Linux 6.8)."""


def split_options(options: tuple[str, ...]) -> tuple[int, list[str]]:
    """(MOUNT_ATTR_ bits, the options of the file system)."""
    attributes = 0
    settings = []
    for word in options:
        if word in ATTRIBUTES:
            add, remove = ATTRIBUTES[word]
            attributes = attributes & ~remove | add
        elif word not in KINDS and word not in ("private", "rprivate"):  # a new file system is private already
            settings.append(word)
    return attributes, settings


def set_options(fd: int, options: tuple[str, ...]) -> None:
    """Apply attributes (`ro`, `nosuid` …; `rro` for all submounts) and propagation (`rshared` …) to the mount `fd`."""
    attr_set = attr_clr = every_set = every_clr = 0
    for word in options:
        if word in KINDS:
            continue
        if word in ATTRIBUTES:
            add, remove = ATTRIBUTES[word]
            attr_set, attr_clr = attr_set & ~remove | add, attr_clr | remove
        elif word[:1] == "r" and word[1:] in ATTRIBUTES:
            add, remove = ATTRIBUTES[word[1:]]
            every_set, every_clr = every_set & ~remove | add, every_clr | remove
        elif word.removeprefix("r") not in PROPAGATION:
            raise OSError(errno.EINVAL, "no such bind mount option", word)
    if attr_set or attr_clr:
        sys_.mount_setattr(fd, "", sys_.AT_EMPTY_PATH, attr_set=attr_set, attr_clr=attr_clr)
    if every_set or every_clr:
        sys_.mount_setattr(fd, "", sys_.AT_EMPTY_PATH | sys_.AT_RECURSIVE, attr_set=every_set, attr_clr=every_clr)
    set_propagation(fd, options)


def set_propagation(fd: int, options: tuple[str, ...]) -> None:
    """Apply the propagation words of `options` to the mount `fd`; those with an `r` also to all mounts below it."""
    for word in options:
        kind = PROPAGATION.get(word) or PROPAGATION.get(word.removeprefix("r"))
        if kind is not None:
            recursive = 0 if word in PROPAGATION else sys_.AT_RECURSIVE
            sys_.mount_setattr(fd, "", sys_.AT_EMPTY_PATH | recursive, propagation=kind)


def mount_by_page(lower: tuple[str, ...], options: tuple[str, ...], target: str) -> None:
    """Mount an overlay by mount(2), for kernels that take layers in no other way.

    The options must fit into a page of 4095 bytes, so each directory is named by the number of a descriptor, below
    /proc/self/fd, which is the working directory afterwards.
    """
    _forget_mount(options)
    attributes, settings = split_options(split_part(options)[1])
    flags = sum(
        bit
        for attribute, bit in (
            (sys_.MOUNT_ATTR_RDONLY, sys_.MS_RDONLY),
            (sys_.MOUNT_ATTR_NOSUID, sys_.MS_NOSUID),
            (sys_.MOUNT_ATTR_NODEV, sys_.MS_NODEV),
            (sys_.MOUNT_ATTR_NOEXEC, sys_.MS_NOEXEC),
            (sys_.MOUNT_ATTR_NOATIME, sys_.MS_NOATIME),
        )
        if attributes & attribute
    )
    descriptors: list[int] = []

    def name(path: str) -> str:
        descriptors.append(os.open(path, os.O_PATH | os.O_DIRECTORY))
        return str(descriptors[-1])

    words = []
    try:
        for setting in settings:
            key, equals, value = setting.partition("=")
            words.append(f"{key}={name(value)}" if key in ("upperdir", "workdir") else key + equals + value)
        words.append("lowerdir=" + ":".join(name(path) for path in lower))
        os.chdir("/proc/self/fd")
        sys_.mount("overlay", target, "overlay", flags, ",".join(words))
    finally:
        for fd in descriptors:
            os.close(fd)
    _forget_mount(options)


def _configure_overlay(context: int, lower: tuple[str, ...], settings: list[str]) -> None:
    opened: list[int] = []
    try:
        for path in lower:
            try:
                sys_.fsconfig(context, sys_.FSCONFIG_SET_STRING, "lowerdir+", _plain(path, opened))
            except OSError as error:
                if error.errno == errno.EINVAL and path == lower[0] and os.path.isdir(path):
                    raise NoLowerPlus(error.errno, error.strerror) from None
                raise
        for setting in settings:
            key, equals, value = setting.partition("=")
            _configure(
                context, f"{key}={_plain(value, opened)}" if key in ("upperdir", "workdir") else key + equals + value
            )
    finally:
        for fd in opened:
            os.close(fd)


def _plain(path: str, opened: list[int]) -> str:
    """`path`; or /proc/self/fd/N if overlay would misread it: it has special characters, or 256 bytes or more."""
    if len(os.fsencode(path)) < 256 and "\\" not in path and ":" not in path and "," not in path:
        return path
    opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY))
    return f"/proc/self/fd/{opened[-1]}"


def _configure(context: int, setting: str) -> None:
    key, equals, value = setting.partition("=")
    if equals:
        sys_.fsconfig(context, sys_.FSCONFIG_SET_STRING, key, value)
    else:
        sys_.fsconfig(context, sys_.FSCONFIG_SET_FLAG, key)
