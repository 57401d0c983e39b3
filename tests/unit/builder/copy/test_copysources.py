"""Where the sources of a copy come from: what each kind is opened as, and that nothing of it is left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from builda.builder.copy.copysources import Gathered, gather
from builda.builder.copy.destination import Destination
from builda.builder.imageoptions import Inputs
from builda.errors import BuildaError, CorruptContent, InvalidValue, NotFound
from builda.fs.sources import Source
from builda.fs.trees.directory import TreeTarget
from builda.oci.digest import Digest
from builda.plan import Context, Copy, FromContainer, InlineFile, NamedContext
from builda.store.containers import WorkingContainer
from tests.unit.builder.conftest import Bench

pytestmark = pytest.mark.root

URL = "http://host/dir/file.txt"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def scratch(bench: Bench) -> WorkingContainer:
    return bench.builder.from_image("scratch")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    path.mkdir()
    (path / ".dockerignore").write_text("secret\n")
    (path / "a").write_text("1")
    return path


def gathered(
    bench: Bench, container: WorkingContainer, step: Copy, stack: ExitStack, inputs: Inputs | None = None, own: int = -1
) -> Gathered:
    to = Destination(container, own, TreeTarget(own), {})
    return gather(bench.builder.context, to, step, inputs or Inputs(), stack)


def place(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


def data(source: Source) -> bytes:
    with open(os.open(source.path, os.O_RDONLY, dir_fd=source.root), "rb") as file:
        return file.read()


def copy(*sources: str, **fields: object) -> Copy:
    return Copy(sources=sources, destination="/x/", **fields)  # type: ignore[arg-type]  # the test says which


def test_a_context_is_one_root_with_its_rules(
    bench: Bench, scratch: WorkingContainer, directory: Path, stack: ExitStack
) -> None:
    inputs = Inputs(context=directory, ignore_file=directory / ".dockerignore")
    found = gathered(bench, scratch, copy("a", "b/c"), stack, inputs)
    first, second = found.sources
    assert (first.path, second.path, first.within) == ("a", "b/c", "the context")
    assert first.root == second.root
    assert place(first.root) == str(directory)
    assert first.ignore.excludes("secret")
    assert not found.keeps_owners
    assert found.downloads == frozenset()


def test_a_named_context_has_the_rules_that_lie_in_it(
    bench: Bench, scratch: WorkingContainer, directory: Path, stack: ExitStack
) -> None:
    found = gathered(bench, scratch, copy("a", source=NamedContext("more")), stack, Inputs(named={"more": directory}))
    (source,) = found.sources
    assert (place(source.root), source.within) == (str(directory), "the build context more")
    assert source.ignore.excludes("secret")


def test_without_a_context_paths_are_those_of_a_shell(
    bench: Bench, scratch: WorkingContainer, directory: Path, stack: ExitStack
) -> None:
    bench.enter(directory)
    found = gathered(bench, scratch, copy("a", "/etc/hosts"), stack)
    assert [(place(source.root), source.path) for source in found.sources] == [
        ("/", f"{directory}/a"),
        ("/", "/etc/hosts"),
    ]
    kept = gathered(bench, scratch, copy("a", parents=True), stack)
    assert kept.sources[0].path == f"{directory}/./a"


def test_a_container_is_its_own_root_and_keeps_owners(
    bench: Bench, scratch: WorkingContainer, stack: ExitStack
) -> None:
    found = gathered(bench, scratch, copy("a", source=FromContainer(scratch.name)), stack, own=7)
    assert found.sources[0].root == 7
    assert found.keeps_owners


def test_a_url_is_a_file_of_its_name_and_time(bench: Bench, scratch: WorkingContainer, stack: ExitStack) -> None:
    bench.remote.urls[URL] = b"hello"
    found = gathered(bench, scratch, copy(URL, checksum=str(Digest.of(b"hello"))), stack)
    (source,) = found.sources
    info = os.stat(source.path, dir_fd=source.root)
    assert (source.name, data(source)) == ("file.txt", b"hello")
    assert (info.st_mode & 0o7777, info.st_mtime) == (0o600, 1_234_567_890)
    assert found.downloads == {source.root}


def test_a_heredoc_is_a_file_of_its_name(bench: Bench, scratch: WorkingContainer, stack: ExitStack) -> None:
    found = gathered(bench, scratch, copy(inline=(InlineFile("one", b"1"), InlineFile("two", b"2"))), stack)
    assert [(source.name, data(source)) for source in found.sources] == [("one", b"1"), ("two", b"2")]


@pytest.mark.parametrize(
    ("step", "error", "said"),
    [
        (copy("a", source=NamedContext("other")), NotFound, "no such build context: other"),
        (copy("a", checksum=str(Digest.of(b""))), InvalidValue, "exactly one source"),
        (copy(URL, "a", checksum=str(Digest.of(b"hello"))), InvalidValue, "exactly one source"),
        (copy(URL, checksum="sha256:zz"), InvalidValue, "checksum is"),
        (copy(URL, checksum=str(Digest.of(b"other"))), CorruptContent, "checksum does not match"),
        (copy("http://host/"), InvalidValue, "URL has no file name"),
    ],
)
def test_what_cannot_be_had_is_named(
    bench: Bench, scratch: WorkingContainer, directory: Path, step: Copy, error: type[BuildaError], said: str
) -> None:
    bench.remote.urls |= {URL: b"hello", "http://host/": b"index"}
    before = os.listdir(bench.store.layout.path("ingest"))
    with ExitStack() as stack, pytest.raises(error, match=said):
        gathered(bench, scratch, step, stack, Inputs(context=directory))
    assert os.listdir(bench.store.layout.path("ingest")) == before


def test_nothing_stays_open_or_on_disk(bench: Bench, scratch: WorkingContainer, directory: Path) -> None:
    bench.remote.urls[URL] = b"hello"
    open_before = os.listdir("/proc/self/fd")
    with ExitStack() as stack:
        step = copy("a", URL, source=Context(), inline=(InlineFile("n", b"x"),))
        assert len(gathered(bench, scratch, step, stack, Inputs(context=directory)).sources) == 3
        assert os.listdir(bench.store.layout.path("ingest"))
    assert os.listdir(bench.store.layout.path("ingest")) == []
    assert len(os.listdir("/proc/self/fd")) == len(open_before)
