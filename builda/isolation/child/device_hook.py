"""A createContainer hook of an OCI runtime: which nodes open their devices. `python -IS device_hook.py ROOT WORD...`.

crun remounts the root and /dev so that device nodes work there. Without a device cgroup, a node that an image or a
command makes would open the host's device. runc keeps the root nodev, so no node works there. The hook runs after all
mounts and before the command. Each WORD says what to do with a path in the root:
  close:PATH      forbid devices on this mount
  close-all:PATH  forbid devices on this mount and all below it
  open:PATH       allow devices on this mount
  node:PATH       mount the node over itself so that it opens its device
"""

import os
import sys

_builda = __file__.rpartition("/isolation/")[0]


def _package(name: str, path: str) -> None:
    """Register a package without running its `__init__`, as start.py does."""
    module = type(sys)(name)
    module.__path__ = [path]
    sys.modules[name] = module


def main(root: str, *words: str) -> None:
    """Do what the words say. An exception ends this process with a status, and the runtime starts no command then."""
    from builda.linux import syscalls as sys_

    top = os.open(root, os.O_PATH | os.O_DIRECTORY)
    empty, nodev = sys_.AT_EMPTY_PATH, sys_.MOUNT_ATTR_NODEV
    for word in words:
        action, _, path = word.partition(":")
        place = sys_.openat2(top, path.strip("/") or ".", os.O_PATH)
        match action:
            case "close":
                sys_.mount_setattr(place, "", empty, attr_set=nodev)
            case "close-all":
                sys_.mount_setattr(place, "", empty | sys_.AT_RECURSIVE, attr_set=nodev)
            case "open":
                sys_.mount_setattr(place, "", empty, attr_clr=nodev)
            case _:
                node = sys_.open_tree(place, "", sys_.OPEN_TREE_CLONE | empty)
                inert = sys_.MOUNT_ATTR_NOSUID | sys_.MOUNT_ATTR_NOEXEC
                sys_.mount_setattr(node, "", empty, attr_set=inert, attr_clr=nodev)
                attach = sys_.MOVE_MOUNT_F_EMPTY_PATH | sys_.MOVE_MOUNT_T_EMPTY_PATH
                sys_.move_mount(node, "", place, "", attach)


if __name__ == "__main__":
    _package("builda", _builda)
    _package("builda.linux", _builda + "/linux")
    main(*sys.argv[1:])
