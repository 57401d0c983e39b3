"""`build --output`: its parser, and its writers. Everything is parsed before the build begins."""

from __future__ import annotations

import errno
import os

from builda.errors import InvalidValue, NotFound, Unsupported
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.imageoptions import RegistryAccess
    from builda.cli.core.verbsession import Session
    from builda.store.store import Image

_KEYS = {
    "local": {"dest"},
    "tar": {"dest"},
    "oci": {"dest", "name", "tar"},
    "docker": {"dest", "name"},
    "image": {"name", "push"},
    "registry": {"name"},
}
_HINT = "write a directory, -, type=local|tar|oci|docker,dest=PATH or type=image|registry,name=NAME"
STDOUT = "-"


class Output(NamedTuple):
    """A value of --output: a place that the result is written to besides the store."""

    kind: str
    dest: str = ""
    name: str | None = None
    push: bool = False
    archive: bool = True  # of type=oci: a tar file, else a directory


def parse(items: tuple[str, ...]) -> tuple[Output, ...]:
    """Parse --output options; InvalidValue or Unsupported naming the option."""
    found = tuple(map(_parse, items))
    if sum(output.dest == STDOUT for output in found) > 1:
        raise InvalidValue("only one --output can go to standard output")
    return found


def to_stdout(items: tuple[str, ...]) -> bool:
    """Whether one of the outputs is written to standard output."""
    return any(output.dest == STDOUT for output in parse(items))


def check(found: tuple[Output, ...]) -> None:
    """Return if each of the outputs can be written; else the error that writing would end in, after the build."""
    for output in found:
        if output.dest and output.dest != STDOUT:
            try:
                _try(output.dest, is_directory=output.kind == "local" or not output.archive)
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                raise NotFound(f"--output cannot be written, {why}: {output.dest}") from error


def _try(path: str, *, is_directory: bool) -> None:
    """Make a file in the directory that `path` is to be in, and remove it; OSError if that is not possible."""
    if is_directory:
        place = os.path.abspath(path)
        while not os.path.lexists(place):
            place = os.path.dirname(place)
    elif os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    elif os.path.exists(path) and not os.path.isfile(path):
        return  # a pipe or a device
    else:
        place = os.path.dirname(path) or "."
    import tempfile

    with tempfile.TemporaryFile(dir=place):
        return


def _parse(item: str) -> Output:
    if "=" not in item:
        if not item:
            raise InvalidValue("invalid --output: nothing is named", hint=_HINT)
        return Output("tar" if item == STDOUT else "local", item)
    fields = fields_of(item)
    kind = fields.pop("type", "tar" if fields.get("dest") == STDOUT else "local")
    if kind not in _KEYS:
        raise InvalidValue(f"unknown type of --output: {kind}", hint=_HINT)
    if unknown := sorted(fields.keys() - _KEYS[kind]):
        raise Unsupported(f"--output of type {kind} has no {unknown[0]}: {item}", hint=_HINT)
    output = Output(
        kind,
        fields.get("dest", ""),
        fields.get("name") or None,
        kind == "registry" or _flag(fields, "push", default=False),
        _flag(fields, "tar", default=True),
    )
    _check(output, item)
    return output


def fields_of(item: str) -> dict[str, str]:
    """The `KEY=VALUE` fields of an option; InvalidValue if they cannot be read."""
    import csv

    try:
        parts = next(csv.reader([item], strict=True))
    except (csv.Error, StopIteration) as error:
        raise InvalidValue(f"--output cannot be read: {item!r}", hint=_HINT) from error
    return dict(part.partition("=")[::2] for part in parts)


def _check(output: Output, item: str) -> None:
    if "dest" in _KEYS[output.kind] and not output.dest:
        raise InvalidValue(f"--output names no dest: {item}", hint=_HINT)
    if "dest" not in _KEYS[output.kind] and output.name is None:
        raise InvalidValue(f"--output names no image: {item}", hint=_HINT)
    if output.dest == STDOUT and (output.kind == "local" or not output.archive):
        raise InvalidValue(f"a directory cannot go to standard output: {item}", hint="write type=tar,dest=-")


def _flag(fields: dict[str, str], name: str, *, default: bool) -> bool:
    value = fields.get(name, str(default).lower())
    if value not in ("true", "false"):
        raise InvalidValue(f"{name} of --output must be true or false: {value}")
    return value == "true"


def write(session: Session, image: Image, output: Output, name: str | None, access: RegistryAccess) -> None:
    """Write the image there; `name` is what it is called where the option says nothing."""
    from builda.builder.image.export import export
    from builda.builder.image.manifestlist import first_image
    from builda.builder.image.push import local_name, write_to
    from builda.transfer.locate import Location

    ctx, path = session.builder.context, "/dev/stdout" if output.dest == STDOUT else output.dest
    match output.kind:
        case "local" | "tar":
            export(ctx, first_image(session.store, image), output.kind, output.dest)
        case "oci":
            place = Location("oci-archive" if output.archive else "oci", path, output.name or name)
            write_to(ctx, image, place, access)
        case "docker":
            write_to(ctx, image, Location("docker-archive", path, output.name or name), access)
        case _:
            assert output.name is not None
            for each in output.name.split(","):
                session.store.images.tag(image, local_name(each))
                if output.push:
                    write_to(ctx, image, Location.at_registry(each), access)
