"""Builds and scripts without commands, where layers are composed and nothing unpacked: root's images, by no right."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.support.corpus import CASES, Case

pytestmark = pytest.mark.root
FILES = {
    "app/main.sh": "#!/bin/sh\necho app\n",
    "app/lib/util.sh": "x=1\n",
    "app/README.md": "# app\n",
    "VERSION": "1.2\n",
}
OWN = (
    Case("into-root-home", "FROM BASE\nCOPY VERSION /root/deep/er/\n", FILES),
    Case("replaces-a-file", "FROM BASE\nCOPY VERSION /etc/passwd\nCOPY --chown=1 app /etc\n", FILES),
    Case("replaces-a-link", "FROM BASE\nCOPY VERSION /bin/ls\n", FILES),
    Case("parents", "FROM BASE\nCOPY --parents app/lib/util.sh /srv/\n", FILES),
    Case("exclude", "FROM BASE\nCOPY --exclude=*.md app /srv/\n", FILES),
    Case("link", "FROM BASE\nCOPY --link app /etc/app\nCOPY --link VERSION /etc/app/VERSION\n", FILES),
    Case("names", "FROM BASE\nCOPY --chown=nobody:nogroup app /tmp/app\n", FILES),
    Case("modes", "FROM BASE\nCOPY --chmod=u=rwX,go= app /tmp/app\n", FILES),
    Case("over-stage", "FROM BASE AS a\nCOPY app /a\nFROM a\nCOPY VERSION /a/lib/\nCOPY app/lib /a\n", FILES),
    Case("add-tar", "FROM BASE\nADD given.tar /srv/\nADD given.tar /\n", FILES),
    Case("add-tar-owned", "FROM BASE\nADD --chown=7:8 given.tar /new/place/\n", FILES),
    Case("workdir-deep", "FROM BASE\nUSER nobody\nWORKDIR /a/b\nWORKDIR c\nCOPY . .\n", FILES),
    Case("linked-files", "FROM BASE\nCOPY linked /srv\n", FILES),
    Case("special", "FROM BASE\nCOPY special /srv\nCOPY app/main.sh /srv/lnk\n", FILES),
    Case(
        "from-stage-all",
        "FROM BASE AS a\nCOPY --chown=3:4 app /a\nCOPY linked special large sparse /b/\n"
        "FROM BASE\nCOPY --from=a / /all\nCOPY --from=a --chown=9 /a/*.sh /b/null /b/fifo /tmp/\n"
        "COPY --from=a --parents --exclude=*.md /a /p/\n",
        FILES,
    ),
    Case("from-image", "FROM scratch\nCOPY --from=BASE /bin /bin\nCOPY --from=BASE /etc/passwd /bin/ls /\n", FILES),
    Case("from-scratch-stage", "FROM scratch AS a\nCOPY large /l\nFROM BASE\nCOPY --from=a / /x/\n", FILES),
    Case("large", "FROM BASE\nCOPY large sparse /srv/\n", FILES),
)
WITHOUT_RUN = tuple(case for case in CASES if "RUN" not in case.text.upper().replace("ONBUILD RUN", ""))


def context_of(case: Case, path: Path) -> Path:
    for name, text in case.files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (path / name).mkdir(exist_ok=True)
        else:
            (path / name).write_text(text)
    (path / "Containerfile").write_text(case.text.replace("BASE", "localhost/busybox"))
    if case in OWN:
        special_files(path)
    return path


def special_files(path: Path) -> None:
    with tarfile.open(path / "given.tar", "w") as archive:
        archive.add(path / "app", "app")
        archive.add(path / "VERSION", "etc/deep/VERSION")
        link = tarfile.TarInfo("etc/hard")
        link.type, link.linkname = tarfile.LNKTYPE, "etc/deep/VERSION"
        archive.addfile(link)
    (path / "linked/z").mkdir(parents=True)
    (path / "linked/z/b").write_text("same")
    os.link(path / "linked/z/b", path / "linked/a")
    (path / "special").mkdir()
    (path / "special/lnk").symlink_to("/nowhere")
    os.mkfifo(path / "special/fifo", 0o640)
    os.mknod(path / "special/null", 0o20666, os.makedev(1, 3))
    (path / "large").write_bytes(os.urandom(3 << 20))
    with open(path / "sparse", "wb") as file:
        file.seek(5 << 20)
        file.write(b"end")
    os.setxattr(path / "large", "user.note", b"\xff\x00")


def both(tmp_path: Path, busybox: Path, context: Path, *options: str) -> tuple[dict[str, object], dict[str, object]]:
    """What the image is when root builds it with overlay, and when it is composed."""
    found = []
    for driver in ("overlay", "composed"):
        builda = Builda(tmp_path / driver, tmp_path / f"{driver}-run")
        chosen = ("--storage-driver", driver)
        builda(*chosen, "pull", "-q", f"oci-archive:{busybox}:busybox")
        builda("tag", builda("images", "-q").split()[0], "localhost/busybox")
        builda(*chosen, "bud", "-q", "--timestamp", "0", "-t", "built", *options, context)
        found.append(json.loads(builda("inspect", "--type", "image", "built")))
    return found[0], found[1]


@pytest.mark.parametrize("case", [*WITHOUT_RUN, *OWN], ids=lambda case: case.name)
def test_a_composed_image_is_the_one_that_root_builds(case: Case, tmp_path: Path, busybox: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    unpacked, composed = both(tmp_path, busybox, context_of(case, context), *case.args)
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


@pytest.mark.parametrize("drivers", [("overlay", "composed"), ("composed", "overlay")])
def test_trees_and_lists_do_not_mix_in_one_store(builda: Builda, drivers: tuple[str, str]) -> None:
    builda("--storage-driver", drivers[0], "from", "scratch")
    told = builda.fails("--storage-driver", drivers[1], "from", "scratch")
    assert f"store was made with driver {drivers[0]}, this is {drivers[1]}" in told


def test_a_command_is_refused_before_the_build_starts_and_named(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base} AS unused\nRUN false\nFROM {base}\nWORKDIR /a\nRUN true\n")
    told = builda.fails("--storage-driver", "composed", "bud", tmp_path)
    assert "Containerfile:5: no command can be run here" in told
    assert os.listdir(builda.root / "containers") == []
