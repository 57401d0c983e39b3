"""`transport:argument` as users write it: where an image comes from or goes to (containers-transports(5)).

Registries and the store are reached through the builder. For all others there is one table: a new transport is a module
of this package, with a source and a sink, and a row of TRANSPORTS.
"""

from __future__ import annotations

from builda.errors import InvalidReference, NotFound, Unsupported
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.transfer.copyimage import ImageSink, ImageSource

_REGISTRY, _STORE = "registry", "store"


class Transport(NamedTuple):
    """A transport: its prefix, the module and classes that implement it, and what its places hold."""

    name: str
    module: str
    source: str  # what the module calls the class, or function, that makes one
    sink: str
    by_name: bool = False  # what follows the colon is an image's name, not a path
    has_names: bool = True  # `:name` may follow the path
    many_names: bool = False  # an image may have several there
    has_indexes: bool = True  # else only single images
    wants_oci: bool = False  # other programs find no image of Docker's format in it
    is_archive: bool = False  # one file that is written anew: an image gets the name that it was pushed by
    has_path_scopes: bool = False  # policy.json has rules for its paths


_OTHER_STORE = "containers-storage"
TRANSPORTS = {
    transport.name: transport
    for transport in (
        Transport("oci", "ocilayout", "LayoutSource", "LayoutSink", wants_oci=True, has_path_scopes=True),
        Transport(
            "oci-archive",
            "archive",
            "OciArchiveSource",
            "OciArchiveSink",
            wants_oci=True,
            is_archive=True,
            has_path_scopes=True,
        ),
        Transport(
            "docker-archive",
            "dockerarchive",
            "DockerArchiveSource",
            "DockerArchiveSink",
            many_names=True,
            has_indexes=False,
            is_archive=True,
        ),
        Transport("dir", "flatdir", "DirectorySource", "DirectorySink", has_names=False, has_path_scopes=True),
        Transport(
            "docker-daemon",
            "engine",
            "EngineSource",
            "EngineSink",
            by_name=True,
            has_names=False,
            many_names=True,
            has_indexes=False,
        ),
        Transport(
            _OTHER_STORE,
            "otherstore",
            "OtherStoreSource",
            "other_store",
            by_name=True,
            has_names=False,
            many_names=True,
            has_indexes=False,
        ),
    )
}
_REFUSED = {
    "ostree": "OSTree repositories are not supported",
    "sif": "Singularity images are not supported",
    "tarball": "use builda from scratch and builda add",
}


class Location(NamedTuple):
    """A place. `where` is a path for files, else what names the image; `name` is what follows a path's colon."""

    transport: str
    where: str
    name: str | None = None

    def __str__(self) -> str:
        prefix = {_REGISTRY: "docker://", _STORE: "containers-storage:"}.get(self.transport, f"{self.transport}:")
        return prefix + self.where + (f":{self.name}" if self.name else "")

    @classmethod
    def at_registry(cls, name: str) -> Location:
        """The place of a name in its registry."""
        return cls(_REGISTRY, name)

    @property
    def in_registry(self) -> bool:
        """Whether `where` is a name in a registry."""
        return self.transport == _REGISTRY

    @property
    def in_store(self) -> bool:
        """Whether `where` is a name in the store."""
        return self.transport == _STORE

    @property
    def row(self) -> Transport | None:
        """The row of the transport; None for registries and the store."""
        return TRANSPORTS.get(self.transport)

    @property
    def is_named(self) -> bool:
        """Whether the user wrote a name behind the path, not the number of an image in it."""
        return self.name is not None and not self.name.startswith("@")


def parse_location(text: str) -> Location | None:
    """The place that `text` names by a transport; None for a plain image name.

    Raises Unsupported for transports that builda does not have, InvalidReference for one without its argument.
    """
    if text.startswith("docker://"):
        return Location(_REGISTRY, _required(text.removeprefix("docker://"), text))
    prefix, colon, rest = text.partition(":")
    if not colon:
        return None
    if rest.startswith("//") and prefix.isalnum():
        known = " ".join(f"{one}:" for one in TRANSPORTS)
        raise InvalidReference(f"unknown transport: {prefix}://", hint=f"it is docker://, {known}, or a name without")
    if prefix in _REFUSED:
        raise Unsupported(f"transport is not supported: {prefix}", hint=_REFUSED[prefix])
    if prefix == _OTHER_STORE and not rest.startswith("["):
        return Location(_STORE, _required(rest.removeprefix("@"), text))
    transport = TRANSPORTS.get(prefix)
    return None if transport is None else _location(transport, rest, text)


def open_source(location: Location) -> ImageSource:
    """The image at a location that is neither a registry nor the store."""
    transport = TRANSPORTS[location.transport]
    source: ImageSource = _made(transport, transport.source, location)
    return source


def open_sink(location: Location) -> ImageSink:
    """The sink that makes an image the one at a location that is neither a registry nor the store."""
    transport = TRANSPORTS[location.transport]
    sink: ImageSink = _made(transport, transport.sink, location)
    return sink


def locations_in(path: str) -> tuple[Location, ...]:
    """The images in a file or directory of any of these transports, each by its place in it."""
    from pathlib import Path

    from builda.oci.manifest import MANIFEST_LIMIT
    from builda.transfer import blobfile, ocilayout
    from builda.transfer.dockerarchive import entries_in
    from builda.transfer.members import Members

    if Path(path).is_dir():
        if not Path(path, "oci-layout").exists():
            return (Location("dir", path),)
        index = blobfile.read_small(Path(path, "index.json"), MANIFEST_LIMIT)
        return tuple(Location("oci", path, f"@{place}") for place in range(len(ocilayout.entries_of(index, path))))
    members = Members(path)
    if "manifest.json" in members:
        return tuple(Location("docker-archive", path, f"@{place}") for place in range(len(entries_in(path, members))))
    if "index.json" not in members:
        raise NotFound(f"not an archive of images: {path}", hint="it has neither manifest.json nor index.json")
    entries = ocilayout.entries_of(members.read("index.json", MANIFEST_LIMIT), path)
    return tuple(Location("oci-archive", path, f"@{place}") for place in range(len(entries)))


def _made(transport: Transport, kind: str, location: Location) -> Any:
    from importlib import import_module

    made = getattr(import_module(f"builda.transfer.{transport.module}"), kind)
    return made(location.where, location.name) if transport.has_names else made(location.where)


def _location(transport: Transport, rest: str, text: str) -> Location:
    if not transport.has_names:
        return Location(transport.name, _required(rest, text))
    path, _, name = rest.partition(":")
    return Location(transport.name, _required(path, text), name or None)


def _required(argument: str, text: str) -> str:
    if not argument:
        raise InvalidReference(f"transport needs an argument: {text}")
    return argument
