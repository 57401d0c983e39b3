"""Steps in a working container with a cache, by each driver of trees and with a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from builda.builder.cached.caching import PLAIN, Caching
from builda.builder.imageoptions import CacheChoice, CommitOptions, FromOptions
from builda.events import ScriptStep
from builda.plan import Copy, MakeDirectory, Run
from builda.store.containers import WorkingContainer
from tests.unit.builder.conftest import NOW, Bench, make_bench

pytestmark = pytest.mark.root

CACHED = FromOptions(cache=CacheChoice())


@pytest.fixture(params=["overlay", "plain"])
def either(request: pytest.FixtureRequest, tmp_path: Path, busybox_layout: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        made = make_bench(tmp_path, stack, driver=request.param)
        made.store.images.tag(made.builder.pull(f"oci:{busybox_layout}:box"), "localhost/box:latest")
        yield made


def run(bench: Bench, container: WorkingContainer, text: str, caching: Caching = PLAIN) -> bool:
    """Run a shell script; whether that was found."""
    bench.events.clear()
    current = bench.store.container(container.id)
    bench.builder.run(current, Run(args=("sh", "-ec", text), stdin=b""), capture=True, caching=caching)
    return next(event.cached for event in bench.events if isinstance(event, ScriptStep))


def test_a_result_that_is_too_old_is_made_again_and_what_is_behind_it_too(either: Bench) -> None:
    def steps(age: float) -> list[bool]:
        container = either.builder.from_image("box", CACHED)
        limited = Caching(max_age=age)
        found = [run(either, container, "cat /proc/sys/kernel/random/uuid > /u", limited)]
        return [*found, run(either, container, "cat /u > /v"), run(either, container, "cmp /u /v")]

    assert steps(60) == [False, False, False]
    either.change(now=lambda: NOW + 59)
    assert steps(60) == [True, True, True]
    either.change(now=lambda: NOW + 61)
    assert steps(60) == [False, False, False]
    assert steps(60) == [True, True, True]
    either.change(now=lambda: NOW + 1000)
    assert steps(10_000) == [True, True, True]


def test_images_are_the_same_with_and_without_a_cache(either: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content\n")

    def made(options: FromOptions) -> tuple[str, list[bool]]:
        container = either.builder.from_image("box", options)
        either.events.clear()

        def shell(text: str) -> None:
            current = either.store.container(container.id)
            either.builder.run(current, Run(args=("sh", "-ec", text), stdin=b""), capture=True)

        either.builder.copy(either.store.container(container.id), Copy(sources=("file",), destination="/etc/file"))
        shell(
            "mkdir -p /n/m /etc/x; echo 1 > /etc/x/1; echo > /gone; echo > /n/m/f; chown 5:6 /etc/x; chmod 700 /etc/x"
        )
        either.builder.make_directory(either.store.container(container.id), MakeDirectory(path="/made"))
        shell("rm -r /gone /n; echo 2 > /etc/x/2; rm /etc/group; ln -s x /etc/x/link; ln /etc/x/1 /etc/x/3")
        with either.builder.mounted(either.store.container(container.id)) as root:
            (Path(f"/proc/self/fd/{root}") / "by-mount").write_text("x")
        shell("mkdir /n; echo > /n/g; rm -r /etc/x; mkdir /etc/x")
        options_ = CommitOptions(timestamp=1_600_000_000)
        digest = str(either.builder.commit(either.store.container(container.id), options_).digest)
        return digest, [event.cached for event in either.events if isinstance(event, ScriptStep)]

    plain, _ = made(FromOptions())
    assert made(CACHED) == (plain, [False] * 5)
    assert made(CACHED) == (plain, [True] * 5)


def test_a_layer_says_nothing_of_files_that_came_and_went(either: Bench) -> None:
    def made(options: FromOptions) -> int:
        container = either.builder.from_image("box", options)
        for text in ("echo secret > /key", "rm /key"):
            step = Run(args=("sh", "-ec", text), stdin=b"")
            either.builder.run(either.store.container(container.id), step, capture=True)
        image = either.builder.commit(either.store.container(container.id), CommitOptions(timestamp=1))
        blobs = [either.store.blobs.read(layer.digest) for layer in image.manifest.layers]
        import gzip

        assert not any(b"secret" in gzip.decompress(blob) for blob in blobs[1:])
        return len(blobs)

    assert made(CACHED) == made(FromOptions())


def test_a_container_that_begins_where_another_stands_goes_on_with_its_cache(either: Bench) -> None:
    def steps() -> list[bool]:
        first = either.builder.from_image("box", CACHED)
        found = [run(either, first, "echo 1 > /one")]
        with either.builder.mounted(either.store.container(first.id)) as root:
            (Path(f"/proc/self/fd/{root}") / "by-mount").write_text("x")
        second = either.builder.from_image(f"container:{first.name}", CACHED)
        return [*found, run(either, second, "cat /one /by-mount > /two")]

    assert steps() == [False, False]
    assert steps() == [True, True]
