"""The on-disk format: publishing, temporaries, names as file names, and what a bad file system says."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builda.errors import InvalidValue, StoreUnavailable
from builda.linux.process import process_identity
from builda.store import layout
from builda.store.layout import DIRECTORIES, Layout
from builda.store.pruning import prune
from builda.store.store import Store
from tests.support import images
from tests.support.stores import container, files


@pytest.fixture
def where(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / "store"), str(tmp_path / "run"))
    layout.create(made)
    return made


def test_store_is_an_oci_image_layout_from_the_start(store: Store) -> None:
    root = Path(store.root)
    assert json.loads((root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((root / "index.json").read_bytes()) == {"schemaVersion": 2, "manifests": []}


def mode_of(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def written(where: Path) -> Store:
    """A store with an image that is unpacked, a container, a list of files, a cache mount and volatile directories."""
    with Store.open(where / "store", where / "run") as store:
        image = images.put(store, images.simple(), "localhost/small:latest")
        store.snapshots.prepare_for(image, as_list=True)
        container(store, image)
        with store.cache_mount("x", "locked"):
            store.layout.volatile("scratch")
        prune(store)
    return store


@pytest.mark.usefixtures("no_umask")
def test_nothing_in_a_store_can_be_written_by_others_whatever_the_umask(tmp_path: Path) -> None:
    store = written(tmp_path / "above")
    wide = [
        path
        for place in (store.root, store.layout.runroot, str(tmp_path / "above"))
        for path in (place, *(os.path.join(top, name) for top, _, names in os.walk(place) for name in (*names, ".")))
        if not os.path.islink(path) and mode_of(path) & 0o022
    ]
    assert wide == []


def test_a_new_store_is_its_owners_alone(tmp_path: Path) -> None:
    store = written(tmp_path)
    for path in (
        store.root,
        *map(store.layout.path, DIRECTORIES),
        store.layout.runroot,
        f"{store.layout.runroot}/scratch",
    ):
        assert mode_of(path) == 0o700


def test_a_wide_store_is_narrowed_when_it_is_opened(store: Store) -> None:
    os.chmod(store.root, 0o2775)
    Store.open(store.root, store.layout.runroot)
    assert mode_of(store.root) == 0o2700


@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_a_directory_with_other_things_is_not_narrowed_but_the_store_in_it_is(tmp_path: Path, mode: int) -> None:
    (tmp_path / "mine").touch()
    tmp_path.chmod(mode)
    store = Store.open(tmp_path, tmp_path)
    for name in {name.partition("/")[0] for name in DIRECTORIES}:
        os.chmod(store.layout.path(name), 0o755)
    Store.open(tmp_path, tmp_path).layout.volatile("mounts")
    assert mode_of(tmp_path) == mode
    assert {mode_of(store.layout.path(name)) for name in (*DIRECTORIES, "mounts") if "/" not in name} == {0o700}


@pytest.mark.root
def test_a_volume_of_another_user_can_be_the_top_of_a_store(tmp_path: Path) -> None:
    """As Kubernetes mounts a volume for a group: root's, mode 2777."""
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o2777)
    for above in (tmp_path, *tmp_path.parents):
        above.chmod(above.stat().st_mode | 0o111)
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            Store.open(volume, volume)
            Store.open(volume, volume)
            os._exit(0 if mode_of(volume / "blobs") & 0o777 == 0o700 else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert mode_of(volume) == 0o2777


def test_opening_a_store_again_changes_nothing(store: Store) -> None:
    before = files(store)
    Store.open(store.layout.root, store.layout.runroot)
    assert files(store) == before


def test_store_of_another_format_is_refused_and_left_alone(store: Store) -> None:
    Path(store.layout.path("builda.json")).write_text('{"format": 99}')
    before = files(store)
    with pytest.raises(StoreUnavailable, match="format 99"):
        Store.open(store.layout.root, store.layout.runroot)
    assert files(store) == before


@pytest.mark.parametrize("damage", [b"{", b"[]", b"\xff\xfe", b"null"])
def test_damaged_marker_is_a_store_that_cannot_be_used(store: Store, damage: bytes) -> None:
    Path(store.layout.path("builda.json")).write_bytes(damage)
    with pytest.raises(StoreUnavailable, match="damaged"):
        Store.open(store.layout.root, store.layout.runroot)


def test_unknown_driver_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="btrfs"):
        Store.open(tmp_path / "store", tmp_path / "run", driver="btrfs")
    assert not (tmp_path / "store").exists()


def test_half_made_store_is_completed(tmp_path: Path) -> None:
    (tmp_path / "store/blobs").mkdir(parents=True)
    (tmp_path / "store/builda.json").touch()  # as a power cut may leave it
    Store.open(tmp_path / "store", tmp_path / "run").put_bytes(b"x", "text/plain")


def test_publish_replaces_whole_and_leaves_no_temporary(where: Layout) -> None:
    layout.publish(where, where.path("refs", "x"), b"one")
    layout.publish(where, where.path("refs", "x"), b"two", durable=True)
    assert Path(where.path("refs", "x")).read_bytes() == b"two"
    assert os.listdir(where.path("ingest")) == []


def test_exclusive_publish_lets_the_first_one_win(where: Layout) -> None:
    layout.publish(where, where.path("names", "x"), b"one", exclusive=True)
    with pytest.raises(FileExistsError):
        layout.publish(where, where.path("names", "x"), b"two", exclusive=True)
    assert Path(where.path("names", "x")).read_bytes() == b"one"
    assert os.listdir(where.path("ingest")) == []


def test_publishing_into_a_directory_that_is_gone_leaves_no_temporary(where: Layout) -> None:
    with pytest.raises(FileNotFoundError):
        layout.publish(where, where.path("containers", "gone", "container.json"), b"{}")
    assert os.listdir(where.path("ingest")) == []


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_quoted_name_is_one_component_that_fits(name: str) -> None:
    quoted = layout.quote(name)
    assert "/" not in quoted
    assert not quoted.startswith(".")
    assert 0 < len(os.fsencode(quoted)) <= 255


@given(st.text("a%/.2F5E", min_size=1, max_size=8), st.text("a%/.2F5E", min_size=1, max_size=8))
def test_different_names_have_different_files(one: str, other: str) -> None:
    assert (layout.quote(one) == layout.quote(other)) == (one == other)


def test_long_names_are_called_by_their_digest() -> None:
    assert layout.quote("a" * 200) != layout.quote("a" * 201)
    assert layout.quote("a" * 200).startswith("sha256-")


def test_temporary_names_its_living_owner(where: Layout) -> None:
    assert layout.owner_is_alive(os.path.basename(layout.temporary(where))) is True


def test_temporary_of_a_dead_process_has_no_living_owner() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pid, start = process_identity(child.pid)
    assert layout.owner_is_alive(f"tmp-{pid}-{start}-abc") is True
    child.kill()
    child.communicate()
    assert layout.owner_is_alive(f"tmp-{pid}-{start}-abc") is False


def test_pid_of_another_process_is_not_the_owner() -> None:
    pid, start = process_identity()
    assert layout.owner_is_alive(f"tmp-{pid}-{start + 1}-abc") is False


@pytest.mark.parametrize("name", ["blob-" + "0" * 64, "tmp", "tmp-x-y-z", "", "---"])
def test_other_names_name_no_owner(name: str) -> None:
    assert layout.owner_is_alive(name) is None


@pytest.mark.parametrize(
    ("number", "word"),
    [(errno.ENOSPC, "space"), (errno.EDQUOT, "space"), (errno.EROFS, "read-only"), (errno.EACCES, "permission")],
)
def test_what_the_file_system_says_of_the_store_is_explained(number: int, word: str) -> None:
    with pytest.raises(StoreUnavailable, match=word) as caught, layout.translated("/store"):
        raise OSError(number, os.strerror(number), "/store/x")
    assert caught.value.hint


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(NotADirectoryError) as caught, layout.translated("/store"):
        raise NotADirectoryError(errno.ENOTDIR, "no directory")
    assert caught.value.__cause__ is None


def test_files_elsewhere_are_not_the_stores_fault() -> None:
    with pytest.raises(PermissionError), layout.translated("/store"):
        raise PermissionError(errno.EACCES, "not allowed", "/somewhere/else")


def test_default_places_follow_root_user_and_environment() -> None:
    assert layout.default_places({}, 0) == ("/var/lib/builda", "/run/builda")
    assert layout.default_places({"HOME": "/h", "XDG_RUNTIME_DIR": "/r"}, 7) == (
        "/h/.local/share/builda",
        "/r/builda",
    )
    assert layout.default_places({"BUILDA_ROOT": "/a", "BUILDA_RUNROOT": "/b"}, 7) == ("/a", "/b")


@pytest.mark.root
@pytest.mark.parametrize("made_by", ["other", "writable", "link"])
def test_without_home_no_directory_of_another_user_is_used(made_by: str) -> None:
    place = Path("/tmp/builda-54321")
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(54321, 54321, 54321)
            layout.default_places({"XDG_RUNTIME_DIR": "/tmp", "BUILDA_RUNROOT": "/x"}, 54321)
            assert mode_of(place) == 0o700
            place.rmdir()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    try:
        place.symlink_to("/") if made_by == "link" else place.mkdir()
        os.chown(place, 54321 if made_by == "writable" else 0, 0, follow_symlinks=False)
        if made_by != "link":
            place.chmod(0o777)
        pid = os.fork()
        if pid == 0:
            try:
                os.setresuid(54321, 54321, 54321)
                layout.default_places({"BUILDA_RUNROOT": "/x"}, 54321)
            except StoreUnavailable as error:
                os._exit(0 if "--root" in str(error.hint) else 2)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        place.unlink() if made_by == "link" else place.rmdir()
