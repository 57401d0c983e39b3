"""`Containerfile.in` to Containerfile, by pcpp, with the place of every line kept.

pcpp never sees what it would spoil (`cpptext`). Macros are replaced in text outside quotes, as `cpp -traditional` does.
The lines of heredocs are no exception, as cpp knows nothing of them.
"""

from __future__ import annotations

import os
import stat

from builda.errors import ContainerfileError, InvalidValue
from builda.frontend.cppflags import Flags
from builda.frontend.cpptext import LINE_END
from builda.frontend.sourcetext import SIZE_LIMIT, SourceText, decode
from builda.plan import Location
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.frontend.cppengine import Engine

NOWHERE = Location("", 0)
OUTPUT_LINES = 1_000_000
NO_FLAGS = Flags((), ())


class Preprocessed(NamedTuple):
    """The plain Containerfile, the `#warning`s on the way and the files that were read."""

    source: SourceText
    warnings: tuple[tuple[Location, str], ...]
    files: tuple[str, ...]


def read_include(path: str) -> bytes:
    """The first bytes of an included file, one more than a Containerfile may have; OSError when there is none.

    InvalidValue for what is no regular file, which is never opened for reading: a pipe or a device may do harm.
    """
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise InvalidValue(f"include file is not a regular file: {path}")
        with open(f"/proc/self/fd/{handle}", "rb") as file:
            return file.read(SIZE_LIMIT + 1)
    finally:
        os.close(handle)


def preprocess(
    data: bytes,
    file: str,
    *,
    context: str | None,
    flags: Flags = NO_FLAGS,
    read: Callable[[str], bytes] = read_include,
) -> Preprocessed:
    """Preprocess `data`, the content of `file`, to a Containerfile.

    `#include "x"` looks beside the including file, in `context`, then in the -I directories; `<x>` in the latter only.
    What is included must lie in one of these. Raises ContainerfileError at the line of the directive that fails.
    """
    from builda.frontend.cppengine import Engine  # pcpp is imported only when a `.in` file comes

    engine = Engine(file, context, flags, read)
    text = decode(data, file)
    engine.files.append(file)
    engine.parse(engine.encode(text, file), os.path.abspath(file))
    source = _collect(engine)
    return Preprocessed(source, tuple(engine.warnings), tuple(dict.fromkeys(engine.files)))


def _collect(engine: Engine) -> SourceText:
    """pcpp's tokens as lines; a line's place is that of its first token."""
    lines: list[str] = []
    places: list[Location] = []
    line, place = "", NOWHERE
    while (token := engine.token()) is not None:
        if place is NOWHERE:
            place = Location(engine.shown(token.source), token.lineno)
        head, *more = token.value.split("\n")
        line += head
        for following in more:
            if LINE_END in line:  # a line of text; those of directives and of branches not taken vanish
                lines.append(engine.decode(line))
                places.append(place)
            line, place = following, place if following else NOWHERE
        if len(lines) > OUTPUT_LINES:
            raise ContainerfileError(
                f"preprocessing gives more than {OUTPUT_LINES} lines", file=places[-1].file, line=places[-1].line
            )
    return SourceText(tuple(lines), tuple(places), tuple(dict.fromkeys(engine.included)))
