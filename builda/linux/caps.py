"""Capabilities: names, numbers, the set a container starts with, and what `--cap-add` and `--cap-drop` make of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from builda.errors import InvalidValue

# In the order of their numbers (capabilities(7)).
NAMES = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
        "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
        "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
        "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}

# Docker's default set.
DEFAULT = tuple(
    "CAP_" + name
    for name in (
        "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP "
        "SETUID SYS_CHROOT"
    ).split()
)

_ALL = "ALL"


def parse_capability(text: str) -> str:
    """The full name of a capability that is written with or without `CAP_`, in any case. InvalidValue if unknown."""
    name = text.strip().upper()
    name = name if name.startswith("CAP_") else "CAP_" + name
    if name not in NUMBERS:
        raise InvalidValue(f"no such capability: {text}", hint="capabilities(7) lists them")
    return name


def effective_set(default: tuple[str, ...], add: tuple[str, ...], drop: tuple[str, ...]) -> tuple[str, ...]:
    """`default` without `drop` and with `add`, in the order of their numbers; `ALL` means every capability.

    InvalidValue if one capability (or ALL) is both added and dropped.
    """
    added, dropped = _words(add), _words(drop)
    if both := sorted(added & dropped):
        raise InvalidValue(f"capability both added and dropped: {both[0]}")
    if _ALL in dropped:
        kept = added
    elif _ALL in added:
        kept = set(NAMES) - dropped
    else:
        kept = {parse_capability(name) for name in default} - dropped | added
    return tuple(name for name in NAMES if name in kept)


def to_bits(names: tuple[str, ...]) -> int:
    """The set as the kernel represents it: bit N is capability number N."""
    return sum(1 << NUMBERS[parse_capability(name)] for name in set(names))


def from_bits(bits: int) -> tuple[str, ...]:
    """The names in a set of bits. Bits that this list lacks, of newer kernels, are left out."""
    return tuple(name for number, name in enumerate(NAMES) if bits >> number & 1)


def missing(bits: int, *names: str) -> tuple[str, ...]:
    """Those of the names that are not in a set of bits."""
    return tuple(name for name in names if not bits >> NUMBERS[name] & 1)


def lower(name: str) -> None:
    """Remove a capability from this thread's effective set, not from the permitted one. `raised` restores it."""
    from builda.linux import syscalls as sys_

    effective, permitted, inheritable = sys_.capget()
    sys_.capset(effective & ~(1 << NUMBERS[name]), permitted, inheritable)


@contextmanager
def raised(name: str) -> Iterator[None]:
    """Add a capability to this thread's effective set for the block, if the permitted set has it."""
    from builda.linux import syscalls as sys_

    effective, permitted, inheritable = sys_.capget()
    sys_.capset(effective | permitted & 1 << NUMBERS[name], permitted, inheritable)
    try:
        yield
    finally:
        sys_.capset(effective, permitted, inheritable)


def _words(texts: tuple[str, ...]) -> set[str]:
    return {_ALL if text.strip().upper() == _ALL else parse_capability(text) for text in texts}
