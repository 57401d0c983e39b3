"""`preprocess`: the plain Containerfile that a `.in` file becomes."""

from __future__ import annotations

import sys

from builda.cli.core.options import argument, many, text
from builda.cli.core.output import print_line
from builda.cli.core.verb import verb
from builda.errors import InvalidValue, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.cli.core.verbsession import Session


@verb(
    argument("file"),
    many("--cpp-flag", metavar="FLAG", help="-DNAME[=VALUE], -UNAME or -IDIR."),
    many("--include", "-I", metavar="DIR", help="Look for included files there too, as --cpp-flag -IDIR does."),
    text("--contextdir", metavar="DIR", help="The context of the build, where included files may lie.  [default: .]"),
    text("--output", "-o", metavar="FILE", help="Write there instead of to standard output."),
    interspersed=True,
    example="builda preprocess --cpp-flag -DDEBUG Containerfile.in",
)
def preprocess(
    session: Session,
    *,
    file: str,
    cpp_flag: tuple[str, ...],
    include: tuple[str, ...],
    contextdir: str | None,
    output: str | None,
) -> None:
    """Print the plain Containerfile that a build would make of FILE; - is standard input.

    What BUILDAH_CPPFLAGS says counts as it does in a build. An error names the file and line to edit.
    """
    from pathlib import Path

    from builda.containerfile import preprocessed

    flags = (*cpp_flag, *(f"-I{directory}" for directory in include))
    done = preprocessed(_read(file), _shown(file), Path(contextdir or "."), flags, session.environ, session.emit)
    plain = "".join(f"{line}\n" for line in done.lines)
    if output is None:
        print_line(plain.removesuffix("\n"))
    else:
        Path(output).write_text(plain, "utf-8")


def _shown(file: str) -> str:
    return "<stdin>" if file == "-" else file


def _read(file: str) -> bytes:
    from builda.containerfile import SIZE_LIMIT
    from builda.inputfile import read_input

    if file == "-":
        return sys.stdin.buffer.read(SIZE_LIMIT + 1)
    try:
        return read_input(file, "file to preprocess", SIZE_LIMIT)
    except FileNotFoundError as error:
        raise NotFound(f"no such file or directory: {file}") from error
    except IsADirectoryError as error:
        raise InvalidValue(f"file to preprocess is a directory: {file}") from error
