"""A full disk and a read-only one: an error of its own for each, and nothing changed."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builda.errors import StoreUnavailable
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.store.pruning import prune
from builda.store.store import Store
from tests.support import images
from tests.support.stores import age, another, container, files

pytestmark = pytest.mark.root

BIG = os.urandom(200_000)
MADE = images.simple()


def write_blob(store: Store) -> None:
    with store.new_blob() as writer:
        writer.file.write(BIG[:150_000])
        writer.file.write(BIG[150_000:])
        writer.publish(Digest.of(BIG))


CHANGES: dict[str, Callable[[Store], object]] = {
    "put bytes": lambda store: store.put_bytes(BIG, "m"),
    "write a blob": write_blob,
    "unpack": lambda store: store.snapshots.unpack(store.image("big")),
    "create a container": lambda store: container(store, store.image("small")),
    "put an image": lambda store: images.put(store, images.simple(9), "localhost/zzz:latest"),
    "tag": lambda store: store.images.tag(store.image("small"), "localhost/zzz:latest"),
}


def fill(store: Store) -> None:
    images.put(store, MADE, "localhost/small:latest")
    images.put(store, images.image(images.layer({"zeros": bytes(600_000)})), "localhost/big:latest")
    store.close()


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Store]:
    """A store on a file system with hardly any space."""
    root = tmp_path / "tiny"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,nr_inodes=200", "tmpfs", root], check=True)
    try:
        with Store.open(root / "store", tmp_path / "run") as store:
            fill(store)
            yield store
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def use_up(store: Store, *, inodes: bool) -> None:
    """Take all but a little space."""
    ballast = Path(store.root).parent / "ballast"
    ballast.mkdir(exist_ok=True)
    if inodes:
        for _ in range(1000):
            try:
                (ballast / os.urandom(8).hex()).touch()
            except OSError:
                return
        return
    size = os.statvfs(store.root)
    (ballast / f"x{len(os.listdir(ballast)) or ''}").write_bytes(bytes(max(0, size.f_bavail - 1) * size.f_bsize))


@pytest.mark.parametrize("inodes", [False, True], ids=["no space", "no inodes"])
@pytest.mark.parametrize("change", CHANGES)
def test_full_disk_is_said_and_leaves_nothing_half_done(tiny: Store, change: str, inodes: bool) -> None:
    use_up(tiny, inodes=inodes)
    before = files(tiny)
    with pytest.raises(StoreUnavailable, match="no space left"):
        until_it_fails(tiny, CHANGES[change])
    assert {path for path in files(tiny) - before if path.startswith(("ingest/", "containers/", "names/"))} == set()
    assert {image.names[0] for image in tiny.images.iter()} == {"localhost/big:latest", "localhost/small:latest"}
    for snapshot in os.listdir(tiny.layout.path("snapshots")):
        assert tiny.snapshots.new.exists(snapshot)
    assert tiny.fsck() == ()


def until_it_fails(store: Store, change: Callable[[Store], object]) -> None:
    """Make a change; one that the little space that is left suffices for is made until it does not."""
    with another(store) as mine:
        for _ in range(400):
            change(mine)
            mine.images.untag("localhost/zzz:latest")
            for one in mine.containers.iter():
                mine.containers.delete(one)


def test_download_onto_a_full_disk_goes_on_when_there_is_space(tiny: Store) -> None:
    use_up(tiny, inodes=False)
    descriptor = Descriptor(media_type="m", digest=Digest.of(BIG), size=len(BIG))
    with pytest.raises(StoreUnavailable, match="no space left"):
        tiny.put_blob(io.BytesIO(BIG), descriptor)
    assert not tiny.blobs.has(descriptor.digest)
    os.unlink(Path(tiny.root).parent / "ballast/x")
    tiny.put_blob(io.BytesIO(BIG), descriptor)
    assert tiny.blobs.read(descriptor.digest) == BIG


@pytest.mark.parametrize("inodes", [False, True], ids=["no space", "no inodes"])
def test_full_disk_can_be_pruned(tiny: Store, inodes: bool) -> None:
    use_up(tiny, inodes=inodes)
    age(tiny)
    with another(tiny) as store:
        prune(store, all_images=True)
    assert list(tiny.images.iter()) == []
    assert os.listdir(tiny.layout.path("blobs/sha256")) == []


@pytest.mark.parametrize("old", [False, True], ids=["", "without lock files"])
@pytest.mark.parametrize("inodes", [False, True], ids=["no space", "no inodes"])
def test_everything_can_be_removed_from_a_full_disk(tiny: Store, inodes: bool, old: bool) -> None:
    with another(tiny) as store:
        made = container(store, store.image("small"))
        with store.cache_mount("x") as cache:
            (Path(cache) / "f").touch()
    if old:
        for path in Path(tiny.root).rglob("*lock"):
            path.unlink() if path.is_file() else None
    use_up(tiny, inodes=inodes)
    with another(tiny) as store:
        store.remove_container(made)
    assert list(tiny.containers.iter()) == []
    use_up(tiny, inodes=inodes)
    with another(tiny) as store:
        assert store.remove_image("big").deleted
        assert store.images.untag("localhost/small:latest")
    use_up(tiny, inodes=inodes)
    with another(tiny) as store:
        prune(store, all_images=True)
        assert store.fsck() == ()
    assert list(tiny.images.iter()) == []
    assert not os.path.exists(cache)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Store]:
    """A filled store on a read-only mount."""
    with Store.open(tmp_path / "written", tmp_path / "run") as store:
        fill(store)
    place = tmp_path / "read-only"
    place.mkdir()
    subprocess.run(["mount", "--bind", tmp_path / "written", place], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
    try:
        yield Store.open(place, tmp_path / "run")
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("change", CHANGES)
def test_read_only_store_says_so(read_only: Store, change: str) -> None:
    before = files(read_only)
    with pytest.raises(StoreUnavailable, match="read-only"):
        CHANGES[change](read_only)
    assert files(read_only) == before


def test_read_only_store_can_be_swept_and_pruned_by_nobody(read_only: Store) -> None:
    for change in (read_only.sweep, lambda: prune(read_only), lambda: read_only.images.untag("localhost/small:latest")):
        with pytest.raises(StoreUnavailable, match="read-only"):
            change()


def test_read_only_store_can_be_read(read_only: Store) -> None:
    image = read_only.image("small")
    assert image.config.env == (("NUMBER", "0"),)
    assert read_only.blobs.has(image.manifest.layers[0].digest)
    assert read_only.containers.find("nobody") is None
    assert read_only.fsck() == ()


def test_store_cannot_be_made_on_a_read_only_file_system(read_only: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="read-only"):
        Store.open(Path(read_only.root) / "store", tmp_path / "run")


def test_missing_permission_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with Store.open(tmp_path / "store", tmp_path / "run") as store:
        store.close()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            another(store).put_bytes(b"x", "m")
        except StoreUnavailable as error:
            os._exit(0 if "another user" in str(error) or "permission" in str(error) else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
