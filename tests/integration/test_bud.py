"""Containerfiles built for real: the corpus, the cache, errors, and what Debian's buildah makes of the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from tests.conftest import Builda, clean_environ
from tests.support.corpus import CASES, Case
from tests.support.engines import other_store, output

pytestmark = pytest.mark.root


def make_context(case: Case, directory: Path, base: str) -> Path:
    directory.mkdir()
    for name, content in case.files.items():
        path = directory / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (directory / "Containerfile").write_text(case.text.replace("BASE", base))
    return directory


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_corpus_builds_and_is_cached(builda: Builda, base: str, tmp_path: Path, case: Case) -> None:
    context = make_context(case, tmp_path / "context", base)
    first = builda("bud", "-q", *case.args, context)
    assert builda("bud", "-q", *case.args, context) == first
    assert builda("containers", "-q") == ""


def tree_of(tar: bytes) -> dict[str, tuple[object, ...]]:
    """What a root file system holds: type, mode, owner, size or link, content of small files."""
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=BytesIO(tar)) as archive:
        links: dict[str, str] = {}
        for member in archive:
            name = member.name.strip("./").rstrip("/")
            if member.islnk():
                links[name] = member.linkname.strip("./")
                continue
            file = archive.extractfile(member) if member.isreg() else None
            content = file.read() if file is not None and member.size < 4096 else member.size
            link = member.linkname if member.issym() else ""
            found[name] = (member.type, member.mode, member.uid, member.gid, link, content)
        for name, target in links.items():
            found[name] = found.get(target, ("link",))
    found.pop("", None)
    return found


@pytest.fixture(scope="module")
def peer(busybox: Path) -> Iterator[tuple[str, ...]]:
    """Debian's buildah on a store that has the busybox image: the start of its command lines."""
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed")
    with other_store() as store:
        image = store.buildah("pull", "-q", f"oci-archive:{busybox}:busybox").strip()
        store.buildah("tag", image, "localhost/busybox:latest")
        # the isolation also for the ONBUILD instructions that its `from` runs
        yield "env", "BUILDAH_ISOLATION=chroot", "buildah", *store.options


def peer_build(peer: tuple[str, ...], case: Case, context: Path, made: Path) -> tuple[bytes, dict[str, object]]:
    """The root file system and configuration that Debian's buildah builds."""
    tag = f"localhost/{case.name}"
    written = ("-o", f"type=tar,dest={made}")
    output(*peer, "bud", "-q", "--format", "docker", "-t", tag, *written, *case.args, str(context))
    config = json.loads(output(*peer, "inspect", "--type", "image", tag))["Docker"]["config"]
    output(*peer, "rmi", tag)
    return made.read_bytes(), config


# What differs on purpose, or because of the peer's age; docs/containerfile.md says why.
DIFFERENT_TREES = {"workdir-user", "copy-chown-name", "expose-volume", "run-bind-mount", "run-bind-stage"}
IGNORED_PATHS = ("dev", "proc", "sys", "run", "etc/hosts", "etc/resolv.conf", "etc/hostname")
COMPARED = ("User", "Env", "Cmd", "Entrypoint", "WorkingDir", "StopSignal", "ExposedPorts", "Volumes", "OnBuild")


@pytest.mark.parametrize("case", [case for case in CASES if case.peer], ids=lambda case: case.name)
def test_corpus_agrees_with_buildah(
    builda: Builda, base: str, peer: tuple[str, ...], tmp_path: Path, case: Case
) -> None:
    context = make_context(case, tmp_path / "context", base)
    out = tmp_path / "out.tar"
    builda("bud", "-q", "--format", "docker", "-t", "case", *case.args, "-o", f"type=tar,dest={out}", context)
    theirs, config = peer_build(peer, case, context, tmp_path / "peer.tar")
    mine, other = tree_of(out.read_bytes()), tree_of(theirs)
    for tree in (mine, other):
        for path in [path for path in tree if path.startswith(IGNORED_PATHS)]:
            tree.pop(path)
    if case.name not in DIFFERENT_TREES:
        assert mine == other
    ours = json.loads(builda("inspect", "--type", "image", "case"))["Docker"]["config"]
    for key in COMPARED:
        assert (ours.get(key) or None) == (config.get(key) or None), key


def test_a_changed_file_misses_only_from_its_step_on(builda: Builda, base: str, tmp_path: Path) -> None:
    context = tmp_path / "c"
    context.mkdir()
    (context / "a").write_text("1")
    (context / "Containerfile").write_text(f"FROM {base}\nRUN echo first > /f\nCOPY a /a\nRUN cat /a > /b\n")
    builda("bud", context)
    (context / "a").write_text("2")
    lines = builda("bud", "--explain-cache", context).splitlines()
    assert lines[lines.index("STEP 2/4: RUN echo first > /f") + 1] == "--> Using cache"
    assert lines[lines.index("STEP 3/4: COPY a /a") + 1].startswith("STEP 4/4")
    assert any("not remembered: COPY a /a: inputs.content was" in line for line in lines)


def test_a_build_that_fails_explains_its_cache_too(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nCOPY a /a\nRUN false\n")
    builda.run("bud", tmp_path, check=False)
    (tmp_path / "a").write_text("2")
    failed = builda.run("bud", "--explain-cache", tmp_path, check=False)
    assert failed.returncode == 1
    assert "--> not remembered: COPY a /a: inputs.content was" in failed.stdout


def test_times_alone_do_not_miss(builda: Builda, base: str, tmp_path: Path) -> None:
    context = tmp_path / "c"
    context.mkdir()
    (context / "a").write_text("1")
    (context / "Containerfile").write_text(f"FROM {base}\nCOPY a /a\n")
    first = builda("bud", "-q", context)
    (context / "a").write_text("1")
    assert builda("bud", "-q", context) == first


def test_no_cache_does_everything_again(builda: Builda, base: str, tmp_path: Path) -> None:
    context = tmp_path / "c"
    context.mkdir()
    (context / "Containerfile").write_text(f"FROM {base}\nRUN cat /proc/sys/kernel/random/uuid > /uuid\n")
    assert builda("bud", "-q", context) != builda("bud", "-q", "--no-cache", context)


def test_layers_false_makes_one_layer(builda: Builda, base: str, tmp_path: Path) -> None:
    context = tmp_path / "c"
    context.mkdir()
    (context / "Containerfile").write_text(f"FROM {base}\nRUN echo 1 > /1\nRUN echo 2 > /2\n")
    builda("bud", "-q", "--layers=false", "-t", "one", context)
    layers = json.loads(builda("inspect", "--type", "image", "one"))["OCIv1"]["rootfs"]["diff_ids"]
    assert len(layers) == 2


def test_the_same_epoch_gives_the_same_image_on_two_stores(busybox: Path, tmp_path: Path) -> None:
    context = tmp_path / "c"
    context.mkdir()
    (context / "a").write_text("1")
    (context / "Containerfile").write_text("FROM localhost/busybox\nRUN echo x > /x\nCOPY a /a\nWORKDIR /w\n")
    found = set()
    for number in (1, 2):
        made = Builda(tmp_path / f"s{number}", tmp_path / f"r{number}")
        image = made("pull", f"oci-archive:{busybox}:busybox")
        made("tag", image, "localhost/busybox")
        made("bud", "-q", "-t", "same", context, SOURCE_DATE_EPOCH="1700000000")
        found.add(made("inspect", "--type", "image", "--format", "{{.FromImageDigest}}", "same"))
    assert len(found) == 1


def test_independent_stages_run_side_by_side(builda: Builda, base: str, tmp_path: Path) -> None:
    context = tmp_path / "c"
    context.mkdir()
    text = f"FROM {base} AS a\nRUN echo from-a; echo a > /a\nFROM {base} AS b\nRUN echo b > /b\n"
    (context / "Containerfile").write_text(text + f"FROM {base}\nCOPY --from=a /a /\nCOPY --from=b /b /\n")
    assert "from-a" in builda("bud", "--jobs", "2", context)


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("FROM BASE\nRUN exit 7\n", 7, "Containerfile:2"),
        ("FROM BASE\nCOPPY a b\n", 125, "unknown instruction: COPPY"),
        ("FROM BASE\nCOPY nope /\n", 125, "nope"),
        ("FROM BASE\nRUN --bad x\n", 125, "unknown flag of RUN: --bad"),
        ('FROM BASE\nENV A="${X:?set me}"\n', 125, "X: set me"),
        ("FROM BASE AS a\nCOPY --from=b /a /\nFROM BASE AS b\nFROM a\n", 125, "stage is defined below"),
        ("FROM BASE\nRUN --mount=type=secret,id=s,required=true true\n", 125, "s"),
        ("RUN x\n", 125, "no build stage"),
        ("FROM BASE\nRUN kill -9 $$\n", 137, "signal 9 (SIGKILL)"),
        ("FROM BASE\nFROM localhost/none\n", 125, "Containerfile:2: image not known: localhost/none"),
        ("FROM --platform=linux/s390x BASE\n", 125, "Containerfile:1: image is for linux/"),
        ("FROM BASE\nCOPY ../../etc/passwd /\n", 125, "passwd"),
    ],
)
def test_errors_name_place_and_cause_and_leave_nothing(
    builda: Builda, base: str, tmp_path: Path, text: str, status: int, message: str
) -> None:
    context = tmp_path / "c"
    context.mkdir()
    (context / "Containerfile").write_text(text.replace("BASE", base))
    before = builda("images", "-q")
    error = builda.fails("bud", "-t", "bad", context, status=status)
    assert message in error
    assert "Traceback" not in error
    assert builda("images", "-q") == before
    assert builda("containers", "-q") == ""


def test_secrets_and_build_args_stay_out(builda: Builda, base: str, tmp_path: Path) -> None:
    context = tmp_path / "c"
    context.mkdir()
    (context / "secret").write_text("hunter2")
    line = 'RUN --mount=type=secret,id=s test "$(wc -c < /run/secrets/s)" = 7\n'
    (context / "Containerfile").write_text(f"FROM {base}\n{line}")
    builda("bud", "-t", "kept", "--secret", f"id=s,src={context / 'secret'}", context)
    for path in builda.root.rglob("*"):
        if path.is_file():
            assert b"hunter2" not in path.read_bytes(), path


def test_the_example_builds(builda: Builda, base: str, tmp_path: Path) -> None:
    examples = Path(__file__).parents[2] / "examples"
    builda("bud", "-t", "greeter", "-f", examples / "Containerfile.in", "--cpp-flag", f"-DBASE={base}", examples)
    container = builda("from", "greeter")
    assert builda("run", container, "--", "/usr/local/bin/greet").startswith("hello from")
    config = json.loads(builda("inspect", "--type", "image", "greeter"))["OCIv1"]["config"]
    assert config["User"] == "greeter"
    assert config["Labels"]["org.opencontainers.image.title"] == "greeter"


def test_check_prints_warnings_with_their_places(builda: Builda, base: str, tmp_path: Path) -> None:
    context = tmp_path / "c"
    context.mkdir()
    (context / ".dockerignore").write_text("hidden\n")
    (context / "Containerfile").write_text(f"FROM {base} as x\nMAINTAINER me\nCOPY hidden /\nUSER $PAHT\n")
    result = builda.run("bud", "--check", context, check=False)
    assert result.returncode == 125
    assert "4 warnings" in result.stderr
    assert [line.removeprefix(f"{context}/").split(": ")[:2] for line in result.stdout.splitlines()] == [
        ["Containerfile:1", "FromAsCasing"],
        ["Containerfile:2", "MaintainerDeprecated"],
        ["Containerfile:3", "CopyIgnoredFile"],
        ["Containerfile:4", "UndefinedVar"],
    ]
    (context / "Containerfile").write_text(f"FROM {base}\nRUN false\n")
    assert builda("bud", "--check", context) == ""


def test_a_build_tells_each_warning_once_on_stderr(builda: Builda, base: str, tmp_path: Path) -> None:
    context = tmp_path / "c"
    context.mkdir()
    (context / "Containerfile").write_text(f"FROM {base}\nMAINTAINER me\n")
    line = f"{context}/Containerfile:2: MaintainerDeprecated: MAINTAINER is deprecated; use a label\n"
    said = builda.run("bud", context)
    assert said.stderr.count(line) == 1
    assert "Maintainer" not in said.stdout.replace("MAINTAINER me", "")
    assert builda.run("bud", "-q", context).stderr == ""
    skipped = builda.run("bud", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=MaintainerDeprecated", context)
    assert skipped.stderr == ""


def test_warnings_may_fail_the_build(builda: Builda, base: str, tmp_path: Path) -> None:
    context = tmp_path / "c"
    context.mkdir()
    (context / "Containerfile").write_text(f"# check=error=true\nFROM {base}\nMAINTAINER me\nRUN echo no\n")
    result = builda.run("bud", "-t", "bad", context, check=False)
    assert result.returncode == 125
    assert "STEP" not in result.stdout
    assert f"{context}/Containerfile:3: build checks failed: MaintainerDeprecated\n" in result.stderr
    assert "bad" not in builda("images")


def test_a_frontend_of_another_language_is_reported(builda: Builda, base: str, tmp_path: Path) -> None:
    for syntax, reported in (("docker/dockerfile:1.7", False), ("example.org/own/frontend:2", True)):
        (tmp_path / "Containerfile").write_text(f"# syntax={syntax}\nFROM {base}\n")
        said = builda.run("bud", tmp_path).stderr
        assert ("Containerfile:1: frontend is not loaded, builda reads the file itself" in said) is reported


def test_a_cached_image_is_the_one_that_was_asked_for(builda: Builda, base: str, tmp_path: Path) -> None:
    """What is said of the image only counts, also where all steps are remembered."""
    builda("tag", base, "localhost/other:1")
    (tmp_path / "a").write_text("a")

    def annotations(*args: str, base: str = base) -> dict[str, str]:
        (tmp_path / "Containerfile").write_text(f"FROM {base}\nCOPY a /a\n")
        image = builda("bud", "-q", *args, tmp_path)
        found = json.loads(builda("inspect", "--type", "image", "--format", "{{.Manifest}}", image))["annotations"]
        return {name.removeprefix("org.opencontainers.image."): value for name, value in found.items()}

    assert "created" in annotations()
    assert "created" not in annotations("--created-annotation=false")
    assert annotations("--annotation", "a=b")["a"] == "b"
    assert "a" not in annotations()
    assert annotations()["base.name"] == base
    assert annotations(base="localhost/other:1")["base.name"] == "localhost/other:1"
    assert annotations()["base.name"] == base


def test_a_cached_build_imports_nothing_for_registries_copies_and_commands(
    builda: Builda, base: str, tmp_path: Path
) -> None:
    steps = []
    for number in range(10):
        (tmp_path / f"file{number}").write_text(f"{number}\n")
        steps.append(f"ENV N{number}={number}\nCOPY file{number} /srv/\nRUN echo {number} > /out{number}\n")
    (tmp_path / "Containerfile").write_text(f"FROM {base}\n{''.join(steps)}")
    first = builda("bud", "-q", tmp_path)
    code = "import sys; from builda.cli.main import status_of; status_of(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", code, *builda.command[1:], "bud", "-q", str(tmp_path)]
    again = subprocess.run(command, env=clean_environ(), capture_output=True, text=True, check=True)
    identity, loaded = again.stdout.splitlines()
    assert identity == first
    imported = frozenset(loaded.split())
    assert "builda.builder.execution.execute" in imported
    left_out = (
        "registry",
        "containersconf",
        "fs.lists.listwriter",
        "builder.copy.copying",
        "builder.copy.git",
        "builder.run",
        "builder.execution.perform",
        "builder.execution.cachefrom",
        "builder.execution.explain",
        "builder.image.commit",
        "builder.image.layers",
        "isolation",
    )
    assert not {name for name in imported for out in left_out if f"{name}.".startswith(f"builda.{out}.")}
    assert not imported & {"click", "inspect", "dataclasses", "difflib", "tempfile", "concurrent.futures"}
    assert not imported & {"ssl", "socket", "filelock", "subprocess"}
    assert not imported & {"typing", "pathlib", "urllib.parse", "ipaddress", "logging", "traceback", "threading"}
    assert "dockerfile_parse.parser" in imported


def test_a_squashed_build_finds_its_steps_again(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    uuid = "cat /proc/sys/kernel/random/uuid"
    (tmp_path / "Containerfile").write_text(
        f"FROM {base} AS one\nRUN {uuid} > /one\nFROM one\nCOPY a /a\nRUN {uuid} > /two; rm /one\n"
    )
    build = ("bud", "-q", "--layers", "--squash", tmp_path)
    first = builda(*build)
    assert builda(*build) == first
    config = json.loads(builda("inspect", "--type", "image", first))["OCIv1"]
    assert len(config["rootfs"]["diff_ids"]) == 1
    texts = [entry["created_by"] for entry in config["history"]]
    assert sum("/proc/sys" in text for text in texts) == 2
    assert sum(not entry.get("empty_layer") for entry in config["history"]) == 1
    (tmp_path / "a").write_text("b")
    said = builda.run("bud", "--layers", "--squash", tmp_path).stdout
    assert said.count("Using cache") == 1
    plain = builda("bud", "-q", "--no-cache", "--layers=false", "--squash", tmp_path)
    other = json.loads(builda("inspect", "--type", "image", plain))["OCIv1"]
    assert [entry["created_by"] for entry in other["history"]][-1] == texts[-1]


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        ((), True),
        (("--layers=false",), True),
        (("--label", "a=b"), False),
        (("--annotation", "a=b"), False),
        (("--squash",), False),
        (("--timestamp", "0"), False),
        (("--env", "A=b"), False),
        (("--unsetenv", "PATH"), False),
    ],
)
def test_a_file_of_one_from_names_the_base(
    builda: Builda, base: str, tmp_path: Path, arguments: tuple[str, ...], same: bool
) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base}\n")
    image = builda("bud", "-q", "-t", "again", *arguments, tmp_path)
    known = builda("inspect", "--type", "image", "--format", "{{.FromImageID}}", base)
    assert (image == known.removeprefix("sha256:")) is same
    assert builda("inspect", "--type", "image", "--format", "{{.FromImageID}}", "again").endswith(image)


def test_stages_that_nothing_needs_are_built_when_asked_for(builda: Builda, base: str, tmp_path: Path) -> None:
    stages = (f"FROM {base} AS {name}\nRUN echo ran-{name}\n" for name in ("one", "two", "three"))
    (tmp_path / "Containerfile").write_text("".join(stages))
    build = ("bud", "--no-cache", "--target", "two")
    assert "ran-one" not in builda(*build, tmp_path)
    assert "ran-one" not in builda(*build, "--skip-unused-stages", tmp_path)
    said = builda(*build, "--skip-unused-stages=false", tmp_path).splitlines()
    assert said.index("ran-one") < said.index("ran-two")
    assert "ran-three" not in said
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nRUN exit 3\nFROM scratch\nCOPY Containerfile /\n")
    builda("bud", tmp_path)
    builda.fails("bud", "--skip-unused-stages=false", tmp_path, status=3)
