"""Where the kernel's stat structures have the fields that are kept aside, and writing them there."""

from __future__ import annotations

import struct

from builda.isolation.emulated.ownership import S_IFMT
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.emulated.ownership import Kept

STATX_SIZE = 256
_STATX_UID, _STATX_MODE, _STATX_RDEV = 20, 28, 128


class Layout(NamedTuple):
    """Offsets in `struct stat` of one architecture; uid and gid are neighbours. All are 32 bits but `device` (64)."""

    size: int
    mode: int
    owner: int
    device: int


LAYOUTS = {"x86_64": Layout(144, 24, 28, 40), "aarch64": Layout(128, 16, 24, 32)}
"""By machine (`uname -m`)."""


def write_stat(data: bytearray, layout: Layout, kept: Kept, *, with_mode: bool) -> None:
    """Make a struct stat show what is kept aside; `with_mode` for a file that does not hold its mode itself."""
    (mode,) = struct.unpack_from("=I", data, layout.mode)
    struct.pack_into("=I", data, layout.mode, _mode(mode, kept, with_mode))
    struct.pack_into("=II", data, layout.owner, kept.uid, kept.gid)
    if kept.kind:
        struct.pack_into("=Q", data, layout.device, device_number(*kept.device))


def write_statx(data: bytearray, kept: Kept, *, with_mode: bool) -> None:
    """As `write_stat`, of a struct statx."""
    (mode,) = struct.unpack_from("=H", data, _STATX_MODE)
    struct.pack_into("=H", data, _STATX_MODE, _mode(mode, kept, with_mode))
    struct.pack_into("=II", data, _STATX_UID, kept.uid, kept.gid)
    if kept.kind:
        struct.pack_into("=II", data, _STATX_RDEV, *kept.device)


def device_number(major: int, minor: int) -> int:
    """The number of a device as the kernel writes it into a struct stat (new_encode_dev)."""
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def _mode(mode: int, kept: Kept, with_mode: bool) -> int:
    return (kept.kind or mode & S_IFMT) | (kept.mode if with_mode else mode & ~S_IFMT)
