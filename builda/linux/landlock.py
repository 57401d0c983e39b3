"""Landlock (landlock(7)): a thread gives up rights on files for ever."""

from __future__ import annotations

import ctypes
import os

from builda.linux import syscalls as sys_

LEAST = 2
"""The first version that counts: version 1 forbids every rename from one directory to another."""
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1
# write, remove_dir, remove_file, make_* (7), as of the first version; refer and truncate came later.
_WRITES = 1 << 1 | sum(1 << bit for bit in range(4, 13))
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_READS = 1 | 1 << 2 | 1 << 3  # execute, read_file, read_dir
_SIGNALS = 1 << 1  # LANDLOCK_SCOPE_SIGNAL, version 6


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def queues() -> int:
    """The root of the file system of message queues, which the caller closes; -1 if it is not mounted.

    mq_open(3) looks for its files there, whatever root directory the thread has.
    """
    try:
        return os.open("/dev/mqueue", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1


def confine_writes(root: int, also: int = -1) -> bool:
    """Confine this thread's changes of files to the directory `root`, and `also`; False if the kernel cannot.

    Needs no_new_privs. Open descriptors are not affected. From version 6 on (Linux 6.12) the thread and its children
    can also signal each other only.
    """
    return _confine((root, also), _WRITES)


def confine_to(root: int, also: int = -1) -> bool:
    """Like `confine_writes`, for reading and executing too."""
    return _confine((root, also), _READS | _WRITES)


def _confine(roots: tuple[int, ...], rights: int) -> bool:
    version = version_here()
    if version < LEAST:
        return False
    _restrict(roots, rights | _REFER | (_TRUNCATE if version >= 3 else 0), version)
    return True


def _restrict(roots: tuple[int, ...], rights: int, version: int) -> None:
    scoped = _SIGNALS if version >= 6 else 0
    words = (rights, 0, scoped) if scoped else (rights,)  # struct landlock_ruleset_attr: files, network, scopes
    handled = (ctypes.c_uint64 * len(words))(*words)
    rules = sys_.call(
        "landlock_create_ruleset", sys_.SYS_LANDLOCK_CREATE_RULESET, ctypes.byref(handled), ctypes.sizeof(handled), 0
    )
    try:
        for root in roots:
            if root >= 0:
                rule = ctypes.byref(_PathBeneath(rights, root))
                sys_.call("landlock_add_rule", sys_.SYS_LANDLOCK_ADD_RULE, rules, _PATH_BENEATH, rule, 0)
        sys_.call("landlock_restrict_self", sys_.SYS_LANDLOCK_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def version_here() -> int:
    """The version of Landlock that the kernel has; 0 without."""
    try:
        return sys_.call("landlock_create_ruleset", sys_.SYS_LANDLOCK_CREATE_RULESET, None, 0, _VERSION)
    except OSError:  # ENOSYS: not built in; EOPNOTSUPP: switched off
        return 0
