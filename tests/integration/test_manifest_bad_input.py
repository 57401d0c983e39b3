"""Registries, stores and words that lie about lists: what is said, and that nothing has changed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builda.oci import mediatype
from builda.oci.descriptor import Descriptor, Platform
from builda.oci.digest import Digest
from builda.oci.manifest import Index
from builda.values import replace
from tests.conftest import Builda
from tests.support.memory import AMD64, ARM64, MemoryImage, index_of, random_image
from tests.support.registry import Answer, Asked, registry, scripted

pytestmark = pytest.mark.root
INSECURE = "--tls-verify=false"
Change = Callable[[MemoryImage, Asked, Answer], Answer]


def said_by(memory: MemoryImage, change: Change) -> Callable[[Asked], Answer]:
    """A registry that has what is in memory, and answers what `change` makes of it."""

    def answer(asked: Asked) -> Answer:
        if "/manifests/" not in asked.path and "/blobs/" not in asked.path:
            return Answer()
        name = asked.path.rpartition("/")[2]
        digest = Digest.parse(name) if ":" in name else memory.descriptor.digest
        data = memory.blobs.get(digest)
        if data is None:
            return Answer(404)
        value = json.loads(data) if "/manifests/" in asked.path else {}
        kind = value.get("mediaType", "application/octet-stream")
        return change(memory, asked, Answer(body=data, headers={"Content-Type": kind}))

    return answer


def of_child(change: Callable[[Answer], Answer]) -> Change:
    """Changes what is answered for the manifests that the list names."""

    def changed(memory: MemoryImage, asked: Asked, answer: Answer) -> Answer:
        return change(answer) if "/manifests/sha256:" in asked.path else answer

    return changed


def of_top(change: Callable[[MemoryImage, Answer], Answer]) -> Change:
    def changed(memory: MemoryImage, asked: Asked, answer: Answer) -> Answer:
        return change(memory, answer) if asked.path.endswith("/manifests/1") else answer

    return changed


def listing(memory: MemoryImage, **changes: Any) -> Answer:
    """The list with other things said of its first entry."""
    document = memory.document
    assert isinstance(document, Index)
    first, *others = document.manifests
    data = replace(document, manifests=(replace(first, **changes), *others)).dump()
    return Answer(body=data, headers={"Content-Type": document.media_type})


def itself(memory: MemoryImage, answer: Answer) -> Answer:
    """A list whose first entry claims to be the list; no list has its own digest in it."""
    return listing(memory, digest=memory.descriptor.digest, media_type=mediatype.INDEX)


LIES: dict[str, tuple[Change, str]] = {
    "another manifest": (
        of_child(lambda said: dataclasses.replace(said, body=said.body + b" ")),
        "does not match its digest",
    ),
    "announced as another": (
        of_child(
            lambda said: dataclasses.replace(
                said, headers={**said.headers, "Docker-Content-Digest": f"sha256:{'0' * 64}"}
            )
        ),
        "does not match its digest",
    ),
    "another media type": (
        of_child(lambda said: dataclasses.replace(said, headers={"Content-Type": mediatype.INDEX})),
        "was announced as",
    ),
    "a web page": (of_child(lambda said: Answer(body=b"<html>log in</html>")), "does not match its digest"),
    "a short answer": (of_child(lambda said: dataclasses.replace(said, cut=10)), "125"),
    "not there": (of_child(lambda said: Answer(404)), "404 Not Found"),
    "another size": (of_top(lambda memory, _: listing(memory, size=7)), "its descriptor says 7"),
    "too large": (of_top(lambda memory, _: listing(memory, size=1 << 40)), "more than the limit"),
    "itself": (of_top(itself), ""),
    "sha512": (of_top(lambda memory, _: listing(memory, digest=Digest("sha512", "0" * 128))), ""),
    "a web page for a list": (of_top(lambda _, __: Answer(body=b"<html>")), "manifest"),
    "too many": (
        of_top(
            lambda memory, _: Answer(
                body=Index(manifests=(memory.descriptor,) * 5000).dump(), headers={"Content-Type": mediatype.INDEX}
            )
        ),
        "more than the limit of 4096",
    ),
}


def state(builda: Builda) -> list[str]:
    """What lists and images there are; what was fetched and is garbage does not count."""
    return sorted(str(path.name) for kind in ("images", "refs") for path in (builda.root / kind).iterdir())


@pytest.mark.parametrize("kind", LIES)
def test_a_registry_that_lies(builda: Builda, kind: str) -> None:
    memory = index_of(random_image(1), random_image(2))
    builda("manifest", "create", "l")
    before = state(builda)
    change, message = LIES[kind]
    with scripted(said_by(memory, change)) as server:
        for options in ((), ("--all",)):
            said = builda.fails(
                "manifest", "add", INSECURE, "--retry=0", *options, "l", f"docker://{server.address}/a:1"
            )
            assert said.startswith("Error: "), said
            assert message == "125" or message in said
            assert "Traceback" not in said
    assert state(builda) == before
    assert builda("fsck") == ""


def test_lists_nested_too_deep(builda: Builda) -> None:
    memory = index_of(random_image(1))
    for _ in range(6):
        memory.put(Index(manifests=(replace(memory.descriptor, platform=AMD64),)))
    builda("manifest", "create", "l")
    with scripted(said_by(memory, lambda _, __, answer: answer)) as server:
        said = builda.fails("manifest", "add", INSECURE, "--all", "l", f"docker://{server.address}/a:1")
    assert "nested more than 4 deep" in said
    assert json.loads(builda("manifest", "inspect", "l"))["manifests"] == []


def test_a_registry_that_lost_or_changed_a_layer_is_found_out_by_the_push(builda: Builda, tmp_path: Path) -> None:
    memory = index_of(random_image(1))
    layer = next(iter(layers_of(memory)))
    with scripted(said_by(memory, lambda _, __, answer: answer)) as server:
        builda("manifest", "create", "--all", INSECURE, "l", f"docker://{server.address}/a:1")
        memory.blobs[layer.digest] = b"x" * layer.size
        said = builda.fails("manifest", "push", "-q", "--retry=0", "l", f"oci:{tmp_path / 'layout'}")
        assert "does not match its digest" in said
        del memory.blobs[layer.digest]
        assert "404" in builda.fails("manifest", "push", "-q", "--retry=0", "l", f"oci:{tmp_path / 'layout'}")
    assert not (tmp_path / "layout/index.json").exists()
    assert builda("fsck") == ""


def test_credentials_for_the_destination_go_nowhere_else(builda: Builda) -> None:
    """A registry that asks for a password when the layers are fetched gets none."""
    memory = index_of(random_image(1))
    asks: list[bool] = []

    def asking(_: MemoryImage, asked: Asked, answer: Answer) -> Answer:
        if not asks or "/blobs/" not in asked.path or "Authorization" in asked.headers:
            return answer
        return Answer(401, headers={"WWW-Authenticate": 'Basic realm="stranger"'})

    with scripted(said_by(memory, asking)) as server, registry(basic=True) as other:
        builda("manifest", "create", "--all", INSECURE, "l", f"docker://{server.address}/a:1")
        asks.append(True)
        push = ("manifest", "push", "-q", INSECURE, "--creds", "alice:wonder:land", "l", other.name("l:1"))
        copy = ("image", "copy", "-q", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", "--dest-creds",
                "alice:wonder:land", f"docker://{server.address}/a:1", f"docker://{other.name('c:1')}")  # fmt: skip
        for command in (push, copy):
            said = builda.fails(*command)
            assert f"cannot pull a blob of {server.address}/a" in said
            assert "401" in said
    assert [asked for asked in server.asked if "/blobs/" in asked.path]
    assert not [asked for asked in server.asked if "Authorization" in asked.headers]


def layers_of(memory: MemoryImage) -> tuple[Descriptor, ...]:
    from builda.oci.manifest import Manifest, parse

    document = memory.document
    assert isinstance(document, Index)
    found = parse(memory.blobs[document.manifests[0].digest])
    assert isinstance(found, Manifest)
    return found.layers


def test_a_damaged_origin_is_named_and_repaired(builda: Builda) -> None:
    memory = index_of(random_image(1))
    with scripted(said_by(memory, lambda _, __, answer: answer)) as server:
        builda("manifest", "create", "--all", INSECURE, "l", f"docker://{server.address}/a:1")
        (origin,) = (builda.root / "origins").iterdir()
        origin.write_text("[")
        said = builda.run("fsck", check=False)
        assert (said.returncode, str(origin) in said.stdout + said.stderr) == (125, True)
        builda.run("fsck", "--repair", check=False)
        assert not origin.exists()
        assert "misses a blob" in builda.run("fsck", check=False).stdout
        builda("manifest", "create", "--amend", "--all", INSECURE, "l", f"docker://{server.address}/a:1")
        assert builda("fsck") == ""
        builda("manifest", "rm", "l")
        assert list((builda.root / "origins").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("add", "nosuch", "x"), "image not known: nosuch"),
        (("add", "l", "localhost/nosuch"), "image not known: localhost/nosuch"),
        (("add", "l", "docker://a/../b:1"), "invalid image name"),
        (("add", "l", "docker://host.example/b:../../x"), "invalid"),
        (("add", "l", "x@sha256:0"), "hexadecimal"),
        (("add", "l"), "missing argument: IMAGES"),
        (("add", "--annotation", "novalue", "l", "l"), "--annotation is written NAME=VALUE: novalue"),
        (("add", "--all", "--os", "linux", "l", "l"), "--all cannot be used with"),
        (("add", "--replace", "--allow-duplicate", "l", "l"), "--replace cannot be used with --allow-duplicate"),
        (("add", "l", "l"), "no image for platform"),
        (("create", "--amend", "--replace", "l"), "--amend cannot be used with --replace"),
        (("create", "a@sha256:" + "0" * 64), "cannot name an image by a digest"),
        (("create", "../x"), "invalid registry '..'"),
        (("annotate", "--os", "x", "l", "sha256:" + "0" * 64), "list has no such image"),
        (("annotate", "l"), "missing argument: IMAGE"),
        (("annotate", "--index", "--os", "linux", "l"), "--index and --subject are about the list"),
        (("annotate", "--index", "l", "sha256:" + "0" * 64), "--index and --subject are about the list"),
        (("remove", "l", "sha256:" + "0" * 64), "hint: it is empty"),
        (("push", "--format", "v2s1", "l", "x.example/y"), "schema 1"),
        (("push", "--add-compression", "xz", "l", "x.example/y"), "compression format is not supported: xz"),
        (("push", "--compression-format", "xz", "l", "x.example/y"), "compression format is not supported: xz"),
        (("push", "l", "docker-archive:/dev/null/x"), ""),
        (("rm", "l", "nosuch"), "image not known: nosuch"),
        (("inspect", "localhost/nosuch"), "image not known"),
    ],
)
def test_words_that_mean_nothing(builda: Builda, arguments: tuple[str, ...], message: str) -> None:
    builda("manifest", "create", "l")
    before = state(builda)
    said = builda.fails("manifest", *arguments)
    assert message in said
    assert said.startswith("Error: ")
    assert state(builda) == before or arguments[0] == "rm"


def test_a_list_may_be_added_to_itself(builda: Builda) -> None:
    memory = index_of(random_image(1), random_image(2))
    with scripted(said_by(memory, lambda _, __, answer: answer)) as server:
        builda("manifest", "create", "--all", INSECURE, "--allow-duplicate", "l", f"docker://{server.address}/a:1")
    before = builda("manifest", "inspect", "l")
    builda("manifest", "add", "--all", "--allow-duplicate", "l", "l")
    assert builda("manifest", "inspect", "l") == before


def test_variants_that_are_the_same_are_one_platform(builda: Builda) -> None:
    memory = index_of(random_image(1))
    with scripted(said_by(memory, lambda _, __, answer: answer)) as server:
        builda("manifest", "create", INSECURE, "l", f"docker://{server.address}/a:1")
        builda("manifest", "create", INSECURE, "m", f"docker://{server.address}/a:1")
    assert Platform.parse("linux/arm64/v8").canonical == ARM64.canonical
