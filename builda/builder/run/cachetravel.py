"""Cache mounts that travel: fetched from a registry or directory before they are used, and put there after the build.

A cache is kept as one archive of its whole tree, under a key of its id, owner and platform. It is replaced as a whole,
so two builds that write one at the same time never mix: the later one wins, and the next build finds what it left.
In a directory a cache of `sharing=locked` has one user at a time: the process that locked the file beside the archive
fetches the cache, uses it and puts it back. A registry has neither locks nor conditional writes: there a build whose
cache of `sharing=locked` replaces what another build put there meanwhile says so.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from _thread import allocate_lock
from contextlib import ExitStack, contextmanager, suppress

from builda.errors import BuildaError, CorruptContent, InvalidValue, NotFound, RegistryError, Unsupported, of_system
from builda.events import BlobProgress, Warned
from builda.linux.directories import opened
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest, Hasher
from builda.oci.manifest import Manifest
from builda.oci.reference import Reference, parse_short
from builda.values import NamedTuple, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO, TypeAlias

    from builda.builder.context import Context
    from builda.builder.imageoptions import RegistryAccess
    from builda.oci.digest import Readable

ARTIFACT = "application/vnd.builda.cachemount.v1+json"
LAYER = "application/vnd.builda.cachemount.v1.tar+zstd"
ABOUT = "io.builda.cachemount"
"""Annotation: id, owner and platform of the cache, for people."""
_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_HINT = "write REPOSITORY, type=registry,ref=REPOSITORY or type=local,dir=DIRECTORY"


class InRegistry(NamedTuple):
    """A repository; each cache is an artifact with a tag of its own."""

    repository: Reference


class InDirectory(NamedTuple):
    """A directory; each cache is a file of its own."""

    path: str


Place: TypeAlias = "InRegistry | InDirectory"
_Stamp: TypeAlias = "tuple[int, int, int]"


def places(items: Sequence[str], option: str) -> tuple[Place, ...]:
    """The places that the values of `--cache-mounts-from` or `--cache-mounts-to` mean."""
    return tuple(_place(item, option) for item in items)


def _place(item: str, option: str) -> Place:
    fields = dict(part.partition("=")[::2] for part in item.split(",")) if "=" in item else {"ref": item}
    kind = fields.pop("type", "registry")
    if kind == "local" and set(fields) == {"dir"}:
        return InDirectory(fields["dir"])
    if kind == "claim":
        raise InvalidValue(f"{option} of type claim is for builds in a cluster: {item}", hint=_HINT)
    if kind != "registry" or set(fields) != {"ref"}:
        raise Unsupported(f"{option} cannot hold cache mounts: {item}", hint=_HINT)
    short = parse_short(fields["ref"])
    if short.digest is not None or short.tag is not None:
        raise InvalidValue(f"{option} takes a repository, without tag or digest: {fields['ref']}", hint=_HINT)
    return InRegistry(Reference.parse(fields["ref"]))


class CacheTravel:
    """The cache mounts of one build. Threads may share it. It is the Travel of `Inputs`."""

    def __init__(
        self,
        ctx: Context,
        sources: tuple[Place, ...],
        targets: tuple[Place, ...],
        access: RegistryAccess,
        platform: str,
    ) -> None:
        self._ctx = ctx
        self._sources = sources
        self._targets = targets
        self._access = access
        self._platform = platform
        self._lock = allocate_lock()
        self._used: dict[str, None] = {}
        self._within = set[str]()
        """Caches with which this build has its turn."""
        self._left: dict[str, dict[Place, _Stamp | None]] = {}
        """What it put to directories in the end of its turns."""
        self._seen: dict[str, dict[Place, Digest | None]] = {}
        """What registries had of the caches of `sharing=locked` when this build began to use them."""

    def of(self, platform: str) -> CacheTravel:
        """The same for the build of another platform."""
        return CacheTravel(self._ctx, self._sources, self._targets, self._access, platform)

    @contextmanager
    def turn(self, identity: str) -> Iterator[None]:
        """Keep other machines from using a cache during the block, in the end of which it is put to the directories."""
        places = [place for place in self._targets if isinstance(place, InDirectory)]
        with ExitStack() as stack:
            for place in sorted(places):
                stack.enter_context(self._lock_of(place, identity))
            self._within.add(identity)
            try:
                yield
                try:
                    self._put(identity, places)
                except OSError as error:
                    raise of_system(error) from error
                self._left[identity] = {place: _stamp(place, self._key(identity)) for place in places}
            finally:
                self._within.discard(identity)

    @contextmanager
    def _lock_of(self, place: InDirectory, identity: str) -> Iterator[None]:
        try:
            os.makedirs(place.path, exist_ok=True)
            fd = os.open(self._lock_file(place, identity), _LOCK_FILE, 0o660)
        except OSError as error:
            raise of_system(error) from error
        try:
            with suppress(PermissionError):  # another user made it
                os.fchmod(fd, 0o660)  # whatever the umask: for the group that a volume claim gives to its pods
            self._wait(fd, place, identity)
            yield
        finally:
            os.close(fd)

    def _lock_file(self, place: InDirectory, identity: str) -> str:
        return f"{_file(place, self._key(identity))}.lock"

    def _wait(self, fd: int, place: InDirectory, identity: str) -> None:
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                what = f"cache mount {_name(identity)}"
                with self._ctx.store.waits.waiting(what, self._lock_file(place, identity)):
                    self._tell(identity, "is used by another build: waiting for it")
                    fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as error:
            raise Unsupported(
                f"directory of cache mounts has no locks: {place.path}: {error.strerror}",
                hint="sharing=shared needs none",
            ) from error

    def arrive(self, identity: str, path: str) -> None:
        """A cache is going to be used: if its directory is empty, what the first place has of it is there afterwards.

        So it is if this build has a turn with the cache, and another machine had one since this build's last.
        A place that cannot be read is a warning: the cache starts empty.
        """
        with self._lock:
            is_new = identity not in self._used
            self._used[identity] = None
            places: Sequence[Place] = ()
            if is_new and identity in self._within:
                self._see(identity)
            if is_new and not os.listdir(path):
                places = self._sources
            elif identity in self._within:
                left = self._left.get(identity, {})
                places = [place for place in self._sources if place in left and self._is_newer(place, identity)]
            else:
                self._left.pop(identity, None)
            for place in places:
                if self._is_filled(place, identity, path):
                    return

    def _see(self, identity: str) -> None:
        seen = self._seen[identity] = {}
        for place in self._targets:
            if isinstance(place, InRegistry):
                with suppress(BuildaError):  # a place that cannot be read is told of when it is
                    seen[place] = self._digest_at(place, identity)

    def _digest_at(self, place: InRegistry, identity: str) -> Digest | None:
        """The archive that a registry has of a cache; None for none, and for something else of this name."""
        with suppress(CorruptContent):
            layer = _layer_at(self._ctx, place, self._key(identity), self._access)
            return None if layer is None else layer.digest
        return None

    def _is_newer(self, place: Place, identity: str) -> bool:
        """Whether another machine has put a cache to a directory after this build did."""
        found = _stamp(place, self._key(identity))
        return found is not None and found != self._left[identity][place]

    def leave(self) -> None:
        """Put all caches that were used to the places for them. RegistryError or OSError if a place refuses one."""
        for identity in self._used:
            self._put(identity, [place for place in self._targets if place not in self._left.get(identity, {})])

    def _put(self, identity: str, places: Sequence[Place]) -> None:
        if places:
            with self._packed(identity) as (layer, file):
                for place in places:
                    if isinstance(place, InDirectory):
                        _put_file(_file(place, self._key(identity)), file)
                    else:
                        self._push(identity, place, layer, file)

    def _push(self, identity: str, place: InRegistry, layer: Descriptor, file: BinaryIO) -> None:
        there = self._digest_at(place, identity)
        if there == layer.digest:
            return
        seen = self._seen.get(identity, {})
        if there is not None and place in seen and seen[place] != there:
            self._tell(
                identity,
                f"was put to {place.repository} by another build meanwhile, and this build's replaces it: "
                "what the other one added is lost",
                "a directory or a volume claim has locks for caches of sharing=locked; a registry has none",
            )
        _push(self._ctx, _tagged(place, self._key(identity)), layer, file, self._access)

    def _is_filled(self, place: Place, identity: str, path: str) -> bool:
        try:
            with _opened(self._ctx, place, self._key(identity), self._access) as found:
                if found is None:
                    return False
                self._fill(found, path)
                return True
        except BuildaError as error:
            self._warn(identity, error)
        except OSError as error:
            self._warn(identity, of_system(error))
        return False

    def _fill(self, archive: Readable, path: str) -> None:
        """Unpack beside the store's caches, and move it into place when it is whole."""
        from builda.fs import paths
        from builda.fs.compress import decompressing
        from builda.fs.layer import apply
        from builda.store import layout

        place = self._ctx.store.layout  # a later prune removes both if this process is killed
        whole, before = layout.temporary(place), layout.temporary(place)
        os.mkdir(whole, 0o755)
        try:
            with opened(whole) as root:
                apply(decompressing(archive, "zstd"), root, whiteouts="plain")
            if os.listdir(path):
                os.rename(path, before)
            with suppress(OSError):  # another build filled it meanwhile
                os.rename(whole, path)
        finally:
            paths.discard(whole)
            paths.discard(before)

    def _warn(self, identity: str, error: BuildaError) -> None:
        self._tell(identity, f"starts empty: {error}", error.hint)

    def _tell(self, identity: str, what: str, hint: str | None = None) -> None:
        self._ctx.emit(Warned(message=f"cache mount {_name(identity)} {what}", hint=hint))

    @contextmanager
    def _packed(self, identity: str) -> Iterator[tuple[Descriptor, BinaryIO]]:
        """The archive of a cache. A lock keeps the cache from changes while the archive is read."""
        import zstandard

        from builda.fs.layer import write_tree

        with tempfile.TemporaryFile(dir=self._ctx.store.layout.path("ingest")) as file:
            with (
                self._ctx.store.cache_mount(identity, "locked") as path,
                opened(path) as root,
                zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False) as stream,
            ):
                write_tree(root, stream)
            size = file.tell()
            file.seek(0)
            hasher = Hasher()
            while data := file.read(1 << 20):
                hasher.update(data)
            about = " ".join((*identity.split("\0"), self._platform))
            digest = hasher.digest()
            yield Descriptor(media_type=LAYER, digest=digest, size=size, annotations={ABOUT: about}), file

    def _key(self, identity: str) -> str:
        return hashlib.sha256(f"{identity}\0{self._platform}".encode()).hexdigest()[:32]


def _tagged(place: InRegistry, key: str) -> Reference:
    return place.repository._replace(tag=f"builda-cachemount-{key}", digest=None)


def _name(identity: str) -> str:
    return identity.partition("\0")[0]


def _file(place: InDirectory, key: str) -> str:
    return os.path.join(place.path, f"cachemount-{key}.tar.zst")


def _stamp(place: Place, key: str) -> _Stamp | None:
    """An ID that changes when the archive in a directory is replaced; None if there is none."""
    if not isinstance(place, InDirectory):
        return None
    try:
        info = os.stat(_file(place, key))
    except FileNotFoundError:
        return None
    return info.st_ino, info.st_mtime_ns, info.st_size


@contextmanager
def _opened(ctx: Context, place: Place, key: str, access: RegistryAccess) -> Iterator[Readable | None]:
    """The archive of a cache; None if the place has none."""
    from builda.oci.digest import VerifyingReader

    if isinstance(place, InDirectory):
        try:
            file = open(_file(place, key), "rb")  # noqa: SIM115  # closed below
        except FileNotFoundError:
            yield None
            return
        with file:
            yield file
        return
    source = ctx.remote.source(_tagged(place, key), access)
    layer = _layer_at(ctx, place, key, access)
    if layer is None:
        yield None
        return
    with source.open_blob(layer) as blob:
        yield VerifyingReader(blob, layer.digest, layer.size)


def _layer_at(ctx: Context, place: InRegistry, key: str, access: RegistryAccess) -> Descriptor | None:
    from builda.oci.manifest import parse

    try:
        descriptor, data = ctx.remote.source(_tagged(place, key), access).manifest()
    except NotFound:
        return None
    except RegistryError as error:
        if error.status != 404:
            raise
        return None
    document = parse(data, descriptor.media_type)
    if not isinstance(document, Manifest) or document.artifact_type != ARTIFACT or len(document.layers) != 1:
        raise CorruptContent(f"not a cache mount: {_tagged(place, key)}")
    return document.layers[0]


def _push(ctx: Context, name: Reference, layer: Descriptor, file: BinaryIO, access: RegistryAccess) -> None:
    from builda.transfer.copyimage import OneBlob

    sink = ctx.remote.sink(name, access)
    config = Descriptor(media_type="application/vnd.oci.empty.v1+json", digest=Digest.of(b"{}"), size=2)
    plain = replace(layer, annotations={})
    if not sink.has_blob(plain):
        sink.put_blob(plain, OneBlob(file), lambda count: None)
        ctx.emit(BlobProgress(action="push", digest=layer.digest, offset=layer.size, total=layer.size, done=True))
    if not sink.has_blob(config):
        from io import BytesIO

        sink.put_blob(config, OneBlob(BytesIO(b"{}")), lambda count: None)
    data = Manifest(config=config, layers=(layer,), artifact_type=ARTIFACT).dump()
    top = Descriptor(media_type=Manifest(config=config, layers=()).media_type, digest=Digest.of(data), size=len(data))
    sink.put_manifest(top, data, top=True)


def _put_file(path: str, file: BinaryIO) -> None:
    """Replace the file by a rename, which is atomic on file systems that nodes share, too."""
    import shutil

    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(path), prefix=".cachemount-", delete=False) as temporary:
        try:
            file.seek(0)
            shutil.copyfileobj(file, temporary, 1 << 20)
            temporary.flush()
            os.fchmod(temporary.fileno(), 0o644)
            os.fsync(temporary.fileno())
            os.replace(temporary.name, path)
        except BaseException:
            os.unlink(temporary.name)
            raise
