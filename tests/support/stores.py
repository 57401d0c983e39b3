"""What tests do with stores: containers without a builder, a store's files, a second process's view of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builda.oci.config import ImageConfig
from builda.oci.descriptor import Platform
from builda.store.containers import WorkingContainer, new_id
from builda.store.layout import Damaged
from builda.store.store import Image, Store

VOLATILE = ("locks/", "leases/")


def another(store: Store, *, warn: Callable[[Damaged], None] | None = None) -> Store:
    """The same store, opened once more; as another process would see it that begins later, by the clock of files.

    That clock advances every few milliseconds, and a sweep spares what is not older than itself.
    """
    time.sleep(0.01)
    return Store.open(store.layout.root, store.layout.runroot, now=store.now, warn=warn)


def container(store: Store, image: Image | None = None, *, name: str | None = None, **values: Any) -> WorkingContainer:
    """A working container on an image, or on nothing."""
    base, snapshot = store.snapshots.prepare_for(image)
    described = WorkingContainer(
        id=new_id(),
        name="",
        image=image.names[0] if image and image.names else "",
        image_id=image.id if image else None,
        image_digest=image.digest if image else None,
        base=base,
        snapshot=snapshot,
        config=image.config if image else ImageConfig(platform=Platform.parse("linux/amd64")),
        **{"created": store.now(), **values},
    )
    return store.create_container(described, name=name, prefix="working-container")


def forget(store: Store, image: Image) -> None:
    """The store has no record of the image any more, as if another process had removed it just now."""
    os.unlink(store.layout.path("images", f"{image.digest.encoded}.json"))
    store.images.refresh_index()


def files(store: Store) -> set[str]:
    """Every file and directory of the store, except locks and leases, which come and go."""
    root = Path(store.layout.root)
    found: set[str] = set()
    for directory, directories, names in os.walk(root):
        for name in (*directories, *names):
            path = os.path.relpath(os.path.join(directory, name), root)
            if not path.startswith(VOLATILE):
                found.add(path)
    return found


def age(store: Store, seconds: float = 3600) -> None:
    """Everything in the store is as if it had been made that long ago."""
    for path in sorted(files(store), reverse=True):
        full = store.layout.path(path)
        times = os.stat(full, follow_symlinks=False)
        os.utime(full, (times.st_atime - seconds, times.st_mtime - seconds), follow_symlinks=False)
