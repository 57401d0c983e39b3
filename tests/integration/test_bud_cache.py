"""`--cache-from` and `--cache-to`: a build on another store finds the steps of the first in a real registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.support.registry import Registry, registry

pytestmark = pytest.mark.root

BUD = ("bud", "--tls-verify=false")
TEXT = """
FROM localhost/busybox AS tools
RUN head -c 100000 /dev/urandom > /tool; cat /proc/sys/kernel/random/uuid > /made
FROM localhost/busybox
WORKDIR /app
COPY given .
RUN cat given given > twice; cat /proc/sys/kernel/random/uuid > /when
ENV X=1
COPY --from=tools /made /made
RUN true
CMD ["cat", "twice"]
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Registry]:
    with registry() as made:
        yield made


@pytest.fixture
def other(busybox: Path, tmp_path: Path) -> Builda:
    return store(busybox, tmp_path / "other")


def store(busybox: Path, place: Path) -> Builda:
    made = Builda(place / "store", place / "run")
    made("pull", f"oci-archive:{busybox}:busybox")
    made("tag", made("images", "-q").splitlines()[0], "localhost/busybox:latest")
    return made


@pytest.fixture
def context(tmp_path: Path) -> Path:
    made = tmp_path / "context"
    made.mkdir()
    (made / "given").write_text("some text\n")
    (made / "Containerfile").write_text(TEXT)
    return made


def when(builda: Builda, image: str, path: str = "/when") -> str:
    container = builda("from", image)
    return builda("run", container, "--", "cat", path)


def blobs_asked(server: Registry, method: str, repository: str) -> list[str]:
    """The blobs that were asked for with `method`."""
    wanted = f'"{method} /v2/{repository}/blobs/sha256'
    return [line for line in server.log().splitlines() if wanted in line]


def manifests_asked(server: Registry, repository: str) -> int:
    return server.log().count(f'"GET /v2/{repository}/manifests/')


def test_a_second_store_runs_nothing_and_fetches_only_what_it_uses(
    builda: Builda, base: str, other: Builda, context: Path, server: Registry
) -> None:
    repository = server.name("shared/cache")
    first = builda.run(*BUD, "-t", "app", "--cache-to", repository, context)
    assert f"Pushing cache {repository}:builda-cache-linux-" in first.stdout
    second = other.run(*BUD, "-t", "app", "--cache-from", repository, context)
    assert second.stdout.count("Using cache") == 6, second.stdout  # every RUN and COPY
    assert when(other, "app") == when(builda, "app")
    assert when(other, "app", "/made") == when(builda, "app", "/made")
    assert (
        manifests_asked(server, "shared/cache") == 3
    )  # two to merge with, as the second is right before the push, and one to look up
    layers = json.loads(builda("inspect", "--type", "image", "--format", "{{.Manifest}}", "app"))["layers"]
    assert len(blobs_asked(server, "GET", "shared/cache")) == len(layers) - 1  # the base's, and none of the tools'
    assert other("fsck") == ""


def test_a_store_of_another_driver_takes_what_this_one_made(
    builda: Builda, base: str, other: Builda, context: Path, server: Registry
) -> None:
    repository = server.name("drivers/cache")
    builda(*BUD, "-t", "app", "--cache-to", repository, context)
    second = other.run("--storage-driver", "plain", *BUD, "-t", "app", "--cache-from", repository, context)
    assert second.stdout.count("Using cache") == 6, second.stdout
    assert when(other, "app") == when(builda, "app")


def test_what_was_fetched_is_remembered_here(
    builda: Builda, base: str, other: Builda, context: Path, server: Registry
) -> None:
    repository = server.name("once/cache")
    builda(*BUD, "--cache-to", repository, "--target", "tools", context)
    other(*BUD, "-t", "one", "--cache-from", repository, "--target", "tools", context)
    asked = manifests_asked(server, "once/cache")
    again = other(*BUD, "-q", "--cache-from", repository, "--target", "tools", context)
    assert again == other("images", "-q", "--no-trunc", "one").removeprefix("sha256:")
    assert manifests_asked(server, "once/cache") == asked


def test_a_step_that_runs_stands_on_a_fetched_layer(
    builda: Builda, base: str, other: Builda, context: Path, server: Registry
) -> None:
    repository = server.name("upon/cache")
    builda(*BUD, "-t", "app", "--cache-to", repository, context)
    (context / "Containerfile").write_text(TEXT + "RUN wc -l < /app/twice > /count\n")
    other(*BUD, "-t", "app", "--cache-from", repository, "--cache-to", repository, context)
    assert when(other, "app", "/count") == "2"
    assert when(other, "app") == when(builda, "app")
    builda(*BUD, "-t", "longer", "--no-cache", "--cache-to", repository, context)
    assert when(builda, "longer", "/count") == "2"


def test_a_layer_made_on_others_is_not_taken(
    builda: Builda, base: str, other: Builda, context: Path, server: Registry
) -> None:
    repository = server.name("mixed/cache")
    first = "FROM localhost/busybox\nRUN cat /proc/sys/kernel/random/uuid > /a\n"
    (context / "Containerfile").write_text(first)
    other(*BUD, context)
    (context / "Containerfile").write_text(f"{first}RUN cp /a /b\n")
    builda(*BUD, "-t", "app", "--cache-to", repository, context)
    done = other(*BUD, "-t", "app", "--cache-from", repository, context)
    assert done.count("Using cache") == 1  # its own
    assert when(other, "app", "/b") == when(other, "app", "/a")


def test_what_a_registry_has_goes_to_another_repository_without_being_fetched(
    builda: Builda, base: str, other: Builda, busybox: Path, tmp_path: Path, context: Path, server: Registry
) -> None:
    here, there = server.name("from/cache"), server.name("to/cache")
    builda(*BUD, "--cache-to", here, context)
    other(*BUD, "--cache-from", here, "--cache-to", there, context)
    mounted = [
        line for line in server.log().splitlines() if "/v2/to/cache/blobs/uploads/?" in line and "mount=" in line
    ]
    assert any("from=from%2Fcache" in line or "from=from/cache" in line for line in mounted)
    third = store(busybox, tmp_path / "third")
    done = third(*BUD, "-t", "app", "--cache-from", there, context)
    assert done.count("Using cache") == 6
    assert len(blobs_asked(server, "GET", "from/cache")) == 4  # what the image has, and not the layer of the tools


@pytest.mark.parametrize(
    ("reference", "said"),
    [("{server}/none/there", "no build cache there yet"), ("127.0.0.1:1/x", "cannot be used")],
)
def test_a_cache_that_is_not_to_be_had_is_a_warning(
    builda: Builda, base: str, context: Path, server: Registry, reference: str, said: str
) -> None:
    name = reference.format(server=server.address)
    done = builda.run(*BUD, "--retry", "0", "-t", "app", "--cache-from", name, context)
    assert said in done.stderr
    assert when(builda, "app", "/app/given") == "some text"


def test_an_image_in_place_of_a_cache_is_a_warning(builda: Builda, base: str, context: Path, server: Registry) -> None:
    image = server.name("no/cache:here")
    builda("push", "--tls-verify=false", base, image)
    done = builda.run(*BUD, "-t", "app", "--cache-from", f"type=registry,ref={image}", context)
    assert "not a build cache" in done.stderr


@pytest.mark.parametrize("damage", [b"", b"damaged"], ids=["gone", "changed"])
def test_a_lost_layer_means_that_its_step_is_run(
    builda: Builda, base: str, other: Builda, context: Path, server: Registry, damage: bytes
) -> None:
    repository = server.name(f"lost{len(damage)}/cache")
    builda(*BUD, "-t", "app", "--cache-to", repository, context)
    manifest = json.loads(builda("inspect", "--type", "image", "--format", "{{.Manifest}}", "app"))
    name = manifest["layers"][-2]["digest"].removeprefix("sha256:")
    blob = server.directory / f"data/docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data"
    whole = blob.read_bytes()
    blob.write_bytes((damage * len(whole))[: len(whole)])
    done = other.run(*BUD, "--retry", "0", "-t", "app", "--cache-from", repository, context)
    blob.write_bytes(whole)  # other tests may share it
    assert "going on without it" in done.stderr
    assert when(other, "app") != when(builda, "app")
    assert other("fsck") == ""


def test_steps_older_than_the_ttl_are_not_taken(
    builda: Builda, base: str, other: Builda, context: Path, server: Registry
) -> None:
    repository = server.name("old/cache")
    builda(*BUD, "-t", "app", "--cache-to", repository, context)
    arguments = (*BUD, "-t", "app", "--cache-from", repository)
    assert "Using cache" not in other(*arguments, "--cache-ttl", "1ms", context)
    assert "Using cache" not in other(*arguments, "--no-cache", context)


def test_a_registry_that_refuses_the_push_fails_the_build_unless_told(builda: Builda, base: str, context: Path) -> None:
    with registry(basic=True) as closed:
        name = closed.name("my/cache")
        error = builda.fails(*BUD, "-t", "app", "--cache-to", name, context)
        assert "401" in error
        assert "builda login" in error
        done = builda.run(*BUD, "--cache-to", f"type=registry,ref={name},mode=max,ignore-error=true", context)
        assert "build cache was not pushed" in done.stderr
    assert when(builda, "app", "/app/given") == "some text"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--cache-to", "localhost/x:tag"), "without tag"),
        (("--cache-from", "type=s3,bucket=x"), "has no field bucket"),
        (("--cache-from", "type=local,ref=x"), "type=registry only"),
        (("--cache-to", "type=registry,ref=x,mode=min"), "mode=max"),
        (("--cache-to", "type=registry"), "names no repository"),
        (("--cache-to", "localhost/x", "--layers=false"), "nothing to push"),
    ],
)
def test_what_cannot_be_a_cache_is_refused(
    builda: Builda, context: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in builda.fails("bud", *arguments, context)
