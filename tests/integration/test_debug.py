"""`builda debug`: shells in failed steps that were kept, and in builds that stop before a step."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from builda.builder.debug.statefile import KEY
from tests.conftest import Builda, add_base, clean_environ
from tests.integration.test_session import left, session
from tests.support import needs
from tests.support.pods import VOLUME, in_pod
from tests.support.rootless import rootless
from tests.support.screen import Shown, on_terminal

pytestmark = pytest.mark.root

CONTAINERFILE = """\
FROM localhost/busybox AS one
RUN echo of-one > /a
FROM localhost/busybox
ENV A=b
ARG V=1
WORKDIR /here
USER 7:8
RUN --mount=type=bind,target=/m --mount=type=secret,id=s,mode=0444 --mount=from=one,target=/one \\
    --mount=type=cache,target=/k,uid=7 --mount=type=tmpfs,target=/t \\
    echo x > /tmp/left; echo of-cache > /k/f; exit 5
RUN echo never
"""
SEEN = "id -u; id -g; pwd; echo $A $V; cat /tmp/left /m/given /one/a /k/f; ls /t /run/secrets 2>&1; true"
HAD = ["7", "8", "/here", "b 1", "x", "of the context", "of-one", "of-cache"]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return made_context(tmp_path)


def made_context(place: Path) -> Path:
    context = place / "c"
    context.mkdir()
    (context / "given").write_text("of the context\n")
    (context / "Containerfile").write_text(CONTAINERFILE)
    (place / "secret").write_text("the-secret-word")
    return context


def failing(builda: Builda, context: Path, *options: str, status: int = 5) -> str:
    """What a build says that keeps its failed step."""
    secret = f"id=s,src={context.parent}/secret"
    return builda.fails("bud", "--keep-failed", "--secret", secret, *options, context, status=status)


def debugged(builda: Builda, script: str, *words: str | Path) -> list[str]:
    """The lines of a script that is run in a kept step."""
    return builda("debug", *words, "--", "sh", "-c", script).splitlines()


@pytest.mark.parametrize("mode", ["direct", "userns", "chroot"])
def test_a_kept_step_has_what_its_command_had(tmp_path: Path, busybox: Path, context: Path, mode: str) -> None:
    builda = Builda(tmp_path / "store", tmp_path / "run", {"BUILDA_MODE": mode})
    add_base(builda, busybox)
    assert "hint: to look at what it left: builda debug --secret id=s,src=FILE failed-step\n" in failing(
        builda, context
    )
    assert debugged(builda, SEEN)[: len(HAD)] == HAD
    secret = f"id=s,src={tmp_path}/secret"
    assert debugged(builda, "cat /run/secrets/s; echo; touch /tmp/mine", "--secret", secret) == ["the-secret-word"]
    assert debugged(builda, "ls /tmp", "failed-step") == ["left", "mine"]
    assert builda("debug", "--rm", "failed-step").split() != []
    assert left(builda) == []
    builda("fsck")


def test_what_a_shell_changes_reaches_no_cache(builda: Builda, base: str, context: Path) -> None:
    failing(builda, context)
    debugged(
        builda, "echo bad > /k/f; echo bad > /tmp/left; echo bad > /here/bad; echo bad > /m/given; true", "--user", "0"
    )
    assert (context / "given").read_text() == "of the context\n"
    (context / "Containerfile").write_text(
        CONTAINERFILE.replace("exit 5", "grep -qx of-cache /k/f && ! test -e /here/bad")
    )
    builda("bud", "-q", "--secret", f"id=s,src={context.parent}/secret", context)
    assert debugged(builda, "cat /here/bad") == ["bad"]


def test_a_step_that_is_no_command_is_kept_too(builda: Builda, base: str, tmp_path: Path) -> None:
    text = f"FROM {base}\nENV A=b\nRUN echo x > /x\nCOPY missing /\n"
    said = builda.fails("bud", "--keep-failed", "-f", "-", tmp_path, given=text)
    assert "builda debug failed-step" in said
    assert debugged(builda, "cat /x; echo $A") == ["x", "b"]
    only_copies = f"FROM {base}\nCOPY missing /\n"
    builda.fails("bud", "--keep-failed", "--layers=false", "-f", "-", tmp_path, given=only_copies)
    assert debugged(builda, "echo here", "failed-step-1") == ["here"]


def test_kept_steps_are_listed_and_removed(builda: Builda, base: str, context: Path) -> None:
    failing(builda, context)
    failing(builda, context)
    names = builda("containers", "--format", "{{.ContainerName}}").split()
    assert sorted(names) == ["failed-step", "failed-step-1", "failed-step-1-stage-0", "failed-step-stage-0"]
    assert "failed-step-1" in builda("debug", "--list")
    first, last = json.loads(builda("debug", "--list", "--json"))
    assert (first["name"], last["name"]) == ("failed-step", "failed-step-1")
    assert (last["error"], last["secrets"], last["ssh"]) == ("command failed with exit status 5", ["s"], [])
    assert last["place"].endswith("Containerfile:8")
    assert last["size"] > 0
    builda("rm", "failed-step")  # with its stage
    assert sorted(builda("containers", "--format", "{{.ContainerName}}").split()) == sorted(
        ["failed-step-1", "failed-step-1-stage-0"]
    )
    builda("prune", "--filter", "until=1h")
    assert builda("containers", "-q") != ""
    builda("prune")
    assert builda("containers", "-q") == ""
    failing(builda, context)
    builda("debug", "--rm", "--all")
    assert left(builda) == []
    assert "no failed step is kept" in builda.fails("debug", "--", "true")


def test_nothing_is_kept_unless_it_is_asked_for(builda: Builda, base: str, context: Path) -> None:
    builda.fails("bud", context, status=5)
    assert builda("containers", "-q") == ""
    (context / "Containerfile").write_text(f"FROM {base}\nRUN true\n")
    builda("bud", "-q", "--keep-failed", context)
    assert builda("containers", "-q") == ""


def test_stages_side_by_side_keep_each_what_failed(builda: Builda, base: str, tmp_path: Path) -> None:
    text = f"FROM {base} AS a\nRUN exit 3\nFROM {base} AS b\nRUN sleep 0.1; true\nFROM a\nCOPY --from=b /bin/sh /s\n"
    builda.fails("bud", "--keep-failed", "--jobs=0", "-f", "-", tmp_path, given=text, status=3)
    assert [one["error"] for one in json.loads(builda("debug", "--list", "--json"))] == [
        "command failed with exit status 3"
    ]


@pytest.mark.parametrize(
    ("step", "seen"),
    [
        ("2", "/ 0"),
        ("4", "/ 0 b"),
        ("6", "/here 7 b"),
        ("1:5", "/here 0 b"),
        ("ONE:2", "/ 0"),
        ("Containerfile:8", "/here 7 b"),
        ("Containerfile:9", "/here 7 b"),
        (":2", "/ 0"),
    ],
)
def test_a_build_stops_before_a_step(builda: Builda, base: str, context: Path, step: str, seen: str) -> None:
    (found,) = debugged(builda, "echo $(pwd) $(id -u) $A", "--step", step, context)
    assert found == seen
    assert builda("containers", "-q") == ""


def test_a_stopped_build_has_the_mounts_of_its_step(builda: Builda, base: str, context: Path) -> None:
    secret = f"id=s,src={context.parent}/secret"
    words = ("--step", "6", "--secret", secret, "--build-arg", "V=2", "-f", context / "Containerfile", context)
    assert debugged(builda, "cat /one/a /m/given /run/secrets/s; echo $V", *words) == [
        "of-one",
        "of the context",
        "the-secret-word2",
    ]
    debugged(builda, "touch /tmp/mine", "--keep", *words)
    assert debugged(builda, "ls /tmp", "failed-step") == ["mine"]
    builda("rm", "failed-step")
    assert builda("containers", "-q") == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--step", "1"), "there is no state before FROM, which is step 1"),
        (("--step", "8"), "hint: it has the steps 2 ENV A=b; 3 ARG V=1; 4 WORKDIR /here; 5 USER 7:8; 6 RUN"),
        (("--step", "two:2"), "the stages are one, 1"),
        (("--step", "7:2"), "no such stage or Containerfile: 7:2"),
        (("--step", "Containerfile:99"), "Containerfile has 11: 99"),
        (("--step", "Containerfile:3"), "there is no state before FROM, which is step 1 (line 3)"),
        (("--step", "x"), "not a step: x"),
        (("--step", "-1"), "not a step: -1"),
        (("--step", "99999999999999999999"), "not a step"),
        (("--target", "one"), "--target goes with --step"),
    ],
)
def test_a_step_that_is_not_there(builda: Builda, base: str, context: Path, words: tuple[str, ...], said: str) -> None:
    assert said in builda.fails("debug", *words, context, "--", "true")
    assert builda("containers", "-q") == ""


@pytest.fixture
def elsewhere(builda: Builda) -> Builda:
    return Builda(builda.root.parent / "store2", builda.root.parent / "run2")


def test_a_state_is_taken_to_another_store(
    builda: Builda, elsewhere: Builda, base: str, context: Path, tmp_path: Path
) -> None:
    failing(builda, context)
    file = tmp_path / "state.tar"
    builda("debug", "--export", file, "--secret", f"id=s,src={tmp_path}/secret")
    assert_holds_no(file, b"the-secret-word")
    assert builda("images", "-q", "--filter", "dangling=true") == ""
    found = elsewhere.run("debug", file, "--", "sh", "-c", "id -u; pwd; echo $A $V; cat /tmp/left; ls /k")
    assert found.stdout.splitlines() == ["7", "/here", "b 1", "x"]
    assert "not taken from the file: what was mounted at /one" in found.stderr
    assert "the shell does without the secret s" in found.stderr
    assert (elsewhere("containers", "-q"), elsewhere("images", "-a", "-q")) == ("", "")
    given = ("--secret", f"id=s,src={tmp_path}/secret", "--contextdir", context)
    assert debugged(elsewhere, "cat /m/given /run/secrets/s", *given, file) == ["of the context", "the-secret-word"]
    debugged(elsewhere, "echo y > /tmp/left", "--keep", file)
    assert debugged(elsewhere, "cat /tmp/left", "failed-step") == ["y"]
    elsewhere("pull", "-q", f"oci-archive:{file}")  # it is an image like others


def assert_holds_no(file: Path, word: bytes) -> None:
    """No member of an archive has the word in it, compressed or not."""
    import gzip

    with tarfile.open(file) as archive:
        for member in archive.getmembers():
            opened = archive.extractfile(member)
            data = b"" if opened is None else opened.read()
            assert word not in (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data), member.name


def test_a_state_whose_base_is_gone_is_whole(
    builda: Builda, elsewhere: Builda, base: str, context: Path, tmp_path: Path
) -> None:
    result = session(
        builda,
        "set -e; c=$(builda from localhost/busybox); builda run $c touch /b; i=$(builda commit -q $c)\n"
        "c=$(builda from $i); builda run $c sh -c 'touch /c; exit 3'",
        "--keep-failed",
    )
    assert result.returncode == 3
    assert "kept as failed-step" in result.stderr
    builda("debug", "--export", tmp_path / "state.tar")
    assert debugged(elsewhere, "ls /b /c", tmp_path / "state.tar") == ["/b", "/c"]


def with_note(builda: Builda, base: str, file: Path, text: str) -> None:
    """Make an archive of an image with any annotation in the place of a step."""
    container = builda("from", base)
    builda("config", "--annotation", f"{KEY}={text}", container)
    builda("commit", "-q", "--rm", container, f"oci-archive:{file}")


STEP: dict[str, object] = {
    "text": "RUN x",
    "number": "2/2",
    "place": "",
    "error": None,
    "context": "/etc",
    "named": {"n": "/etc"},
    "in_build": True,
    "args": [],
    "env": {"X": "y"},
    "user": None,
    "working_dir": None,
    "mounts": [],
    "options": {},
}


def test_a_hostile_state_reaches_nothing_of_the_machine(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("mine")
    given = builda("from", base)
    builda("run", "--mount", "type=cache,target=/k", given, "--", "sh", "-c", "echo mine > /k/f")
    mounts = [
        "type=bind,target=/etc-of-host,source=/etc",
        "type=bind,target=/n,from=context:n",
        f"type=bind,target=/other,from=container:{given}",
        f"type=bind,target=/image,from=image:dir:{tmp_path}",
        "type=cache,target=/k",
        "type=ssh",
    ]
    options = {"volumes": [f"{tmp_path}:/v"], "network": "host", "devices": ["/dev/fuse"], "cap_add": ["ALL"]}
    options |= {
        "security_opts": ["seccomp=unconfined"],
        "runtime": f"{tmp_path}/own",
        "isolation": "oci",
        "pid": "host",
    }
    with_note(builda, base, tmp_path / "s.tar", json.dumps({**STEP, "mounts": mounts, "options": options}))
    script = "ls -d /etc-of-host /n /other /image /v /dev/fuse 2>/dev/null; ls /k; echo $X; test $$ -lt 9"
    found = builda.run("debug", tmp_path / "s.tar", "--", "sh", "-c", script)
    assert found.stdout == "y\n"
    assert "--cap-add, --devices" in found.stderr.replace("_", "-")


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "[" * 100_000,
        json.dumps({**STEP, "args": "x"}),
        json.dumps({**STEP, "env": {"A=B": "c"}}),
        json.dumps({**STEP, "env": {"A": "\0"}}),
        json.dumps({**STEP, "mounts": ["type=oops"]}),
        json.dumps({**STEP, "mounts": ["type=bind,target=/x,from=stage"]}),
        json.dumps({**STEP, "options": {"oops": 1}}),
        json.dumps({name: value for name, value in STEP.items() if name != "user"}),
    ],
)
def test_an_image_without_a_state_is_refused(builda: Builda, base: str, tmp_path: Path, text: str) -> None:
    with_note(builda, base, tmp_path / "s.tar", text)
    said = builda.fails("debug", tmp_path / "s.tar", "--", "true")
    assert "no state of a failed step" in said
    assert builda("containers", "-q") == ""


def test_files_that_are_no_states(builda: Builda, base: str, busybox: Path, tmp_path: Path) -> None:
    assert "no state of a failed step" in builda.fails("debug", busybox, "--", "true")
    (tmp_path / "text").write_text("text")
    builda.fails("debug", tmp_path / "text", "--", "true")
    builda.fails("debug", tmp_path, "--", "true")
    cut = tmp_path / "cut.tar"
    cut.write_bytes(busybox.read_bytes()[:20_000])
    builda.fails("debug", cut, "--", "true")
    assert "no such failed step, working container or file: none" in builda.fails("debug", "none", "--", "true")
    assert builda("containers", "-q") == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "a shell needs a terminal on standard input and output"),
        (("--list", "--rm"), "--list cannot be used with --rm"),
        (("--rm",), "--rm removes the steps that are named, or with --all all of them"),
        (("--rm", "--", "true"), "--rm runs no command: true"),
        (("--all", "--", "true"), "--all goes with --rm"),
        (("a", "b", "--", "true"), "one step at a time: b"),
        (("--shell", "/none", "CTR", "--", "true"), "--shell cannot be used with a command"),
        (("--rm", "CTR"), "working container is not a kept step"),
    ],
)
def test_lines_that_mean_nothing(builda: Builda, base: str, words: tuple[str, ...], said: str) -> None:
    container = builda("from", base)
    assert said in builda.fails("debug", *(container if word == "CTR" else word for word in words))


def test_a_kept_step_allows_nothing_by_itself(builda: Builda, base: str, tmp_path: Path) -> None:
    text = f"FROM {base}\nRUN --security=insecure exit 3\n"
    allow = ("--allow", "security.insecure")
    builda.fails("bud", "--keep-failed", *allow, "-f", "-", tmp_path, given=text, status=3)
    assert "allow it with --allow security.insecure" in builda.fails("debug", "--", "true")
    builda("debug", *allow, "--", "true")


def test_any_working_container_can_be_looked_into(builda: Builda, base: str) -> None:
    container = builda("from", base)
    builda("config", "--env", "A=b", "--user", "7", container)
    assert debugged(builda, "echo $A $(id -u)", container) == ["b 7"]
    assert builda.run("debug", container, "--", "sh", "-c", "exit 3", check=False).returncode == 3
    assert builda("containers", "-q").strip() != ""


FAILING_SCRIPT = """\
set -e
c=$(builda from localhost/busybox)
trap 'builda rm $c' EXIT
d=$(builda from localhost/busybox)
builda config --env A=b --user 7:8 --workingdir /w $c
builda run $d false || true
builda run $d true
builda run --env X=y --mount type=bind,source=given,target=/m $c -- sh -c 'echo z > /tmp/left; exit STATUS'
"""


def test_the_failed_step_of_a_script_is_kept(
    builda: Builda, base: str, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(context)
    result = session(builda, FAILING_SCRIPT.replace("STATUS", "4"), "--keep-failed")
    assert result.returncode == 4
    assert "hint: builda debug failed-step opens a shell in it" in result.stderr
    monkeypatch.chdir("/")
    seen = debugged(builda, "id -u; pwd; echo $A $X; cat /tmp/left /m")
    assert seen == ["7", "/w", "b y", "z", "of the context"]
    assert len(builda("containers", "-q").split()) == 1
    builda("rm", "failed-step")
    assert left(builda) == []


@pytest.mark.parametrize(("status", "options"), [("0", ("--keep-failed",)), ("4", ())])
def test_a_session_keeps_nothing_otherwise(
    builda: Builda,
    base: str,
    context: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    options: tuple[str, ...],
) -> None:
    monkeypatch.chdir(context)
    assert session(builda, FAILING_SCRIPT.replace("STATUS", status), *options).returncode == int(status)
    assert left(builda) == []


def test_a_copy_of_a_script_that_fails_is_kept(builda: Builda, base: str) -> None:
    script = "set -e; c=$(builda from localhost/busybox); builda run $c touch /made; builda copy $c /none /x"
    result = session(builda, script, "--keep-failed")
    assert result.returncode == 125
    assert debugged(builda, "ls /made") == ["/made"]
    (found,) = json.loads(builda("debug", "--list", "--json"))
    assert found["step"] == "copy /none /x"


def test_a_session_in_a_session_is_told_by_the_outer_one(builda: Builda) -> None:
    result = session(builda, "builda session --keep-failed true")
    assert "--keep-failed belongs on the outer session" in result.stderr


def test_a_build_in_a_session_keeps_its_failed_step(builda: Builda, base: str, context: Path) -> None:
    script = f"builda bud --secret id=s,src={context.parent}/secret {context}"
    result = session(builda, script, "--keep-failed")
    assert result.returncode == 5
    assert debugged(builda, "cat /one/a /tmp/left") == ["of-one", "x"]
    assert session(builda, f"{script} || true", "--keep-failed").returncode == 0
    builda("debug", "--rm", "--all")
    assert left(builda) == []


def test_a_killed_shell_leaves_the_container(builda: Builda, base: str, context: Path, tmp_path: Path) -> None:
    failing(builda, context)
    script = "echo mine > /tmp/mine; touch /m2/ready; sleep 100"
    command = [*builda.command, "debug", "-v", f"{tmp_path}:/m2", "--user", "0", "--", "sh", "-c", script]
    with subprocess.Popen(command, env={**clean_environ(), **builda.environ}) as running:
        deadline = time.monotonic() + 60
        while not (tmp_path / "ready").exists():
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
    assert debugged(builda, "cat /tmp/mine") == ["mine"]
    builda("debug", "--rm", "--all")
    builda("prune")
    assert left(builda) == []


@pytest.mark.parametrize(
    "words", [("bud", "--keep-failed", "--no-cache"), ("debug", "--keep", "--no-cache", "--step", "6")]
)
def test_killed_at_any_moment_nothing_is_wrong(
    builda: Builda, base: str, context: Path, words: tuple[str, ...]
) -> None:
    command = [*builda.command, *words, "-f", str(context / "Containerfile"), str(context)]
    if words[0] == "debug":
        command += ["--", "true"]
    chance = random.Random(7)
    began = time.monotonic()
    subprocess.run(command, capture_output=True, env={**clean_environ(), **builda.environ}, check=False)
    whole = time.monotonic() - began
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
            time.sleep(chance.uniform(0.4, 1.05) * whole)  # any moment will do
            running.send_signal(signal.SIGKILL)
        for one in json.loads(builda("debug", "--list", "--json")):
            assert debugged(builda, "cat /etc/passwd > /dev/null; echo here", one["name"])[-1] == "here"
    builda("rm", "--all")
    builda("prune")
    assert left(builda) == []
    builda("fsck")


def typed(builda: Builda, *words: str | Path, lines: list[str]) -> Shown:
    """What is shown of a shell in which each line is typed once the prompt before it is there."""
    rest = list(lines)

    def act(_pid: int, terminal: int, text: str) -> None:
        if rest and text.count("$ ") + text.count("# ") > len(lines) - len(rest):
            os.write(terminal, f"{rest.pop(0)}\n".encode())

    return on_terminal([*builda.command, "debug", *map(str, words)], act=act)


def test_a_shell_on_a_terminal(builda: Builda, base: str, context: Path) -> None:
    failing(builda, context)
    shown = typed(builda, lines=["echo $A in $(pwd) as $(id -u); tty; echo kept > /tmp/mine", "exit 3"])
    assert "step [2/2] 6/7: RUN" in shown.text
    assert "b in /here as 7" in shown.text
    assert "/dev/" in shown.text
    assert shown.status == 3
    assert debugged(builda, "cat /tmp/mine") == ["kept"]


def test_a_container_without_a_shell(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c/f").write_text("content")
    text = 'FROM scratch\nCOPY f /f\nRUN ["/none"]\n'
    builda.fails("bud", "--keep-failed", "-f", "-", tmp_path / "c", given=text, status=127)
    shown = typed(builda, lines=[])
    assert "no such command in the container: /bin/sh" in shown.text
    assert "--shell FILE brings a shell of this machine" in shown.text
    busybox = shutil.which("busybox", path=needs.SYSTEM_PROGRAMS)
    assert busybox is not None
    shown = typed(builda, "--shell", busybox, lines=["cat /f; echo", "exit"])
    assert "content" in shown.text
    assert shown.status == 0
    assert "no such program on this machine: /none" in typed(builda, "--shell", "/none", lines=[]).text
    builda("commit", "-q", "failed-step", "after")
    assert "builda-shell" not in json.dumps(builda("image", "history", "after"))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Path:
    place = tmp_path_factory.mktemp("given")
    place.chmod(0o755)
    made_context(place)
    (place / "busybox.tar").write_bytes(busybox.read_bytes())
    return place


IN_PLACE = """
builda pull -q oci-archive:$G/busybox.tar:busybox >&2
builda tag $(builda images -q) localhost/busybox
builda bud --keep-failed --secret id=s,src=$G/secret $G/c >&2 && exit 1
builda debug -- sh -c "$SEEN"
builda debug --rm --all >&2
test -z "$(builda containers -q)"
"""


@needs.program("crun", "runc")
def test_in_a_pod_that_can_mount_nothing(given: Path) -> None:
    result = in_pod("root-default", IN_PLACE, given=given, environ={"G": "/given", "SEEN": SEEN})
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[: len(HAD)] == HAD


IN_ONE_ID = """
builda pull -q oci-archive:/given/busybox.tar:busybox >&2
builda tag $(builda images -q) localhost/busybox
sed /USER/d /given/c/Containerfile > $HOME/C
builda bud --keep-failed -f $HOME/C /given/c >&2 && exit 1
builda debug -- sh -c 'pwd; cat /tmp/left /m/given; touch /mine'
builda debug --export $HOME/state.tar >&2
builda debug --rm --all >&2
builda debug $HOME/state.tar -- sh -c 'ls /mine; cat /tmp/left'
test -z "$(builda containers -q)"
"""


@needs.program("crun", "runc")
@pytest.mark.parametrize("profile", ["rootless-nosetuid", "root-default"])
def test_the_state_of_a_pod_is_exported(given: Path, profile: str) -> None:
    result = in_pod(profile, IN_ONE_ID, given=given, environ={"HOME": VOLUME})
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["/here", "x", "of the context", "/mine", "x"]


@needs.program("newuidmap")
def test_as_another_user(given: Path) -> None:
    with rootless() as user:
        context = user.home / "c"
        subprocess.run(["cp", "-r", given / "c", given / "secret", given / "busybox.tar", user.home], check=True)
        subprocess.run(["chmod", "-R", "a+rX", user.home], check=True)
        user("pull", "-q", f"oci-archive:{user.home}/busybox.tar:busybox")
        user("tag", user("images", "-q"), "localhost/busybox")
        user.fails("bud", "--keep-failed", "--secret", f"id=s,src={user.home}/secret", context, status=5)
        assert debugged(user, SEEN)[: len(HAD)] == HAD
        user("debug", "--rm", "--all")
        assert user("containers", "-q") == ""
