"""What a name means, and when it is fetched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builda.builder.imageoptions import CommitOptions, FromOptions, PullOptions
from builda.errors import AlreadyExists, NotFound, RegistryError
from builda.events import Warned
from builda.oci.descriptor import Platform
from builda.oci.edits import AddOnbuild, SetLabel, SetPlatform
from builda.plan import Configure
from builda.store.containers import WorkingContainer
from builda.store.store import Image
from tests.unit.builder.conftest import Bench

pytestmark = pytest.mark.root
NAME = "registry.test/app:1"


@pytest.fixture
def remote_image(bench: Bench, box: Image) -> Image:
    """busybox as NAME in the registry, and not in the store by that name."""
    bench.builder.push("box", f"docker://{NAME}")
    return box


def relabelled(bench: Bench, container: WorkingContainer, value: str) -> Image:
    """Another version of the image, pushed to NAME; the store has it under no name of its own."""
    bench.builder.config(container, Configure(edits=(SetLabel("version", value),)))
    image = bench.builder.commit(container, CommitOptions(destination="next"))
    bench.builder.push("next", f"docker://{NAME}")
    bench.store.images.untag("localhost/next:latest")
    return image


def test_a_missing_image_is_pulled_once(bench: Bench, remote_image: Image) -> None:
    assert bench.builder.pull(NAME).id == remote_image.id
    assert bench.builder.pull(NAME).names == ("localhost/box:latest", NAME)
    assert bench.remote.asked == [NAME]


def test_never_is_an_error_for_a_missing_image(bench: Bench, remote_image: Image) -> None:
    with pytest.raises(NotFound, match="pulling is off"):
        bench.builder.pull(NAME, PullOptions(policy="never"))
    assert bench.remote.asked == []


def test_always_and_newer_take_a_changed_image(bench: Bench, remote_image: Image, container: WorkingContainer) -> None:
    bench.builder.pull(NAME)
    changed = relabelled(bench, container, "2")
    assert bench.builder.pull(NAME).id == remote_image.id
    assert bench.builder.pull(NAME, PullOptions(policy="newer")).id == changed.id
    again = relabelled(bench, container, "3")
    assert bench.builder.pull(NAME, PullOptions(policy="always")).id == again.id


def test_newer_is_content_with_what_is_there_when_the_registry_is_not(bench: Bench, remote_image: Image) -> None:
    bench.builder.pull(NAME)
    bench.remote.images.clear()
    assert bench.builder.pull(NAME, PullOptions(policy="newer")).id == remote_image.id
    assert any(isinstance(event, Warned) for event in bench.events)
    with pytest.raises(RegistryError):
        bench.builder.pull(NAME, PullOptions(policy="always"))


def test_an_id_is_never_looked_for_elsewhere(bench: Bench, box: Image) -> None:
    assert bench.builder.pull(box.id.encoded[:12], PullOptions(policy="always")).id == box.id
    assert bench.builder.pull(str(box.id), PullOptions(policy="always")).id == box.id
    assert bench.remote.asked == []


def test_a_digest_is_found_without_asking(bench: Bench, remote_image: Image) -> None:
    name = f"registry.test/app@{remote_image.digest}"
    bench.remote.images[name] = bench.remote.images[NAME]
    assert bench.builder.pull(name).id == remote_image.id
    assert bench.remote.asked == []


def test_a_short_name_is_tried_at_each_registry(bench: Bench, remote_image: Image) -> None:
    bench.remote.search = ("one.test", "registry.test")
    assert bench.builder.pull("app:1").id == remote_image.id
    assert bench.remote.asked == ["one.test/app:1", NAME]


def test_a_name_that_no_registry_has_says_where_it_was_looked_for(bench: Bench) -> None:
    bench.remote.search = ("one.test", "two.test")
    with pytest.raises(NotFound, match=r"one\.test/alpin.*two\.test/alpin"):
        bench.builder.pull("alpin")


def test_a_failed_pull_leaves_no_name(bench: Bench) -> None:
    with pytest.raises(RegistryError):
        bench.builder.pull("registry.test/none")
    assert bench.store.images.names() == {}


def test_another_platform_is_not_what_was_asked_for(
    bench: Bench, remote_image: Image, container: WorkingContainer
) -> None:
    bench.builder.config(container, Configure(edits=(SetPlatform(Platform(os="linux", architecture="s390x")),)))
    bench.builder.commit(container, CommitOptions(destination=NAME))
    own = Platform.parse("linux/amd64") if remote_image.config.platform.architecture == "amd64" else None
    assert bench.builder.pull(NAME, PullOptions(platform=own)).id == remote_image.id


@pytest.mark.parametrize(
    "transport", ["oci:{}/there:box", "oci-archive:{}/a.tar:box:1", "docker-archive:{}/d.tar:box:1"]
)
def test_images_in_files(bench: Bench, box: Image, tmp_path: Path, transport: str) -> None:
    place = transport.format(tmp_path)
    bench.builder.push("box", place)
    bench.store.images.untag("localhost/box:latest")
    found = bench.builder.pull(place)
    assert found.config.diff_ids == box.config.diff_ids
    assert found.names
    container = bench.builder.from_image(place)
    assert bench.shell(container, "echo works") == "works\n"


def test_a_directory_is_a_place_for_an_image_without_a_name(bench: Bench, box: Image, tmp_path: Path) -> None:
    bench.builder.push("box", f"dir:{tmp_path}/image")
    bench.store.images.untag("localhost/box:latest")
    found = bench.builder.pull(f"dir:{tmp_path}/image")
    assert (found.id, found.names) == (box.id, ())


VICTIM = "docker.io/library/victim:43"
ARCHIVES = [f"docker-archive:{{}}/d.tar:{VICTIM}", f"oci-archive:{{}}/a.tar:{VICTIM}", f"oci:{{}}/there:{VICTIM}"]


def pushed(bench: Bench, place: str) -> Image:
    """What is at `place` now under the name VICTIM, which another image of the store has."""
    container = bench.builder.from_image("box")
    (bench.builder.mount(container) / "evil").touch()
    evil = bench.builder.commit(container, CommitOptions(destination="evil"))
    bench.builder.push("evil", place)
    bench.store.images.tag(bench.store.image("box"), VICTIM)
    return evil


@pytest.mark.parametrize("place", ARCHIVES)
@pytest.mark.parametrize("named", [True, False], ids=["name given", "own name"])
def test_an_archive_takes_no_name_from_another_image(
    bench: Bench, box: Image, tmp_path: Path, place: str, named: bool
) -> None:
    place = place.format(tmp_path)
    evil = pushed(bench, place)
    at = place if named else place.removesuffix(f":{VICTIM}")
    container = bench.builder.from_image(at)
    assert container.config.diff_ids == evil.config.diff_ids
    assert bench.builder.pull(at).config.diff_ids == evil.config.diff_ids
    assert bench.builder.pull(at, PullOptions(moves_names=named)).config.diff_ids == evil.config.diff_ids
    assert (bench.store.images.names()[VICTIM] == str(box.digest)) is not named
    warnings = [event.message for event in bench.events if isinstance(event, Warned) and VICTIM in event.message]
    assert len(warnings) == (2 if named else 3)


@pytest.mark.parametrize("place", ["docker-archive:{}/d.tar", "oci-archive:{}/a.tar"])
def test_an_archive_keeps_the_name_that_was_pushed(bench: Bench, box: Image, tmp_path: Path, place: str) -> None:
    bench.store.images.tag(box, "quay.io/a/b:1")
    for name, full in (("box", "localhost/box:latest"), ("quay.io/a/b:1", "quay.io/a/b:1"), (box.id.encoded, None)):
        at = place.format(tmp_path / str(len(name)))
        Path(at.partition(":")[2]).parent.mkdir()
        bench.builder.push(name, at)
        before = bench.store.images.names()
        for known in before:
            bench.store.images.untag(known)
        assert bench.builder.pull(at).names == (() if full is None else (full,))
        for known in before:
            bench.store.images.tag(box, known)


def test_an_image_whose_name_looks_like_its_id_is_called_by_its_name(bench: Bench, box: Image) -> None:
    name = box.id.encoded[:2] + "f"
    bench.store.images.tag(box, f"localhost/{name}:latest")
    assert bench.builder.from_image(name).name == f"{name}-working-container"
    bench.store.images.untag("localhost/box:latest")
    bench.store.images.untag(f"localhost/{name}:latest")
    assert bench.builder.from_image(box.id.encoded[:8]).name == f"{box.id.encoded[:12]}-working-container"


def test_from_names_the_container_after_the_image(bench: Bench, box: Image) -> None:
    names = [bench.builder.from_image("box").name for _ in range(2)]
    names.append(bench.builder.from_image(box.id.encoded).name)
    names.append(bench.builder.from_image("scratch").name)
    names.append(bench.builder.from_image("box", FromOptions(suffix="x")).name)
    assert names == [
        "box-working-container",
        "box-working-container-1",
        "box-working-container-2",
        "working-container",
        "box-x",
    ]


def test_from_a_file_names_the_container_as_buildah_does(bench: Bench, box: Image, tmp_path: Path) -> None:
    """After the name that is written, else the image's own, else the transport."""
    for place in ("dir:{}/d", "oci-archive:{}/a.tar", "docker-archive:{}/b.tar:named:1"):
        bench.builder.push("box", place.format(tmp_path))

    def called(place: str) -> str:
        return bench.builder.from_image(place.format(tmp_path)).name

    assert called("dir:{}/d") == "box-working-container"
    bench.store.images.untag("localhost/box:latest")
    assert called("dir:{}/d") == "dir-working-container"
    assert called("docker-archive:{}/b.tar") == "named-working-container"
    bench.store.images.untag("localhost/named:1")
    assert called("oci-archive:{}/a.tar") == "box-working-container-1"  # the first has the name box


def test_an_unknown_id_is_asked_of_no_registry(bench: Bench) -> None:
    with pytest.raises(NotFound, match=f"image not known: sha256:{64 * '1'}"):
        bench.builder.pull(f"sha256:{64 * '1'}")


def test_from_records_what_the_container_stands_on(bench: Bench, box: Image) -> None:
    container = bench.store.container(bench.builder.from_image("box", FromOptions(format="docker")).id)
    assert (container.image, container.image_id, container.image_digest) == (
        "localhost/box:latest",
        box.id,
        box.digest,
    )
    assert container.format == "docker"
    assert container.config == box.config


def test_a_taken_name_leaves_nothing(bench: Bench, box: Image) -> None:
    bench.builder.from_image("box", FromOptions(name="mine"))
    before = sorted(Path(bench.store.root, "snapshots").iterdir())
    with pytest.raises(AlreadyExists):
        bench.builder.from_image("box", FromOptions(name="mine"))
    assert sorted(Path(bench.store.root, "snapshots").iterdir()) == before


def test_onbuild_triggers_are_announced(bench: Bench, container: WorkingContainer) -> None:
    bench.builder.config(container, Configure(edits=(AddOnbuild("RUN make"),)))
    bench.builder.commit(container, CommitOptions(destination="trigger"))
    bench.events.clear()
    bench.builder.from_image("trigger")
    assert [event.message for event in bench.events if isinstance(event, Warned)] == [
        "1 ONBUILD instruction of the image only act in a build"
    ]


def test_the_platform_of_scratch_can_be_chosen(bench: Bench) -> None:
    wanted = Platform.parse("linux/arm64")
    container = bench.builder.from_image("scratch", FromOptions(pull=PullOptions(platform=wanted)))
    assert container.config.platform == wanted
    assert replace(container.config, platform=wanted) == container.config


def test_a_name_on_localhost_is_the_stores_and_no_registrys(bench: Bench) -> None:
    with pytest.raises(NotFound, match="image not known: localhost/nothing"):
        bench.builder.pull("localhost/nothing")


def test_a_stored_image_for_another_platform_is_refused_by_name(bench: Bench, container: WorkingContainer) -> None:
    bench.builder.commit(container, CommitOptions(destination="localhost/own"))
    arm = PullOptions(platform=Platform(os="linux", architecture="s390x"))
    for options in (arm, replace(arm, policy="never")):
        with pytest.raises(NotFound, match=r"is for linux/\w+, not for linux/s390x: localhost/own"):
            bench.builder.pull("localhost/own", options)


@pytest.mark.parametrize(
    ("written", "recorded"),
    [
        ("box", "localhost/box:latest"),
        ("box1", "localhost/box1:latest"),
        ("box:v", "localhost/box:v"),
        ("docker.io/library/box", "docker.io/library/box:latest"),
        ("localhost/box1:latest", "localhost/box1:latest"),
    ],
)
def test_from_records_the_name_that_was_meant(bench: Bench, box: Image, written: str, recorded: str) -> None:
    for name in ("localhost/box1:latest", "docker.io/library/box:latest", "localhost/box:v"):
        bench.store.images.tag(box, name)
    assert bench.builder.from_image(written).image == recorded
