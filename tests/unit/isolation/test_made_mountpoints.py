"""What a run leaves of mount points it had to make, and how it is taken away again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builda.isolation.child.mountpoints import Mountpoints, quote
from builda.isolation.made_mountpoints import parse_record, remove_made


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root" / "etc").mkdir(parents=True)
    fd = os.open(tmp_path / "root", os.O_RDONLY)
    yield fd
    os.close(fd)


def make(root: int, tmp_path: Path, *paths: str, directory: bool = True) -> None:
    places = Mountpoints(root, str(tmp_path / "stubs"))
    for path in paths:
        os.close(places.make(path, directory=directory))


@given(st.text())
def test_paths_are_written_as_json(text: str) -> None:
    assert json.loads(quote(text)) == text


def test_paths_that_are_not_unicode_come_back() -> None:
    name = os.fsdecode(b"caf\xe9")
    line = f'{{"path":{quote(name)},"directory":true,"made":false,"mtime_ns":1}}\n'
    assert parse_record(line.encode())[0].path == name


def test_nothing_is_recorded_for_what_exists(root: int, tmp_path: Path) -> None:
    make(root, tmp_path, "/etc", "/etc/")
    assert not (tmp_path / "stubs").exists()


def test_the_record_is_written_before_the_stub_is_made(root: int, tmp_path: Path) -> None:
    make(root, tmp_path, "/a/b")
    rows = [json.loads(line) for line in (tmp_path / "stubs").read_text().splitlines()]
    assert [(row["path"], row["made"]) for row in rows] == [("a", False), ("a", True), ("a/b", False), ("a/b", True)]


def test_many_runs_in_one_tree_make_and_record_each_once(root: int, tmp_path: Path) -> None:
    paths = [f"/d{number}/e" for number in range(200)]
    start = tmp_path / "start"
    children = []
    for _ in range(4):
        if (child := os.fork()) == 0:
            while not start.exists():
                pass
            try:
                make(root, tmp_path, *paths)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    start.touch()
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0, 0]
    rows = [json.loads(line) for line in (tmp_path / "stubs").read_text().splitlines()]
    assert len(rows) == 2 * 2 * 200
    before = [stub.before for stub in parse_record((tmp_path / "stubs").read_bytes()) if stub.path.startswith("d0")]
    assert len(remove_made(root, tmp_path / "stubs")) == 2 * 200
    assert os.listdir(tmp_path / "root") == ["etc"]
    assert before[0] == os.stat(tmp_path / "root").st_mtime_ns


def test_what_was_put_into_a_stub_keeps_it(root: int, tmp_path: Path) -> None:
    make(root, tmp_path, "/a/b", "/c")
    make(root, tmp_path, "/etc/file", "/etc/other", directory=False)
    (tmp_path / "root/a/b/kept").touch()
    (tmp_path / "root/etc/file").write_text("kept")
    assert remove_made(root, tmp_path / "stubs") == ("etc/other", "c")
    assert (tmp_path / "root/a/b/kept").exists()
    assert (tmp_path / "root/etc/file").read_text() == "kept"


def test_a_stub_that_became_something_else_is_kept(root: int, tmp_path: Path) -> None:
    make(root, tmp_path, "/etc/file", directory=False)
    (tmp_path / "root/etc/file").unlink()
    (tmp_path / "root/etc/file").symlink_to("/nowhere")
    assert remove_made(root, tmp_path / "stubs") == ()
    assert (tmp_path / "root/etc/file").is_symlink()


def test_a_parent_that_changed_otherwise_keeps_its_new_time(root: int, tmp_path: Path) -> None:
    os.utime(tmp_path / "root/etc", (1, 1))
    make(root, tmp_path, "/etc/file", directory=False)
    (tmp_path / "root/etc/new").touch()
    os.utime(tmp_path / "root/etc", (5, 5))
    remove_made(root, tmp_path / "stubs")
    assert (tmp_path / "root/etc").stat().st_mtime == 5


def test_a_parent_that_only_held_stubs_has_its_old_time(root: int, tmp_path: Path) -> None:
    os.utime(tmp_path / "root/etc", (1, 1))
    make(root, tmp_path, "/etc/one", "/etc/two/three", directory=True)
    remove_made(root, tmp_path / "stubs")
    assert (tmp_path / "root/etc").stat().st_mtime == 1


@pytest.mark.parametrize("kept", range(5))
def test_a_crash_after_any_line_is_cleaned_up(root: int, tmp_path: Path, kept: int) -> None:
    make(root, tmp_path, "/a/b")
    lines = (tmp_path / "stubs").read_bytes().splitlines(keepends=True)
    made = [json.loads(line)["path"] for line in lines[:kept]]
    for path in ("a/b", "a"):
        if path not in made:
            os.rmdir(path, dir_fd=root)
    (tmp_path / "stubs").write_bytes(b"".join(lines[:kept]) + b'{"path":"cut sho')
    remove_made(root, tmp_path / "stubs")
    assert os.listdir(root) == ["etc"]


def test_removing_twice_or_without_a_record_is_nothing(root: int, tmp_path: Path) -> None:
    assert remove_made(root, tmp_path / "stubs") == ()


def test_a_link_planted_meanwhile_does_not_lead_out(root: int, tmp_path: Path) -> None:
    make(root, tmp_path, "/a/b")
    os.rmdir("a/b", dir_fd=root)
    os.rmdir("a", dir_fd=root)
    (tmp_path / "outside/b").mkdir(parents=True)
    (tmp_path / "root/a").symlink_to(tmp_path / "outside")
    assert remove_made(root, tmp_path / "stubs") == ()
    assert (tmp_path / "outside/b").is_dir()
