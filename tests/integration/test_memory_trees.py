"""Builds in stores that no overlay can be written in: their trees are in memory, their images and cache as ever."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from builda.linux import syscalls as sys_
from builda.linux.free_memory import available
from builda.linux.mount import detach
from tests.conftest import Builda

pytestmark = pytest.mark.root

CONTAINERFILE = """\
FROM localhost/busybox AS first
RUN mkdir -p /a/b && echo x > /a/b/file && echo y > /etc/more
WORKDIR /a
RUN rm -rf /a/b && mkdir /a/b && chown 5:6 /a/b && rm /etc/more && true
RUN true
FROM localhost/busybox
COPY --from=first /a /copied
COPY --from=localhost/busybox:latest /bin /bins
RUN --mount=type=cache,target=/c --mount=from=first,target=/m touch /c/x && ls /m/a > /listed && rm -r /bins
"""


@pytest.fixture
def on_overlay(tmp_path: Path, busybox: Path) -> Iterator[Builda]:
    """builda on a store that lies on an overlay."""
    for name in ("lower", "upper", "work", "root"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    sys_.mount("overlay", str(tmp_path / "root"), "overlay", 0, options)
    made = Builda(tmp_path / "root/store", tmp_path / "run")
    prepared(made, busybox)
    yield made
    detach(tmp_path / "root")


def prepared(builda: Builda, busybox: Path) -> None:
    builda("pull", "-q", f"oci-archive:{busybox}:busybox")
    builda("tag", builda("images", "-q").split()[0], "localhost/busybox")


def built(builda: Builda, context: Path, *options: str) -> tuple[object, str]:
    """The digest of what is built, and what is said."""
    done = builda.run("bud", "--timestamp", "0", "-t", "built", *options, context)
    inspected = json.loads(builda("inspect", "--type", "image", "built"))
    return inspected["FromImageDigest"], done.stdout + done.stderr


def test_the_image_is_the_one_that_overlay_makes_and_steps_are_remembered(
    on_overlay: Builda, builda: Builda, busybox: Path, tmp_path: Path
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Containerfile").write_text(CONTAINERFILE)
    prepared(builda, busybox)
    wanted, _ = built(builda, context)
    digest, said = built(on_overlay, context)
    assert digest == wanted
    assert said.count("kept in memory until it ends") == 1
    assert "working tree in this store is a copy" not in said
    again, said = built(on_overlay, context)
    assert again == wanted
    assert said.count("Using cache") == 7
    (context / "Containerfile").write_text(CONTAINERFILE + "RUN test ! -e /bins && test -d /copied/b && touch /end\n")
    wanted, _ = built(builda, context)
    digest, said = built(on_overlay, context)
    assert digest == wanted
    assert said.count("Using cache") == 7
    on_overlay("rmi", "built")
    assert [path.name[64:] for path in (on_overlay.root / "chains").iterdir()] == [".flat"]
    built(on_overlay, context)
    on_overlay("run", on_overlay("from", "built"), "test", "-e", "/end")
    on_overlay("rm", "-a")
    assert on_overlay("fsck") == ""
    on_overlay("prune", "-af")
    assert [*(on_overlay.root / "snapshots").iterdir(), *(on_overlay.root / "memory").iterdir()] == []


def test_a_damaged_blob_is_made_again(on_overlay: Builda, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM localhost/busybox\nRUN echo x > /x\n")
    digest, _ = built(on_overlay, tmp_path)
    layer = json.loads(on_overlay("inspect", "--type", "image", "--format", "{{.Manifest}}", "built"))["layers"][-1]
    blob = on_overlay.root / "blobs" / layer["digest"].replace(":", "/")
    blob.write_bytes(bytes(layer["size"]))
    (tmp_path / "Containerfile").write_text("FROM localhost/busybox\nRUN echo x > /x\nRUN cat /x > /y\n")
    _, said = built(on_overlay, tmp_path)
    assert "going on without it" in said
    (tmp_path / "Containerfile").write_text("FROM localhost/busybox\nRUN echo x > /x\n")
    assert built(on_overlay, tmp_path)[0] == digest


def test_nothing_is_kept_in_memory_where_a_driver_is_named(on_overlay: Builda, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM localhost/busybox\nRUN echo x > /x\n")
    assert "memory" not in built(on_overlay, tmp_path, "--storage-driver", "plain")[1]


@pytest.mark.parametrize(
    ("rows", "files", "left"),
    [
        ("0::/\n", {"memory.max": "max", "memory.current": "5"}, 1000 << 10),
        ("0::/a/b\n", {"a/memory.max": "4000", "a/memory.current": "1000"}, 3000),
        ("0::/\n", {"memory.max": "4000", "memory.current": "1000", "memory.stat": "inactive_file 500\n"}, 3500),
        ("0::/\n", {"memory.max": "4000", "memory.current": "5000"}, 0),
        ("4:cpu,memory:/x\n", {"memory/memory.limit_in_bytes": "70", "memory/memory.usage_in_bytes": "30"}, 40),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": str(2**63), "memory/memory.usage_in_bytes": "1"}, 1000 << 10),
    ],
)
def test_what_a_cgroup_leaves(tmp_path: Path, rows: str, files: dict[str, str], left: int) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 1000 kB\n")
    (tmp_path / "proc/self/cgroup").write_text(rows)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available(str(tmp_path / "proc"), str(tmp_path / "cgroup")) == left


def test_a_failed_step_outlives_the_memory(on_overlay: Builda, tmp_path: Path) -> None:
    text = (
        "FROM localhost/busybox AS one\nRUN echo one > /one\nFROM localhost/busybox\nRUN rm /bin/awk; echo a > /a\n"
        "RUN --mount=from=one,target=/m rm /a; cp /m/one /two; chown 5:6 /two; exit 3\n"
    )
    said = on_overlay.fails("bud", "--keep-failed", "-f", "-", tmp_path, given=text, status=3)
    assert "kept in memory" in said
    script = "cat /two /m/one; stat -c %u:%g /two; ls /a /bin/awk 2>/dev/null || true"
    assert on_overlay("debug", "--", "sh", "-c", script) == "one\none\n5:6"
    on_overlay("debug", "--keep", "--step", "3", "-f", "-", tmp_path, "--", "test", "!", "-e", "/two", given=text)
    on_overlay("debug", "--rm", "--all")
    assert on_overlay("containers", "-q") == ""
