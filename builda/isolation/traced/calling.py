"""System calls of the supervisor itself that the standard library lacks, by number."""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    Words: TypeAlias = Sequence[int]

_libc = ctypes.CDLL(None, use_errno=True)
_long = ctypes.c_long
call = ctypes.CFUNCTYPE(_long, _long, _long, ctypes.c_char_p, _long, _long, _long, use_errno=True)(("syscall", _libc))
"""call(number, directory, path, …)."""
plain_call = ctypes.CFUNCTYPE(_long, _long, _long, _long, _long, _long, use_errno=True)(("syscall", _libc))
"""plain_call(number, …)."""
quick_call = _libc.syscall
"""quick_call(number, …), without declared types, which ctypes would convert each argument to.

Bytes and buffers are passed as addresses, and numbers as C ints, which is enough for descriptors and flags.
"""
rename = ctypes.CFUNCTYPE(_long, _long, _long, ctypes.c_char_p, _long, ctypes.c_char_p, _long, use_errno=True)(
    ("syscall", _libc)
)
"""rename(number, directory, path, directory, path, flags)."""


def failure() -> OSError:
    """The error of the last call that failed."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def signed(word: int) -> int:
    """The int in a register."""
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >> 31 else word
