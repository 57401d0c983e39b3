"""`containers-storage:[DRIVER@ROOT+RUNROOT]NAME`: the store of Podman, Buildah and Skopeo.

That store is read and written by its own programs only: by skopeo, or by podman where there is no skopeo. Between them
and builda an image is a temporary directory, which is gone with the source or sink; podman is sent an archive.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import weakref
from contextlib import suppress
from pathlib import Path

from builda.errors import EngineError, InvalidReference, Unsupported
from builda.fs.compress import sniff
from builda.fs.paths import discard
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.manifest import Manifest, parse
from builda.store import locks
from builda.transfer.archive import ArchiveSink, OciArchiveSink
from builda.transfer.dockerarchive import DockerArchiveSink
from builda.transfer.flatdir import DirectorySink, DirectorySource
from builda.values import NamedTuple, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from builda.transfer.copyimage import ImageSink, ImageSource

PREFIX = "containers-storage:"
_HEAD = 8
_LINES = 5
"""Lines of a program's last words that an error repeats."""


class Place(NamedTuple):
    """A store of containers-storage(5), None where its own configuration decides, and an image's name in it."""

    written: str  # what stands in the brackets
    driver: str | None
    root: str | None
    runroot: str | None
    options: tuple[str, ...]
    name: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """The place behind the transport's colon; InvalidReference."""
        inside, closed, name = text.removeprefix("[").partition("]")
        if not closed or not name:
            raise InvalidReference(
                f"not a name in a store: {PREFIX}{text}", hint=f"it is {PREFIX}[DRIVER@ROOT+RUNROOT]NAME, or []NAME"
            )
        driver, at, rest = inside.rpartition("@")
        places, _, options = rest.partition(":")
        root, _, runroot = places.partition("+")
        if at and not driver:
            raise InvalidReference(f"names no driver: {PREFIX}{text}")
        if any(place and not place.startswith("/") for place in (root, runroot)):
            raise InvalidReference(f"not an absolute path: {PREFIX}{text}")
        said = tuple(filter(None, options.split(",")))
        return cls(inside, driver or None, root or None, runroot or None, said, name)

    def for_skopeo(self, name: str) -> str:
        """A name in this store, as skopeo has it written."""
        return f"{PREFIX}[{self.written}]{name}" if self.written else f"{PREFIX}{name}"

    def for_podman(self) -> tuple[str, ...]:
        """Options of podman that mean this store."""
        named = {"--storage-driver": self.driver, "--root": self.root, "--runroot": self.runroot}
        found = [f"{option}={value}" for option, value in named.items() if value is not None]
        return (*found, *(f"--storage-opt={option}" for option in self.options))


class OtherStoreSource(DirectorySource):
    """An image of the other programs' store, as it comes out of there: uncompressed, with its ID."""

    def __init__(self, where: str) -> None:
        place = Place.parse(where)
        self._name = place.name
        temporary = _Temporary()
        try:
            _extract(place, temporary.image)
            self._files = _opened(temporary.image)
        finally:
            temporary.remove()
        weakref.finalize(self, _close, tuple(self._files.values()))
        super().__init__(temporary.image)

    def file(self, name: str) -> Path:
        """The path of a file of the image by its open descriptor, as it has been unlinked."""
        fd = self._files.get(name)
        return self._root / name if fd is None else Path(f"/proc/self/fd/{fd}")

    def manifest(self) -> tuple[Descriptor, bytes]:
        """The image's manifest; the store's own still calls layers compressed that were unpacked there."""
        document = parse(super().manifest()[1])
        if not isinstance(document, Manifest):
            raise Unsupported(f"a list cannot be copied out of {PREFIX}[]", hint="podman manifest push copies it")
        data = replace(document, layers=tuple(map(self._as_it_is, document.layers))).dump()
        return Descriptor(media_type=document.media_type, digest=Digest.of(data), size=len(data)), data

    def _as_it_is(self, layer: Descriptor) -> Descriptor:
        with self.open_blob(layer) as content:
            kind = sniff(content.read(_HEAD))
        if kind not in ("none", "gzip", "zstd") or kind == mediatype.compression_of(layer.media_type):
            return layer
        image_format: Literal["oci", "docker"] = "docker" if "docker" in layer.media_type else "oci"
        return replace(layer, media_type=mediatype.layer_media_type(image_format, kind))

    def own_names(self) -> tuple[str, ...]:
        """The name that it was asked for."""
        return () if self._name.startswith("@") else (self._name,)


def _extract(place: Place, path: str) -> None:
    """Write an image of the other store to a directory as skopeo's transport dir: has it."""
    program = _program()
    if os.path.basename(program) == "skopeo":
        _run(program, "--insecure-policy", "copy", "--quiet", place.for_skopeo(place.name), f"dir:{path}")
    else:
        _run(program, *place.for_podman(), "save", "--quiet", "--format", "docker-dir", "-o", path, place.name)


def _opened(path: str) -> dict[str, int]:
    """Descriptors of the files in a directory, so that it can be removed: nothing is left of it after a kill."""
    found: dict[str, int] = {}
    try:
        for entry in os.scandir(path):
            if entry.is_file(follow_symlinks=False):
                found[entry.name] = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except BaseException:
        _close(tuple(found.values()))
        raise
    return found


def _close(descriptors: tuple[int, ...]) -> None:
    for fd in descriptors:
        os.close(fd)


def other_store(where: str) -> ImageSink:
    """The sink of the program that is installed."""
    place, program = Place.parse(where), _program()
    return SkopeoSink(place, program) if os.path.basename(program) == "skopeo" else PodmanSink(place, program)


class SkopeoSink(DirectorySink):
    """A temporary directory that skopeo copies into the other store, with its digest."""

    def __init__(self, place: Place, program: str) -> None:
        self._temporary = _Temporary()
        super().__init__(self._temporary.image)
        self._place = place
        self._program = program
        self._names = [place.name]
        self._lock = threading.Lock()
        self._fetching = 0  # threads that write into the directory
        self._is_lost = False

    def call(self, names: tuple[str, ...]) -> None:
        """The image has these names, too."""
        self._names += names

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
        """Fetch the blob; without it nothing of the image is kept. Threads may do so at the same time."""
        with self._lock:
            if self._is_lost:
                return  # another thread has failed, which ends the copy: nothing is made any more
            self._fetching += 1
        try:
            super().put_blob(descriptor, source, progress)
        except BaseException:
            self._is_lost = True
            raise
        finally:
            self._left()

    def _left(self) -> None:
        """Remove the directory with the last thread that writes into it, if one of them failed."""
        with self._lock:
            self._fetching -= 1
            if self._is_lost and not self._fetching:
                self._temporary.remove()

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """Let skopeo have the image when it is whole; Unsupported for an index."""
        _check_image(descriptor, data, top=top)
        try:
            super().put_manifest(descriptor, data, top=top)
            for name in self._names:
                there = self._place.for_skopeo(name)
                _run(self._program, "--insecure-policy", "copy", "--quiet", f"dir:{self._temporary.image}", there)
        finally:
            self._temporary.remove()


class PodmanSink:
    """An archive that podman reads while it is written."""

    def __init__(self, place: Place, program: str) -> None:
        self._command = (program, *place.for_podman(), "load", "--quiet")
        self._names = [place.name]
        self._noted = ArchiveSink("")

    def call(self, names: tuple[str, ...]) -> None:
        """The image has these names, too."""
        self._names += names

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the blob will be in the archive anyway."""
        return self._noted.has_blob(descriptor)

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
        """Remember the blob; it is read when the archive is written."""
        self._noted.put_blob(descriptor, source, progress)

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """Write the archive, of the kind that keeps the most, to podman; Unsupported for an index."""
        _check_image(descriptor, data, top=top)
        with tempfile.TemporaryFile() as said:
            with subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=said, stderr=said) as podman:
                assert podman.stdin is not None
                sink = self._archive(descriptor, f"/proc/self/fd/{podman.stdin.fileno()}")
                sink.blobs = self._noted.blobs
                try:
                    sink.put_manifest(descriptor, data, top=True)
                except BrokenPipeError:
                    pass  # podman ended: it says why
                except BaseException:
                    podman.kill()
                    raise
            said.seek(0)
            _check(self._command[0], podman.returncode, said.read())

    def _archive(self, descriptor: Descriptor, path: str) -> ArchiveSink:
        if descriptor.media_type == mediatype.MANIFEST and len(self._names) == 1:
            return OciArchiveSink(path, self._names[0])
        sink = DockerArchiveSink(path, self._names[0])
        sink.call(tuple(self._names[1:]))
        return sink


def _check_image(descriptor: Descriptor, data: bytes, *, top: bool) -> None:
    if not top or not isinstance(parse(data, descriptor.media_type), Manifest):
        raise Unsupported(f"a list cannot be copied into {PREFIX}[]", hint="copy one image: --platform")


class _Temporary:
    """A directory that is removed by `remove` or with the last reference to this; `image` is a path in it.

    Its process holds a flock(2) on it, so that a later process can remove what a killed one left.
    """

    def __init__(self) -> None:
        large = "/var/tmp" if "TMPDIR" not in os.environ and os.path.isdir("/var/tmp") else None  # /tmp may be memory
        start = f"{large or tempfile.gettempdir()}/builda-image-{os.geteuid()}-"
        _remove_left(start)
        place = f"{start}{os.urandom(8).hex()}"
        self.remove = weakref.finalize(self, _end, place, locks.hold_directory(place))
        self.image = f"{place}/image"


def _end(place: str, held: int) -> None:
    discard(place)
    os.close(held)


def _remove_left(start: str) -> None:
    """Remove the directories of this user, whose paths begin so, that no process holds."""
    for name in os.listdir(os.path.dirname(start)):
        path = f"{os.path.dirname(start)}/{name}"
        if path.startswith(start):
            with suppress(OSError), locks.directory_alone(path):
                if os.lstat(path).st_uid == os.geteuid():
                    discard(path)


def _program() -> str:
    """Skopeo's path, or podman's; Unsupported if neither is installed."""
    found = shutil.which("skopeo") or shutil.which("podman")
    if found is None:
        raise Unsupported(
            f"neither skopeo nor podman is installed, and only they know {PREFIX}[]",
            hint=f"{PREFIX}NAME without brackets is builda's own store",
        )
    return found


def _run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _check(command[0], done.returncode, done.stderr)


def _check(program: str, status: int, said: bytes) -> None:
    """EngineError with a program's last words if it failed."""
    if status:
        last = " ".join(said.decode(errors="replace").split("\n")[-_LINES - 1 :]).strip()
        raise EngineError(f"{os.path.basename(program)} failed with status {status}: {last[-2000:]}")
