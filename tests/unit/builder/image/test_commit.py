"""commit: what the image holds and says, and that nothing half-made is ever seen."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from builda.builder import byteprogress
from builda.builder.imageoptions import CommitOptions, FromOptions
from builda.builder.records import timestamp
from builda.errors import InvalidReference, InvalidValue, NotFound
from builda.events import Warned, WorkProgress
from builda.oci import mediatype
from builda.oci.config import chain_ids
from builda.oci.descriptor import Platform
from builda.oci.digest import Digest
from builda.oci.edits import SetCmd, SetEnv, SetLabel, SetPlatform, SetText
from builda.oci.manifest import Index
from builda.plan import Configure, Copy, FromImage, InlineFile
from builda.store.containers import Containers, WorkingContainer
from builda.store.store import Image
from tests.support import needs
from tests.unit.builder.conftest import NOW, Bench, make_bench

pytestmark = pytest.mark.root
RIGHT_NOW = timestamp(NOW)


def add(bench: Bench, container: WorkingContainer, path: str, data: bytes = b"data") -> None:
    bench.builder.copy(container, Copy(sources=(), destination=path, inline=(InlineFile("f", data),)))


def commit(bench: Bench, container: WorkingContainer, destination: str | None = "out", **options: object) -> Image:
    return bench.builder.commit(container, CommitOptions(destination=destination, **options))  # type: ignore[arg-type]


def files_of(bench: Bench, image: Image) -> list[str]:
    """The members of the image's topmost layer."""
    blob = bench.store.blobs.path(image.manifest.layers[-1].digest)
    listing = subprocess.check_output(["tar", "-tf", blob, "-z"], text=True)
    return listing.splitlines()


def test_the_layer_is_the_difference(bench: Bench, container: WorkingContainer, box: Image) -> None:
    bench.shell(container, "echo hi > /etc/hi; rm /etc/group")
    image = commit(bench, container)
    assert image.names == ("localhost/out:latest",)
    assert image.manifest.layers[:-1] == box.manifest.layers
    assert files_of(bench, image) == ["etc/", "etc/.wh.group", "etc/hi"]
    again = bench.builder.from_image("out")
    assert bench.shell(again, "cat /etc/hi; test ! -e /etc/group") == "hi\n"
    assert bench.store.fsck() == ()


def test_what_the_image_says(bench: Bench, container: WorkingContainer, box: Image) -> None:
    edits = (SetEnv("A", "1"), SetLabel("l", "v"))
    bench.builder.config(container, Configure(edits=edits, set_annotations={"note": "x"}, created_by="ENV A=1"))
    add(bench, container, "/f")
    image = commit(bench, container, annotations=(("more", "y"),))
    assert image.config.environ()["A"] == "1"
    assert image.config.labels == {
        "l": "v",
        "io.builda.version": bench.builder.version,
        "io.buildah.version": bench.builder.version,
    }
    assert image.config.created == RIGHT_NOW
    assert [(h.created_by, h.created, h.empty_layer) for h in image.config.history[-2:]] == [
        ("ENV A=1", RIGHT_NOW, True),
        ("/bin/sh", RIGHT_NOW, False),
    ]
    assert dict(image.manifest.annotations) == {
        "note": "x",
        "more": "y",
        "org.opencontainers.image.created": RIGHT_NOW,
        "org.opencontainers.image.base.name": "localhost/box:latest",
        "org.opencontainers.image.base.digest": str(box.digest),
    }


def test_an_unchanged_tree_gives_no_layer(bench: Bench, container: WorkingContainer, box: Image) -> None:
    bench.builder.config(container, Configure(edits=(SetEnv("A", "1"),)))
    image = commit(bench, container)
    assert image.manifest.layers == box.manifest.layers
    assert image.config.history[-1].empty_layer
    assert sum(not entry.empty_layer for entry in image.config.history) == len(image.manifest.layers)


def test_an_image_of_nothing(bench: Bench) -> None:
    container = bench.builder.from_image("scratch")
    bench.builder.config(container, Configure(edits=(SetEnv("A", "1"),)))
    image = commit(bench, container)
    assert image.manifest.layers == ()
    assert bench.builder.from_image("out").base is None


def test_the_container_goes_on_after_a_commit(bench: Bench, container: WorkingContainer, box: Image) -> None:
    add(bench, container, "/one")
    first = commit(bench, container, "first")
    add(bench, container, "/two")
    second = commit(bench, container, "second")
    assert len(second.manifest.layers) == len(first.manifest.layers) == len(box.manifest.layers) + 1
    assert files_of(bench, second) == ["one", "two"]


def test_a_removed_container_leaves_its_tree_to_the_image(bench: Bench, container: WorkingContainer) -> None:
    add(bench, container, "/one")
    image = commit(bench, container, remove=True)
    assert bench.store.containers.find(container.id) is None
    assert bench.store.snapshots.new.find_chain(chain_ids(image.config.diff_ids)[-1]) == container.snapshot
    again = bench.builder.from_image("out")
    assert again.base == container.snapshot
    assert bench.shell(again, "cat /one") == "data"
    bench.store.sweep()
    assert bench.shell(again, "cat /one") == "data"


def test_a_prune_of_the_wrong_moment_takes_no_tree_from_a_removed_container(
    bench: Bench, container: WorkingContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(bench, container, "/one")
    os.utime(bench.store.snapshots.new.path(container.snapshot), (1, 1))  # made by a command that ended long ago
    delete = Containers.delete

    def swept(containers: Containers, gone: WorkingContainer) -> None:
        delete(containers, gone)
        bench.store.sweep()

    monkeypatch.setattr(Containers, "delete", swept)
    commit(bench, container, remove=True)
    assert bench.shell(bench.builder.from_image("out"), "cat /one") == "data"


def test_a_tree_with_other_times_than_its_layer_is_not_kept(bench: Bench, container: WorkingContainer) -> None:
    add(bench, container, "/one")
    image = commit(bench, container, remove=True, source_date_epoch=1000)
    assert bench.store.snapshots.new.find_chain(chain_ids(image.config.diff_ids)[-1]) is None
    assert not os.path.exists(bench.store.snapshots.new.path(container.snapshot))
    assert bench.shell(bench.builder.from_image("out"), "stat -c %Y /one") == "1000\n"


def test_squash_gives_one_layer_of_everything(bench: Bench, container: WorkingContainer) -> None:
    bench.shell(container, "rm /etc/group; echo x > /x")
    image = commit(bench, container, squash=True)
    assert len(image.manifest.layers) == len(image.config.diff_ids) == 1
    assert len(image.config.history) == 1
    again = bench.builder.from_image("out")
    assert bench.shell(again, "cat /x; test ! -e /etc/group") == "x\n"


def build(path: Path, layout: Path, epoch: int, *, sleep: float = 0.0) -> str:
    """The manifest digest of one and the same build on a new store."""
    import time

    with ExitStack() as stack:
        bench = make_bench(path, stack)
        bench.change(now=time.time)
        bench.builder.pull(f"oci:{layout}:box")
        container = bench.builder.from_image("layout:box")
        bench.shell(
            container, f"mkdir -p /a/b; echo 1 > /a/b/c; sleep {sleep}; ln /a/b/c /a/d; rm /etc/group; ln -s x /l"
        )
        return str(commit(bench, container, source_date_epoch=epoch).digest)


def test_two_builds_of_the_same_input_have_one_digest(tmp_path: Path, busybox_layout: Path) -> None:
    first = build(tmp_path / "one", busybox_layout, 1_650_000_000)
    assert build(tmp_path / "two", busybox_layout, 1_650_000_000, sleep=1.1) == first
    assert build(tmp_path / "three", busybox_layout, 1_650_000_001) != first


def test_an_epoch_says_all_new_times(bench: Bench, container: WorkingContainer, box: Image) -> None:
    bench.builder.config(container, Configure(created_by="X"))
    add(bench, container, "/one")
    image = commit(bench, container, timestamp=0)
    assert image.config.created == "1970-01-01T00:00:00Z"
    assert {entry.created for entry in image.config.history[len(box.config.history) :]} == {"1970-01-01T00:00:00Z"}
    assert image.config.history[: len(box.config.history)] == box.config.history
    assert "io.builda.version" not in image.config.labels
    assert bench.shell(bench.builder.from_image("out"), "stat -c %Y /one") == "0\n"


def test_times_of_files_can_be_left_alone(bench: Bench, container: WorkingContainer) -> None:
    bench.shell(container, "touch -d @1234567 /old; touch -d @1600000000 /new")
    commit(bench, container, source_date_epoch=1_500_000_000)
    clamped = bench.shell(bench.builder.from_image("out"), "stat -c %Y /old /new")
    commit(bench, container, source_date_epoch=1_500_000_000, rewrite_timestamp=False)
    kept = bench.shell(bench.builder.from_image("out"), "stat -c %Y /old /new")
    assert (clamped.split(), kept.split()) == (["1234567", "1500000000"], ["1234567", "1600000000"])


def test_times_exclude_each_other() -> None:
    with pytest.raises(InvalidValue, match="cannot both"):
        CommitOptions(timestamp=1, source_date_epoch=2)


def test_the_docker_format(bench: Bench, box: Image) -> None:
    container = bench.builder.from_image("box", FromOptions(format="docker"))
    add(bench, container, "/one")
    image = commit(bench, container)
    assert image.media_type == mediatype.DOCKER_MANIFEST
    assert image.manifest.config.media_type == mediatype.DOCKER_CONFIG
    assert {layer.media_type for layer in image.manifest.layers} == {mediatype.DOCKER_LAYER_GZIP}
    assert not image.manifest.annotations
    assert commit(bench, container, format="oci").media_type == mediatype.MANIFEST


@pytest.mark.parametrize(
    ("compression", "media_type"),
    [("none", mediatype.LAYER), ("zstd", mediatype.LAYER_ZSTD), ("gzip", mediatype.LAYER_GZIP)],
)
def test_compressions(bench: Bench, container: WorkingContainer, compression: str, media_type: str) -> None:
    add(bench, container, "/one")
    image = commit(bench, container, compression=compression)
    assert image.manifest.layers[-1].media_type == media_type
    assert bench.shell(bench.builder.from_image("out"), "cat /one") == "data"


def test_changes_and_unsetting(bench: Bench, container: WorkingContainer) -> None:
    bench.builder.config(
        container, Configure(edits=(SetEnv("A", "1"), SetEnv("B", "2")), set_annotations={"a": "1", "b": "2"})
    )
    image = commit(
        bench,
        container,
        changes=(SetText("user", "bob"), SetCmd(("x",))),
        config=b'{"author": "me"}',
        unset_env=("A",),
        unset_annotations=("a",),
        omit_history=True,
        identity_label=False,
        created_annotation=False,
    )
    assert (image.config.user, image.config.cmd, image.config.author) == ("bob", ("x",), "me")
    assert image.config.env == (*((k, v) for k, v in container.config.env), ("B", "2"))
    assert image.config.history == ()
    assert image.config.labels == {}
    assert "a" not in image.manifest.annotations
    assert "org.opencontainers.image.created" not in image.manifest.annotations
    assert image.manifest.annotations["b"] == "2"


def test_a_bad_configuration_publishes_nothing(bench: Bench, container: WorkingContainer) -> None:
    before = bench.store.images.names()
    with pytest.raises(InvalidValue):
        commit(bench, container, config=b"no")
    assert bench.store.images.names() == before
    assert os.listdir(bench.store.layout.path("ingest")) == []


@pytest.mark.parametrize("name", ["Upper", "x@sha256:" + "0" * 64, "a b"])
def test_a_bad_name_is_refused_before_anything_is_made(bench: Bench, container: WorkingContainer, name: str) -> None:
    blobs = os.listdir(bench.store.layout.path("blobs/sha256"))
    with pytest.raises(InvalidReference):
        commit(bench, container, name)
    assert os.listdir(bench.store.layout.path("blobs/sha256")) == blobs


def test_added_files_are_in_the_layer(bench: Bench, container: WorkingContainer, tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("tool")
    (tmp_path / "tool").chmod(0o700)
    add(bench, container, "/zzz")
    image = commit(bench, container, add_files=(f"{tmp_path}/tool:/opt/tool", f"{tmp_path}/tool:/etc/"))
    assert files_of(bench, image) == ["zzz", "etc/tool", "opt/tool"]
    again = bench.builder.from_image("out")
    assert bench.shell(again, "cat /opt/tool /etc/tool; stat -c ' %a:%u' /opt/tool; cat /zzz") == "tooltool 644:0\ndata"
    assert bench.upper(container) == ["zzz"]
    squashed = commit(bench, container, squash=True, add_files=(f"{tmp_path}/tool:/opt/tool",))
    assert len(squashed.manifest.layers) == 1
    with pytest.raises(NotFound, match="no such file or directory to add"):
        commit(bench, container, add_files=("/no/such",))


def test_sockets_are_left_out_and_named(bench: Bench, container: WorkingContainer) -> None:
    import socket

    with bench.builder.mounted(container) as root, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{root}/sock")
    image = commit(bench, container)
    assert len(image.manifest.layers) == 1
    assert [event.message for event in bench.events if isinstance(event, Warned)] == [
        "socket is left out of the layer: /sock"
    ]


def test_an_index_collects_platforms(bench: Bench, container: WorkingContainer) -> None:
    first = commit(bench, container, None, manifest="list")
    bench.builder.config(container, Configure(edits=(SetPlatform(Platform(os="linux", architecture="s390x")),)))
    second = commit(bench, container, None, manifest="list")
    bench.builder.config(container, Configure(edits=(SetEnv("A", "1"),)))
    third = commit(bench, container, None, manifest="list")
    index = bench.store.image("list").document
    assert isinstance(index, Index)
    assert [entry.digest for entry in index.manifests] == [first.digest, third.digest]
    assert second.digest != third.digest
    assert bench.builder.pull("list").id == first.id
    with pytest.raises(InvalidValue, match="not an index"):
        commit(bench, container, None, manifest="box")


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive", "dir"])
def test_a_commit_to_a_file_leaves_the_store_alone(
    bench: Bench, container: WorkingContainer, tmp_path: Path, transport: str
) -> None:
    add(bench, container, "/one")
    before = (bench.store.images.names(), {image.id for image in bench.store.images.iter()})
    place = f"{transport}:{tmp_path}/there" + ("" if transport == "dir" else ":x:1")
    image = commit(bench, container, place)
    assert (bench.store.images.names(), {image.id for image in bench.store.images.iter()}) == before
    again = bench.builder.from_image(place)
    assert bench.shell(again, "cat /one") == "data"
    assert again.config.diff_ids == image.config.diff_ids


@pytest.mark.parametrize(
    "destination", ["oci:{}:x", "oci-archive:{}", "docker-archive:{}", "dir:{}", "docker://registry.test/app:1"]
)
def test_a_commit_to_a_location_keeps_an_equal_image_of_the_store(
    bench: Bench, container: WorkingContainer, tmp_path: Path, destination: str
) -> None:
    add(bench, container, "/one")
    image = commit(bench, container, None, timestamp=0)
    stands_on_it = bench.builder.from_image(str(image.id))
    assert commit(bench, container, destination.format(tmp_path / "there"), timestamp=0).digest == image.digest
    bench.store.sweep()
    assert bench.store.image(str(image.id)).digest == image.digest
    assert bench.shell(stands_on_it, "cat /one") == "data"


def test_a_commit_to_a_registry(bench: Bench, container: WorkingContainer) -> None:
    add(bench, container, "/one")
    image = commit(bench, container, "docker://registry.test/app:1", names=("also",))
    assert "registry.test/app:1" in bench.remote.images
    assert image.names == ("localhost/also:latest",)


def test_what_was_pushed_is_what_was_committed(bench: Bench, container: WorkingContainer) -> None:
    add(bench, container, "/one")
    image = commit(bench, container)
    written = bench.builder.push("out", "docker://registry.test/app:1")
    assert written.digest == image.digest
    bench.store.images.untag("localhost/out:latest")
    assert bench.builder.pull("registry.test/app:1").digest == image.digest


def test_a_mounted_container_can_be_committed_and_removed(bench: Bench, container: WorkingContainer) -> None:
    place = bench.builder.mount(container)
    (place / "one").write_text("data")
    image = commit(bench, container, remove=True)
    assert not place.exists()
    assert files_of(bench, image) == ["one"]


def test_two_commits_to_one_name_leave_one_whole_image(bench: Bench, container: WorkingContainer) -> None:
    import threading

    other = bench.builder.from_image("box")
    add(bench, container, "/one", b"1" * 100_000)
    add(bench, other, "/one", b"2" * 100_000)
    made: list[Digest] = []
    threads = [
        threading.Thread(target=lambda which=which: made.append(commit(bench, which, "same").digest))
        for which in (container, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert bench.store.image("same").digest in made
    assert len(made) == 2
    assert bench.store.fsck() == ()


def test_a_full_disk_is_said_and_leaves_no_image(bench: Bench, busybox_layout: Path, tmp_path: Path) -> None:
    from builda.errors import StoreUnavailable
    from builda.linux.mount import Mount, attach, detach

    place = tmp_path / "small"
    place.mkdir()
    attach((Mount("tmpfs", "tmpfs", "/", ("size=9m",)),), place)
    try:
        with ExitStack() as stack:
            small = make_bench(place, stack)
            container = small.builder.from_image("scratch")
            (tmp_path / "random").write_bytes(os.urandom(5 << 20))
            step = Copy(sources=(f"{tmp_path}/random",), destination="/")
            small.builder.copy(container, step)
            with pytest.raises(StoreUnavailable, match="no space left"):
                commit(small, container)
            assert small.store.images.names() == {}
            assert os.listdir(small.store.layout.path("ingest")) == []
            with pytest.raises(StoreUnavailable, match="no space left"):
                small.builder.copy(container, replace(step, destination="/again"))
            with small.builder.mounted(container) as root:
                os.unlink("random", dir_fd=root)
                assert "again" not in os.listdir(root)  # a copy that failed leaves no half file
            assert commit(small, container).names == ("localhost/out:latest",)
    finally:
        detach(place)


@needs.program("skopeo")
def test_skopeo_reads_the_store(bench: Bench, container: WorkingContainer) -> None:
    add(bench, container, "/one")
    image = commit(bench, container)
    output = subprocess.check_output(["skopeo", "inspect", f"oci:{bench.store.root}:localhost/out:latest"], text=True)
    assert json.loads(output)["Digest"] == str(image.digest)


def test_frozen_layers_are_layers_of_the_image(bench: Bench, container: WorkingContainer, box: Image) -> None:
    add(bench, container, "/one")
    current = bench.builder.freeze(container, created_by="first")
    bench.builder.config(current, Configure(edits=(SetEnv("A", "1"),), created_by="ENV A=1"))
    current = bench.builder.freeze(current, created_by="nothing")
    bench.shell(current, "cat /one; rm /one; echo 2 > /two")
    current = bench.builder.freeze(current, created_by="second")
    image = commit(bench, current)
    assert len(image.manifest.layers) == len(box.manifest.layers) + 2
    assert [(entry.created_by, entry.empty_layer) for entry in image.config.history[len(box.config.history) :]] == [
        ("first", False),
        ("ENV A=1", True),
        ("nothing", True),
        ("second", False),
    ]
    assert not any(layer.annotations for layer in image.manifest.layers)
    again = bench.builder.from_image("out")
    assert again.base == current.layers[-1].snapshot
    assert bench.shell(again, "ls /two") == "/two\n"
    assert bench.store.fsck() == ()


def test_a_frozen_layer_is_made_again_when_a_commit_wants_other_times(
    bench: Bench, container: WorkingContainer
) -> None:
    add(bench, container, "/one")
    current = bench.builder.freeze(container)
    image = commit(bench, current, timestamp=77)
    assert not any(layer.annotations for layer in image.manifest.layers)
    assert bench.shell(bench.builder.from_image("out"), "stat -c %Y /one") == "77\n"


def test_a_frozen_tree_is_never_written_to_again(bench: Bench, container: WorkingContainer) -> None:
    add(bench, container, "/one")
    current = bench.builder.freeze(container)
    assert current.snapshot != container.snapshot
    bench.shell(current, "echo more >> /one")
    assert Path(bench.store.snapshots.new.upper(container.snapshot), "one").read_bytes() == b"data"
    bench.builder.remove(current)
    bench.store.close()
    bench.store.sweep()
    assert container.snapshot not in os.listdir(bench.store.layout.path("snapshots"))


def test_squashing_frozen_layers(bench: Bench, container: WorkingContainer) -> None:
    add(bench, container, "/one")
    current = bench.builder.freeze(container)
    add(bench, current, "/two")
    image = commit(bench, current, squash=True)
    assert len(image.manifest.layers) == 1
    assert bench.shell(bench.builder.from_image("out"), "cat /one /two") == "datadata"


def test_an_image_of_a_stage_can_be_copied_from(bench: Bench, container: WorkingContainer) -> None:
    add(bench, container, "/one")
    commit(bench, container)
    other = bench.builder.from_image("scratch")
    bench.builder.copy(other, Copy(sources=("/one",), destination="/", source=FromImage("out")))
    assert bench.upper(other) == ["one"]


def test_options_are_values() -> None:
    assert replace(CommitOptions(source_date_epoch=5), rewrite_timestamp=False).clamp is None
    assert CommitOptions(source_date_epoch=5).clamp == 5
    assert CommitOptions(timestamp=7).epoch == 7


def test_the_plain_driver_commits_the_same_layer(tmp_path: Path, busybox_layout: Path) -> None:
    digests = []
    for driver in ("overlay", "plain"):
        with ExitStack() as stack:
            bench = make_bench(tmp_path / driver, stack, driver)
            container = bench.builder.from_image(f"oci:{busybox_layout}:box")
            bench.shell(container, "mkdir /d; echo x > /d/f; rm /etc/group")
            digests.append(commit(bench, container, timestamp=5).config.diff_ids)
    assert digests[0] == digests[1]


@pytest.mark.parametrize("driver", ["overlay", "plain"])
def test_a_long_commit_tells_how_far_its_layers_are(
    tmp_path: Path, busybox_layout: Path, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byteprogress, "_PATIENCE", 0.0)
    monkeypatch.setattr(byteprogress, "_PERIOD", 0.0)
    with ExitStack() as stack:
        bench = make_bench(tmp_path, stack, driver)
        container = bench.builder.from_image(f"oci:{busybox_layout}:box")
        add(bench, container, "/first/", os.urandom(5_000_000))
        container = bench.builder.freeze(bench.store.container(container.id), background=False)
        add(bench, container, "/second/", os.urandom(3_000_000))
        bench.events.clear()
        commit(bench, bench.store.container(container.id))
    found = [event for event in bench.events if isinstance(event, WorkProgress) and event.work == "store"]
    ends = {event.subject: event for event in found if event.done}
    assert len(ends) == 2
    assert container.name in ends
    sizes = sorted(event.offset for event in ends.values())
    assert [size // 1_000_000 for size in sizes] == [3, 5]
    for event in found:
        assert event.total is None or event.offset <= event.total < event.offset + 5_100_000
    counted = [event.total for event in ends.values() if event.total is not None]
    assert len(counted) == (2 if driver == "overlay" else 1)
