"""Landlock (landlock(7)): a thread gives up rights on files for ever."""

from __future__ import annotations

import ctypes
import os

from builda.linux import syscalls as sys_

_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1
# write, remove_dir, remove_file, make_* (7), as of the first version; refer and truncate came later.
_WRITES = 1 << 1 | sum(1 << bit for bit in range(4, 13))
_REFER, _TRUNCATE = 1 << 13, 1 << 14


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def confine_writes(root: int) -> bool:
    """Confine this thread's changes of files to the directory `root`; False if the kernel cannot.

    Needs no_new_privs. Open descriptors are not affected. Version 1 of Landlock does not count: it forbids every rename
    from one directory to another.
    """
    version = _version()
    if version < 2:
        return False
    rights = _WRITES | _REFER | (_TRUNCATE if version >= 3 else 0)
    handled = ctypes.c_uint64(rights)
    rules = sys_.call(
        "landlock_create_ruleset", sys_.SYS_LANDLOCK_CREATE_RULESET, ctypes.byref(handled), ctypes.sizeof(handled), 0
    )
    try:
        beneath = _PathBeneath(rights, root)
        sys_.call("landlock_add_rule", sys_.SYS_LANDLOCK_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(beneath), 0)
        sys_.call("landlock_restrict_self", sys_.SYS_LANDLOCK_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)
    return True


def _version() -> int:
    try:
        return sys_.call("landlock_create_ruleset", sys_.SYS_LANDLOCK_CREATE_RULESET, None, 0, _VERSION)
    except OSError:  # ENOSYS: not built in; EOPNOTSUPP: switched off
        return 0
