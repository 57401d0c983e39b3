"""The driver for places without mounts: a layer for each step out of one tree, and what overlay makes of the same."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import Builda
from tests.support.corpus import CASES, OWN, Case, both, context_of

pytestmark = pytest.mark.root


@pytest.mark.parametrize("case", [*CASES, *OWN], ids=lambda case: case.name)
def test_the_image_is_the_one_that_overlay_makes(case: Case, tmp_path: Path, base_store: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    overlay, plain = both(tmp_path, base_store, "plain", context_of(case, context), *case.args)
    assert plain["OCIv1"] == overlay["OCIv1"]


MOVES = {
    "a file over an equal one": "mv /d/a /d/b",
    "files that change places": "mv /d/a /d/t; mv /d/b /d/a; mv /d/t /d/b",
    "a file over an equal one in another directory": "mv /d/a /e/b",
    "a file over one that is older": "mv /d/a /d/old",
    "a file over one with another mode": "mv /d/a /d/secret",
    "a file that is moved and written again": "mv /d/a /d/b; echo 1 > /d/b; touch -d @7 /d/b",
    "a copy over an equal file": "cp -p /d/a /d/t; mv /d/t /d/b",
    "a copy in place of a removed file": "rm /d/b /d/old; cp -p /d/a /d/t; mv /d/t /d/b",
    "a file in a directory that was made again": "mv /d/a /t; rm -r /e; mkdir /e; mv /t /e/b",
    "a directory in place of an equal one": "rm -r /e; mv /d /e",
}


@pytest.mark.parametrize("moves", MOVES)
def test_moved_files_are_recorded_as_overlay_records_them(moves: str, tmp_path: Path, base_store: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    files = "d/a d/b e/a e/b d/old d/secret"
    made = f"mkdir /d /e; for f in {files}; do echo 1 > /$f; touch -d @7 /$f; done; touch -d @6 /d/old"
    steps = f"FROM localhost/busybox\nRUN {made}; chmod 600 /d/secret\nRUN {MOVES[moves]}\n"
    (context / "Containerfile").write_text(steps)
    overlay, plain = both(tmp_path, base_store, "plain", context)
    assert plain["OCIv1"] == overlay["OCIv1"]


class Plain(NamedTuple):
    """builda on a store with the plain driver."""

    builda: Builda

    def __call__(self, *arguments: str | Path, **options: Any) -> str:
        return self.builda("--storage-driver", "plain", *arguments, **options)

    def build(self, text: str, *options: str) -> str:
        return self("bud", "-q", *options, "-f", "-", given=f"FROM localhost/busybox\n{text}")

    def sees(self, image: str, command: str) -> str:
        container = self("from", image)
        return self("run", container, "--", "sh", "-c", command)


@pytest.fixture
def plain(builda: Builda, busybox: Path) -> Plain:
    made = Plain(builda)
    made("pull", "-q", f"oci-archive:{busybox}:busybox")
    made("tag", made("images", "-q").split()[0], "localhost/busybox")
    return made


def test_a_replaced_directory_hides_what_was_in_it(plain: Plain) -> None:
    image = plain.build("RUN mkdir -p /d/e; touch /d/e/f /d/g\nRUN rm -rf /d; mkdir /d; touch /d/g /d/h\n")
    assert plain.sees(image, "ls /d") == "g\nh"


@pytest.mark.parametrize(
    ("command", "seen"),
    [
        ("touch -d @5 /f; echo b > /f; touch -r /etc/passwd /f", "cat /f"),
        ("echo b > /f; touch -d @7 /f", "cat /f"),  # as large and as old as before
        ("chmod 4750 /f", "stat -c %a /f"),
        ("chown 3:4 /f /d /l", "stat -c %u:%g /f /d; ls -ln /l | awk '{ print $3 }'"),
        ("setfattr -n user.a -v 1 /d 2>/dev/null || chmod 1711 /d", "stat -c %a /d"),
        ("rm /l; ln -s other /l", "readlink /l"),
        ("rm /f; mkfifo -m 640 /f", "stat -c '%F %a' /f"),
        ("mv /d /e", "ls -d /d /e 2>/dev/null; cat /e/x"),
        ("rm -rf /d; echo file > /d", "cat /d"),
        ("ln /f /hard", "stat -c %h /hard; cat /hard"),
        ("mkdir -p /p/q/r; chmod 700 /p/q", "stat -c %a /p/q; ls /p/q"),
    ],
)
def test_a_change_is_found(plain: Plain, command: str, seen: str) -> None:
    before = "RUN echo a > /f; touch -d @7 /f; mkdir /d; echo x > /d/x; ln -s f /l\n"
    image = plain.build(f"{before}RUN {command}\nRUN {{ {seen}; }} > /seen\n")
    assert plain.sees(image, seen) == plain.sees(image, "cat /seen")


def test_what_a_step_did_is_found_at_once_after_it(plain: Plain) -> None:
    steps = "".join(f"RUN echo {number} > /n\n" for number in range(9))
    image = plain.build(f"{steps}RUN true\n")
    layers = json.loads(plain("inspect", "--type", "image", image))["OCIv1"]["history"]
    assert sum(not entry.get("empty_layer", False) for entry in layers[-10:]) == 9
    assert plain.sees(image, "cat /n") == "8"


def test_steps_are_remembered_and_a_tree_is_made_of_them(plain: Plain) -> None:
    steps = "RUN mkdir /d; echo one > /d/f; ln -s f /d/l\nWORKDIR /d\nRUN rm l; chown 5 f\n"
    first = plain.build(steps)
    assert plain.build(steps) == first
    more = plain.build(f"{steps}RUN cat f > g; stat -c %u f >> g\n")
    assert plain.sees(more, "ls /d; cat /d/g") == "f\ng\none\n5"
    told = plain.builda.run("--storage-driver", "plain", "bud", "-f", "-", given=f"FROM localhost/busybox\n{steps}")
    assert told.stdout.count("Using cache") == 3
    assert plain("fsck") == ""


def test_a_script_freezes_layers_and_goes_on(plain: Plain) -> None:
    container = plain("from", "localhost/busybox")
    for number in range(3):
        plain("run", "--layer", container, "--", "sh", "-c", f"echo {number} >> /n")
    plain("run", "--layer", container, "--", "true")
    plain("run", container, "--", "sh", "-c", "echo rest > /rest")
    image = plain("commit", container)
    assert len(json.loads(plain("inspect", "--type", "image", image))["OCIv1"]["rootfs"]["diff_ids"]) == 5
    assert plain.sees(image, "cat /n /rest") == "0\n1\n2\nrest"


def test_a_container_begins_where_another_stands(plain: Plain) -> None:
    container = plain("from", "localhost/busybox")
    plain("run", "--layer", container, "--", "sh", "-c", "echo a > /a; rm /etc/group")
    assert (
        plain("run", plain("from", f"container:{container}"), "--", "sh", "-c", "cat /a; ls /etc/group || true") == "a"
    )
    plain("run", container, "--", "touch", "/b")
    assert "changes that are not in a layer" in plain.builda.fails(
        "--storage-driver", "plain", "from", f"container:{container}"
    )


def test_prune_leaves_layers_that_a_container_stands_on(plain: Plain) -> None:
    container = plain("from", "localhost/busybox")
    plain("run", "--layer", container, "--", "touch", "/a")
    plain("prune")
    image = plain("commit", "--rm", container)
    assert plain.sees(image, "ls /a") == "/a"
    plain("rm", "-a")
    plain("prune", "-af")
    assert os.listdir(plain.builda.root / "snapshots") == []


@pytest.mark.parametrize("lost", ["layer.tar", "info.json"])
def test_a_layer_that_an_earlier_boot_did_not_write_out_is_made_again(plain: Plain, lost: str) -> None:
    first = plain.build("RUN echo x > /x\n", "--timestamp", "0")
    for path in (plain.builda.root / "snapshots").glob(f"*/{lost}"):
        if (path.parent / "layer.tar").exists():
            info = json.loads((path.parent / "info.json").read_text())
            (path.parent / "info.json").write_text(json.dumps({**info, "boot": "another"}))
            path.write_bytes(b"")
    assert plain.build("RUN echo x > /x\nRUN cat /x\n", "--timestamp", "0") != first
