"""The calls about ids and capabilities, from their registers to their result.

`answer` gets the registers and the caller's memory, and returns the result and the credentials that the caller then
has. OSError is the call's errno.
"""

from __future__ import annotations

import errno
import struct

from builda.isolation.emulated import credentials as change
from builda.isolation.emulated.credentials import Credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from builda.values import Protocol

    class Memory(Protocol):
        """The memory of the caller. Both raise OSError with EFAULT for an address that it does not have."""

        def read(self, address: int, size: int) -> bytes:
            """`size` bytes."""

        def write(self, address: int, data: bytes) -> None:
            """Write all of `data`."""

    Answer = tuple[int, Credentials]

_WORD = 0xFFFFFFFF
_VERSIONS = {0x19980330: 1, 0x20071026: 2, 0x20080522: 2}  # _LINUX_CAPABILITY_VERSION_…: 32-bit words of each set
_VERSION = 0x20080522

PRCTL = {
    7: "get_keepcaps",
    8: "set_keepcaps",
    23: "read_bounding",
    24: "drop_bounding",
    27: "get_securebits",
    28: "set_securebits",
    38: "set_no_new_privileges",
    39: "get_no_new_privileges",
    47: "ambient",
}
"""The options of prctl(2) that `answer` knows; all others are the kernel's."""
_AMBIENT_IS_SET, _AMBIENT_RAISE, _AMBIENT_LOWER, _AMBIENT_CLEAR = 1, 2, 3, 4


def answer(name: str, arguments: Sequence[int], who: Credentials, memory: Memory, own: Callable[[int], bool]) -> Answer:
    """The result of the call `name` (setuid, capget, prctl …), and the caller's credentials after it.

    `own` tells whether a pid, as the caller sees it, means the caller's own process.
    """
    if name in _SETTERS:
        function, count = _SETTERS[name]
        return 0, function(who, *(argument & _WORD for argument in arguments[:count]))
    if name in _GETTERS:
        return _GETTERS[name](who), who
    if name in _TRIPLES:
        for address, value in zip(arguments, _TRIPLES[name](who), strict=False):
            memory.write(address, struct.pack("=I", value))
        return 0, who
    if name in ("capget", "capset"):
        return _capabilities(name, arguments, who, memory, own)
    return _OTHERS[name](arguments, who, memory)


def _set_fsuid(arguments: Sequence[int], who: Credentials, memory: Memory) -> Answer:
    return who.fsuid, change.set_fsuid(who, arguments[0] & _WORD)


def _set_fsgid(arguments: Sequence[int], who: Credentials, memory: Memory) -> Answer:
    return who.fsgid, change.set_fsgid(who, arguments[0] & _WORD)


def _get_groups(arguments: Sequence[int], who: Credentials, memory: Memory) -> Answer:
    size, address = _signed(arguments[0]), arguments[1]
    count = len(who.groups)
    if size < 0 or (size and count > size):
        raise OSError(errno.EINVAL, "getgroups")
    if size and count:
        memory.write(address, struct.pack(f"={count}I", *who.groups))
    return count, who


def _set_groups(arguments: Sequence[int], who: Credentials, memory: Memory) -> Answer:
    count, address = arguments[0] & _WORD, arguments[1]
    change.may_set_groups(who, count)
    groups = struct.unpack(f"={count}I", memory.read(address, 4 * count)) if count else ()
    return 0, change.set_groups(who, groups)


def _capabilities(
    name: str, arguments: Sequence[int], who: Credentials, memory: Memory, own: Callable[[int], bool]
) -> Answer:
    """capget(2) and capset(2), with the header's version as a process of any age passes it."""
    header, data = arguments[0], arguments[1]
    version, pid = struct.unpack("=Ii", memory.read(header, 8))
    words = _VERSIONS.get(version)
    if words is None:
        memory.write(header, struct.pack("=I", _VERSION))
        if name == "capget" and not data:
            return 0, who
        raise OSError(errno.EINVAL, name)
    if name == "capset":
        if pid and not own(pid):
            raise OSError(errno.EPERM, name)
        return 0, change.set_capabilities(who, *_unpacked(memory.read(data, 12 * words), words))
    if pid < 0:
        raise OSError(errno.EINVAL, name)
    if not data:
        return 0, who
    memory.write(data, _packed(who, words))
    return 0, who


def _packed(who: Credentials, words: int) -> bytes:
    sets = (who.effective, who.permitted, who.inheritable)
    return b"".join(struct.pack("=III", *(each >> 32 * at & _WORD for each in sets)) for at in range(words))


def _unpacked(data: bytes, words: int) -> tuple[int, ...]:
    rows = [struct.unpack_from("=III", data, 12 * at) for at in range(words)]
    return tuple(sum(row[kind] << 32 * at for at, row in enumerate(rows)) for kind in range(3))


def _prctl(arguments: Sequence[int], who: Credentials, memory: Memory) -> Answer:
    """prctl(2) with an option of PRCTL."""
    return _PRCTL[PRCTL[arguments[0] & _WORD]](arguments[1:5], who)


def _read_bounding(arguments: Sequence[int], who: Credentials) -> Answer:
    change.check_capability(arguments[0])
    return who.bounding >> arguments[0] & 1, who


def _set_no_new_privileges(arguments: Sequence[int], who: Credentials) -> Answer:
    if tuple(arguments) != (1, 0, 0, 0):
        raise OSError(errno.EINVAL, "prctl")
    return 0, who._replace(no_new_privileges=True)


def _get_no_new_privileges(arguments: Sequence[int], who: Credentials) -> Answer:
    if any(arguments):
        raise OSError(errno.EINVAL, "prctl")
    return int(who.no_new_privileges), who


def _ambient(arguments: Sequence[int], who: Credentials) -> Answer:
    operation, capability, *rest = arguments
    if operation == _AMBIENT_CLEAR:
        if capability or any(rest):
            raise OSError(errno.EINVAL, "prctl")
        return 0, change.clear_ambient(who)
    change.check_capability(capability)
    if any(rest):
        raise OSError(errno.EINVAL, "prctl")
    if operation == _AMBIENT_IS_SET:
        return who.ambient >> capability & 1, who
    if operation == _AMBIENT_RAISE:
        return 0, change.raise_ambient(who, capability)
    if operation == _AMBIENT_LOWER:
        return 0, change.lower_ambient(who, capability)
    raise OSError(errno.EINVAL, "prctl")


def _signed(word: int) -> int:
    word &= _WORD
    return word - (1 << 32) if word >> 31 else word


_SETTERS: dict[str, tuple[Callable[..., Credentials], int]] = {
    "setuid": (change.set_uid, 1),
    "setreuid": (change.set_reuid, 2),
    "setresuid": (change.set_resuid, 3),
    "setgid": (change.set_gid, 1),
    "setregid": (change.set_regid, 2),
    "setresgid": (change.set_resgid, 3),
}
_GETTERS: dict[str, Callable[[Credentials], int]] = {
    "getuid": lambda who: who.ruid,
    "geteuid": lambda who: who.euid,
    "getgid": lambda who: who.rgid,
    "getegid": lambda who: who.egid,
}
_TRIPLES: dict[str, Callable[[Credentials], tuple[int, int, int]]] = {
    "getresuid": lambda who: (who.ruid, who.euid, who.suid),
    "getresgid": lambda who: (who.rgid, who.egid, who.sgid),
}
_OTHERS: dict[str, Callable[[Sequence[int], Credentials, Memory], Answer]] = {
    "setfsuid": _set_fsuid,
    "setfsgid": _set_fsgid,
    "getgroups": _get_groups,
    "setgroups": _set_groups,
    "prctl": _prctl,
}
_PRCTL: dict[str, Callable[[Sequence[int], Credentials], Answer]] = {
    "get_keepcaps": lambda arguments, who: (int(bool(who.securebits & change.KEEP_CAPS)), who),
    "set_keepcaps": lambda arguments, who: (0, change.keep_capabilities(who, arguments[0])),
    "read_bounding": _read_bounding,
    "drop_bounding": lambda arguments, who: (0, change.drop_bounding(who, arguments[0])),
    "get_securebits": lambda arguments, who: (who.securebits, who),
    "set_securebits": lambda arguments, who: (0, change.set_securebits(who, arguments[0])),
    "set_no_new_privileges": _set_no_new_privileges,
    "get_no_new_privileges": _get_no_new_privileges,
    "ambient": _ambient,
}
CALLS = (*_SETTERS, *_GETTERS, *_TRIPLES, "capget", "capset", *_OTHERS)
"""The names that `answer` knows."""
