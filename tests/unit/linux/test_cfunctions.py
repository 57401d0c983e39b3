"""What builda has of ctypes is what ctypes has, and ctypes itself is not loaded for it."""

from __future__ import annotations

import ctypes
import errno
import subprocess
import sys

import pytest

from builda.linux import cfunctions

SIMPLE = "c_ushort c_int c_uint c_long c_ulong c_uint32 c_uint64 c_size_t c_ssize_t c_void_p c_char_p".split()


@pytest.mark.parametrize("name", SIMPLE)
def test_a_type_has_the_size_and_the_values_of_ctypes(name: str) -> None:
    ours, theirs = getattr(cfunctions, name), getattr(ctypes, name)
    assert cfunctions.sizeof(ours) == ctypes.sizeof(theirs)
    for value in (b"text", None) if name == "c_char_p" else (0, 1, 65537, (1 << 64) - 1):
        assert ours(value).value == theirs(value).value


@pytest.mark.parametrize("arguments", [(5,), (b"text",), (b"text", 9), (b"text", 4), (b"",)])
def test_a_buffer_is_that_of_ctypes(arguments: tuple[int] | tuple[bytes] | tuple[bytes, int]) -> None:
    assert cfunctions.create_string_buffer(*arguments).raw == ctypes.create_string_buffer(*arguments).raw


def test_a_function_that_fails_tells_the_errno() -> None:
    assert cfunctions.CDLL(None, use_errno=True).chdir(b"/no/such/directory") == -1
    assert cfunctions.get_errno() == errno.ENOENT


def test_a_function_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        cfunctions.CDLL(None, use_errno=True).no_such_function  # noqa: B018


def test_system_calls_need_no_ctypes() -> None:
    text = "from builda.linux import syscalls; import sys; print(syscalls.capget()[0] >= 0, 'ctypes' in sys.modules)"
    said = subprocess.check_output([sys.executable, "-c", text], text=True)
    assert said == "True False\n"
