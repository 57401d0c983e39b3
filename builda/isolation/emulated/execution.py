"""What execve(2) makes of credentials: set-id bits, file capabilities, and the rules for root (capabilities(7))."""

from __future__ import annotations

import errno

from builda.isolation.emulated.credentials import KEEP_CAPS, NO_ROOT, Credentials
from builda.values import NamedTuple

_SET_UID, _SET_GID, _GROUP_EXECUTES = 0o4000, 0o2000, 0o010
_REVISION_MASK, _EFFECTIVE = 0xFF000000, 1
_WORDS = {0x01000000: 1, 0x02000000: 2, 0x03000000: 2}  # VFS_CAP_REVISION_…: words of each set


class Program(NamedTuple):
    """What an executed file says: mode and owner as `stat` shows them, its security.capability or b""."""

    mode: int
    uid: int
    gid: int
    capabilities: bytes = b""


def changes_nothing(old: Credentials, program: Program) -> bool:
    """Whether the credentials after execve(2) of the program are surely the same: a quick test for most executions."""
    return (
        not program.capabilities
        and not program.mode & (_SET_UID | _SET_GID)
        and old.suid == old.fsuid == old.euid
        and old.sgid == old.fsgid == old.egid
        and not old.securebits
        and (
            old.effective == old.permitted == old.bounding | old.inheritable
            if old.euid == 0
            else old.ruid != 0 and old.effective == old.permitted == old.ambient
        )
    )


def executed(old: Credentials, program: Program) -> Credentials:
    """The credentials after execve(2) of the program; EPERM if it may not be executed with these.

    For a script, `program` is its interpreter: the kernel ignores what the script itself says.
    """
    euid, egid = old.euid, old.egid
    if not old.no_new_privileges:
        if program.mode & _SET_UID:
            euid = program.uid
        if program.mode & _SET_GID and program.mode & _GROUP_EXECUTES:
            egid = program.gid
    permitted, effective, has_file_capabilities = _of_file(old, program)
    if not old.securebits & NO_ROOT and not (has_file_capabilities and old.ruid != 0 and euid == 0):
        if 0 in (euid, old.ruid):
            permitted = old.bounding | old.inheritable
        effective = effective or euid == 0
    is_setid = euid != old.euid or not old.is_member(egid)
    if old.no_new_privileges and (is_setid or permitted & ~old.permitted):
        euid, egid, permitted = old.ruid, old.rgid, permitted & old.permitted
    ambient = 0 if is_setid or has_file_capabilities else old.ambient
    permitted |= ambient
    return old._replace(
        euid=euid,
        suid=euid,
        fsuid=euid,
        egid=egid,
        sgid=egid,
        fsgid=egid,
        permitted=permitted,
        effective=permitted if effective else ambient,
        ambient=ambient,
        securebits=old.securebits & ~KEEP_CAPS,
    )


def _of_file(old: Credentials, program: Program) -> tuple[int, bool, bool]:
    """(permitted, whether they become effective, whether the file has capabilities)."""
    found = file_capabilities(program.capabilities)
    if found is None:
        return 0, False, False
    permitted, inheritable, effective = found
    gained = permitted & old.bounding | inheritable & old.inheritable
    if effective and permitted & ~gained:
        raise OSError(errno.EPERM, "execve")
    return gained, effective, True


def file_capabilities(value: bytes) -> tuple[int, int, bool] | None:
    """(permitted, inheritable, effective) of a security.capability attribute.

    None if it is missing or malformed, or for another user namespace: one whose root is not root here.
    """
    word = [int.from_bytes(value[at : at + 4], "little") for at in range(0, len(value) // 4 * 4, 4)]
    count = _WORDS.get(word[0] & _REVISION_MASK) if word else None
    if count is None or len(word) < 1 + 2 * count or any(word[1 + 2 * count :]):
        return None
    permitted = sum(word[1 + 2 * at] << 32 * at for at in range(count))
    inheritable = sum(word[2 + 2 * at] << 32 * at for at in range(count))
    return permitted, inheritable, bool(word[0] & _EFFECTIVE)
