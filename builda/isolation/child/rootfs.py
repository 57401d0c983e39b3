"""The mount tree that a command sees.

All mounts are made detached and attached later. Binds and the root are cloned while the child is still in the caller's
mount namespace, so that `rshared` and `rslave` keep their peers. New file systems are made in the child's own.
"""

from __future__ import annotations

import errno
import os

from builda.isolation.child.failure import Failure, refused
from builda.isolation.child.mountpoints import Mountpoints, open_record
from builda.linux import detached
from builda.linux import syscalls as sys_

TYPE_CHECKING = False  # typing takes 8 ms to import
if TYPE_CHECKING:
    from builda.isolation.child.id_mapping import Mapping
    from builda.isolation.wire import Runtime, Wire

BUNDLE = "bundle"
"""Name of the OCI runtime's bundle in the scratch directory."""
_INERT = ("nosuid", "nodev", "noexec")
_UNIFIED = "/sys/fs/cgroup/unified"  # version 2 on machines that have both versions of cgroups
NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_DEVICE_KINDS = (0o020000, 0o060000)  # character and block
_DEV_LINKS = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
)
_ATTACH = sys_.MOVE_MOUNT_F_EMPTY_PATH | sys_.MOVE_MOUNT_T_EMPTY_PATH
_COPY = sys_.OPEN_TREE_CLONE | sys_.AT_EMPTY_PATH


class Sources:
    """Detached clones of what the caller's mount namespace has. For an OCI runtime only what it cannot mount itself."""

    def __init__(self, wire: Wire, mapping: Mapping | None = None) -> None:
        self.rootfs = _clone_rootfs(wire, mapping)
        self.record = -1
        if mapping is not None and wire["mountpoint_record"] is not None:
            self.record = open_record(wire["mountpoint_record"])
        if wire["runtime"] is not None:
            handed = (each for each in enumerate(wire["mounts"]) if detached.is_handed(each[1]))
            self.handed = tuple((*each, _clone_mount(each[1], wire["shows_devices"], mapping)) for each in handed)
            return
        self.mounts = tuple((mount, _clone_mount(mount, wire["shows_devices"], mapping)) for mount in wire["mounts"])
        self.devices = tuple((target, _clone_device(source)) for source, target in wire["devices"])
        self.own_nodes = mapping is None and wire["makes_nodes"]
        # A user namespace cannot make device nodes, so the host's are bound. They are cloned before the new root covers
        # the caller's /dev.
        self.nodes = {} if self.own_nodes else {name: _clone_device("/dev/" + name) for name in NODES}


class Tree:
    """The root file system, attached in this mount namespace, with the mounts in it."""

    def __init__(self, wire: Wire, sources: Sources) -> None:
        self.scratch = _open_scratch(wire)
        self.root = _attach_root(self.scratch, sources.rootfs)
        self.mountpoints = Mountpoints(self.root, wire["mountpoint_record"], sources.record)
        self.dev = self.devpts = -1

    def prepare_for_runtime(self, wire: Wire, runtime: Runtime, sources: Sources) -> None:
        """Set up what an OCI runtime needs: mount points, the bundle, a /proc of this pid namespace, cgroup2."""
        for path, directory in runtime["mountpoints"]:
            os.close(self.mountpoints.make(path, directory=directory))
        for number, mount, bind in sources.handed:
            fd = self.part(_clone_new(_with_attributes(mount, wire["shows_devices"])) if bind is None else bind, mount)
            _make_place(self.scratch, f"mount-{number}", directory_wanted=_is_directory(fd))
            _attach_below(fd, self.scratch, f"mount-{number}")
        self._write_bundle(wire, runtime)
        if wire["namespaces"]["pid"] == "private":
            sys_.mount("proc", "/proc", "proc", sys_.MS_NOSUID | sys_.MS_NODEV | sys_.MS_NOEXEC)
        if runtime["needs_cgroup2"]:
            try:
                sys_.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", sys_.MS_NOSUID | sys_.MS_NODEV | sys_.MS_NOEXEC)
            except PermissionError:
                # In a user namespace the runtime changes no cgroups, but refuses to start where it sees both versions.
                if os.path.isdir(_UNIFIED):
                    sys_.mount(_UNIFIED, "/sys/fs/cgroup", None, sys_.MS_BIND)

    def _write_bundle(self, wire: Wire, runtime: Runtime) -> None:
        """Write the bundle on a tmpfs of this mount namespace: environment and memory files may hold secrets."""
        bundle = detached.clone_filesystem("tmpfs", "tmpfs", (*_INERT, "mode=700"))
        sys_.move_mount(bundle, "", self.scratch, BUNDLE, sys_.MOVE_MOUNT_F_EMPTY_PATH)
        _write(bundle, "config.json", runtime["config"], 0o600, None)
        for number, (_, content, mode, owner) in enumerate(wire["memory_files"]):
            _write(bundle, str(number), content, mode, owner)
        os.close(bundle)

    def mount_system(self, wire: Wire, sources: Sources) -> None:
        """Mount /proc, /sys, /sys/fs/cgroup and /dev."""
        self._mount_or_bind("proc", "/proc", wire["new_proc_sys"], ())
        self._mount_or_bind("sysfs", "/sys", wire["new_proc_sys"], ("ro",))
        self._mount_cgroup()
        self._mount_dev(wire, sources)

    def mount_others(self, wire: Wire, sources: Sources) -> None:
        """Mount files, devices, mounts and memory files, in this order, then read-only paths and masks."""
        self._bind_files(wire["files"])
        for number, (target, fd) in enumerate(sources.devices):
            own = self._own_device(fd, f"device-{number}") if sources.own_nodes else fd
            self.attach(own, target, directory=False)
        for mount, bind in sources.mounts:
            _, source, target, _, _ = mount
            try:
                fd = self.part(
                    _clone_new(_with_attributes(mount, wire["shows_devices"])) if bind is None else bind, mount
                )
                self.attach(fd, target, directory=_is_directory(fd))
            except OSError as error:
                raise refused(f"mount {source or 'tmpfs'} at {target}", error) from error
        for number, (target, content, mode, owner) in enumerate(wire["memory_files"]):
            _write(self.scratch, f"memory-{number}", content, mode, owner, aside=wire["emulation"] is not None)
            copy = sys_.open_tree(self.scratch, f"memory-{number}", sys_.OPEN_TREE_CLONE)
            detached.set_options(copy, ("ro",))
            self.attach(copy, target, directory=False)
        self._make_readonly(wire["readonly_paths"])
        self._mask(wire["masked_paths"])

    def attach(self, fd: int, target: str, *, directory: bool) -> None:
        """Attach the detached mount `fd` at a path inside the root, which is made if missing. Closes `fd`."""
        if not target.strip("/."):
            raise Failure("InvalidValue", f"cannot mount over the root of the container: {target}")
        place = self.mountpoints.make(target, directory=directory)
        sys_.move_mount(fd, "", place, "", _ATTACH)
        os.close(place)
        os.close(fd)

    def part(self, fd: int, mount: detached.Description) -> int:
        """A detached mount of the part of `fd` that `mount` names; `fd` itself if it names none. Closes `fd` otherwise.

        The whole is attached in the scratch directory for a moment: open_tree(2) copies no part of a detached mount.
        """
        kind, _, _, options, _ = mount
        word, _ = detached.split_part(options)
        if word is None or kind in ("bind", "rbind"):
            return fd
        os.mkdir("whole", 0o700, dir_fd=self.scratch)
        sys_.move_mount(fd, "", self.scratch, "whole", sys_.MOVE_MOUNT_F_EMPTY_PATH)
        place = detached.part_at(fd, word)
        copy = sys_.open_tree(place, "", _COPY)
        os.close(place)
        os.close(fd)
        here = os.open(".", os.O_PATH)
        os.fchdir(self.scratch)
        sys_.umount2("whole", sys_.MNT_DETACH | sys_.UMOUNT_NOFOLLOW)
        os.fchdir(here)
        os.close(here)
        os.rmdir("whole", dir_fd=self.scratch)
        return copy

    def _mount_or_bind(self, kind: str, path: str, fresh: bool, options: tuple[str, ...]) -> None:
        """Mount a new file system of this kind, or bind the caller's if the kernel refuses a new one."""
        fd = -1
        if fresh:
            try:
                fd = detached.clone_filesystem(kind, kind, (*_INERT, *options))
            except PermissionError:
                fd = -1  # mount_too_revealing(): a user namespace whose own /proc or /sys has masked parts
        if fd < 0:
            every = tuple("r" + word for word in options)
            fd = detached.clone_bind(path, recursive=True, options=(*every, "rprivate"))
        try:
            self.attach(fd, path, directory=True)
        except OSError as error:
            raise refused(f"mount {kind}", error) from error

    def _mount_cgroup(self) -> None:
        """Mount cgroups read-only if /sys/fs/cgroup exists. Builds rarely look at it, so no failure is an error."""
        place = self.mountpoints.find("/sys/fs/cgroup")
        if place is None:
            return
        try:
            fd = detached.clone_filesystem("cgroup2", "cgroup2", (*_INERT, "ro"))
        except OSError:
            os.close(place)
            return
        sys_.move_mount(fd, "", place, "", _ATTACH)
        os.close(fd)
        os.close(place)

    def _mount_dev(self, wire: Wire, sources: Sources) -> None:
        # nodev: a node that the command makes itself (CAP_MKNOD is a default) opens nothing of the host's.
        dev = detached.clone_filesystem("tmpfs", "tmpfs", ("nosuid", "nodev", "mode=755", "size=65536k"))
        for target, name in _DEV_LINKS:
            os.symlink(target, name, dir_fd=dev)
        for name in ("pts", "shm", "mqueue"):
            os.mkdir(name, 0o755, dir_fd=dev)
        self.attach(os.dup(dev), "/dev", directory=True)
        for name, numbers in NODES.items():
            _attach_below(_node(dev, name, numbers, sources), dev, name)
        self.devpts = _devpts()
        sys_.move_mount(self.devpts, "", dev, "pts", sys_.MOVE_MOUNT_F_EMPTY_PATH)
        size = f"size={wire['shm_size']}"
        _attach_below(detached.clone_filesystem("tmpfs", "shm", (*_INERT, "mode=1777", size)), dev, "shm")
        _attach_mqueue(dev)
        self.dev = dev

    def _bind_files(self, files: tuple[tuple[str, bytes], ...]) -> None:
        for number, (path, content) in enumerate(files):
            name = f"file-{number}"
            _write(self.scratch, name, content, 0o644, None)
            copy = sys_.open_tree(self.scratch, name, sys_.OPEN_TREE_CLONE)
            self.attach(copy, path, directory=False)

    def _own_device(self, fd: int, name: str) -> int:
        """A node of the command's own for the device that `fd` is a mount of. Closes `fd`. See `_node`."""
        info = os.fstat(fd)
        os.mknod(name, info.st_mode, info.st_rdev, dir_fd=self.scratch)
        os.chown(name, info.st_uid, info.st_gid, dir_fd=self.scratch, follow_symlinks=False)
        os.close(fd)
        return _opening(self.scratch, name)

    def replace_null(self) -> None:
        """Replace the host's /dev/null in the streams by the command's own: fchmod(2) would change the host's node."""
        for fd in (0, 1, 2):
            info = os.fstat(fd)
            if info.st_mode & 0o170000 == 0o020000 and info.st_rdev == os.makedev(*NODES["null"]):
                null = os.open("null", os.O_RDWR, dir_fd=self.dev)
                os.dup2(null, fd)
                os.close(null)

    def _make_readonly(self, paths: tuple[str, ...]) -> None:
        for path in paths:
            place = self.mountpoints.find(path)
            if place is None:
                continue
            copy = sys_.open_tree(place, "", _COPY | sys_.AT_RECURSIVE)
            detached.set_options(copy, ("rro",))
            sys_.move_mount(copy, "", place, "", _ATTACH)
            os.close(copy)
            os.close(place)

    def _mask(self, paths: tuple[str, ...]) -> None:
        empty = -1
        for path in paths:
            place = self.mountpoints.find(path)
            if place is None:
                continue
            if not _is_directory(place):
                fd = sys_.open_tree(self.dev, "null", sys_.OPEN_TREE_CLONE)
            elif empty < 0:
                fd = empty = detached.clone_filesystem("tmpfs", "tmpfs", (*_INERT, "ro", "size=0", "mode=555"))
            else:
                fd = sys_.open_tree(empty, "", _COPY)
            sys_.move_mount(fd, "", place, "", _ATTACH)
            os.close(place)
            if fd != empty:
                os.close(fd)
        if empty >= 0:
            os.close(empty)

    def enter(self, pivot: bool) -> None:
        """Make the tree the root of this process, and unmount the old one."""
        os.fchdir(self.root)
        if not pivot or not _pivot():
            sys_.mount(".", "/", None, sys_.MS_MOVE)
            os.chroot(".")
        os.chdir("/")


def _make_place(directory: int, name: str, *, directory_wanted: bool) -> None:
    if directory_wanted:
        os.mkdir(name, 0o700, dir_fd=directory)
    else:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600, dir_fd=directory))


def _clone_rootfs(wire: Wire, mapping: Mapping | None) -> tuple[tuple[detached.Description, int | None], ...]:
    clones: list[tuple[detached.Description, int | None]] = []
    for mount in wire["rootfs"]:
        described = _with_attributes(mount, wire["shows_devices"])
        if mapping is not None:
            clones.append((described, mapping.clone(described)))
            continue
        try:
            clones.append((described, detached.clone(described)))
        except detached.NoLowerPlus:
            clones.append((described, None))
        except OSError as error:
            raise refused("mount the root file system", error) from error
    return tuple(clones)


def _clone_new(mount: detached.Description) -> int:
    try:
        return detached.clone(mount)
    except detached.NoLowerPlus:
        return _late_overlay(mount)


def _clone_mount(mount: detached.Description, dev: bool, mapping: Mapping | None) -> int | None:
    """A clone of a bind; None for a new file system, which must be made in the new namespaces."""
    kind, source, _, options, _ = mount
    if mapping is not None and (kind == "overlay" or "idmap" in options):
        return mapping.clone(_with_attributes(mount, dev))
    if kind not in ("bind", "rbind") and "bind" not in options and "rbind" not in options:
        return None
    private = () if any(word.removeprefix("r") in detached.PROPAGATION for word in options) else ("rprivate",)
    try:
        userns = mapping.fd if mapping is not None and "idmap?" in options and mapping.can_map(source) else -1
        return detached.clone(_with_attributes((*mount[:3], (*private, *options), mount[4]), dev), userns)
    except FileNotFoundError as error:
        raise Failure("NotFound", f"no such file or directory to mount: {source}") from error
    except OSError as error:
        if error.errno == errno.EINVAL and error.filename in options:
            raise Failure("InvalidValue", f"no such mount option: {error.filename}") from error
        raise refused(f"mount {source}", error) from error


def _clone_device(source: str) -> int:
    """A bind of the host's node. Read-only protects its mode, owner and times; the device can still be written."""
    try:
        fd = detached.clone_bind(source, recursive=False, options=("private", "noexec", "nosuid", "ro"))
    except FileNotFoundError as error:
        raise Failure("NotFound", f"no such device: {source}") from error
    except OSError as error:
        raise refused(f"bind the device {source}", error) from error
    if os.fstat(fd).st_mode & 0o170000 not in _DEVICE_KINDS:
        raise Failure("InvalidValue", f"not a device: {source}")
    return fd


def _node(dev: int, name: str, numbers: tuple[int, int], sources: Sources) -> int:
    """A detached mount of a standard device, to be attached at the file `name` that this makes in the directory `dev`.

    The tmpfs on /dev is nodev, so that nodes that the command makes do not work. Each standard device is a mount of
    its own that works. If this process may make nodes it is a new node, whose mode and owner the command may change.
    """
    if name not in sources.nodes:
        try:
            os.mknod(name, 0o020666, os.makedev(*numbers), dir_fd=dev)
            return _opening(dev, name)
        except PermissionError:  # without CAP_MKNOD
            sources.own_nodes = False
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666, dir_fd=dev))
    return sources.nodes[name] if name in sources.nodes else _clone_device("/dev/" + name)


def _opening(directory: int, name: str) -> int:
    """A detached mount of one device node on which the node works."""
    fd = sys_.open_tree(directory, name, sys_.OPEN_TREE_CLONE)
    inert = sys_.MOUNT_ATTR_NOSUID | sys_.MOUNT_ATTR_NOEXEC
    sys_.mount_setattr(fd, "", sys_.AT_EMPTY_PATH, attr_set=inert, attr_clr=sys_.MOUNT_ATTR_NODEV)
    return fd


def _with_attributes(mount: detached.Description, dev: bool) -> detached.Description:
    """The mount with nodev unless `dev`: no device cgroup guards a node here, which would open the host's device."""
    kind, source, target, options, lower = mount
    if dev:
        return mount
    word = "rnodev" if kind == "rbind" or "rbind" in options else "nodev"
    return kind, source, target, (*(() if "dev" in options else (word,)), *options), lower


def _open_scratch(wire: Wire) -> int:
    """Mount a tmpfs over the scratch directory, in this namespace only: for files, and to attach the root first.

    For an OCI runtime it is the directory itself, where the runtime looks for its bundle.
    """
    path = wire["scratch"]
    if wire["runtime"] is not None:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    if wire["users"] is not None:
        path = "/dev"  # the namespace's root may not enter the caller's directory, and needs the old /dev no longer
    try:
        fd = detached.clone_filesystem("tmpfs", "tmpfs", ("nosuid", "nodev", "mode=700"))
        sys_.move_mount(fd, "", sys_.AT_FDCWD, path, sys_.MOVE_MOUNT_F_EMPTY_PATH)
        os.mkdir("rootfs", 0o755, dir_fd=fd)
    except OSError as error:
        raise refused("mount a tmpfs", error) from error
    return fd


def _attach_root(scratch: int, rootfs: tuple[tuple[detached.Description, int | None], ...]) -> int:
    (described, first), *others = rootfs
    root = _late_overlay(described) if first is None else first
    sys_.move_mount(root, "", scratch, "rootfs", sys_.MOVE_MOUNT_F_EMPTY_PATH)
    sys_.mount_setattr(root, "", sys_.AT_EMPTY_PATH | sys_.AT_RECURSIVE, propagation=sys_.MS_PRIVATE)
    for described, clone in others:
        place = sys_.openat2(root, described[2].lstrip("/") or ".", os.O_PATH)
        fd = _late_overlay(described) if clone is None else clone
        sys_.move_mount(fd, "", place, "", _ATTACH)
        os.close(place)
        os.close(fd)
    return root


def _write(
    directory: int, name: str, data: bytes, mode: int, owner: tuple[int, int] | None, *, aside: bool = False
) -> None:
    """Make a file. With `aside`, which is for one id, another owner is recorded beside it."""
    fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600, dir_fd=directory)
    with open(fd, "wb") as file:
        file.write(data)
        if aside and owner is not None:
            _keep_aside(fd, owner, mode)
        elif owner is not None:
            os.fchown(fd, *owner)
        os.fchmod(fd, mode)


def _keep_aside(fd: int, owner: tuple[int, int], mode: int) -> None:
    from builda.isolation.emulated.ownership import ATTRIBUTE, Kept

    try:
        os.setxattr(fd, ATTRIBUTE, Kept(*owner, mode).value())
    except OSError as error:
        if error.errno != errno.ENOTSUP:  # a tmpfs before Linux 6.6: the command sees root's file
            raise


def _late_overlay(mount: detached.Description) -> int:
    """An overlay on a kernel that takes layers only by mount(2): attached for a moment, in this namespace."""
    try:
        detached.mount_by_page(mount[4], mount[3], "/proc")
    except OSError as error:
        raise refused("mount an overlay", error) from error
    finally:
        os.chdir("/")
    copy = sys_.open_tree(sys_.AT_FDCWD, "/proc", sys_.OPEN_TREE_CLONE)
    sys_.umount2("/proc", sys_.MNT_DETACH)
    return copy


def _devpts() -> int:
    options = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")
    try:
        return detached.clone_filesystem("devpts", "devpts", (*options, "gid=5"))
    except OSError:  # group 5 (tty) is not mapped in this user namespace
        return detached.clone_filesystem("devpts", "devpts", options)


def _attach_mqueue(dev: int) -> None:
    try:
        fd = detached.clone_filesystem("mqueue", "mqueue", _INERT)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EPERM):  # a kernel without it, or the caller's ipc namespace
            return
        raise refused("mount mqueue", error) from error
    _attach_below(fd, dev, "mqueue")


def _attach_below(fd: int, directory: int, name: str) -> None:
    sys_.move_mount(fd, "", directory, name, sys_.MOVE_MOUNT_F_EMPTY_PATH)
    os.close(fd)


def _is_directory(fd: int) -> bool:
    return os.fstat(fd).st_mode & 0o170000 == 0o040000


def _pivot() -> bool:
    """pivot_root(2) onto the current directory; False if it is filtered, or the old root is an initramfs."""
    try:
        sys_.pivot_root(".", ".")
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EINVAL, errno.ENOSYS):
            return False
        raise refused("pivot_root", error) from error
    # The old root is now mounted over the new one at ".".
    sys_.umount2(".", sys_.MNT_DETACH)
    return True
