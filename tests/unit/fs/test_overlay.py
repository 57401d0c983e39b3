"""Layers against the kernel's overlay: what it records as an upper directory is what a layer says, and back."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builda.linux.mount import Mount, mounted
from tests.unit.fs.trees import applied, layer_of, picture

pytestmark = pytest.mark.root

OPTIONS = ("redirect_dir=off", "metacopy=off", "index=off")
ACTIONS = ["add", "write", "delete", "mkdir", "remake", "chmod", "rename", "link", "file-to-dir", "dir-to-file"]


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
    layer = layer_of(base / "upper")
    applied(layer, base / "layer", "overlay")
    assert merged_picture(base / "layer", base / "lower") == expected
    assert layer_of(base / "layer") == layer
    subprocess.run(["cp", "-a", f"{base / 'lower'}/.", base / "flat"], check=True)
    applied(layer, base / "flat", "plain")
    assert picture(base / "flat") == expected
    shutil.rmtree(base)
