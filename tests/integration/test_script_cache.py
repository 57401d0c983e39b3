"""The cache of steps in scripts: what is found, shared with Containerfiles, and never found wrongly."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROGRAM, REPOSITORY, Builda, clean_environ
from tests.support.registry import Registry, registry

pytestmark = pytest.mark.root

RUN = "builda run $c -- /bin/sh -c"


def script(
    builda: Builda, text: str, *options: str, cwd: Path, given: str | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a bash script in a session."""
    path = f"{Path(PROGRAM).parent}:{os.environ['PATH']}"
    source = None if given is not None else subprocess.DEVNULL
    result = subprocess.run(
        [*builda.command, "session", *options, "bash", "-euc", text],
        capture_output=True,
        text=True,
        env={**clean_environ(), **builda.environ, "PATH": path},
        timeout=240,
        cwd=cwd,
        stdin=source,
        input=given,
    )
    assert result.returncode == 0 or not check, result.stderr
    return result


def cached(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The steps that were found."""
    return [line.removeprefix("--> cached: ") for line in result.stderr.splitlines() if line.startswith("--> cached")]


@pytest.fixture(scope="module")
def server() -> Iterator[Registry]:
    with registry() as made:
        yield made


@pytest.fixture
def context(tmp_path: Path) -> Path:
    made = tmp_path / "context"
    made.mkdir()
    (made / "a").write_text("a\n")
    return made


def test_a_script_that_is_run_again_finds_each_step(builda: Builda, base: str, context: Path) -> None:
    (context / "d").mkdir()
    (context / "d/x").write_text("x")
    text = f"""
    c=$(builda from {base})
    builda copy $c a /a > /dev/null
    builda add $c d /d > /dev/null
    builda workdir $c /w
    {RUN} 'cat /a > b; cat /proc/sys/kernel/random/uuid > u'
    builda config --env A=1 --label l=1 $c
    {RUN} 'echo $A > /c'
    echo $(builda run $c -- cat u)
    builda commit -q --timestamp 0 $c made
    """
    first, second = script(builda, text, cwd=context), script(builda, text, cwd=context)
    assert cached(first) == []
    assert len(cached(second)) == 6, second.stderr
    assert first.stdout == second.stdout
    (context / "a").write_text("other\n")
    third = script(builda, text, cwd=context)
    assert cached(third) == []
    assert third.stdout != first.stdout


def test_provenance_names_the_files_of_a_copy_that_was_found(builda: Builda, base: str, context: Path) -> None:
    text = f"c=$(builda from {base}); builda copy $c a / > /dev/null; builda commit -q --provenance=true $c made"
    found = []
    for _ in range(2):
        result = script(builda, text, cwd=context)
        shown = json.loads(builda("image", "inspect", "--provenance", "made"))
        named = [one for one in shown["buildDefinition"]["resolvedDependencies"] if "name" in one]
        found.append((len(cached(result)), named))
    (first, named), (again, renamed) = found
    assert (first, again) == (0, 1)
    assert named == renamed
    assert [one["name"] for one in named] == ["files:a"]


@pytest.mark.parametrize("script_first", [True, False])
def test_scripts_and_containerfiles_find_each_others_steps(
    builda: Builda, base: str, context: Path, script_first: bool
) -> None:
    (context / "Containerfile").write_text(
        f"FROM {base}\nLABEL x=y\nCOPY a /srv/\nENV A=1\nWORKDIR /w\nRUN echo $A > a\nUSER 1:1\n"
        'RUN --mount=type=bind,target=/m ["/bin/sh", "-c", "cat /m/a"]\nCMD ["x"]\n'
    )
    text = f"""
    c=$(builda from {base})
    builda copy $c ./a /srv/ > /dev/null
    builda config --env A=1 $c
    builda workdir $c /w
    {RUN} 'echo $A > a'
    builda config --user 1:1 --cmd x $c
    builda run --mount type=bind,target=/m $c -- /bin/sh -c 'cat /m/a' >&2
    """
    (context / ".dockerignore").write_text("Containerfile\n.dockerignore\n")
    if script_first:
        (context / "Containerfile").rename(context.parent / "Containerfile")
        (context / ".dockerignore").unlink()
        script(builda, text, cwd=context)
        built = builda("bud", "-f", context.parent / "Containerfile", context)
        assert built.count("Using cache") == 4, built
    else:
        (context / "Containerfile").rename(context.parent / "Containerfile")
        (context / ".dockerignore").unlink()
        builda("bud", "-f", context.parent / "Containerfile", context)
        assert len(cached(script(builda, text, cwd=context))) == 4


def test_an_image_is_the_same_whether_its_steps_are_looked_up_or_not(builda: Builda, base: str, context: Path) -> None:
    text = f"""
    c=$(builda from {base})
    builda copy $c a /a > /dev/null
    {RUN} 'mkdir -p /n/m /etc/x; echo 1 > /etc/x/1; echo secret > /gone; echo > /n/m/f; ln /a /n/a'
    {RUN} 'rm -r /gone /n; echo 2 > /etc/x/2; rm /etc/passwd; echo > /a'
    m=$(builda mount $c); echo mounted > $m/etc/m
    {RUN} 'mkdir /n; echo $A > /n/g; rm -r /tmp; mkdir /tmp'
    builda umount $c > /dev/null
    builda commit -q --timestamp 0 $c made
    """
    plain = script(builda, text, "--no-cache", cwd=context).stdout
    assert script(builda, text, cwd=context).stdout == plain
    again = script(builda, text, cwd=context)
    assert (again.stdout, len(cached(again))) == (plain, 4)
    layers = json.loads(builda("inspect", "--type", "image", "made"))["OCIv1"]["rootfs"]["diff_ids"]
    below = json.loads(builda("inspect", "--type", "image", base))["OCIv1"]["rootfs"]["diff_ids"]
    assert len(layers) == len(below) + 1


def test_output_that_a_script_takes_is_written_again(builda: Builda, base: str, context: Path) -> None:
    text = f"""
    c=$(builda from {base})
    x=$({RUN} 'printf "one\\ntwo"; echo no >&2')
    echo "[$x]"
    y=$({RUN} 'echo out; echo err >&2' 2>&1)
    echo "[$y]"
    {RUN} 'head -c 100000 /dev/zero' | wc -c
    {RUN} 'echo shown'
    {RUN} 'cat /proc/sys/kernel/random/uuid' > file
    """
    first = script(builda, text, cwd=context)
    uuid = (context / "file").read_text()
    second = script(builda, text, cwd=context)
    assert first.stdout == "[one\ntwo]\n[out\nerr]\n100000\nshown\n"
    assert second.stdout == "[one\ntwo]\n[out\nerr]\n100000\n"  # the log tells what was found, not what it said
    assert (context / "file").read_text() == uuid
    assert len(cached(second)) == 3  # 100,000 bytes are too many to keep, and where stderr is taken nothing is said


@pytest.mark.parametrize(
    ("command", "given"),
    [
        (f"{RUN} 'cat > /in' <<< text", None),
        (f"echo text | {RUN} 'cat > /in'", None),
        (f"{RUN} 'cat > /in'", "from the caller"),
        (f"{RUN} 'cat > /in' < a", None),
    ],
)
def test_what_comes_by_standard_input_is_read_each_time(
    builda: Builda, base: str, context: Path, command: str, given: str | None
) -> None:
    text = f"c=$(builda from {base}); {command}; builda run --no-cache $c cat /in"
    for _ in range(2):
        result = script(builda, text, "--explain-cache", cwd=context, given=given)
        assert "standard input" in result.stderr
        assert cached(result) == []
        assert result.stdout.strip() in ("text", "a", "from the caller")


def test_a_script_by_standard_input_is_part_of_the_key(builda: Builda, base: str, context: Path) -> None:
    def text(word: str) -> str:
        return f"c=$(builda from {base})\nbuilda run $c --script - << 'END'\necho {word} > /word\nEND\n"

    script(builda, text("one"), cwd=context)
    assert len(cached(script(builda, text("one"), cwd=context))) == 1
    assert len(cached(script(builda, text("two"), cwd=context))) == 0


def test_a_change_by_mount_is_found_by_its_content(builda: Builda, base: str, context: Path) -> None:
    def text(word: str) -> str:
        return f"""
        c=$(builda from {base})
        m=$(builda mount $c)
        mkdir $m/new; echo {word} > $m/new/file; ln -s file $m/new/link; rm $m/etc/group
        {RUN} 'cat /new/link > /seen'
        echo $(cat $m/seen)
        """

    assert script(builda, text("one"), cwd=context).stdout == "one\n"
    again = script(builda, text("one"), cwd=context)
    assert (again.stdout, len(cached(again))) == ("one\n", 1)
    other = script(builda, text("two"), cwd=context)
    assert (other.stdout, cached(other)) == ("two\n", [])


def test_a_mount_that_is_in_use_is_left_as_it_is(builda: Builda, base: str, context: Path) -> None:
    text = f"""
    c=$(builda from {base})
    cd $(builda mount $c)
    echo one > file
    {RUN} 'cat /file > /copy'
    cat copy
    echo two > file
    {RUN} 'cat /file > /copy'
    cat copy
    cd /
    {RUN} 'cat /copy > /last'
    """
    for number in range(2):
        result = script(builda, text, "--explain-cache", cwd=context)
        assert result.stdout == "one\ntwo\n"
        assert "a process works below its `builda mount`" in result.stderr
        assert len(cached(result)) == number


def test_options_of_a_run_say_how_it_is_looked_up(builda: Builda, base: str, context: Path) -> None:
    def ran(options: str) -> list[str]:
        return cached(script(builda, f"c=$(builda from {base}); builda run {options} $c true", cwd=context))

    assert ran("") == []
    assert ran("") == ["run true"]
    assert ran("--no-cache") == []
    assert ran("--cache-key x") == []
    assert ran("--cache-key x") == ["run true"]
    assert ran("--cache-key y") == []
    assert ran("--env A=1") == []
    assert ran("--network none") == []
    assert ran("--network none") == ["run true"]
    assert ran("--quiet") == []
    assert ran("--volume /:/host:ro") == []
    assert ran("--volume /:/host:ro") == []
    assert ran("--mount type=bind,source=a,target=/x,rw") == []
    assert ran("--mount type=bind,source=a,target=/x,rw") == []
    assert ran("--mount type=bind,source=a,target=/x") == []
    assert ran("--mount type=bind,source=a,target=/x") == ["run true"]
    (context / "a").write_text("changed")
    assert ran("--mount type=bind,source=a,target=/x") == []


def test_an_uncached_run_that_changes_nothing_new_hides_no_later_step(builda: Builda, base: str, context: Path) -> None:
    def text(word: str) -> str:
        return f"c=$(builda from {base}); builda run --no-cache $c -- /bin/sh -c 'echo {word} > /f'; {RUN} 'cat /f'"

    assert script(builda, text("one"), cwd=context).stdout == "one\n"
    assert len(cached(script(builda, text("one"), cwd=context))) == 1
    assert script(builda, text("two"), cwd=context).stdout == "two\n"


def test_a_failure_is_not_remembered_and_what_it_left_stays(builda: Builda, base: str, context: Path) -> None:
    text = f"c=$(builda from {base}); {RUN} 'echo left > /f; exit 3' || echo $?; {RUN} 'cat /f; exit 4' || echo $?"
    for _ in range(2):
        assert script(builda, text, cwd=context).stdout == "3\nleft\n4\n"
    valid = f"c=$(builda from {base}); builda run --valid-exit-codes 3 $c -- /bin/sh -c 'exit 3'"
    script(builda, valid, cwd=context)
    assert len(cached(script(builda, valid, cwd=context))) == 1
    plain = script(builda, valid.replace("--valid-exit-codes 3", ""), cwd=context, check=False)
    assert plain.returncode == 3


def test_secrets_are_in_no_key_and_in_no_output(builda: Builda, base: str, context: Path) -> None:
    def text(word: str) -> str:
        return f"""
        c=$(builda from {base}); echo {word} > secret
        builda run --secret id=s,src=secret --mount type=secret,id=s $c -- /bin/sh -c 'cat /run/secrets/s' >&2
        x=$(builda run --secret id=s,src=secret --mount type=secret,id=s $c cat /run/secrets/s)
        echo $x
        """

    assert script(builda, text("one"), cwd=context).stdout == "one\n"
    again = script(builda, text("two"), cwd=context)
    assert (again.stdout, len(cached(again))) == ("two\n", 1)
    assert not [path for path in (builda.root / "steps").iterdir() if b"one" in path.read_bytes()]


def test_a_copy_from_another_container_is_found_by_its_steps(builda: Builda, base: str, context: Path) -> None:
    (context.parent / "Containerfile").write_text(
        f"FROM {base} AS one\nCOPY a /one\nFROM {base}\nCOPY --from=one /one /two\n"
    )
    builda("run", builda("from", base), "true")  # which unpacks the image, so that builds make trees
    builda("bud", "-f", context.parent / "Containerfile", context)
    text = f"""
    one=$(builda from {base}); builda copy $one a /one > /dev/null
    c=$(builda from {base}); builda copy --from $one $c /one /two > /dev/null
    builda run --no-cache $c cat /two
    """
    result = script(builda, text, cwd=context)
    assert (result.stdout, len(cached(result))) == ("a\n", 2)


def test_outside_of_a_session_a_container_is_made_with_a_cache(builda: Builda, base: str, context: Path) -> None:
    for number in range(2):
        container = builda("from", "--cache", base)
        result = builda.run("run", container, "--", "touch", "/f")
        assert ("cached: run touch /f" in result.stderr) is bool(number)
    plain = builda("from", base)
    assert "cached" not in builda.run("run", plain, "--", "touch", "/f").stderr
    assert "need --cache, or a session" in builda.fails("from", "--explain-cache", base)
    assert "whose steps are looked up" in builda.fails("run", "--cache-key", "x", plain, "true")


def test_layers_that_a_script_asks_for_are_those_of_the_image(builda: Builda, base: str, context: Path) -> None:
    text = f"""
    c=$(builda from {base})
    builda copy $c a /a > /dev/null
    builda run $c touch /b
    builda run --layer --created-by two $c touch /c
    builda run $c touch /d
    builda commit -q $c made
    """
    for number in range(2):
        assert len(cached(script(builda, text, cwd=context))) == 4 * number
        made = json.loads(builda("inspect", "--type", "image", "made"))["OCIv1"]
        below = json.loads(builda("inspect", "--type", "image", base))["OCIv1"]
        assert len(made["rootfs"]["diff_ids"]) == len(below["rootfs"]["diff_ids"]) + 2
        assert [entry["created_by"] for entry in made["history"]][-2:] == ["two", "/bin/sh"]


def test_sessions_at_once_end_upon_the_same_layers(builda: Builda, base: str, context: Path) -> None:
    text = f"""
    c=$(builda from {base})
    for i in 1 2 3 4; do builda run $c -- /bin/sh -c "cat /proc/sys/kernel/random/uuid > /$i"; done
    """
    path = f"{Path(PROGRAM).parent}:{os.environ['PATH']}"
    environ = {**clean_environ(), **builda.environ, "PATH": path}
    command = [*builda.command, "session", "bash", "-euc", text]
    running = [
        subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(3)
    ]
    assert [process.wait(240) for process in running] == [0, 0, 0]
    script(builda, text, cwd=context)
    assert len(cached(script(builda, text, cwd=context))) == 4


def test_a_step_that_is_killed_leaves_no_result(builda: Builda, base: str, context: Path) -> None:
    killing = f"""
    c=$(builda from --cache {base})
    builda run $c -- /bin/sh -c 'echo half > /f; echo ready; exec sleep 1000' > log & pid=$!
    until grep -q ready log; do sleep 0.05; done
    kill -9 $pid; wait $pid || true
    builda run --no-cache $c cat /f
    builda run $c -- /bin/sh -c 'cat /f > /g'
    """
    result = script(builda, killing, cwd=context)
    assert result.stdout == "half\n"
    assert cached(result) == []


def test_a_script_for_buildah_runs_unchanged_and_cached(builda: Builda, base: str, context: Path) -> None:
    example = f"{REPOSITORY}/examples/bash/written-for-buildah.sh {base} app"
    first, second = (script(builda, example, cwd=context) for _ in range(2))
    assert cached(first) == []
    assert [line.split()[1] for line in cached(second)] == ["/bin/sh", "cat", "/bin/sh"]
    image = json.loads(builda("inspect", "--type", "image", "app"))["OCIv1"]
    assert "GREETING=HELLO FROM THE HOST" in image["config"]["Env"]
    digests = [line for result in (first, second) for line in result.stdout.splitlines() if len(line) == 64]
    assert digests[1] == digests[4]


def test_steps_are_found_in_a_registry(
    builda: Builda, base: str, context: Path, tmp_path: Path, server: Registry
) -> None:
    archive = tmp_path / "base.tar"
    builda("push", base, f"oci-archive:{archive}:base")
    other = Builda(tmp_path / "other/store", tmp_path / "other/run")
    other("tag", other("pull", f"oci-archive:{archive}:base"), base)
    repository = server.name("scripts/cache")
    text = f"""
    c=$(builda from {base}); builda copy $c a /a > /dev/null
    {RUN} 'cat /proc/sys/kernel/random/uuid > /u'
    builda config --env A=1 $c
    {RUN} 'cat /u > /v'
    builda run --no-cache $c cat /v
    """
    first = script(builda, text, "--tls-verify=false", "--cache-to", repository, cwd=context)
    second = script(other, text, "--tls-verify=false", "--cache-from", repository, cwd=context)
    assert len(cached(second)) == 3, second.stderr
    assert first.stdout == second.stdout


def test_remembered_steps_are_listed_explained_and_forgotten(builda: Builda, base: str, context: Path) -> None:
    text = f"c=$(builda from {base}); builda copy $c a /a > /dev/null; builda run $c touch /f"
    script(builda, text, cwd=context)
    listed = json.loads(builda("cache", "ls", "--json"))
    assert [entry["text"] for entry in listed] == ["copy a /a", "run touch /f"]
    table = builda("cache", "ls").splitlines()
    assert table[0].split() == ["ID", "CREATED", "USED", "SIZE", "STEP"]
    assert table[2].endswith("run touch /f")
    _, key = builda("cache", "ls", "--quiet").splitlines()
    said = builda("cache", "explain", key)
    assert "step.args[0]: touch" in said
    assert f"parent: sha256:{listed[0]['id']}" in said
    assert builda("cache", "rm", key) == key
    assert "no such step" in builda.fails("cache", "explain", key)
    assert cached(script(builda, text, cwd=context)) == ["copy a /a"]
    assert builda("cache", "rm", "--unused-for", "1h") == ""
    assert len(builda("cache", "rm", "--all").splitlines()) == 2
    assert builda("cache", "ls", "-q") == ""


def test_explanations_name_the_line_of_the_script(builda: Builda, base: str, context: Path) -> None:
    (context / "build.sh").write_text(
        f'#!/bin/bash\nset -e\nc=$(builda from {base})\nfor i in 1 2; do\n    builda run "$c" -- touch "/$i"\ndone\n'
        'builda copy "$c" a /a > /dev/null\nbuilda run "$c" -- true\nbuilda run "$c" -- true\n'
    )
    (context / "build.sh").chmod(0o755)
    path = f"{Path(PROGRAM).parent}:{os.environ['PATH']}"
    for shell in ((), ("sh",)):
        builda("cache", "rm", "--all")
        result = builda.run("session", "--explain-cache", *shell, "./build.sh", cwd=context, PATH=path)
        places = [line.split()[3] for line in result.stderr.splitlines() if line.startswith("--> not cached: ")]
        last = ["./build.sh:8:", "./build.sh:9:"] if not shell else ["run", "run"]
        assert places == [*["./build.sh:5:"] * 2, "./build.sh:7:", *last], result.stderr


def test_files_that_the_script_reads_itself_are_told(builda: Builda, context: Path) -> None:
    (context / "build.sh").write_text("#!/bin/bash\nv=$(cat a)\ncat /etc/hostname\necho $v\n")
    (context / "build.sh").chmod(0o755)
    for command in (("./build.sh",), ("bash", "-eu", "build.sh"), ("bash", "-c", "\nv=$(cat a); echo $v")):
        result = builda.run("session", "--trace-inputs", *command, cwd=context)
        assert result.stdout.endswith("a\n")
        assert ":2: the script itself reads a, by cat" in result.stderr
        assert result.stderr.count("the script itself reads") == 1
    assert "needs a shell script" in builda.fails("session", "--trace-inputs", "true")
