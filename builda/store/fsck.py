"""Finds damage in a store, and repairs what can be repaired."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress

from builda.errors import BuildaError, NotFound
from builda.fs.paths import discard
from builda.oci.digest import Digest
from builda.store import layout, leases, locks
from builda.store.gc import kept_of
from builda.store.layout import Damaged
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.store.parts import Parts


class Findings(NamedTuple):
    """The damage, and the leftovers of killed processes, which `prune` removes; each in words."""

    faults: tuple[str, ...]
    leftovers: tuple[str, ...]


def examine(store: Parts) -> Findings:
    """Find damage in the store. Changes nothing; reads every blob."""
    with store.unwarned():  # the findings name the records
        return _examined(store)


def _examined(store: Parts) -> Findings:
    faults = [f"blob does not match its digest: sha256:{name}" for name in _damaged_blobs(store)]
    for image in store.images.iter(hidden=True):
        for digest in _missing(store, image.digest):
            faults.append(f"image {image.id.encoded[:12]} misses a blob: {digest}")
    faults += _broken_containers(store)
    faults += [f"name points at no image: {name}" for name in _dangling(store)]
    faults += [f"record cannot be read: {path}" for path in sorted(_damaged_records(store))]
    return Findings(tuple(faults), tuple(_leftovers(store)))


def repair(store: Parts) -> tuple[str, ...]:
    """Remove damaged blobs and records, and write the record of an image again whose content is whole.

    Returns what was done, in words.
    """
    done = []
    where = store.layout
    with store.unwarned(), layout.translated(where.root), locks.brief(where.path("locks", "gc.lock")):
        for name in _damaged_blobs(store):
            layout.unlink(where, where.blob(name))
            done.append(f"removed blob: sha256:{name}")
        for path in sorted(_damaged_records(store)):
            done.append(_repaired(store, path))
        for name in _dangling(store):
            store.images.untag(name)
            done.append(f"removed name: {name}")
        store.damaged.clear()
        store.images.refresh_index()
    return tuple(done)


def _damaged_blobs(store: Parts) -> Iterator[str]:
    import hashlib

    for name in layout.iter_names(store.layout.path("blobs/sha256")):
        with suppress(FileNotFoundError), open(store.layout.blob(name), "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != name:
                yield name


def _missing(store: Parts, digest: Digest) -> list[Digest]:
    wanted = [Digest("sha256", encoded) for encoded in sorted(kept_of(store, digest))]
    return [item for item in wanted if not os.path.exists(store.blobs.path(item))]


def _broken_containers(store: Parts) -> Iterator[str]:
    for container in store.containers.iter():
        for snapshot in {container.base, container.snapshot, *(layer.snapshot for layer in container.layers)}:
            try:
                store.snapshots.new.lineage(snapshot)
            except (NotFound, Damaged) as error:
                yield f"container {container.name}: {error}"


def _dangling(store: Parts) -> list[str]:
    """Names that point at no image."""
    return [
        name
        for name, target in store.images.names().items()
        if not os.path.exists(store.layout.path("images", f"{Digest.parse(target).encoded}.json"))
    ]


def _damaged_records(store: Parts) -> set[str]:
    """The records of images, names, containers, mounts, snapshots and origins that cannot be read."""
    for _ in store.images.iter():  # each that cannot be read is reported to the store
        pass
    for _ in store.containers.iter():
        pass
    for _ in store.image_mounts.iter():
        pass
    for manifest in store.images.origins.manifests():
        store.images.origins.get(manifest)
    for snapshot in layout.iter_names(store.layout.path("snapshots")):
        try:
            store.snapshots.new.info(snapshot)
        except NotFound:
            continue
        except Damaged as error:
            store.report(error)
    return store.damaged


def _repaired(store: Parts, path: str) -> str:
    kind, _, name = path.removeprefix(f"{store.layout.root}/").partition("/")
    if kind == "images" and _is_written_again(store, name.removesuffix(".json")):
        return f"wrote record again: {path}"
    if kind == "containers":  # what it worked in goes with the next sweep
        discard(os.path.dirname(path))
    else:
        layout.unlink(store.layout, path)
    return f"removed record: {path}"


def _is_written_again(store: Parts, encoded: str) -> bool:
    from builda.oci.descriptor import Descriptor
    from builda.oci.manifest import parse

    digest = Digest("sha256", encoded)
    try:
        data = store.blobs.read(digest)
        store.lease()
        store.images.put(Descriptor(media_type=parse(data).media_type, digest=digest, size=len(data)), ())
    except BuildaError:  # its content is not whole either
        return False
    return True


def _leftovers(store: Parts) -> Iterator[str]:
    where = store.layout
    horizon = leases.horizon(where, time.time())
    for name in layout.iter_names(where.path("ingest")):
        with suppress(FileNotFoundError):
            if layout.owner_is_alive(name) is False and os.lstat(where.path("ingest", name)).st_mtime < horizon:
                yield f"left by a dead process: ingest/{name}"
