"""The macros and directories of `--cpp-flag` and BUILDAH_CPPFLAGS, as a value."""

from __future__ import annotations

import re
import shlex

from builda.errors import InvalidValue
from builda.values import NamedTuple


class Flags(NamedTuple):
    """The macros and directories of `--cpp-flag` and BUILDAH_CPPFLAGS."""

    macros: tuple[tuple[str, str | None], ...]  # in order; None undefines
    include_dirs: tuple[str, ...]


def parse_flags(environment: str, flags: tuple[str, ...]) -> Flags:
    """`environment` split as shell words, then `flags` one by one: -DNAME[=VALUE], -UNAME, -IDIR, -iquote DIR.

    Raises InvalidValue for every other flag, since none can be honoured.
    """
    try:
        words = [*shlex.split(environment), *flags]
    except ValueError as error:
        raise InvalidValue(f"BUILDAH_CPPFLAGS cannot be split into words: {error}") from error
    macros: list[tuple[str, str | None]] = []
    directories: list[str] = []
    rest = iter(words)
    for word in rest:
        match = re.fullmatch(r"(-iquote|-[DUI])\s*(.*)", word, re.S)
        if match is None:
            raise InvalidValue(f"preprocessor flag is not supported: {word}", hint="use -D, -U and -I")
        value = match[2] or next(rest, "")
        if not value:
            raise InvalidValue(f"preprocessor flag needs a value: {word}")
        if match[1] in ("-I", "-iquote"):
            directories.append(value)
        elif match[1] == "-D":
            name, equals, text = value.partition("=")
            macros.append((name, text if equals else "1"))
        else:
            macros.append((value, None))
    return Flags(tuple(macros), tuple(directories))
