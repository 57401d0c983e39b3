"""`builda image sync`: many images at once, with the names and the file of skopeo sync."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from builda.builder.image.sync import _range
from builda.errors import InvalidValue
from tests.conftest import Builda
from tests.support.registry import Answer, Registry, registry, scripted

pytestmark = pytest.mark.root
BOTH = ("--src-tls-verify=false", "--dest-tls-verify=false")
TAGS = ("1.0", "1.1", "2.0", "latest")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Builda:
    place = tmp_path_factory.mktemp("first")
    made = Builda(place / "store", place / "run")
    (place / "f").write_text("text\n" * 100)
    container = made("from", "scratch")
    made("copy", "-q", container, place / "f", "/f")
    made("commit", "-q", "--rm", container, "app")
    return made


@pytest.fixture(scope="module")
def server(first: Builda) -> Iterator[Registry]:
    """A registry with team/app in four versions."""
    with registry() as found:
        name = found.name("team/app")
        for tag in TAGS:
            first("image", "copy", "-q", "--dest-tls-verify=false", "app", f"docker://{name}:{tag}")
        yield found


def tags(builda: Builda, name: str) -> list[str]:
    return sorted(json.loads(builda("image", "list-tags", "--tls-verify=false", name))["Tags"])


def test_a_repository_goes_into_a_directory_and_on(builda: Builda, server: Registry, tmp_path: Path) -> None:
    common = ("image", "sync", "-q", *BOTH, "--src")
    said = builda(*common, "docker", "--dest", "dir", server.name("team/app"), tmp_path / "flat")
    assert sorted(path.name for path in (tmp_path / "flat").iterdir()) == [f"app:{tag}" for tag in TAGS]
    assert said.splitlines()[0].startswith(f"docker://{server.name('team/app')}:")
    builda(*common, "docker", "--dest", "dir", "--scoped", server.name("team/app:1.0"), tmp_path / "deep")
    assert (tmp_path / "deep" / server.address / "team/app:1.0/manifest.json").exists()
    with registry() as other:
        digests = tmp_path / "digests"
        options = ("--digestfile", digests, "--append-suffix", "-mirror")
        builda(*common, "dir", "--dest", "docker", *options, tmp_path / "flat", other.name("mirror"))
        assert tags(builda, other.name("mirror/app")) == [f"{tag}-mirror" for tag in TAGS]
        assert len(digests.read_text().splitlines()) == 4
        builda(*common, "dir", "--dest", "docker", "--scoped", tmp_path / "deep", other.name("all"))
        host = server.address.replace(":", "-")
        assert tags(builda, other.name(f"all/{host}/team/app")) == ["1.0"]


def test_skopeo_syncs_the_same(builda: Builda, server: Registry, tmp_path: Path) -> None:
    program = shutil.which("skopeo")
    assert program is not None, "skopeo is not installed"
    for scoped in ((), ("--scoped",)):
        places = [tmp_path / f"{kind}{len(scoped)}" for kind in ("ours", "theirs")]
        places[1].mkdir()
        options = ("sync", "--src", "docker", "--dest", "dir", "--src-tls-verify=false", *scoped)
        builda("image", *options, "-q", server.name("team/app"), places[0])
        command = [program, "--insecure-policy", *options, server.name("team/app"), str(places[1])]
        subprocess.run(command, check=True, capture_output=True)
        ours, theirs = ({str(path.relative_to(place)) for path in place.rglob("*")} for place in places)
        assert ours == theirs


def test_a_file_lists_images_by_tags_patterns_and_versions(
    builda: Builda, first: Builda, server: Registry, tmp_path: Path
) -> None:
    digest = json.loads(first("image", "inspect", "app"))["Digest"]
    path = tmp_path / "images.yaml"
    path.write_text(
        f"{server.address}:\n"
        "  tls-verify: false\n"
        f"  images:\n    team/app: [1.1, '{digest}']\n"
        "  images-by-tag-regex:\n    team/app: ^lat\n"
        "  images-by-semver:\n    team/app: '>= 1.1, < 3'\n"
    )
    command = ("image", "sync", "--src", "yaml", "--dest", "dir", path, tmp_path / "out")
    planned = json.loads(builda(*command, "--dry-run", "--json"))
    assert [row["source"].rpartition("/")[2] for row in planned] == [
        "app:1.1",
        f"app@{digest}",
        "app:latest",
        *(one for one in (row["source"].rpartition("/")[2] for row in planned[3:])),
    ]
    assert {row["source"].rpartition(":")[2] for row in planned[3:]} == {"1.1", "2.0"}
    assert not (tmp_path / "out").exists()
    builda(*command)
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_failure_ends_it_or_is_told_at_the_end(builda: Builda, server: Registry, tmp_path: Path) -> None:
    path = tmp_path / "images.yaml"
    path.write_text(f"{server.address}:\n  tls-verify: false\n  images:\n    team/nix: ['1']\n    team/app: ['1.0']\n")
    command = ("image", "sync", "-q", "--src", "yaml", "--dest", "dir", path, tmp_path / "out")
    assert "404" in builda.fails(*command)
    assert not (tmp_path / "out/app:1.0").exists()
    said = builda.fails(*command, "--keep-going")
    assert "1 of 2 images were not copied" in said
    assert (tmp_path / "out/app:1.0/manifest.json").exists()


def test_a_registry_is_searched(builda: Builda, server: Registry) -> None:
    name = server.name("team/app")
    for term in (server.address, f"{server.address}/ap", f"docker://{server.address}/team"):
        assert builda("image", "search", "--tls-verify=false", term) == name
    assert json.loads(builda("image", "search", "--json", "--tls-verify=false", server.address)) == [{"name": name}]
    assert builda("image", "search", "--tls-verify=false", f"{server.address}/nix") == ""
    assert builda("image", "search", "--limit", "0", "--tls-verify=false", server.address) == ""
    assert "docker.io is searched for a word only" in builda.fails("image", "search", "docker.io")
    assert "docker.io gives 1 to 100 results: 101" in builda.fails("image", "search", "--limit=101", "docker.io/x")
    assert "search names no registry: debian" in builda.fails("image", "search", "debian")


@pytest.mark.parametrize("tag", ["../../../../outside", "a/../b", "", "x\n", "t" * 129, "a:b"])
def test_a_registry_that_lists_tags_that_are_none(builda: Builda, tmp_path: Path, tag: str) -> None:
    listed = json.dumps({"name": "team/app", "tags": ["1.0", tag]}).encode()
    known = Answer(body=listed, headers={"Content-Type": "application/json"})
    with scripted(lambda asked: known if "tags/list" in asked.path else Answer()) as server:
        name = f"docker://{server.address}/team/app"
        for line in (
            ("image", "sync", "--src-tls-verify=false", "--src", "docker", "--dest", "dir", name, tmp_path / "out"),
            ("image", "list-tags", "--tls-verify=false", name),
            ("pull", "--tls-verify=false", "--all-tags", name),
        ):
            assert "registry lists an invalid tag" in builda.fails(*line)
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("store", "run")] == []


BOMB = "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "YAML aliases are not taken"),
        ("a: &a [x]\n<<: *a\n", "YAML aliases are not taken"),
        ("x: " * 50_000 + "1", "cannot be read as YAML"),
        ("host.example: {images: {x: [1]}}\n" * 20_000, ""),
        ("[" * 100_000, "cannot be read as YAML"),
        ("a: b: c", "cannot be read as YAML"),
        ("!!python/object/apply:os.system ['true']", "not a mapping of registries"),
        ("x" * (2 << 20), "list of images has more bytes than the limit, 1048576"),
        ("", "not a mapping of registries"),
        ("host.example: 1", "not a registry with its images"),
        ("host.example: {image: {}}", "unknown key"),
        ("host.example: {images: {x: 1}}", "not a list of tags"),
        ("host.example: {images: {x: [[1]]}}", "not a list of tags"),
        ("host.example: {images: [1]}", "not a mapping of repositories"),
        ("host.example: {images: {../x: ['1']}}", "invalid image name"),
        ("host.example: {images: {x: ['../../y']}}", "invalid"),
        ("host.example: {images-by-tag-regex: {x: '('}}", "not a regular expression"),
        ("host.example: {images-by-semver: {x: 'new'}}", "not a range of versions"),
        ("host.example: {credentials: {username: x}, images: {x: ['1']}}", "no username or no password"),
        ("host.example: {tls-verify: maybe, images: {x: ['1']}}", "tls-verify must be true or false"),
    ],
)
def test_files_that_mean_nothing(builda: Builda, tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "images.yaml"
    path.write_text(content)
    said = builda.fails("image", "sync", "--src", "yaml", "--dest", "dir", path, tmp_path / "out")
    assert message in said
    assert said.startswith("Error: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--src", "docker", "a", "b"), "--src must be docker, dir or yaml"),
        (("--src", "dir", "--dest", "dir", "a", "b"), "not both dir"),
        (("--src", "dir", "--dest", "docker", "/nonexistent", "b"), "no such directory"),
        (("--src", "yaml", "--dest", "dir", "/nonexistent", "b"), "no such file or directory"),
        (("--src", "yaml", "--dest", "dir", "/dev/zero", "b"), "more bytes than the limit"),
    ],
)
def test_words_that_mean_nothing(builda: Builda, arguments: tuple[str, ...], message: str) -> None:
    assert message in builda.fails("image", "sync", *arguments)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">= 1.2, < 2", "1.2 1.2.0 1.9.9 v1.3", "1.1 2 2.0.1 latest 1.2-rc1"),
        ("^1.2.3", "1.2.3 1.9", "1.2.2 2"),
        ("^0.2", "0.2.9", "0.3 1"),
        ("~1.2", "1.2.9", "1.3"),
        ("1.x", "1.0 1.9", "2"),
        ("!= 1.2", "1.1 1.3", "1.2.5"),
        ("> 1 || = 0.5.0", "2 0.5", "1 1.5"),
        ("<= 3 ", "3.9 1", "4"),
    ],
)
def test_ranges_of_versions(text: str, inside: str, outside: str) -> None:
    accepts = _range(text, "file")
    assert all(map(accepts, inside.split()))
    assert not any(map(accepts, outside.split()))


def test_a_range_that_is_none() -> None:
    for text in ("", "new", ">= x", "1.2.3.4"):
        with pytest.raises(InvalidValue):
            _range(text, "file")
