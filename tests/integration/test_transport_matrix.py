"""An image and a list go from every place to every other, with the digest that they had or the conversion documented.

The conversions are those of docs/images.md; each is a function of the manifest that arrives, so that the digest at the
end of any way is known beforehand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.docker import retyped
from builda.oci.manifest import Manifest, parse
from builda.store.store import Store
from builda.transfer.copyimage import ImageSource, copy_image
from builda.transfer.locate import open_source, parse_location
from builda.transfer.ocilayout import LayoutSink
from builda.transfer.stored import StoreSource
from builda.transfer.validate import validate
from builda.values import replace
from tests.conftest import Builda
from tests.support import needs
from tests.support.engines import OtherStore, other_store, output, podman_service
from tests.support.memory import ARM64, MemoryImage, image_of, index_of
from tests.support.registry import Registry

pytestmark = [pytest.mark.root, *map(needs.program, ("skopeo", "podman", "buildah"))]
PLACES = ("store", "docker", "oci", "oci-archive", "docker-archive", "dir", "docker-daemon", "containers-storage")
OF_LISTS = ("store", "docker", "oci", "oci-archive", "dir")
PLAIN = ("docker-daemon", "containers-storage")
"""Their engines keep layers uncompressed."""
INSECURE = "--tls-verify=false"
BOTH = ("--src-tls-verify=false", "--dest-tls-verify=false")


@pytest.fixture(scope="module")
def others() -> Iterator[OtherStore]:
    with other_store() as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def engine() -> Iterator[str]:
    with other_store() as store, podman_service(store) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", address)
        yield address


@pytest.fixture
def places(tmp_path: Path, builda: Builda, server: Registry, others: OtherStore, engine: str) -> Places:
    return Places(tmp_path, builda, server, others, engine)


class Places:
    """A place of each kind for each name."""

    def __init__(self, path: Path, builda: Builda, server: Registry, others: OtherStore, engine: str) -> None:
        self.path, self.builda, self.server, self.others, self.engine = path, builda, server, others, engine

    def named(self, kind: str, name: str) -> str:
        match kind:
            case "store":
                return f"containers-storage:localhost/{name}:1"
            case "docker":
                return f"docker://{self.server.name(name)}:1"
            case "dir":
                return f"dir:{self.path}/{name}-dir"
            case "docker-daemon":
                return f"docker-daemon:localhost/{name}:1"
            case "containers-storage":
                return self.others.named(f"localhost/{name}:1")
            case _:
                return f"{kind}:{self.path}/{name}-{kind}:localhost/{name}:1"

    def copy(self, *line: str) -> None:
        self.builda("image", "copy", "-q", *BOTH, *line, DOCKER_HOST=self.engine)

    def found(self, kind: str, name: str) -> tuple[Descriptor, bytes]:
        """What is there, after every digest of it was computed."""
        place = self.named(kind, name)
        if kind == "docker":
            self.builda("image", "check", INSECURE, place)
            self.builda("image", "copy", "-q", "--all", *BOTH, place, f"dir:{self.path}/checked")
            return read(open_source_at(f"dir:{self.path}/checked"))
        if kind == "store":
            with Store.open(self.builda.root, self.builda.runroot) as store:
                return read(StoreSource(store, store.image(f"localhost/{name}:1")))
        return read(open_source_at(place))


def open_source_at(text: str) -> ImageSource:
    location = parse_location(text)
    assert location is not None
    return open_source(location)


def read(source: ImageSource) -> tuple[Descriptor, bytes]:
    assert validate(source) == ()
    return source.manifest()


def arrived(kind: str, manifest: Manifest, plain: tuple[Descriptor, ...]) -> Manifest:
    """The manifest of an image that has arrived at a place of this kind. `plain` are its layers uncompressed."""
    if kind in PLAIN:
        manifest = replace(manifest, layers=plain)
    if kind in ("docker-archive", "docker-daemon"):
        return retyped(manifest, "docker")
    if kind == "containers-storage":
        return retyped(manifest, "oci" if manifest.media_type == mediatype.MANIFEST else "docker")
    return retyped(manifest, "oci") if kind in ("oci", "oci-archive") else manifest


@pytest.fixture(scope="module")
def image() -> MemoryImage:
    return image_of(({"etc/one": b"1" * 3000}, {"etc/two": b"2" * 3000}))


@pytest.fixture(scope="module")
def plain(image: MemoryImage) -> tuple[Descriptor, ...]:
    return image_of(({"etc/one": b"1" * 3000}, {"etc/two": b"2" * 3000}), compression="none").image.layers


@pytest.mark.parametrize("source", PLACES)
def test_an_image_arrives_everywhere(
    places: Places, others: OtherStore, image: MemoryImage, plain: tuple[Descriptor, ...], source: str
) -> None:
    copy_image(image, LayoutSink(f"{places.path}/made", "x"))
    others.podman("rmi", "--all", "--force")
    places.copy(f"oci:{places.path}/made:x", places.named(source, f"from-{source}"))
    there = arrived(source, image.image, plain)
    for sink in PLACES:
        name = f"{source}-to-{sink}"
        places.copy(places.named(source, f"from-{source}"), places.named(sink, name))
        assert parse(places.found(sink, name)[1]) == arrived(sink, there, plain), (source, sink)
        if source != "containers-storage":  # that store has one manifest for each image ID
            others.podman("rmi", "--all", "--force")


@pytest.mark.parametrize("source", OF_LISTS)
def test_a_list_arrives_everywhere_as_it_is(places: Places, source: str) -> None:
    made = index_of(image_of(({"a": b"1"},)), image_of(({"a": b"2"},), platform=ARM64))
    copy_image(made, LayoutSink(f"{places.path}/made", "x"))
    places.copy("--all", f"oci:{places.path}/made:x", places.named(source, f"list-{source}"))
    for sink in OF_LISTS:
        name = f"list-{source}-to-{sink}"
        places.copy("--all", places.named(source, f"list-{source}"), places.named(sink, name))
        assert places.found(sink, name)[0].digest == made.descriptor.digest, (source, sink)
    for sink in ("docker-archive", *PLAIN):
        said = places.builda.fails(
            "image", "copy", "--all", *BOTH, f"oci:{places.path}/made:x", places.named(sink, "l")
        )
        assert "holds single images, no list" in said


def test_the_peers_work_with_what_arrived(
    places: Places, others: OtherStore, base: str, server: Registry, engine: str
) -> None:
    name = "localhost/busybox:1"
    for end in (f"docker-daemon:{name}", others.named(name), others.named("localhost/other:1")):
        places.copy(base, end)
    shown = json.loads(others.podman("image", "inspect", name))[0]
    assert shown["Id"] == json.loads(places.builda("inspect", "--type", "image", base))["FromImageID"]
    assert set(shown["RepoTags"]) == {name, "localhost/other:1"}
    container = others.buildah("from", name).strip()
    # What buildah's chroot prints is now and then lost on a busy machine; a file is not.
    others.buildah("run", "--isolation", "chroot", container, "sh", "-c", "echo works >/works")
    others.buildah("config", "--label", "by=buildah", container)
    others.buildah("commit", "-q", container, "localhost/theirs:1")
    places.builda("pull", "-q", others.named("localhost/theirs:1"))
    assert "buildah" in places.builda("inspect", "--type", "image", "localhost/theirs:1")
    container = places.builda("from", "localhost/theirs:1")
    assert places.builda("run", container, "cat", "/works") == "works"
    places.builda("rm", container)
    places.copy(others.named("localhost/theirs:1"), f"docker://{server.name('theirs')}:1")
    told = json.loads(output("skopeo", "inspect", INSECURE, f"docker://{server.name('theirs')}:1"))
    assert told["Labels"]["by"] == "buildah"
    output("podman", "--remote", "--url", engine, "tag", name, "localhost/again:2")
    places.builda("pull", "-q", "docker-daemon:localhost/again:2", DOCKER_HOST=engine)
    others.podman("rmi", "--all", "--force")
