"""`builda image`: images from any place to any other, and what can be asked of them there."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from builda.transfer.copyimage import copy_image
from builda.transfer.locate import open_sink, parse_location
from tests.conftest import Builda, clean_environ
from tests.support.engines import other_store
from tests.support.memory import MemoryImage, image_of
from tests.support.registry import PASSWORD, USER, Registry, registry

pytestmark = pytest.mark.root
INSECURE = "--tls-verify=false"
BOTH = ("--src-tls-verify=false", "--dest-tls-verify=false")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Builda:
    """A store with one:latest, two:latest on it, and a list of both platforms' images, all:latest."""
    place = tmp_path_factory.mktemp("first")
    made = Builda(place / "store", place / "run")
    (place / "f").write_text("first\n" * 500)
    (place / "Containerfile").write_text("FROM scratch\nARG TARGETARCH\nCOPY f /of-$TARGETARCH\nENV A=$TARGETARCH\n")
    made("bud", "-q", "--platform", "linux/amd64,linux/arm64", "-t", "all", place)
    container = made("from", "scratch")
    made("copy", "-q", container, place / "f", "/f")
    made("config", "--env", "A=1", "--label", "who=me", container)
    made("commit", "-q", "--rm", container, "one")
    container = made("from", "one")
    (place / "f").write_text("second\n" * 500)
    made("copy", "-q", container, place / "f", "/etc/g")
    made("copy", "-q", container, place / "f", "/f")
    made("config", "--env", "A=2", container)
    made("commit", "-q", "--rm", container, "two")
    return made


def place(kind: str, directory: Path, server: Registry, name: str) -> str:
    match kind:
        case "docker":
            return f"docker://{server.name(name)}:1"
        case "containers-storage":
            return f"containers-storage:localhost/{name}:1"
        case "dir":
            return f"dir:{directory}/{name}-dir"
        case _:
            return f"{kind}:{directory}/{name}-{kind}:localhost/{name}:1"


def digest_of(builda: Builda, text: str) -> str:
    return str(json.loads(builda("image", "inspect", "-n", INSECURE, text))["Digest"])


def test_a_push_of_what_is_there_asks_twice_and_imports_nothing_that_it_does_not_need(
    first: Builda, server: Registry
) -> None:
    goal = f"docker://{server.name('there')}:1"
    first("push", "-q", INSECURE, "one", goal)
    before = len(server.log().splitlines())
    code = "import sys; from builda.cli.main import status_of; status_of(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", code, *first.command[1:], "push", "-q", INSECURE, "one", goal]
    again = subprocess.run(command, env=clean_environ(), capture_output=True, text=True, check=True)
    loaded = set(again.stdout.split())
    assert "builda.registry.connections" in loaded
    left_out = "re json typing pathlib urllib.parse ipaddress hashlib ssl socket builda.plan builda.registry.upload"
    assert not loaded & set(left_out.split())
    asked = [line for line in server.log().splitlines()[before:] if '"GET ' in line or '"HEAD ' in line]
    assert len(asked) == 1, asked  # what the tag means


def test_only_the_list_is_copied_to_where_its_images_are(first: Builda, server: Registry) -> None:
    name = server.name("alone")
    said = first.fails("image", "copy", "-q", "--multi-arch=index-only", *BOTH, "all", f"docker://{name}:1")
    assert "unknown to registry" in said
    first("image", "copy", "-q", "--all", *BOTH, "all", f"docker://{name}:1")
    first("image", "copy", "-q", "--multi-arch=index-only", *BOTH, "all", f"docker://{name}:2")
    assert sorted(json.loads(first("image", "list-tags", INSECURE, f"docker://{name}"))["Tags"]) == ["1", "2"]


@pytest.mark.parametrize(
    ("options", "ending"),
    [
        (("--dest-compress-format=zstd",), "+zstd"),
        (("--dest-decompress",), ".tar"),
        (("--dest-compress-format=zstd", "--format=v2s2"), "diff.tar.zstd"),
        (("--dest-compress-level=9", "--dest-compress-format=gzip", "--dest-force-compress-format"), "+gzip"),
    ],
)
@pytest.mark.parametrize("kind", ["docker", "dir", "oci-archive"])
def test_layers_are_compressed_otherwise_on_the_way(
    first: Builda, server: Registry, tmp_path: Path, kind: str, options: tuple[str, ...], ending: str
) -> None:
    if kind != "dir" and "--format=v2s2" in options:
        kind = "dir"
    end = place(kind, tmp_path, server, f"c{len(ending)}")
    first("image", "copy", "-q", *BOTH, *options, "two", end)
    layers = json.loads(first("image", "inspect", "--raw", INSECURE, end))["layers"]
    assert all(layer["mediaType"].endswith(ending) for layer in layers)
    assert first("image", "check", INSECURE, end) == ""
    assert first("image", "diff", INSECURE, "two", end) == ""


def test_a_list_is_compressed_otherwise(first: Builda, server: Registry, tmp_path: Path) -> None:
    for kind in ("docker", "oci", "oci-archive"):
        end = place(kind, tmp_path, server, "z")
        first("image", "copy", "-q", "--all", *BOTH, "--dest-compress-format=zstd", "all", end)
        assert first("image", "check", INSECURE, end) == ""
        raw = first("image", "inspect", "--raw", "--config", "--platform=linux/arm64", INSECURE, end)
        assert json.loads(raw)["architecture"] == "arm64"


def test_peers_read_what_was_copied(first: Builda, server: Registry, tmp_path: Path) -> None:
    for number, options in enumerate(((), ("--format", "v2s2"), ("--dest-compress-format", "zstd"))):
        for kind in ("docker", "oci", "dir", "docker-archive"):
            if kind == "oci" and "v2s2" in options:
                continue
            end = place(kind, tmp_path, server, f"peer{number}")
            first("image", "copy", "-q", *BOTH, *options, "two", end)
            found = json.loads(skopeo("inspect", INSECURE, end) if kind == "docker" else skopeo("inspect", end))
            ours = json.loads(first("image", "inspect", INSECURE, end))
            assert found["Layers"] == ours["Layers"] or kind == "docker-archive"
            assert {key: found[key] for key in ("Architecture", "Os", "Env", "Labels")} == {
                key: ours[key] for key in ("Architecture", "Os", "Env", "Labels")
            }
            if kind == "docker":
                assert found["Digest"] == ours["Digest"]
                assert found["Name"] == ours["Name"]
                assert sorted(found["RepoTags"]) == sorted(ours["RepoTags"])


def skopeo(*arguments: str) -> str:
    program = shutil.which("skopeo")
    assert program is not None, "skopeo is not installed"
    done = subprocess.run([program, "--insecure-policy", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_image_gets_more_names(first: Builda, builda: Builda, server: Registry, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    first("image", "copy", "-q", "two", f"docker-archive:{archive}:x:1", "--additional-tag", "x:2")
    assert json.loads(first("image", "list-tags", f"docker-archive:{archive}")) == {
        "Tags": ["docker.io/library/x:1", "docker.io/library/x:2"]
    }
    name = server.name("named")
    digestfile = tmp_path / "digest"
    first(
        "image", "copy", "-q", *BOTH, "--digestfile", digestfile, "--additional-tag", f"{name}:2", "two",
        f"docker://{name}:1",
    )  # fmt: skip
    assert digest_of(builda, f"docker://{name}:2") == digest_of(first, "two") == digestfile.read_text()
    builda("image", "copy", "-q", *BOTH, "--additional-tag", "b", f"docker://{name}:1", "containers-storage:a")
    assert json.loads(builda("image", "inspect", "a"))["RepoTags"] == ["localhost/a:latest", "localhost/b:latest"]
    said = first.fails("image", "copy", "--additional-tag", "x", "two", f"oci:{tmp_path}/o:x")
    assert "an image has one name in oci:" in said
    assert not (tmp_path / "o").exists()


def test_digests_are_preserved_or_nothing_is_copied(first: Builda, tmp_path: Path) -> None:
    first("image", "copy", "-q", "--preserve-digests", "two", f"dir:{tmp_path}/d")
    first("image", "copy", "-q", "--format=v2s2", "two", f"dir:{tmp_path}/docker")
    said = first.fails("image", "copy", "--preserve-digests", f"dir:{tmp_path}/docker", f"oci:{tmp_path}/o:x")
    assert "gets another digest in oci:" in said
    assert not (tmp_path / "o").exists()
    assert "--preserve-digests" in first.fails("image", "copy", "--preserve-digests", "-f", "oci", "two", "dir:x")


def test_tags_are_listed_and_images_deleted(first: Builda, server: Registry) -> None:
    name = server.name("gone")
    for tag in ("1", "2"):
        first("image", "copy", "-q", *BOTH, "one", f"docker://{name}:{tag}")
    first("image", "copy", "-q", *BOTH, "two", f"docker://{name}:3")
    found = json.loads(first("image", "list-tags", INSECURE, name))
    assert (found["Repository"], sorted(found["Tags"])) == (name, ["1", "2", "3"])
    assert first("image", "delete", INSECURE, f"docker://{name}:1") == digest_of(first, "one")
    assert "404" in first.fails("image", "inspect", INSECURE, f"docker://{name}:2")
    first("image", "inspect", "-n", INSECURE, f"docker://{name}:3")
    assert "registry has no such image" in first.fails("image", "delete", INSECURE, f"docker://{name}:1")
    assert "builda rmi removes images of the store" in first.fails("image", "delete", "one")
    first("exists", "one")
    with registry(delete=False) as fixed:
        first("image", "copy", "-q", *BOTH, "one", f"docker://{fixed.name('a:1')}")
        assert "405" in first.fails("image", "delete", INSECURE, f"docker://{fixed.name('a:1')}")


def test_an_image_tells_its_history_and_what_it_is(first: Builda, server: Registry) -> None:
    steps = json.loads(first("image", "history", "--json", "two"))
    assert [bool(step["layer"]) for step in steps] == [True, True]
    raw = json.loads(first("image", "inspect", "--raw", "two"))
    assert [step["layer"] for step in steps] == [layer["digest"] for layer in raw["layers"]][::-1]
    table = first("image", "history", "two").splitlines()
    assert table[0].split() == ["LAYER", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert steps[0]["layer"][7:19] in table[1]
    assert first("image", "history", "-q", "two").splitlines() == [step["layer"] for step in steps]
    assert first("image", "inspect", "--format", "{{.Os}} {{index .Env 0}}", "two") == "linux A=2"
    assert first("image", "inspect", "--format", r"{{.Os}}\t{{printf `\n`}}\n", "two") == "linux\t\\n"
    assert json.loads(first("image", "inspect", "--config", "two"))["config"]["Labels"]["who"] == "me"


def test_images_that_share_layers_name_each_other(first: Builda) -> None:
    shown = json.loads(first("image", "tree", "--json", "two"))
    assert [layer["topOf"] for layer in shown["layers"]] == [["localhost/one:latest"], ["localhost/two:latest"]]
    assert [layer["sharedWith"] for layer in shown["layers"]] == [["localhost/one:latest"], []]
    lines = first("image", "tree", "one").splitlines()
    assert lines[1].split() == ["Tags:", "localhost/one:latest"]
    assert lines[4].startswith("└── ID: ")
    assert "Shared with: [localhost/two:latest]" in lines[4]
    requires = json.loads(first("image", "tree", "--json", "--whatrequires", "one"))
    assert [(one["names"], one["layers"]) for one in requires] == [(["localhost/two:latest"], 1)]
    assert first("image", "tree", "--whatrequires", "one").splitlines()[-1].endswith("+1 localhost/two:latest")


def test_two_images_are_compared_by_files_and_configuration(first: Builda, tmp_path: Path) -> None:
    lines = first("image", "diff", "one", "two").splitlines()
    assert lines[:3] == ["A /etc", "A /etc/g +3.5 KB", "C /f +500 B"]
    assert 'C config.Env: ["A=1"] -> ["A=2"]' in lines
    back = json.loads(first("image", "diff", "--json", "two", "one"))
    assert [file["path"] for file in back["deleted"]] == ["/etc", "/etc/g"]
    assert back["changed"] == [{"path": "/f", "before": 3500, "after": 3000}]
    assert first("image", "diff", "two", "two") == ""


def test_what_was_moved_is_told_as_json(first: Builda, builda: Builda, server: Registry, tmp_path: Path) -> None:
    goal = f"docker://{server.name('told')}:1"
    copied = json.loads(first("image", "copy", "-q", "--json", *BOTH, "one", goal))
    assert (copied["source"], copied["destination"]) == ("one", goal)
    assert copied["digest"] == digest_of(first, "one")
    assert copied["mediaType"].endswith("manifest.v1+json")
    first("image", "save", "-q", "-o", tmp_path / "saved", "one")
    (loaded,) = json.loads(builda("image", "load", "-q", "--json", "-i", tmp_path / "saved"))
    assert loaded["id"] == id_of(builda, "one").removeprefix("sha256:")
    assert loaded["names"] == ["localhost/one:latest"]
    builda("image", "mount", "one")
    assert json.loads(builda("image", "umount", "--json", "one")) == [{"id": loaded["id"]}]
    assert json.loads(builda("image", "umount", "--json", "one")) == []
    gone = json.loads(first("image", "delete", "--json", INSECURE, goal))
    assert gone == {"image": goal, "digest": copied["digest"]}


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci-dir", "docker-dir"])
def test_what_is_saved_is_loaded(first: Builda, builda: Builda, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "saved"
    first("image", "save", "-q", "--format", kind, "-o", path, "two")
    said = builda("image", "load", "-q", "-i", path)
    named = kind != "docker-dir"
    assert said == ("Loaded image: localhost/two:latest" if named else f"Loaded image: sha256:{id_of(first, 'two')}")
    assert id_of(builda, "localhost/two" if named else id_of(first, "two")) == id_of(first, "two")


def id_of(builda: Builda, name: str) -> str:
    return builda("inspect", "--type", "image", "--format", "{{.FromImageID}}", name)


def test_images_go_through_pipes(first: Builda, builda: Builda) -> None:
    saved = subprocess.run([*first.command, "image", "save", "-q", "two"], capture_output=True, check=True).stdout
    for data in (saved, gzip.compress(saved)):
        loaded = subprocess.run([*builda.command, "image", "load", "-q"], input=data, capture_output=True, check=True)
        assert loaded.stdout.decode().startswith("Loaded image: ")


def test_several_images_are_one_layout(first: Builda, builda: Builda, tmp_path: Path) -> None:
    first("image", "save", "-q", "--format", "oci-dir", "-o", tmp_path / "l", "one", "two")
    assert builda("image", "load", "-q", tmp_path / "l").splitlines() == [
        "Loaded image: localhost/one:latest",
        "Loaded image: localhost/two:latest",
    ]
    said = first.fails("image", "save", "-o", tmp_path / "x", "one", "two")
    assert "several images cannot be saved in a docker-archive" in said
    builda("image", "untag", "one")
    assert builda.run("image", "exists", "one", check=False).returncode == 1
    assert "localhost/two" in builda("image", "list")
    assert builda("image", "rm", "two").splitlines()[0] == "untagged: localhost/two:latest"


def test_several_images_are_one_archive(first: Builda, builda: Builda, tmp_path: Path) -> None:
    first("tag", "one", "other:3")
    archive = tmp_path / "both.tar"
    first("image", "save", "-q", "-m", "-o", archive, "one", "two", "other:3")
    names = ["localhost/one:latest", "localhost/other:3", "localhost/two:latest"]
    assert sorted(json.loads(skopeo("list-tags", f"docker-archive:{archive}"))["Tags"]) == names
    with tarfile.open(archive) as tar:
        members = tar.getnames()
    assert len(members) == len(set(members)) == 5  # two configurations, two layers, one of them shared, the list
    assert builda("image", "load", "-q", "-i", archive).count("Loaded image: ") == 2
    assert set(builda("images", "--format", "{{.Name}}:{{.Tag}}").split()) == set(names)
    with other_store() as theirs:
        said = theirs.podman("load", "-i", str(archive))
        assert all(name in said for name in names)
    plain = tmp_path / "one.tar"
    first("image", "save", "-q", "-o", plain, "one", "other:3")
    assert len(json.loads(skopeo("list-tags", f"docker-archive:{plain}"))["Tags"]) == 2
    assert "-m puts them all into one" in first.fails("image", "save", "-o", tmp_path / "n.tar", "one", "two")
    said = first.fails("image", "save", "-m", "--format", "oci-archive", "-o", tmp_path / "n.tar", "one", "two")
    assert "--multi-image-archive is for a docker-archive" in said
    first("rmi", "other:3")


def test_a_side_without_credentials(first: Builda, tmp_path: Path) -> None:
    with registry(basic=True) as closed:
        name = f"docker://{closed.name('secret')}:1"
        authfile = tmp_path / "auth.json"
        secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        authfile.write_text(json.dumps({"auths": {closed.address: {"auth": secret}}}))
        line = ("image", "copy", "-q", "--authfile", authfile, *BOTH)
        first(*line, "two", name)
        assert "401" in first.fails(*line, "--src-no-creds", name, f"oci:{tmp_path / 'out'}:x")
        assert "401" in first.fails(*line, "--dest-no-creds", "one", name)
        first(*line, "--dest-no-creds", name, f"oci:{tmp_path / 'out'}:x")
        said = first.fails(*line, "--src-no-creds", "--src-creds", "a:b", name, f"oci:{tmp_path / 'out'}:y")
        assert "--src-no-creds cannot be used with --src-creds" in said


def test_what_the_store_holds_is_counted(first: Builda, builda: Builda) -> None:
    rows = {row["type"]: row for row in json.loads(first("image", "df", "--json"))}
    assert rows["Images"]["total"] == 5
    assert rows["Images"]["size"] == rows["Images"]["reclaimable"] > 0
    builda("image", "copy", "-q", f"containers-storage:{'nix'}", "containers-storage:x", check=False)
    assert {row["total"] for row in json.loads(builda("image", "df", "--json"))} == {0}
    assert first("image", "df").splitlines()[0].split() == ["TYPE", "TOTAL", "SIZE", "RECLAIMABLE"]


def test_a_damaged_image_is_found_out_and_not_copied(
    first: Builda, builda: Builda, server: Registry, tmp_path: Path
) -> None:
    first("image", "copy", "-q", "two", f"oci:{tmp_path}/l:x")
    raw = json.loads(first("image", "inspect", "--raw", "two"))
    blob = tmp_path / "l/blobs/sha256" / raw["layers"][1]["digest"][7:]
    whole = blob.read_bytes()
    for damage, message in (
        (whole[:-1] + b"x", "content has digest"),
        (whole + b"x", "its descriptor says"),
        (whole[:20], "bytes"),
        (b"", "bytes"),
    ):
        blob.write_bytes(damage)
        said = builda.run("image", "check", f"oci:{tmp_path}/l:x", check=False)
        assert said.returncode == 125
        assert message in said.stdout
        for end in (f"oci-archive:{tmp_path}/a", f"dir:{tmp_path}/d", "containers-storage:x"):
            failed = builda.fails("image", "copy", "-q", f"oci:{tmp_path}/l:x", end)
            assert failed.startswith("Error: ")
        zstd = ("--dest-compress-format=zstd", f"oci:{tmp_path}/l:x")
        assert builda.fails("image", "copy", "-q", *zstd, f"oci-archive:{tmp_path}/a").startswith("Error: ")
        assert builda.fails("image", "diff", "--json", f"oci:{tmp_path}/l:x", f"oci:{tmp_path}/l:x").startswith("Error")
    blob.unlink()
    assert builda.run("image", "check", f"oci:{tmp_path}/l:x", check=False).returncode == 125
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "d/manifest.json").exists()
    assert builda("images", "-q") == ""
    assert builda("fsck") == ""


def test_a_copy_needs_temporary_room_for_one_layer(builda: Builda, tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    for number in range(3):
        container = builda("from", "-q", "big" if number else "scratch")
        (tmp_path / "f").write_bytes(os.urandom(6 << 20))
        builda("copy", "-q", container, tmp_path / "f", f"/f{number}")
        builda("commit", "-q", "--rm", container, "big")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", room], check=True)
    try:
        for command in (
            ("copy", "-q", "--dest-compress-format=zstd", "big", f"oci-archive:{tmp_path}/a:x"),
            ("copy", "-q", "--dest-compress-format=gzip", f"oci-archive:{tmp_path}/a:x", f"oci:{tmp_path}/l:x"),
            ("copy", "-q", f"oci:{tmp_path}/l:x", f"docker-archive:{tmp_path}/d:x"),
            ("check", f"oci-archive:{tmp_path}/a"),
            ("diff", "big", f"docker-archive:{tmp_path}/d"),
        ):
            assert builda("image", *command, TMPDIR=str(room)) == ""
    finally:
        subprocess.run(["umount", room], check=True)


def test_the_command_of_a_label_is_printed_and_run_only_if_that_is_said(builda: Builda, tmp_path: Path) -> None:
    container = builda("from", "scratch")
    labels = {
        "install": f"touch {tmp_path}/made-NAME $IMAGE ${{PWD}}/x 'a b'",
        "fails": "sh -c 'exit 3'",
        "odd": "'",
        "shell": f"echo $(touch {tmp_path}/shell); touch {tmp_path}/shell",
    }
    for name, value in labels.items():
        builda("config", "--label", f"{name}={value}", container)
    builda("commit", "-q", "--rm", container, "app")
    shown = f"touch {tmp_path}/made-NAME app {tmp_path}/x 'a b' more"
    assert builda("image", "runlabel", "install", "app", "more", cwd=tmp_path) == shown
    assert json.loads(builda("image", "runlabel", "--json", "install", "app", cwd=tmp_path))[2] == "app"
    assert not list(tmp_path.glob("made*"))
    builda("image", "runlabel", "--run", "install", "app", cwd=tmp_path)
    assert all((tmp_path / name).exists() for name in ("made-NAME", "app", "x", "a b"))
    builda("image", "runlabel", "--run", "shell", "app", cwd=tmp_path)
    assert not (tmp_path / "shell").exists()
    assert builda.run("image", "runlabel", "--run", "fails", "app", check=False).returncode == 3
    assert "image has no label nix" in builda.fails("image", "runlabel", "nix", "app")
    assert "label odd is not a command" in builda.fails("image", "runlabel", "odd", "app")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("copy", "one", "two"), "destination has no transport: two"),
        (("copy", "nix", "oci:x"), "no registry"),
        (("copy", "oci:/nonexistent", "oci:x"), "not an OCI image layout"),
        (("copy", "docker://a/../b", "dir:x"), "invalid image name"),
        (("copy", "one", "docker://host.example/../x"), "invalid image name"),
        (("copy", "--multi-arch", "some", "one", "dir:x"), "unknown selection: some"),
        (("copy", "--all", "--multi-arch", "index-only", "one", "dir:x"), "--all cannot be used with another"),
        (("copy", "--multi-arch", "index-only", "one", "containers-storage:x"), "cannot be in the store"),
        (("copy", "--dest-compress-format", "xz", "one", "dir:x"), "compression format is not supported: xz"),
        (("copy", "--dest-force-compress-format", "one", "dir:x"), "needs --dest-compress-format"),
        (("copy", "--dest-decompress", "--dest-compress", "one", "dir:x"), "cannot be used with"),
        (("copy", "--sign-by", "x", "one", "dir:x"), "signatures need a name"),
        (("inspect", "--raw", "--format", "{{.Name}}", "one"), "--format cannot be used with --raw"),
        (("inspect", "sha256:" + "0" * 64), "image not known"),
        (("list-tags", "docker://host.example/x:1"), "a name with a tag means one image"),
        (("list-tags", "oci:x"), "not in a registry"),
        (("save", "--format", "tar", "-o", "x", "one"), "unknown format: tar"),
        (("save", "--format", "oci-dir", "one"), "use -o"),
        (("load", "-i", "/nonexistent"), "no such file or directory: /nonexistent"),
        (("load", "-i", "/etc/passwd"), "not a tar archive"),
        (("load", "a", "-i", "b"), "an input is named twice"),
        (("tree", "nix"), "image not known: nix"),
        (("foo",), "unknown command: image foo"),
    ],
)
def test_words_that_mean_nothing(first: Builda, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text("unqualified-search-registries = []\n")
    said = first.fails("image", *arguments, cwd=tmp_path, CONTAINERS_REGISTRIES_CONF=str(conf))
    assert message in said
    assert said.startswith("Error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["registries.conf"]


HOSTILE: dict[str, dict[str, Any]] = {
    "no configuration": {"manifest.json": [{"Config": "x.json", "Layers": []}]},
    "configuration outside": {"manifest.json": [{"Config": "../../etc/passwd", "Layers": []}]},
    "not a list": {"manifest.json": {"Config": "x"}},
    "too many": {"manifest.json": [{"Config": "x", "Layers": ["l"] * 5000}]},
    "neither": {"other": 1},
    "no manifests": {"index.json": {"schemaVersion": 2}, "oci-layout": {"imageLayoutVersion": "1.0.0"}},
    "a list that names itself": {
        "oci-layout": {"imageLayoutVersion": "1.0.0"},
        "index.json": {
            "schemaVersion": 2,
            "manifests": [
                {"mediaType": "application/vnd.oci.image.index.v1+json", "size": 9, "digest": f"sha256:{'0' * 64}"}
            ],
        },
        f"blobs/sha256/{'0' * 64}": {},
    },
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_archives_of_strangers(builda: Builda, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "archive.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in HOSTILE[kind].items():
            (tmp_path / "member").write_text(json.dumps(content))
            tar.add(tmp_path / "member", name)
    said = builda.fails("image", "load", "-i", path)
    assert said.startswith("Error: ")
    assert "Traceback" not in said
    assert builda("images", "-q") == ""


LAYERED = ({"etc/one": b"1" * 3000}, {"etc/two": b"2" * 3000})


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
@pytest.mark.parametrize("fault", ["missing", "cut", "changed", "longer", "twice, the last wrong", "of another name"])
def test_a_blob_of_an_archive_that_is_not_what_it_should_be(
    builda: Builda, tmp_path: Path, kind: str, fault: str
) -> None:
    path = tmp_path / "made.tar"
    made = image_of(LAYERED, compression="none")
    layer = next(iter(made.image.layers))
    _rewritten(path, kind, made, layer.digest.encoded, fault)
    for line in (
        ("pull", "-q", f"{kind}:{path}"),
        ("image", "load", "-q", "-i", path),
        ("image", "copy", "-q", f"{kind}:{path}", f"oci:{tmp_path / 'out'}:x"),
    ):
        said = builda.fails(*line)
        assert said.startswith("Error: ")
        assert str(path) in said or layer.digest.encoded in said, said
    assert "fault" in builda.fails("image", "check", f"{kind}:{path}") or fault in ("missing", "of another name")
    assert builda("images", "-q") == ""
    assert not (tmp_path / "out/index.json").exists()


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
@pytest.mark.parametrize("fault", ["none", "extra", "twice, the first wrong"])
def test_an_archive_with_more_than_it_needs_is_read(builda: Builda, tmp_path: Path, kind: str, fault: str) -> None:
    path = tmp_path / "made.tar"
    made = image_of(LAYERED, compression="none")
    _rewritten(path, kind, made, made.image.layers[0].digest.encoded, fault)
    builda("image", "load", "-q", "-i", path)
    assert builda("images", "-q", "--no-trunc").strip() == f"sha256:{made.image.config.digest.encoded}"
    assert builda("fsck") == ""
    assert builda("image", "check", f"{kind}:{path}") == ""


def _rewritten(path: Path, kind: str, made: MemoryImage, layer: str, fault: str) -> None:
    """An archive of the image, in which the layer has a fault."""
    location = parse_location(f"{kind}:{path}.whole:localhost/a:1")
    assert location is not None
    copy_image(made, open_sink(location))
    with tarfile.open(f"{path}.whole") as whole, tarfile.open(path, "w") as tar:
        for member in whole.getmembers():
            file = whole.extractfile(member)
            assert file is not None
            for name, data in _members(member.name, file.read(), fault if layer in member.name else ""):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    os.unlink(f"{path}.whole")


def _members(name: str, data: bytes, fault: str) -> list[tuple[str, bytes]]:
    wrong = data[:600] + b"?" + data[601:]
    return {
        "missing": [],
        "cut": [(name, data[:-512])],
        "changed": [(name, wrong)],
        "longer": [(name, data + b"more")],
        "twice, the last wrong": [(name, data), (name, wrong)],
        "twice, the first wrong": [(name, wrong), (name, data)],
        "of another name": [(f"../{name}x", data)],
        "extra": [(name, data), ("blobs/sha256/" + "0" * 64, b"extra"), ("other.tar", b"x")],
    }.get(fault, [(name, data)])


@pytest.mark.parametrize(
    "tag", ["../../x", "a/../b:1", "a:1/../../../b", "/etc/passwd", "a:" + "1" * 200, "\u202e:1", ""]
)
def test_a_name_in_an_archive_that_is_none_is_given_to_nothing(builda: Builda, tmp_path: Path, tag: str) -> None:
    made = image_of(LAYERED, compression="none")
    members = {f"{layer.digest.encoded}.tar": made.blobs[layer.digest] for layer in made.image.layers}
    entry = {"Config": "config.json", "RepoTags": [tag], "Layers": list(members)}
    members |= {"config.json": made.blobs[made.image.config.digest], "manifest.json": json.dumps([entry]).encode()}
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in members.items():
            one = tarfile.TarInfo(name)
            one.size = len(data)
            tar.addfile(one, io.BytesIO(data))
    before = {path for path in tmp_path.rglob("*") if "store" not in str(path)}
    assert "Loaded image: " in builda("image", "load", "-q", "-i", tmp_path / "a.tar")
    assert builda("images", "--format", "{{.Name}}:{{.Tag}}").strip() == "<none>:<none>"
    assert {path for path in tmp_path.rglob("*") if "store" not in str(path)} - before <= {tmp_path / "run"}
