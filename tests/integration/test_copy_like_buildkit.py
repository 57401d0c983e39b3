"""COPY and ADD of a Containerfile where BuildKit and Buildah differ, and the verbs; as lists and as trees."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root
DRIVERS = pytest.mark.parametrize("driver", ["composed", "overlay"])


@pytest.fixture
def context(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    path.mkdir()
    (path / "package.json").write_text("{}")
    (path / "other").write_text("other")
    return path


def built(builda: Builda, context: Path, text: str, driver: str, *, said: str = "") -> dict[str, tarfile.TarInfo]:
    """What the image of a Containerfile without commands holds; `said` is in what the build writes."""
    (context / "Containerfile").write_text(f"FROM scratch\n{text}")
    options = ("--storage-driver", driver, "bud", "-q", "--no-cache", "-t", "built")
    result = builda.run(*options, "-o", "type=tar,dest=out.tar", "-f", "Containerfile", ".", cwd=context)
    assert said in result.stderr
    with tarfile.open(context / "out.tar") as archive:
        found = {member.name.removeprefix("./"): member for member in archive}
    (context / "out.tar").unlink()
    return found


def archive(path: Path, *, top: int) -> None:
    with tarfile.open(path, "w") as file:
        for name, mode, kind, data in ((".", top, tarfile.DIRTYPE, b""), ("./f", 0o604, tarfile.REGTYPE, b"data")):
            info = tarfile.TarInfo(name)
            info.mode, info.type, info.size, info.mtime = mode, kind, len(data), 7
            file.addfile(info, io.BytesIO(data))


@DRIVERS
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("COPY package.json yarn.lock* ./app/\n", {"app", "app/package.json"}),
        ("ADD package.json yarn.lock* ./app/\n", {"app", "app/package.json"}),
        ("COPY --parents package.json x/*/y ./app/\n", {"app", "app/package.json"}),
        ("COPY tnsnames.or[a] ./\nCOPY other /\n", {"other"}),
        ("FROM scratch AS a\nCOPY other /o/\nFROM scratch\nCOPY --from=a /o/other /p/q* /x/\n", {"x", "x/other"}),
    ],
)
def test_a_pattern_may_match_nothing(builda: Builda, context: Path, driver: str, text: str, names: set[str]) -> None:
    assert set(built(builda, context, text, driver)) == names


@DRIVERS
def test_that_no_pattern_matches_anything_is_said(builda: Builda, context: Path, driver: str) -> None:
    said = "warning: nothing is copied: no file matches: *.none\n"
    assert set(built(builda, context, "COPY other /\nCOPY *.none /x/\n", driver, said=said)) == {"other"}
    (context / ".dockerignore").write_text("*.json\n")
    said = "hint: package.json exists, but .dockerignore:1 leaves it out: *.json"
    assert set(built(builda, context, "COPY other /\nCOPY *.json /x/\n", driver, said=said)) == {"other"}


@DRIVERS
def test_a_verb_needs_one_source_that_matches(builda: Builda, context: Path, driver: str) -> None:
    name = builda("--storage-driver", driver, "from", "scratch")
    for verb in ("copy", "add"):
        builda("--storage-driver", driver, verb, "-q", name, "other", "*.none", "/x/", cwd=context)
        said = builda.fails("--storage-driver", driver, verb, name, "*.none", "b[x]", "/x/", cwd=context)
        assert "no file matches: " in said
        builda("--storage-driver", driver, verb, "--allow-empty-wildcard", name, "*.none", "/x/", cwd=context)


@DRIVERS
@pytest.mark.parametrize("source", ["d/*", "d/sock", "d"])
def test_sockets_are_left_out_with_a_warning(builda: Builda, context: Path, driver: str, source: str) -> None:
    (context / "d").mkdir()
    (context / "d/file").write_text("1")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(context / "d")
        server.bind("sock")
        os.chdir("/")
    for keyword in ("COPY", "ADD"):
        found = built(builda, context, f"{keyword} other {source} /x/\n", driver, said="socket is not copied: ")
        assert set(found) - {"x/file"} == {"x", "x/other"}


@DRIVERS
def test_modes_of_archives_and_of_directories_on_the_way(builda: Builda, context: Path, driver: str) -> None:
    archive(context / "a.tar", top=0o700)
    text = "COPY other /x/other\nADD --chmod=0751 a.tar /x/\nCOPY --chmod=0705 other /n/e/w/f\n"
    text += "COPY --chmod=u=rwx,go= other /s/y/m\nADD a.tar /made/\n"
    said = "warning: chmod does not reach into an archive: a.tar\n"
    found = built(builda, context, text, driver, said=said)
    modes = {name: f"{member.mode:o}" for name, member in found.items()}
    assert modes == {"x": "755", "x/other": "644", "x/f": "604", "made": "755", "made/f": "604"} | {
        "n": "705", "n/e": "705", "n/e/w": "705", "n/e/w/f": "705", "s": "755", "s/y": "755", "s/y/m": "700"
    }  # fmt: skip


def test_a_verb_takes_the_mode_of_the_archive_s_root(builda: Builda, context: Path) -> None:
    archive(context / "a.tar", top=0o711)
    name = builda("from", "scratch")
    builda("add", "-q", name, context / "a.tar", "/x")
    builda("add", "-q", "--as-containerfile", name, context / "a.tar", "/y")
    builda("copy", "-q", "--chmod", "0700", name, context / "other", "/z/f")
    tree = Path(builda("mount", name))
    assert [f"{(tree / path).stat().st_mode & 0o7777:o}" for path in ("x", "y", "z")] == ["711", "755", "755"]


@DRIVERS
def test_a_copy_of_link_has_one_digest(builda: Builda, context: Path, driver: str) -> None:
    text = "COPY --link package.json other /files/in/\nCOPY --link other /files/\nCOPY --link other /o\n"
    times = {name: member.mtime for name, member in built(builda, context, text, driver).items()}
    assert times["files"] == times["files/in"] == 0
    first = builda("inspect", "--type", "image", "--format", "{{.OCIv1.RootFS.DiffIDs}}", "built")
    built(builda, context, text, driver)
    assert builda("inspect", "--type", "image", "--format", "{{.OCIv1.RootFS.DiffIDs}}", "built") == first
