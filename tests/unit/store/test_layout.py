"""The on-disk format: publishing, temporaries, names as file names, and what a bad file system says."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builda.errors import InvalidValue, StoreUnavailable
from builda.linux.process import process_identity
from builda.store import layout
from builda.store.layout import Layout
from builda.store.store import Store
from tests.support.stores import files


@pytest.fixture
def where(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / "store"), str(tmp_path / "run"))
    layout.create(made)
    return made


def test_store_is_an_oci_image_layout_from_the_start(store: Store) -> None:
    root = Path(store.root)
    assert json.loads((root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((root / "index.json").read_bytes()) == {"schemaVersion": 2, "manifests": []}


def test_snapshots_and_containers_are_nobody_elses_business(store: Store) -> None:
    for name in ("snapshots", "containers"):
        assert stat.S_IMODE(os.stat(store.layout.path(name)).st_mode) == 0o700


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
