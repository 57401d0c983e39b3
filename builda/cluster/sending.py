"""Sending a build context to the registry of the cache, where pods fetch it, with what is there already left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO

from builda.cluster import chunks
from builda.errors import BuildaError, NotFound, RegistryError
from builda.events import BlobProgress, Emit, Warned
from builda.fs.ignore import Matcher
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.manifest import parse
from builda.transfer.copyimage import OneBlob
from builda.values import NamedTuple, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.transfer.copyimage import ImageSink, ImageSource

_AT_A_TIME = 4


class Sent(NamedTuple):
    """A context in the registry: its manifest, and how many of its bytes moved."""

    digest: Digest
    moved: int


def send(
    top: str,
    ignore: str,
    ignore_file: str,
    never: frozenset[tuple[int, int]],
    source: ImageSource,
    sink: ImageSink,
    emit: Emit,
) -> Sent:
    """The context, as `chunks.listing` has it with the text `ignore` of its ignore file, is at `sink`.

    `source` reads from there.
    What an earlier build sent is not read and not sent again."""
    from concurrent.futures import ThreadPoolExecutor

    from builda.threads import wait_for_threads

    before = _known(source)

    def tell(text: str) -> None:
        emit(Warned(message=text))

    groups = chunks.grouped(chunks.listing(top, Matcher.parse(ignore, ignore_file), never, tell), chunks.now())
    with ThreadPoolExecutor(_AT_A_TIME) as threads:
        try:
            futures = [threads.submit(_sent, top, chunk, before, sink, emit) for chunk in groups]
            for future in wait_for_threads(futures):
                future.result()
            done = [future.result() for future in futures]
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    manifest, config = chunks.manifest_of(layer for layer, _ in done)
    if not sink.has_blob(manifest.config):
        sink.put_blob(manifest.config, OneBlob(BytesIO(config)), lambda count: None)
    data = manifest.dump()
    top_one = Descriptor(media_type=manifest.media_type, digest=Digest.of(data), size=len(data))
    sink.put_manifest(top_one, data, top=True)
    return Sent(top_one.digest, sum(moved for _, moved in done))


def _known(source: ImageSource) -> Mapping[str, Descriptor]:
    try:
        descriptor, data = source.manifest()
        return chunks.known(parse(data, descriptor.media_type))
    except (NotFound, RegistryError) as error:
        if isinstance(error, RegistryError) and error.status not in (400, 404):
            raise
        return {}
    except BuildaError:
        return {}  # something else is there, which is replaced


def _sent(
    top: str, chunk: chunks.Chunk, before: Mapping[str, Descriptor], sink: ImageSink, emit: Emit
) -> tuple[Descriptor, int]:
    if chunk.settled and chunk.key in before:
        return before[chunk.key], 0
    with chunks.packed(top, chunk) as (layer, file):
        plain = replace(layer, annotations={})
        if sink.has_blob(plain):
            return layer, 0
        sink.put_blob(plain, OneBlob(file), _progress(layer, emit))
        emit(BlobProgress(action="push", digest=layer.digest, offset=layer.size, total=layer.size, done=True))
        return layer, layer.size


def _progress(layer: Descriptor, emit: Emit) -> Callable[[int], None]:
    moved = 0

    def moves(count: int) -> None:
        nonlocal moved
        moved += count
        emit(BlobProgress(action="push", digest=layer.digest, offset=min(moved, layer.size), total=layer.size))

    return moves
