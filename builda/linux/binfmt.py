"""binfmt_misc: whether the kernel hands programs of another processor to an emulator (admin-guide/binfmt-misc.rst)."""

from __future__ import annotations

import os

PLACE = "/proc/sys/fs/binfmt_misc"

_NATIVE_TOO = {"amd64": ("386",), "arm64": ("arm",)}
"""Architectures (Go's names) whose programs a kernel for the key runs without an emulator."""
_MACHINES = {  # e_machine of ELF headers, class (2: 64 bits), data (1: little endian)
    "386": (3, 1, 1),
    "amd64": (62, 2, 1),
    "arm": (40, 1, 1),
    "arm64": (183, 2, 1),
    "loong64": (258, 2, 1),
    "mips64le": (8, 2, 1),
    "ppc64le": (21, 2, 1),
    "riscv64": (243, 2, 1),
    "s390x": (22, 2, 2),
}


def runs(architecture: str, machine: str, place: str = PLACE) -> bool:
    """Whether a kernel for `machine` runs programs for `architecture`, itself or by a registered emulator."""
    if architecture == machine or architecture in _NATIVE_TOO.get(machine, ()):
        return True
    header = _header(architecture)
    return header is not None and any(_takes(text, header) for text in _entries(place))


def _header(architecture: str) -> bytes | None:
    """The first bytes of an executable's ELF header."""
    if architecture not in _MACHINES:
        return None
    machine, bits, data = _MACHINES[architecture]
    order = "little" if data == 1 else "big"
    number = [(2).to_bytes(2, order), machine.to_bytes(2, order)]  # type: ignore[arg-type]  # one of two literals
    return b"\x7fELF" + bytes([bits, data, 1, 0]) + bytes(8) + b"".join(number)


def _entries(place: str) -> list[str]:
    found = []
    try:
        names = sorted(os.listdir(place))
    except OSError:  # not mounted or not readable: assume that nothing is registered
        return []
    for name in names:
        if name not in ("register", "status"):
            with open(os.path.join(place, name), encoding="utf-8", errors="replace") as file:
                found.append(file.read())
    return found


def _takes(text: str, header: bytes) -> bool:
    """Whether an entry handles such programs in any root file system: flag F keeps the emulator open."""
    lines = text.splitlines()
    fields = dict(line.partition(" ")[::2] for line in lines)
    if not lines or lines[0] != "enabled" or "F" not in fields.get("flags:", "") or fields.get("offset") != "0":
        return False
    try:
        magic = bytes.fromhex(fields.get("magic", ""))
        mask = bytes.fromhex(fields.get("mask", "ff" * len(magic)))
    except ValueError:
        return False
    wide = header[: len(magic)]
    return (
        len(magic) >= len(header)
        and len(mask) >= len(header)
        and all(there & m == wanted & m for there, wanted, m in zip(wide, magic, mask, strict=False))
    )
