"""The credentials of a process, and what each call that changes them makes of them (credentials(7), capabilities(7)).

Each function returns new credentials or raises OSError with the errno that Linux would return. Ids are as in the
registers of a call: 32 bits, NO_ID for -1.
"""

from __future__ import annotations

import errno

from builda.values import NamedTuple

NO_ID = 0xFFFFFFFF
"""As an argument: leave this id as it is. It is no id of any process or file."""
GROUPS_MAX = 65536
"""The number of supplementary groups that the kernel allows at most."""
LAST_CAPABILITY = 40  # CAP_CHECKPOINT_RESTORE

CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID = 0, 1, 2, 3, 4
SETGID, SETUID, SETPCAP = 6, 7, 8
LINUX_IMMUTABLE, SYS_ADMIN, MKNOD, SETFCAP, MAC_OVERRIDE = 9, 21, 27, 31, 32
# What a change of the file user id between 0 and another takes and gives back (CAP_FS_MASK of the kernel).
FILE_CAPABILITIES = sum(
    1 << number
    for number in (CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, LINUX_IMMUTABLE, MKNOD, MAC_OVERRIDE)
)
ALL_CAPABILITIES = (1 << LAST_CAPABILITY + 1) - 1

# Bits of `securebits`; each has a lock, the next higher bit.
NO_ROOT, NO_SETUID_FIXUP, KEEP_CAPS, NO_AMBIENT_RAISE = 1 << 0, 1 << 2, 1 << 4, 1 << 6
_SECUREBITS = NO_ROOT | NO_SETUID_FIXUP | KEEP_CAPS | NO_AMBIENT_RAISE
_LOCKS = _SECUREBITS << 1


class Credentials(NamedTuple):
    """The identity of a process. Capability sets are bit sets; `groups` is sorted, as getgroups(2) returns it."""

    ruid: int = 0
    euid: int = 0
    suid: int = 0
    fsuid: int = 0
    rgid: int = 0
    egid: int = 0
    sgid: int = 0
    fsgid: int = 0
    groups: tuple[int, ...] = ()
    effective: int = 0
    permitted: int = 0
    inheritable: int = 0
    bounding: int = 0
    ambient: int = 0
    securebits: int = 0
    no_new_privileges: bool = False

    def has(self, capability: int) -> bool:
        """Whether the capability (its number) is effective."""
        return bool(self.effective >> capability & 1)

    def is_member(self, gid: int) -> bool:
        """Whether files of this group count as the process's (in_group_p of the kernel)."""
        return gid == self.fsgid or gid in self.groups


def started(uid: int, gid: int, groups: tuple[int, ...], capabilities: int, bounding: int) -> Credentials:
    """The credentials of a command that a container engine starts as this user: only root has capabilities."""
    held = capabilities if uid == 0 else 0
    return Credentials(*(uid,) * 4, *(gid,) * 4, tuple(sorted(groups)), held, held, 0, bounding)


def set_uid(old: Credentials, uid: int) -> Credentials:
    """setuid(2)."""
    _check_id(uid)
    if old.has(SETUID):
        return _users(old, uid, uid, uid)
    if uid not in (old.ruid, old.suid):
        raise _not_permitted()
    return _users(old, old.ruid, uid, old.suid)


def set_reuid(old: Credentials, ruid: int, euid: int) -> Credentials:
    """setreuid(2)."""
    if not old.has(SETUID) and (
        ruid not in (NO_ID, old.ruid, old.euid) or euid not in (NO_ID, old.ruid, old.euid, old.suid)
    ):
        raise _not_permitted()
    real, effective = _chosen(ruid, old.ruid), _chosen(euid, old.euid)
    saves = ruid != NO_ID or euid not in (NO_ID, old.ruid)
    return _users(old, real, effective, effective if saves else old.suid)


def set_resuid(old: Credentials, ruid: int, euid: int, suid: int) -> Credentials:
    """setresuid(2)."""
    allowed = (NO_ID, old.ruid, old.euid, old.suid)
    if not old.has(SETUID) and not {ruid, euid, suid} <= set(allowed):
        raise _not_permitted()
    if ruid in (NO_ID, old.ruid) and suid in (NO_ID, old.suid) and (euid == NO_ID or euid == old.euid == old.fsuid):
        return old  # also the file user id stays
    return _users(old, _chosen(ruid, old.ruid), _chosen(euid, old.euid), _chosen(suid, old.suid))


def set_fsuid(old: Credentials, uid: int) -> Credentials:
    """setfsuid(2). The call returns `old.fsuid` in any case; a refused change returns `old`."""
    if uid == NO_ID or uid == old.fsuid:
        return old
    if not old.has(SETUID) and uid not in (old.ruid, old.euid, old.suid):
        return old
    effective = old.effective
    if not old.securebits & NO_SETUID_FIXUP:
        if old.fsuid == 0:
            effective &= ~FILE_CAPABILITIES
        elif uid == 0:
            effective |= old.permitted & FILE_CAPABILITIES
    return old._replace(fsuid=uid, effective=effective)


def set_gid(old: Credentials, gid: int) -> Credentials:
    """setgid(2)."""
    _check_id(gid)
    if old.has(SETGID):
        return _groups(old, gid, gid, gid)
    if gid not in (old.rgid, old.sgid):
        raise _not_permitted()
    return _groups(old, old.rgid, gid, old.sgid)


def set_regid(old: Credentials, rgid: int, egid: int) -> Credentials:
    """setregid(2)."""
    if not old.has(SETGID) and (
        rgid not in (NO_ID, old.rgid, old.egid) or egid not in (NO_ID, old.rgid, old.egid, old.sgid)
    ):
        raise _not_permitted()
    real, effective = _chosen(rgid, old.rgid), _chosen(egid, old.egid)
    saves = rgid != NO_ID or egid not in (NO_ID, old.rgid)
    return _groups(old, real, effective, effective if saves else old.sgid)


def set_resgid(old: Credentials, rgid: int, egid: int, sgid: int) -> Credentials:
    """setresgid(2)."""
    allowed = (NO_ID, old.rgid, old.egid, old.sgid)
    if not old.has(SETGID) and not {rgid, egid, sgid} <= set(allowed):
        raise _not_permitted()
    if rgid in (NO_ID, old.rgid) and sgid in (NO_ID, old.sgid) and (egid == NO_ID or egid == old.egid == old.fsgid):
        return old
    return _groups(old, _chosen(rgid, old.rgid), _chosen(egid, old.egid), _chosen(sgid, old.sgid))


def set_fsgid(old: Credentials, gid: int) -> Credentials:
    """setfsgid(2). The call returns `old.fsgid` in any case; a refused change returns `old`."""
    if gid == NO_ID or not (old.has(SETGID) or gid in (old.rgid, old.egid, old.sgid)):
        return old
    return old._replace(fsgid=gid)


def set_groups(old: Credentials, groups: tuple[int, ...]) -> Credentials:
    """setgroups(2); `may_set_groups` comes before the groups are read."""
    may_set_groups(old, len(groups))
    if NO_ID in groups:
        raise OSError(errno.EINVAL, "setgroups")
    return old._replace(groups=tuple(sorted(groups)))


def may_set_groups(old: Credentials, count: int) -> None:
    """What setgroups(2) checks before it reads the groups: the right and their number."""
    if not old.has(SETGID):
        raise _not_permitted()
    if count > GROUPS_MAX:
        raise OSError(errno.EINVAL, "setgroups")


def set_capabilities(old: Credentials, effective: int, permitted: int, inheritable: int) -> Credentials:
    """capset(2). Bits beyond the last capability are ignored."""
    effective, permitted, inheritable = (each & ALL_CAPABILITIES for each in (effective, permitted, inheritable))
    capped = not old.has(SETPCAP) and inheritable & ~(old.inheritable | old.permitted)
    if (
        capped
        or inheritable & ~(old.inheritable | old.bounding)
        or permitted & ~old.permitted
        or effective & ~permitted
    ):
        raise _not_permitted()
    ambient = old.ambient & permitted & inheritable
    return old._replace(effective=effective, permitted=permitted, inheritable=inheritable, ambient=ambient)


def keep_capabilities(old: Credentials, value: int) -> Credentials:
    """prctl(PR_SET_KEEPCAPS)."""
    if value > 1:
        raise OSError(errno.EINVAL, "prctl")
    if old.securebits & KEEP_CAPS << 1:
        raise _not_permitted()
    return old._replace(securebits=old.securebits & ~KEEP_CAPS | (KEEP_CAPS if value else 0))


def set_securebits(old: Credentials, value: int) -> Credentials:
    """prctl(PR_SET_SECUREBITS)."""
    locked = (old.securebits & _LOCKS) >> 1
    unlocks = old.securebits & _LOCKS & ~value
    if locked & (old.securebits ^ value) or unlocks or value & ~(_SECUREBITS | _LOCKS) or not old.has(SETPCAP):
        raise _not_permitted()
    return old._replace(securebits=value)


def drop_bounding(old: Credentials, capability: int) -> Credentials:
    """prctl(PR_CAPBSET_DROP)."""
    if not old.has(SETPCAP):
        raise _not_permitted()
    check_capability(capability)
    return old._replace(bounding=old.bounding & ~(1 << capability))


def clear_ambient(old: Credentials) -> Credentials:
    """prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)."""
    return old._replace(ambient=0)


def lower_ambient(old: Credentials, capability: int) -> Credentials:
    """prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER)."""
    check_capability(capability)
    return old._replace(ambient=old.ambient & ~(1 << capability))


def raise_ambient(old: Credentials, capability: int) -> Credentials:
    """prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE)."""
    check_capability(capability)
    bit = 1 << capability
    if not old.permitted & old.inheritable & bit or old.securebits & NO_AMBIENT_RAISE:
        raise _not_permitted()
    return old._replace(ambient=old.ambient | bit)


def check_capability(number: int) -> None:
    """EINVAL for a number that is no capability."""
    if number > LAST_CAPABILITY:
        raise OSError(errno.EINVAL, "prctl")


def _check_id(number: int) -> None:
    if number == NO_ID:
        raise OSError(errno.EINVAL, "invalid id")


def _chosen(asked: int, old: int) -> int:
    return old if asked == NO_ID else asked


def _groups(old: Credentials, real: int, effective: int, saved: int) -> Credentials:
    return old._replace(rgid=real, egid=effective, sgid=saved, fsgid=effective)


def _users(old: Credentials, real: int, effective: int, saved: int) -> Credentials:
    """The user ids and the capabilities that go with them (capabilities(7), "Effect of user ID changes")."""
    new = old._replace(ruid=real, euid=effective, suid=saved, fsuid=effective)
    if old.securebits & NO_SETUID_FIXUP:
        return new
    if 0 in (old.ruid, old.euid, old.suid) and 0 not in (real, effective, saved):
        if not old.securebits & KEEP_CAPS:
            new = new._replace(permitted=0, effective=0)
        new = new._replace(ambient=0)
    if old.euid == 0 and effective != 0:
        return new._replace(effective=0)
    if old.euid != 0 and effective == 0:
        return new._replace(effective=new.permitted)
    return new


def _not_permitted() -> OSError:
    return OSError(errno.EPERM, "not permitted")
