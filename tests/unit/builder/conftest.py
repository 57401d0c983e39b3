"""A builder over a real store, and a small busybox image in it. Registries are a dictionary, isolation is real."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from builda.builder.builder import Builder
from builda.builder.imageoptions import CommitOptions, RegistryAccess
from builda.builder.remote import Carrier, Download, SignOptions, Verified, VerifyOptions
from builda.errors import RegistryError, Unsupported
from builda.events import CommandOutput, Emit, Event
from builda.isolation import isolation_for, kinds
from builda.isolation.begun import Begun
from builda.isolation.kinds import Kind
from builda.isolation.spec import Process, Sandbox
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.reference import Reference
from builda.plan import Copy, Run, RunOptions
from builda.store.claims import Claim
from builda.store.containers import WorkingContainer
from builda.store.store import Image, Store
from builda.transfer.copyimage import ImageSink, ImageSource
from builda.transfer.locate import Location, open_source
from builda.transfer.ocilayout import LayoutSink, LayoutSource
from tests.support import needs
from tests.support.base_images import busybox_tree

NOW = 1_700_000_000.5


@dataclass
class FakeRemote:
    """Registries that are image layouts, and URLs that are bytes. `asked` is what was looked for."""

    directory: Path
    images: dict[str, str] = field(default_factory=dict)
    urls: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    search: tuple[str, ...] = ("docker.io",)

    def candidates(self, name: str) -> tuple[Reference, ...]:
        return tuple(dict.fromkeys(Reference.parse(name, default_registry=registry) for registry in self.search))

    def tags(self, reference: Reference, access: RegistryAccess) -> tuple[str, ...]:
        name = f"{reference.registry}/{reference.repository}:"
        return tuple(key.removeprefix(name) for key in self.images if key.startswith(name))

    def repositories(self, registry: str, access: RegistryAccess) -> tuple[str, ...]:
        found = (Reference.parse(name) for name in self.images)
        return tuple(dict.fromkeys(one.repository for one in found if one.registry == registry))

    def source(self, place: Reference | Location, access: RegistryAccess) -> ImageSource:
        if isinstance(place, Location):
            return open_source(place)
        self.asked.append(str(place))
        if str(place) not in self.images:
            raise RegistryError(f"no such image in the registry: {place}", status=404)
        return LayoutSource(str(self.directory), self.images[str(place)])

    def sink(self, reference: Reference, access: RegistryAccess, mount_from: tuple[Reference, ...] = ()) -> ImageSink:
        self.images[str(reference)] = str(len(self.images))
        return LayoutSink(str(self.directory), self.images[str(reference)])

    def signing(self, place: Reference | Location, access: RegistryAccess) -> Callable[[ImageSink], ImageSink]:
        raise Unsupported("these registries have no signatures")

    def carrier(self, source: Reference | Location, access: RegistryAccess) -> Carrier:
        raise Unsupported("these registries have no signatures")

    def attached(
        self, source: Reference, access: RegistryAccess, destination: Reference, there: RegistryAccess
    ) -> Callable[[Digest], int]:
        return lambda digest: 0

    def sign(self, place: Reference | Location, access: RegistryAccess, how: SignOptions) -> tuple[Descriptor, ...]:
        raise Unsupported("these registries have no signatures")

    def verified(self, place: Reference | Location, access: RegistryAccess, how: VerifyOptions) -> Verified:
        raise Unsupported("these registries have no signatures")

    def delete(self, reference: Reference, access: RegistryAccess) -> Descriptor | None:
        source = self.source(reference, access)
        del self.images[str(reference)]
        return source.manifest()[0]

    def fetch(self, url: str, access: RegistryAccess) -> AbstractContextManager[Download]:
        return _served(self.urls[url], url.rpartition("/")[2])


@contextmanager
def _served(data: bytes, name: str) -> Iterator[Download]:
    yield Served(data, name or None)


class Served:
    def __init__(self, data: bytes, filename: str | None) -> None:
        self._data = data
        self.filename = filename
        self.last_modified: float | None = 1_234_567_890.0

    def read(self, size: int = -1, /) -> bytes:
        size = len(self._data) if size < 0 else size
        data, self._data = self._data[:size], self._data[size:]
        return data


@dataclass
class FakeIsolation:
    """Notes what it was asked to run, and ends with `status`."""

    kind: Kind = kinds.NATIVE
    status: int = 0
    process: Process | None = None
    sandbox: Sandbox | None = None

    def run(self, process: Process, sandbox: Sandbox, emit: Emit, begun: Begun | None = None) -> int:
        self.process, self.sandbox = process, sandbox
        return self.status


@dataclass
class Bench:
    """A builder on a store below `path`, with what it said in `events`."""

    path: Path
    builder: Builder
    remote: FakeRemote
    events: list[Event]

    @property
    def store(self) -> Store:
        return self.builder.store

    def shell(self, container: WorkingContainer, script: str, **options: object) -> str:
        """What a script that must succeed in the container prints."""
        self.events.clear()
        step = Run(args=("sh", "-ec", script), stdin=b"", options=RunOptions(**options))  # type: ignore[arg-type]
        self.builder.run(container, step, capture=True)
        return self.output

    @property
    def output(self) -> str:
        return b"".join(event.data for event in self.events if isinstance(event, CommandOutput)).decode()

    def change(self, **fields: Any) -> None:
        """Give the primitives something else from now on; the names are those of Context."""
        self.builder.context = replace(self.builder.context, **fields)

    def enter(self, directory: Path) -> None:
        """Relative paths start at `directory` from now on."""
        self.change(directory=directory)

    def upper(self, container: WorkingContainer) -> list[str]:
        """Every path that the container's own layer has, relative and sorted."""
        top = Path(self.store.snapshots.new.upper(self.store.container(container.id).snapshot))
        return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield make_bench(tmp_path, stack)


def make_bench(
    path: Path,
    stack: ExitStack,
    driver: str | None = None,
    environ: Mapping[str, str] = {},
    claim: Claim | None = None,
) -> Bench:
    events: list[Event] = []
    remote = FakeRemote(path / "registry")
    store = stack.enter_context(Store.open(path / "store", path / "run", driver=driver, claim=claim, now=lambda: NOW))

    def isolation(options: RunOptions) -> object:
        return isolation_for(options.isolation, state=path / "run")

    builder = Builder(
        store,
        remote=remote,
        isolation=isolation,  # type: ignore[arg-type]  # object stands for the Protocol
        emit=events.append,
        now=lambda: NOW,
        environ=environ,
        cwd=path,
    )
    return Bench(path, stack.enter_context(builder), remote, events)


@pytest.fixture(scope="session")
def busybox_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image layout with a busybox image called `box`, made by the builder."""
    if os.geteuid() != 0:
        needs.not_here("needs root's right to mount")
    work = tmp_path_factory.mktemp("box")
    tree = busybox_tree(work / "tree")
    with ExitStack() as stack:
        made = make_bench(work, stack)
        container = made.builder.from_image("scratch")
        made.builder.copy(container, Copy(sources=(str(tree),), destination="/"))
        made.builder.commit(container, CommitOptions(destination=f"oci:{work}/layout:box", timestamp=1_600_000_000))
    return work / "layout"


@pytest.fixture
def box(bench: Bench, busybox_layout: Path) -> Image:
    """The busybox image in the store, as localhost/box:latest."""
    image = bench.builder.pull(f"oci:{busybox_layout}:box")
    bench.store.images.tag(image, "localhost/box:latest")
    for name in image.names:
        bench.store.images.untag(name)
    return bench.store.image("localhost/box:latest")


@pytest.fixture
def container(bench: Bench, box: Image) -> WorkingContainer:
    """A working container on the busybox image."""
    return bench.builder.from_image("box")
