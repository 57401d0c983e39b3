"""The part of `ctypes` that calls of C functions take, from the module that it stands on.

`ctypes` takes two milliseconds to import, most of them for pointers, callbacks and structures of other byte orders;
every run of a command waits for it, and so does every verb. Type checkers see `ctypes` itself.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import CDLL as CDLL
    from ctypes import Structure as Structure
    from ctypes import addressof as addressof
    from ctypes import byref as byref
    from ctypes import c_char_p as c_char_p
    from ctypes import c_int as c_int
    from ctypes import c_long as c_long
    from ctypes import c_size_t as c_size_t
    from ctypes import c_ssize_t as c_ssize_t
    from ctypes import c_uint as c_uint
    from ctypes import c_uint32 as c_uint32
    from ctypes import c_uint64 as c_uint64
    from ctypes import c_ulong as c_ulong
    from ctypes import c_ushort as c_ushort
    from ctypes import c_void_p as c_void_p
    from ctypes import create_string_buffer as create_string_buffer
    from ctypes import get_errno as get_errno
    from ctypes import sizeof as sizeof
else:
    import _ctypes
    from _ctypes import Structure, addressof, byref, get_errno, sizeof  # noqa: F401  # for those who import this

    def _simple(code: str) -> type:
        return type(_ctypes._SimpleCData)(f"c_{code}", (_ctypes._SimpleCData,), {"_type_": code})

    c_char, c_char_p, c_void_p = _simple("c"), _simple("z"), _simple("P")
    c_ushort, c_int, c_uint = _simple("H"), _simple("i"), _simple("I")
    c_long, c_ulong, c_uint64 = _simple("l"), _simple("L"), _simple("Q")
    c_uint32, c_size_t, c_ssize_t = c_uint, c_ulong, c_long

    class _Function(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
        _restype_ = c_int

    class CDLL:
        """The functions that are loaded already: `ctypes.CDLL(None, use_errno=True)`."""

        def __init__(self, name: None = None, *, use_errno: bool = True) -> None:
            self._handle = _ctypes.dlopen(name, 2)  # RTLD_NOW

        def __getattr__(self, name: str) -> _Function:
            if name.startswith("__"):
                raise AttributeError(name)
            function = _Function((name, self))
            setattr(self, name, function)
            return function

    def create_string_buffer(init: bytes | int, size: int | None = None) -> _ctypes.Array:
        """`ctypes.create_string_buffer`."""
        if isinstance(init, int):
            return (c_char * init)()
        buffer = (c_char * (len(init) + 1 if size is None else size))()
        buffer.value = init
        return buffer
