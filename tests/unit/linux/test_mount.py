"""builda.linux.mount on the real kernel: detached trees, overlays of many layers, attach and detach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from builda.linux import detached
from builda.linux.mount import (
    Mount,
    _in_private_namespace,
    attach,
    clone_tree,
    detach,
    is_mounted,
    mount_overlay_page,
    mounted,
    over_upper,
)

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")]

OVERLAY = ("redirect_dir=off", "metacopy=off", "index=off")


def read(root: int, path: str) -> str:
    fd = os.open(path, os.O_RDONLY, dir_fd=root)
    with open(fd) as file:
        return file.read()


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A directory on a tmpfs: overlay uppers cannot lie on an overlay."""
    place = tmp_path / "tree"
    place.mkdir()
    attach((Mount("tmpfs", "tmpfs", "/", ("mode=755",)),), place)
    yield place
    detach(place)


def layers(tree: Path, count: int) -> tuple[str, ...]:
    made = []
    for number in range(count):
        layer = tree / f"layer-{number}"
        layer.mkdir()
        (layer / f"file-{number}").write_text(str(number))
        (layer / "last").write_text(str(number))
        made.append(str(layer))
    return tuple(reversed(made))


def overlay(tree: Path, lower: tuple[str, ...]) -> Mount:
    for name in ("upper", "work"):
        (tree / name).mkdir()
    return Mount("overlay", "overlay", "/", (*OVERLAY, f"upperdir={tree}/upper", f"workdir={tree}/work"), lower)


def test_overlay_shows_the_top_layer_and_writes_to_the_upper(tree: Path) -> None:
    with mounted((overlay(tree, layers(tree, 3)),)) as root:
        assert read(root, "last") == "2"
        os.mkdir("new", dir_fd=root)
    assert (tree / "upper" / "new").is_dir()


def test_a_detached_tree_is_in_no_mount_table(tree: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    with mounted((overlay(tree, layers(tree, 2)),)):
        assert Path("/proc/self/mountinfo").read_text() == before


def test_overlay_of_more_layers_than_a_page_of_options_holds(tree: Path) -> None:
    deep = tree / ("d" * 60)
    deep.mkdir()
    with mounted((overlay(tree, layers(deep, 300)),)) as root:
        assert read(root, "file-0") == "0"
        assert read(root, "last") == "299"


def test_overlay_paths_may_hold_what_options_cannot(tree: Path) -> None:
    odd = tree / "a,b:c\\d"
    odd.mkdir()
    with mounted((overlay(odd, layers(odd, 2)),)) as root:
        assert read(root, "last") == "1"
        os.mkdir("new", dir_fd=root)
    assert (odd / "upper" / "new").is_dir()


def test_an_overlay_without_syncs_is_mounted_as_often_as_wanted(tree: Path) -> None:
    """The kernel leaves a mark in the workdir of such a mount, and refuses that workdir from then on."""
    wanted = unsynced(overlay(tree, layers(tree, 2)))
    mark = tree / "work/work/incompat/volatile"
    with mounted((wanted,)) as first, mounted((wanted,)) as second:
        os.mkdir("first", dir_fd=first)
        os.mkdir("second", dir_fd=second)
        assert not mark.exists()
    for listed in (listed_by_page, listed_detached):
        mark.mkdir(parents=True)
        (mark / "dirty").touch()  # killed before it was removed
        assert {"first", "second"} <= set(listed(wanted))
        assert not mark.exists()
        mark.mkdir(parents=True)  # or in the middle of that
        assert {"first", "second"} <= set(listed(wanted))


def test_the_mark_of_somebody_elses_mount_without_syncs_stays(tree: Path) -> None:
    wanted = overlay(tree, layers(tree, 2))
    mark = tree / "work/work/incompat/volatile"
    mark.mkdir(parents=True)
    for listed in (listed_by_page, listed_detached):
        with pytest.raises(OSError, match="Invalid argument"):
            listed(wanted)
        assert mark.exists()


def listed_detached(mount: Mount) -> list[str]:
    with mounted((mount,)) as root:
        return os.listdir(root)


def unsynced(mount: Mount) -> Mount:
    return mount._replace(options=(*mount.options, "volatile"))


def listed_by_page(mount: Mount) -> list[str]:
    """What old kernels show, which get an overlay by a page of options."""

    root = _in_private_namespace(lambda: mount_overlay_page(mount))
    try:
        return os.listdir(f"/proc/self/fd/{root}")
    finally:
        os.close(root)


def test_a_reader_beside_the_writer_has_no_option_of_an_upper_directory(tree: Path) -> None:
    wanted = overlay(tree, layers(tree, 2))
    reader = over_upper(unsynced(wanted))
    assert (reader.options, reader.lower) == (("ro", *OVERLAY), (str(tree / "upper"), *wanted.lower))


def test_one_lower_directory_alone_is_a_read_only_view(tree: Path) -> None:
    with mounted((Mount("overlay", "overlay", "/", OVERLAY, layers(tree, 1)),)) as root:
        assert read(root, "last") == "0"
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("new", dir_fd=root)


def test_old_kernels_get_the_overlay_by_a_page_of_options(tree: Path) -> None:
    wanted = overlay(tree, layers(tree, 120))

    def old() -> int:
        root = mount_overlay_page(wanted)
        os.mkdir("new", dir_fd=root)
        return root

    root = _in_private_namespace(old)
    assert read(root, "last") == "119"
    os.close(root)
    assert (tree / "upper" / "new").is_dir()


def test_several_mounts_make_one_tree(tree: Path) -> None:
    (tree / "root" / "inner").mkdir(parents=True)
    (tree / "other").mkdir()
    (tree / "other" / "file").write_text("other")
    mounts = (Mount("bind", str(tree / "root"), "/"), Mount("bind", str(tree / "other"), "/inner", ("ro",)))
    with mounted(mounts) as root:
        assert read(root, "inner/file") == "other"
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("inner/new", dir_fd=root)
        os.mkdir("new", dir_fd=root)


def test_a_mount_target_that_links_outside_stays_in_the_tree(tree: Path) -> None:
    (tree / "root" / "etc").mkdir(parents=True)
    (tree / "root" / "link").symlink_to("/etc")
    (tree / "other").mkdir()
    (tree / "other" / "file").write_text("inside")
    mounts = (Mount("bind", str(tree / "root"), "/"), Mount("bind", str(tree / "other"), "/link"))
    with mounted(mounts) as root:
        assert read(root, "etc/file") == "inside"


def test_attach_and_detach_say_what_is_mounted(tree: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (tree / "file").write_text("x")
    assert not is_mounted(place)
    attach((Mount("bind", str(tree), "/"),), place)
    assert is_mounted(place)
    assert (place / "file").read_text() == "x"
    detach(place)
    assert not is_mounted(place)
    assert not is_mounted(tmp_path / "missing")


def test_a_link_to_a_mount_is_not_itself_one(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tree)
    assert is_mounted(tree)
    assert not is_mounted(tmp_path / "link")


def test_a_detached_tree_can_be_listed_with_what_is_mounted_in_it(tree: Path) -> None:
    (tree / "root" / "inner").mkdir(parents=True)
    (tree / "file").write_text("")
    with mounted((Mount("bind", str(tree / "root"), "/"), Mount("bind", str(tree), "/inner"))) as root:
        assert os.listdir(root) == ["inner"]
        inner = os.open("inner", os.O_RDONLY, dir_fd=root)
        assert sorted(os.listdir(inner)) == ["file", "root"]
        os.close(inner)


def test_detaching_what_is_not_mounted_changes_nothing(tmp_path: Path) -> None:
    detach(tmp_path)
    detach(tmp_path / "missing")


def test_a_failed_overlay_names_the_option(tree: Path) -> None:
    wanted = Mount("overlay", "overlay", "/", (f"upperdir={tree}/missing", f"workdir={tree}/missing"), layers(tree, 1))
    with pytest.raises(OSError, match=r"upperdir=.*missing") as caught:
        clone_tree((wanted,))
    assert caught.value.errno == 2


def test_a_missing_layer_is_reported_by_its_path(tree: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        clone_tree((Mount("overlay", "overlay", "/", (), (str(tree / "nowhere"), *layers(tree, 1))),))


def test_an_unknown_bind_option_is_refused(tree: Path) -> None:
    with pytest.raises(OSError, match="shiny"):
        detached.clone(("bind", str(tree), "/", ("shiny",), ()))


def test_no_descriptor_is_left(tree: Path) -> None:
    wanted = overlay(tree, layers(tree, 3))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        os.close(clone_tree((wanted,)))
    os.close(clone_tree((Mount("bind", str(tree), "/"), Mount("tmpfs", "tmpfs", "/work"))))
    assert len(os.listdir("/proc/self/fd")) == before
