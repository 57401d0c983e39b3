"""`transport:argument` as users write it: where an image comes from or goes to (containers-transports(5))."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from builda.errors import InvalidReference, Unsupported
from builda.values import NamedTuple

if TYPE_CHECKING:
    from builda.transfer.copy import ImageSink, ImageSource

Transport: TypeAlias = Literal["registry", "store", "oci", "oci-archive", "docker-archive", "dir"]

_FILES: tuple[Transport, ...] = ("oci", "oci-archive", "docker-archive", "dir")
_REFUSED = {
    "docker-daemon": "builda speaks to no daemon; save the image with docker save and use docker-archive:",
    "ostree": "OSTree repositories are not supported",
    "sif": "Singularity images are not supported",
    "tarball": "use builda from scratch and builda add",
}


class Location(NamedTuple):
    """A place. `where` is a path for files, else an image name; `name` is what comes behind a path's colon."""

    transport: Transport
    where: str
    name: str | None = None

    def __str__(self) -> str:
        prefix = {"registry": "docker://", "store": "containers-storage:"}.get(self.transport, f"{self.transport}:")
        return prefix + self.where + (f":{self.name}" if self.name else "")


def parse_location(text: str) -> Location | None:
    """The place that `text` names by a transport; None for a plain image name.

    Raises Unsupported for transports that builda does not have, InvalidReference for one without its argument.
    """
    if text.startswith("docker://"):
        return Location("registry", _required(text.removeprefix("docker://"), text))
    prefix, colon, rest = text.partition(":")
    if not colon:
        return None
    if rest.startswith("//") and prefix.isalnum():
        known = " ".join(f"{one}:" for one in (*_FILES, "containers-storage"))
        raise InvalidReference(f"unknown transport: {prefix}://", hint=f"it is docker://, {known}, or a name without")
    if prefix in _REFUSED:
        raise Unsupported(f"transport is not supported: {prefix}", hint=_REFUSED[prefix])
    if prefix == "containers-storage":
        return _store_location(rest, text)
    for transport in _FILES:
        if prefix == transport:
            return _file_location(transport, rest, text)
    return None


def open_source(location: Location) -> ImageSource:
    """The image at a file location."""
    match location.transport:
        case "oci":
            from builda.transfer.layout import LayoutSource

            return LayoutSource(location.where, location.name)
        case "oci-archive":
            from builda.transfer.archive import OciArchiveSource

            return OciArchiveSource(location.where, location.name)
        case "docker-archive":
            from builda.transfer.dockerarchive import DockerArchiveSource

            return DockerArchiveSource(location.where, location.name)
        case "dir":
            from builda.transfer.directory import DirectorySource

            return DirectorySource(location.where)
        case "registry" | "store":
            raise AssertionError(location)


def open_sink(location: Location) -> ImageSink:
    """Where an image becomes the one at a file location."""
    match location.transport:
        case "oci":
            from builda.transfer.layout import LayoutSink

            return LayoutSink(location.where, location.name)
        case "oci-archive":
            from builda.transfer.archive import OciArchiveSink

            return OciArchiveSink(location.where, location.name)
        case "docker-archive":
            from builda.transfer.dockerarchive import DockerArchiveSink

            return DockerArchiveSink(location.where, location.name)
        case "dir":
            from builda.transfer.directory import DirectorySink

            return DirectorySink(location.where)
        case "registry" | "store":
            raise AssertionError(location)


def _store_location(rest: str, text: str) -> Location:
    if rest.startswith("["):
        raise Unsupported(f"another store cannot be named in an image name: {text}", hint="use --root and --runroot")
    return Location("store", _required(rest.removeprefix("@"), text))


def _file_location(transport: Transport, rest: str, text: str) -> Location:
    if transport == "dir":
        return Location(transport, _required(rest, text))
    path, _, name = rest.partition(":")
    return Location(transport, _required(path, text), name or None)


def _required(argument: str, text: str) -> str:
    if not argument:
        raise InvalidReference(f"transport needs an argument: {text}")
    return argument
