"""A part of an overlay as a mount of its own is what the whole overlay shows there."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builda.builder.run.subtree import is_directory, shown, subtree, writable
from builda.errors import InUse, NotFound
from builda.linux import detached
from builda.linux.mount import Mount, mounted

pytestmark = pytest.mark.root

# What one layer has at a path: a directory (perhaps opaque), a file, a deletion.
KINDS = st.sampled_from(["directory", "opaque", "file", "whiteout"])
PATHS = st.sampled_from(["a", "a/b", "a/b/c", "a/x", "d"])
LAYERS = st.lists(st.dictionaries(PATHS, KINDS, max_size=4), min_size=1, max_size=4)


def make_layer(root: Path, entries: dict[str, str]) -> None:
    root.mkdir()
    for path, kind in sorted(entries.items()):
        place = root / path
        if any(parent.exists() and not parent.is_dir() for parent in place.parents):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            continue
        if kind == "whiteout":
            os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(0, 0))
        elif kind == "file":
            place.write_text(str(root))
        else:
            place.mkdir()
            (place / f"in-{root.name}").touch()
            if kind == "opaque":
                os.setxattr(place, "trusted.overlay.opaque", b"y")


def listing(root: int, path: str = "") -> object:
    """What is at a path: names of a directory and of all below it, or the content of a file."""
    fd = os.open(f"/proc/self/fd/{root}/{path}".rstrip("/"), os.O_RDONLY)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            return os.read(fd, 1000)
        return sorted(
            os.path.join(os.path.relpath(head, f"/proc/self/fd/{fd}"), name)
            for head, directories, names in os.walk(f"/proc/self/fd/{fd}")
            for name in (*directories, *names)
        )
    finally:
        os.close(fd)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layers=LAYERS, path=PATHS)
def test_it_shows_what_the_whole_shows(tmp_path: Path, layers: list[dict[str, str]], path: str) -> None:
    base = tmp_path / os.urandom(6).hex()
    base.mkdir()
    for number, entries in enumerate(layers):
        make_layer(base / str(number), entries)
    lower = tuple(str(base / str(number)) for number in range(len(layers)))
    if len(lower) == 1:  # as the store describes it
        whole = (Mount("bind", lower[0], "/", ("ro",)),)
    else:
        whole = (Mount("overlay", "overlay", "/", ("index=off", "metacopy=off", "redirect_dir=off"), lower),)
    with mounted(whole) as root:
        try:
            info = os.stat(path, dir_fd=root)
        except (FileNotFoundError, NotADirectoryError):
            with pytest.raises(NotFound, match="in the image"):
                subtree(whole, path, "/m", name="the image")
            return
        if stat.S_ISCHR(info.st_mode):
            return  # a single layer shows its whiteouts
        expected = listing(root, path)
    part = subtree(whole, path, "/m", name="the image")
    assert part.target == "/m"
    assert is_directory(part) == stat.S_ISDIR(info.st_mode)
    with shown(part) as fd:
        assert stat.S_IFMT(os.fstat(fd).st_mode) == stat.S_IFMT(info.st_mode)
        if len(lower) > 1 or not stat.S_ISDIR(info.st_mode):
            assert listing(fd) == expected


@pytest.mark.parametrize("kind", ["bind", "overlay"])
@pytest.mark.parametrize("path", ["a/b", "a/b/file", "a"])
def test_a_link_put_there_meanwhile_leads_nowhere(tmp_path: Path, kind: str, path: str) -> None:
    layers = tmp_path / "layer", tmp_path / "other"
    for layer in layers:
        (layer / "a/b").mkdir(parents=True)
        (layer / "a/b/file").write_text("inside")
    outside = tmp_path / "outside"
    shutil.copytree(layers[0], outside)
    whole = Mount("bind", str(layers[0]), "/", ("ro",))
    if kind == "overlay":
        options = ("index=off", "metacopy=off", "redirect_dir=off")
        whole = Mount("overlay", "overlay", "/", options, tuple(map(str, layers)))
    part = subtree((whole,), path, "/m", name="the image")
    for layer in layers:
        (layer / path).rename(layer / "gone")
        (layer / path).symlink_to(outside / path)
    with pytest.raises((InUse, NotFound)), shown(part):
        raise AssertionError("what the link leads to was mounted")
    if kind == "bind":
        with pytest.raises(OSError, match="Too many levels"):
            detached.clone(part)


def test_writes_go_elsewhere(tmp_path: Path) -> None:
    for name in ("source", "upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "source/file").write_text("x")
    places = (f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work")
    stacked = Mount("overlay", "overlay", "/", places, (f"{tmp_path}/source",))
    mount = writable(Mount("rbind", f"{tmp_path}/source", "/there", ("ro", "nosuid")), stacked)
    assert (mount.target, mount.options) == ("/there", ("nosuid", *places))
    with mounted((mount,)) as root:
        os.unlink("file", dir_fd=root)
        os.mkdir("new", dir_fd=root)
    assert os.listdir(tmp_path / "source") == ["file"]
