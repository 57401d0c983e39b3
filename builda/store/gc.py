"""Garbage: what nothing refers to, found by walking the disk, and removed while other processes go on.

Mark from records, names, containers; sweep what is not marked and older than every living lease. An object is first
renamed away and looked at again: if it was touched meanwhile it is put back, and later readers do not find it.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress

from builda.errors import CorruptContent, NotFound, StoreUnavailable, Unsupported
from builda.oci.digest import Digest
from builda.store import layout, leases, locks, scratch
from builda.store.drivers import DRIVERS
from builda.store.layout import Damaged, Layout
from builda.store.names import reference_in
from builda.store.steps import blob_of, snapshot_of
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.store.parts import Parts


class Marked(NamedTuple):
    """The blobs and snapshots that something refers to."""

    blobs: frozenset[str]
    snapshots: frozenset[str]


def sweep(store: Parts) -> int:
    """Remove everything that nothing refers to; returns its bytes as far as records tell them.

    Two sweeps never run at once; everything else may.
    """
    where = store.layout
    freed = 0
    with layout.translated(where.root), locks.brief(where.path("locks", "gc.lock")), ExitStack() as stack:
        leases.remove_dead(where)
        _begin(where, stack)
        store.image_mounts.sweep()
        horizon = leases.horizon(where, layout.file_clock_ns() / 1e9)
        _sweep_containers(store, horizon)
        marked = mark(store)
        if not (_unreadable(store, "containers") or _unreadable(store, "mounts")):  # else it is unknown what they need
            freed += _sweep_snapshots(store, marked.snapshots, horizon)
            freed += _sweep_blobs(where, marked.blobs, horizon)
        _sweep_chains(where)
        _sweep_diffs(where)
        _sweep_origins(store)
        store.containers.release_stale(horizon)
        _sweep_references(store, horizon)
        _sweep_ingest(where, horizon)
        scratch.sweep(where)
        scratch.sweep_mount_points(where)
        store.images.refresh_index()
    return freed


def _begin(where: Layout, stack: ExitStack) -> None:
    """Take a lease, whose time is the file system's own. Without an inode for it this machine's clock will do.

    File times lag some milliseconds behind the clock: by the clock, what was made just now would look older than the
    sweep. A store that has no inode left must still be swept, as that frees some.
    """
    try:
        stack.enter_context(leases.lease(where))
    except StoreUnavailable as error:
        if not layout.is_full(error):
            raise


def mark(store: Parts) -> Marked:
    """Everything that images, their mounts, remembered steps and working containers need."""
    blobs: set[str] = set()
    snapshots: set[str] = set()
    chains: set[str] = set()
    for image in store.images.iter(hidden=True):
        _mark_manifest(store, image.digest, image.media_type, blobs, chains)
    for digest in _unreadable(store, "images"):
        _mark_manifest(store, Digest("sha256", digest.removesuffix(".json")), None, blobs, chains)
    for container in store.containers.iter():
        for snapshot in (container.snapshot, container.base, *(layer.snapshot for layer in container.layers)):
            _mark_lineage(store, snapshot, snapshots)
        blobs.update(layer.blob.digest.encoded for layer in container.layers if layer.blob is not None)
        if container.image_digest is not None:
            _mark_manifest(store, container.image_digest, None, blobs, chains)
    for mount in store.image_mounts.iter():
        for snapshot in mount.snapshots:
            _mark_lineage(store, snapshot, snapshots)
    for _, result in store.steps.iter():
        _mark_lineage(store, snapshot_of(result.content), snapshots)
        layer = blob_of(result.content)
        if layer is not None:
            blobs.add(layer.digest.encoded)
    suffixes = {driver.chain_suffix for driver in DRIVERS.values()}
    for chain in chains:
        for name in (f"{chain}{suffix}" for suffix in suffixes):
            with suppress(FileNotFoundError):
                _mark_lineage(store, os.readlink(store.layout.path("chains", name)), snapshots)
    return Marked(frozenset(blobs), frozenset(snapshots))


def content_of(store: Parts, digest: Digest) -> frozenset[str]:
    """The blobs that an image or index consists of, by their digits; none if its manifest is not there."""
    blobs: set[str] = set()
    _mark_manifest(store, digest, None, blobs, set())
    return frozenset(blobs)


def kept_of(store: Parts, digest: Digest) -> frozenset[str]:
    """The blobs of an image or index that the store should have, by their digits: of one that an index names and that
    has an origin, only the manifest, unless the image is also in the store without it."""
    from builda.oci.manifest import Index, parse

    if not os.path.exists(store.blobs.path(digest)):
        return frozenset({digest.encoded})
    try:
        document = parse(store.blobs.read(digest))
    except (CorruptContent, Unsupported):
        return frozenset({digest.encoded})
    if not isinstance(document, Index):
        return content_of(store, digest)
    kept = {digest.encoded}
    for child in document.manifests:
        alone = store.images.origins.get(child.digest) is not None and store.images.find(str(child.digest)) is None
        kept |= {child.digest.encoded} if alone else kept_of(store, child.digest)
    return frozenset(kept)


def _mark_manifest(store: Parts, digest: Digest, media_type: str | None, blobs: set[str], chains: set[str]) -> None:
    from builda.oci.config import chain_ids, parse_config
    from builda.oci.manifest import Index, parse

    if not os.path.exists(store.blobs.path(digest)):
        return
    blobs.add(digest.encoded)
    try:
        document = parse(store.blobs.read(digest), media_type)
    except (NotFound, CorruptContent, Unsupported):  # a damaged image has no other content to speak of
        return
    if isinstance(document, Index):
        for child in document.manifests:
            _mark_manifest(store, child.digest, child.media_type, blobs, chains)
        return
    blobs.update(part.digest.encoded for part in (document.config, *document.layers))
    with suppress(NotFound, CorruptContent):
        chains.update(
            chain.encoded for chain in chain_ids(parse_config(store.blobs.read(document.config.digest)).diff_ids)
        )


def _unreadable(store: Parts, kind: str) -> list[str]:
    """The file names of records in the directory `kind` that could not be read."""
    place = store.layout.path(kind, "")
    return [path.removeprefix(place) for path in store.damaged if path.startswith(place)]


def _mark_lineage(store: Parts, snapshot: str | None, snapshots: set[str]) -> None:
    while snapshot is not None and snapshot not in snapshots:
        snapshots.add(snapshot)
        try:
            snapshot = store.snapshots.new.info(snapshot).parent
        except NotFound:
            return
        except Damaged as error:
            store.report(error)
            return


def _sweep_blobs(where: Layout, marked: frozenset[str], horizon: float) -> int:
    freed = 0
    for name in layout.iter_names(where.path("blobs/sha256")):
        if name not in marked:
            with suppress(FileNotFoundError):
                size = os.stat(where.blob(name)).st_size
                freed += size if _take(where, where.blob(name), horizon) else 0
    return freed


def _sweep_diffs(where: Layout) -> None:
    """Forget the DiffIDs of blobs that are gone."""
    for name in layout.iter_names(where.path("diffs")):
        if not os.path.exists(where.blob(name)):
            layout.unlink(where, where.path("diffs", name))


def _sweep_origins(store: Parts) -> None:
    """Forget the origins of manifests that are gone."""
    for manifest in store.images.origins.manifests():
        if not os.path.exists(store.layout.blob(manifest.encoded)):
            store.images.origins.remove(manifest)


def _sweep_snapshots(store: Parts, marked: frozenset[str], horizon: float) -> int:
    """Remove upper snapshots before those below them. A snapshot that is kept keeps all below it."""
    # A sweep that is killed halfway must leave no upper layer on nothing: it would still be found by its ChainID.
    spared, freed = set(marked), 0
    going = [name for name in layout.iter_names(store.layout.path("snapshots")) if name not in marked]
    for name in sorted(going, key=lambda name: _depth(store, name), reverse=True):
        if name in spared:
            continue
        size = _size(store, name)
        if _take(store.layout, store.layout.path("snapshots", name), horizon):
            freed += size
        else:
            _mark_lineage(store, name, spared)
    return freed


def _size(store: Parts, snapshot: str) -> int:
    try:
        return max(0, store.snapshots.new.info(snapshot).size)
    except (NotFound, Damaged):
        return 0


def _depth(store: Parts, snapshot: str) -> int:
    below: set[str] = set()
    _mark_lineage(store, snapshot, below)
    return len(below)


def _take(where: Layout, path: str, horizon: float) -> bool:
    """Remove an object unless a living process may have made or touched it; returns whether it is gone."""
    trash = layout.temporary(where)
    with suppress(FileNotFoundError):
        if os.stat(path, follow_symlinks=False).st_mtime >= horizon:
            return False
        os.rename(path, trash)
        # A process may have touched it between the look and the rename. After the rename none can: it is not found.
        if os.stat(trash, follow_symlinks=False).st_mtime >= horizon:
            os.rename(trash, path)
            return False
        _remove(where, trash)
    return True


def _remove(where: Layout, path: str) -> None:
    from builda.fs.paths import remove_tree

    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(directory, os.path.basename(path))
    finally:
        os.close(directory)


def _sweep_containers(store: Parts, horizon: float) -> None:
    """Remove directories that killed processes left without a record, and their notes that they run something."""
    where = store.layout
    for name in layout.iter_names(where.path("containers")):
        if not os.path.exists(where.path("containers", name, "container.json")):
            _take(where, where.path("containers", name), horizon)
            continue
        for note in layout.iter_names(where.path("containers", name)):
            path = where.path("containers", name, note)
            if note.startswith("run-") and not locks.is_held(path):
                with suppress(FileNotFoundError):
                    os.unlink(path)


def _sweep_chains(where: Layout) -> None:
    for name in layout.iter_names(where.path("chains")):
        with suppress(FileNotFoundError):
            if not os.path.exists(where.path("snapshots", os.readlink(where.path("chains", name)))):
                os.unlink(where.path("chains", name))


def _sweep_references(store: Parts, horizon: float) -> None:
    """Remove names that point at no image: an image that was tagged while it was removed leaves one."""
    where = store.layout
    for name in layout.iter_names(where.path("refs")):
        with suppress(FileNotFoundError, Damaged):
            target = Digest.parse(reference_in(where.path("refs", name))[1])
            if not os.path.exists(where.path("images", f"{target.encoded}.json")):
                _take(where, where.path("refs", name), horizon)


def _sweep_ingest(where: Layout, horizon: float) -> None:
    """Remove temporary files of dead processes, and partial downloads that no process continues."""
    for name in layout.iter_names(where.path("ingest")):
        path = where.path("ingest", name)
        with suppress(FileNotFoundError):
            if name.startswith("blob-"):
                # A process that continues one holds its lock, whatever the file's time says.
                lock = locks.bucket(where.path("locks"), name.removeprefix("blob-"))
                with suppress(BlockingIOError), locks.alone(lock):
                    _take(where, path, horizon)
            elif not layout.owner_is_alive(name):  # as far as this pid namespace knows
                _take(where, path, horizon)
