"""Layers against the kernel's overlay: what it records as an upper directory is what a layer says, and back."""

from __future__ import annotations

import io
import os
import random
import shutil
import stat
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builda.fs.layer import Clamp, diff_trees, fingerprints
from builda.linux.mount import Mount, mounted
from tests.unit.fs.trees import applied, layer_of, names_of, opened, picture

pytestmark = pytest.mark.root

OPTIONS = ("redirect_dir=off", "metacopy=off", "index=off")
ACTIONS = ["add", "write", "delete", "mkdir", "remake", "chmod", "rename", "link", "file-to-dir", "dir-to-file"]
TOUCHING = ["open", "same-mode", "same-owner", "same-time", "write-with-old-time", "there-and-back"]
"""What leaves a file as it was, or with its old time."""


def grown(path: Path) -> Path:
    for name in ("a/b/c", "a/x", "d/e/f", "g"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(name.encode())
    return path


def change(root: Path, action: str, number: int, source: random.Random) -> None:
    paths = sorted(root.rglob("*"))
    files = [path for path in paths if path.is_file() and not path.is_symlink()]
    directories = [path for path in paths if path.is_dir() and not path.is_symlink()]
    parent = source.choice([root, *directories])
    if action == "add":
        (parent / f"n{number}").write_bytes(b"new")
    elif action == "mkdir":
        (parent / f"n{number}").mkdir()
    elif action == "link" and files:
        os.link(source.choice(files), parent / f"n{number}")
    elif action == "write" and files:
        source.choice(files).write_bytes(b"changed")
    elif action == "delete" and paths:
        remove(source.choice(paths))
    elif action == "chmod" and paths:
        source.choice(paths).chmod(0o710)
    elif action == "rename" and files:
        source.choice(files).rename(parent / f"n{number}")
    elif action in ("remake", "dir-to-file") and directories:
        victim = source.choice(directories)
        remove(victim)
        victim.write_bytes(b"now a file") if action == "dir-to-file" else victim.mkdir()
    elif action == "file-to-dir" and files:
        victim = source.choice(files)
        victim.unlink()
        victim.mkdir()
        (victim / "in").write_bytes(b"")


def touch(root: Path, action: str, source: random.Random) -> None:
    paths = sorted(path for path in root.rglob("*") if not path.is_symlink())
    files = [path for path in paths if path.is_file()]
    if not files:
        return
    path = source.choice(files if action in ("open", "write-with-old-time", "there-and-back") else paths)
    info = path.stat()
    if action == "open":
        path.open("r+b").close()
    elif action == "same-mode":
        path.chmod(info.st_mode & 0o7777)
    elif action == "same-owner":
        os.chown(path, info.st_uid, info.st_gid)
    elif action == "there-and-back":
        path.rename(root / "elsewhere").rename(path)
    else:
        if action == "write-with-old-time":
            path.write_bytes(b"?" * info.st_size)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def merged_picture(*layers: Path) -> dict[str, object]:
    """What overlay shows of these directories, topmost first; directories keep no link count to compare."""
    mount = Mount("overlay", "overlay", "/", OPTIONS, tuple(map(str, layers)))
    with mounted((mount,)) as fd:
        return dict(picture(Path(f"/proc/self/fd/{fd}")))


@given(st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_an_upper_directory_and_its_layer_unpacked_show_the_same(
    tmp_path_factory: pytest.TempPathFactory, actions: list[str], source: random.Random
) -> None:
    base = tmp_path_factory.mktemp("overlay")
    for name in ("lower", "upper", "work", "layer", "empty", "flat"):
        (base / name).mkdir()
    grown(base / "lower")
    options = (f"upperdir={base / 'upper'}", f"workdir={base / 'work'}", *OPTIONS)
    with mounted((Mount("overlay", "overlay", "/", options, (str(base / "lower"),)),)) as fd:
        root = Path(f"/proc/self/fd/{fd}")
        for number, action in enumerate(actions):
            change(root, action, number, source)
        expected = picture(root)
    with opened(base / "lower") as lower:
        layer = layer_of(base / "upper", lowers=[lower])
        applied(layer, base / "layer", "overlay")
        assert layer_of(base / "layer", lowers=[lower]) == layer
    assert merged_picture(base / "layer", base / "lower") == expected
    subprocess.run(["cp", "-a", f"{base / 'lower'}/.", base / "flat"], check=True)
    applied(layer, base / "flat", "plain")
    assert picture(base / "flat") == expected
    shutil.rmtree(base)


@given(st.lists(st.sampled_from(ACTIONS + TOUCHING), min_size=1, max_size=8), st.integers())
@settings(max_examples=60, deadline=None)
def test_a_flat_tree_gives_the_layer_that_overlay_gives(
    tmp_path_factory: pytest.TempPathFactory, actions: list[str], seed: int
) -> None:
    base = tmp_path_factory.mktemp("overlay")
    for name in ("lower", "lower2", "upper", "work", "flat"):
        (base / name).mkdir()
    grown(base / "lower")
    (base / "lower2/d").mkdir()
    os.mknod(base / "lower2/d/e", stat.S_IFCHR | 0o600, 0)
    (base / "lower2/d/own").write_bytes(b"own")
    (base / "lower2/g").write_bytes(b"g2")
    lowers = [base / "lower2", base / "lower"]
    options = (f"upperdir={base / 'upper'}", f"workdir={base / 'work'}", *OPTIONS)
    with mounted((Mount("overlay", "overlay", "/", options, tuple(map(str, lowers))),)) as fd:
        root = Path(f"/proc/self/fd/{fd}")
        shutil.copytree(root, base / "flat", symlinks=True, dirs_exist_ok=True)
        changed(root, actions, seed)
    with opened(base / "flat") as flat:
        before = fingerprints(flat)
        changed(base / "flat", actions, seed)
        out = io.BytesIO()
        diff_trees(before, flat, out, clamp=Clamp(exact=0))
    with ExitStack() as stack:
        fds = [stack.enter_context(opened(lower)) for lower in lowers]
        layer = layer_of(base / "upper", Clamp(exact=0), lowers=fds)
    assert names_of(layer) == names_of(out.getvalue())
    assert layer == out.getvalue()
    shutil.rmtree(base)


def changed(root: Path, actions: list[str], seed: int) -> None:
    source = random.Random(seed)
    for number, action in enumerate(actions):
        if action in TOUCHING:
            touch(root, action, source)
        else:
            change(root, action, number, source)
