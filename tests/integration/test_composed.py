"""Builds and scripts without commands, where layers are composed and nothing unpacked: root's images, by no right."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Builda, clean_environ
from tests.support.corpus import CASES, OWN, Case, both, context_of
from tests.support.images import image, write_layout

pytestmark = pytest.mark.root
WITHOUT_RUN = tuple(case for case in CASES if "RUN" not in case.text.upper().replace("ONBUILD RUN", ""))


@pytest.mark.parametrize("case", [*WITHOUT_RUN, *OWN], ids=lambda case: case.name)
def test_a_composed_image_is_the_one_that_root_builds(case: Case, tmp_path: Path, base_store: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    unpacked, composed = both(tmp_path, base_store, "composed", context_of(case, context), *case.args)
    assert composed["OCIv1"] == unpacked["OCIv1"]
    assert composed["FromImageDigest"] == unpacked["FromImageDigest"]


def test_what_needs_a_tree_is_refused_and_harms_nothing(builda: Builda, tmp_path: Path) -> None:
    driver = ("--storage-driver", "composed")
    (tmp_path / "file").write_text("x")
    container = builda(*driver, "from", "scratch")
    builda(*driver, "copy", container, tmp_path / "file", "/dir/file")
    for words in (("run", container, "true"), ("mount", container), ("commit", "--squash", container, "squashed")):
        assert "lists of files instead of trees" in builda.fails(*driver, *words)
    assert "where a file is: /dir/file" in builda.fails(*driver, "copy", container, tmp_path, "/dir/file")
    builda(*driver, "commit", container, f"oci:{tmp_path}/layout")
    assert builda(*driver, "fsck") == ""
    builda(*driver, "rm", "-a")
    builda(*driver, "prune", "-af")
    assert os.listdir(builda.root / "snapshots") == []


def lists_and_trees(builda: Builda) -> tuple[int, int]:
    """How many snapshots of the store are lists of files, and how many trees."""
    kinds = [json.loads(path.read_text())["driver"] == "composed" for path in builda.root.glob("snapshots/*/info.json")]
    return kinds.count(True), kinds.count(False)


def digest(builda: Builda, image: str) -> object:
    return json.loads(builda("inspect", "--type", "image", image))["FromImageDigest"]


SCRIPT = """
set -e
c=$(builda from localhost/busybox)
builda config --env A=b $c
builda copy -q --chown 5:6 $c file /srv/file
builda config --cmd sh $c
builda commit -q --timestamp 0 --rm $c script
"""


def scripted(builda: Builda, directory: Path, **environ: str) -> None:
    places = {"BUILDA_ROOT": str(builda.root), "BUILDA_RUNROOT": str(builda.runroot)}
    function = f'builda() {{ {sys.executable} -m builda "$@"; }}'
    subprocess.run(
        ["bash", "-c", f"{function}\n{SCRIPT}"], cwd=directory, env={**clean_environ(), **places, **environ}, check=True
    )


@pytest.mark.parametrize("driver", ["overlay", "plain", None])
def test_nothing_is_unpacked_where_nothing_is_run(
    builda: Builda, busybox: Path, tmp_path: Path, driver: str | None
) -> None:
    named = {} if driver is None else {"BUILDA_STORAGE_DRIVER": driver}
    builda("pull", "-q", f"oci-archive:{busybox}:busybox", **named)
    builda("tag", builda("images", "-q").split()[0], "localhost/busybox")
    (tmp_path / "file").write_text("x")
    (tmp_path / "Containerfile").write_text("FROM localhost/busybox\nWORKDIR /srv\nCOPY --chown=5:6 file .\n")
    (tmp_path / "Run").write_text("FROM localhost/busybox\nCOPY file .\nRUN test -s file && rm file\n")
    builda("bud", "-q", "--timestamp", "0", "-t", "built", tmp_path, **named)
    scripted(builda, tmp_path, **named)
    trees = lists_and_trees(builda)[1]
    assert (trees == 0) is (driver is None)
    found = {image: digest(builda, image) for image in ("built", "script")}
    again = Builda(tmp_path / "again", tmp_path / "again-run")
    again("--storage-driver", "overlay", "pull", "-q", f"oci-archive:{busybox}:busybox")
    again("tag", again("images", "-q").split()[0], "localhost/busybox")
    again("--storage-driver", "overlay", "bud", "-q", "--timestamp", "0", "-t", "built", tmp_path)
    scripted(again, tmp_path, BUILDA_STORAGE_DRIVER="overlay")
    assert found == {image: digest(again, image) for image in found}
    builda("bud", "-q", "-f", tmp_path / "Run", "-t", "ran", tmp_path, **named)
    assert lists_and_trees(builda)[1] > trees
    builda("rm", "-a")
    builda("prune", "-af")
    assert os.listdir(builda.root / "snapshots") == os.listdir(builda.root / "chains") == []


def test_what_needs_a_tree_is_built_on_one(builda: Builda, busybox: Path, tmp_path: Path) -> None:
    builda("pull", "-q", f"oci-archive:{busybox}:busybox")
    builda("tag", builda("images", "-q").split()[0], "localhost/busybox")
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        member = tarfile.TarInfo("bin/more")
        member.type, member.linkname = tarfile.LNKTYPE, "bin/busybox"
        archive.addfile(member)
    (tmp_path / "Containerfile").write_text("FROM localhost/busybox\nCOPY links.tar /a\nADD links.tar /\n")
    said = builda.run("bud", "-t", "built", tmp_path).stderr
    assert "beginning again, with the base image unpacked: hard link in an archive to a file of the base image" in said
    container = builda("from", "localhost/busybox")
    builda("copy", "-q", container, tmp_path / "links.tar", "/a")
    builda("add", "-q", container, tmp_path / "links.tar", "/")
    for made in (builda("from", "built"), container):
        assert builda("run", made, "sh", "-c", "test /bin/more -ef /bin/busybox && ls /a") == "/a"


def test_steps_are_found_whether_they_were_done_as_lists_or_as_trees(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    copies = f"FROM {base} AS first\nCOPY file /a\nWORKDIR /w\nFROM first\nCOPY --from=first /a /b\n"
    composed, commanded = tmp_path / "composed", tmp_path / "commanded"
    composed.write_text(copies)
    commanded.write_text(f"{copies}RUN cat /a /b > /c\nCOPY file /d\n")
    copied = 3  # WORKDIR too, which makes a directory

    def build(file: Path, image: str) -> int:
        return builda("bud", "-t", image, "-f", file, tmp_path).count("Using cache")

    def layers(image: str) -> list[str]:
        return json.loads(builda("inspect", "--type", "image", image))["OCIv1"]["rootfs"]["diff_ids"]  # type: ignore[no-any-return]

    assert build(composed, "listed") == 0
    assert build(commanded, "treed") == copied
    assert layers("treed")[: len(layers("listed"))] == layers("listed")
    assert builda("run", builda("from", "treed"), "cat", "/c", "/d") == "xxx"
    assert build(composed, "again") == copied
    composed.write_text(f"{copies}COPY file /last\n")
    assert build(composed, "longer") == copied
    assert layers("longer")[:-1] == layers("listed")
    assert build(commanded, "treed") == copied + 2
    assert builda("fsck") == ""


def test_of_a_path_that_a_layer_has_twice_the_last_counts(builda: Builda, tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for text in (b"first", b"second and last"):
            member = tarfile.TarInfo("file")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    builda("pull", "-q", f"oci:{write_layout(tmp_path / 'layout', image(data.getvalue()))}:test")
    source = builda("images", "-q")
    for driver in ("composed", "overlay"):
        container = builda("--storage-driver", driver, "from", "scratch")
        builda("--storage-driver", driver, "copy", "-q", "--from", source, container, "/file", "/file")
        builda("--storage-driver", driver, "commit", "-q", container, driver)
        assert Path(builda("mount", builda("from", driver)), "file").read_text() == "second and last"


def test_a_name_that_is_taken_several_times_in_a_step_is_the_last_that_took_it(
    builda: Builda, base: str, tmp_path: Path
) -> None:
    """Hard links of what was replaced since, and a directory that became a file and a directory again."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a.txt").write_text("replaces a/a.txt\n")
    (tmp_path / "d").write_text("both\n")
    os.link(tmp_path / "d", tmp_path / "a/a.txt")
    with tarfile.open(tmp_path / "again.tar", "w") as archive:
        for name in ("etc/new", "etc", "etc/newest"):
            member = tarfile.TarInfo(name)
            archive.addfile(member)
    (tmp_path / "Containerfile").write_text(
        f"FROM {base}\nCOPY a a.txt d /b/\nCOPY d a.txt a /c/\nCOPY d a/a.txt /e/\nCOPY a/a.txt /e/d\nADD again.tar /\n"
    )
    digests = set()
    for driver in ("composed", "overlay"):
        builda("--storage-driver", driver, "bud", "-q", "--no-cache", "--timestamp", "0", "-t", driver, tmp_path)
        digests.add(digest(builda, driver))
        root = Path(builda("mount", builda("from", driver)))
        assert [(root / name).read_text() for name in ("b/a.txt", "b/d")] == ["replaces a/a.txt\n", "both\n"]
        assert [(root / name).read_text() for name in ("c/a.txt", "c/d", "e/d")] == ["both\n"] * 3
        assert [path.name for path in (root / "etc").iterdir()] == ["newest"]
    assert len(digests) == 1


def test_a_driver_that_is_named_keeps_to_trees_and_lists_lie_beside_them(builda: Builda, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    tree = builda("--storage-driver", "overlay", "from", "scratch")
    listed = builda("--storage-driver", "composed", "from", "scratch")
    for container in (tree, listed):
        builda("copy", "-q", container, tmp_path / "file", "/file")
    assert lists_and_trees(builda) == (1, 1)
    assert "lists of files instead of trees" in builda.fails("--storage-driver", "composed", "mount", listed)
    builda("copy", "-q", "--from", listed, tree, "/file", "/from-list")
    builda("--storage-driver", "composed", "commit", "-q", tree, "made")
    made = builda("from", "made")
    root = Path(builda("mount", made))
    assert sorted(path.name for path in root.iterdir()) == ["file", "from-list"]
    builda("umount", made)


def test_a_command_is_refused_before_the_build_starts_and_named(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base} AS unused\nRUN false\nFROM {base}\nWORKDIR /a\nRUN true\n")
    told = builda.fails("--storage-driver", "composed", "bud", tmp_path)
    assert "Containerfile:5: no command can be run here" in told
    assert os.listdir(builda.root / "containers") == []
