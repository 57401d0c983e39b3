"""What commands reach and do in pods without rights: each sentence of docs/rootless.md about that, tried."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from tests.support import needs
from tests.support.pods import in_pod, sampled
from tests.support.registry import registry
from tests.support.rootless import REPOSITORY

pytestmark = [
    pytest.mark.root,
    needs.program("crun", "runc"),
]
PODS = {"restricted": "traced", "root-default": "chroot", "rootless-nosetuid": "single"}
BASE = "builda pull -q oci-archive:/given/debian.tar:debian > /dev/null"
CONTAINER = f"{BASE}; c=$(builda from localhost/debian:debian)"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, debian: Path) -> Path:
    path = tmp_path_factory.mktemp("given")
    path.chmod(0o755)
    shutil.copy(debian, path)
    return path


OF_POD = """
import os, socket, sys, time
tcp = socket.create_server(("127.0.0.1", 0))
named = socket.socket(socket.AF_UNIX)
named.bind("/vol/socket")
named.listen()
os.chmod("/vol/socket", 0o777)
unnamed = socket.socket(socket.AF_UNIX)
unnamed.bind("\\0builda-" + sys.argv[1])
unnamed.listen()
with open("/vol/port.new", "w") as file:
    file.write(str(tcp.getsockname()[1]))
os.rename("/vol/port.new", "/vol/port")
time.sleep(300)
"""
ESCAPE = "mkdir q(/e); chroot q(/e) or die; chdir q(..) for 1 .. 40; chroot q(.)"
CONNECT = "socket(S, AF_UNIX, SOCK_STREAM, 0); connect(S, {}) or die"
UNNAMED = 'pack("Sa*", 1, chr(0) . "builda-$ARGV[0]")'
ATTEMPTS = {
    "read a file of the pod": "cat /vol/file",
    "read it by ..": "cat /../../../../../vol/file",
    "read the service account's token": "cat /var/run/secrets/kubernetes.io/serviceaccount/token",
    "read by the root of process 1": "cat /proc/1/root/vol/file",
    "read the environment of a process": "grep -c KUBERNETES /proc/$other/environ",
    "read the memory of a process": "head -c 1 /proc/$other/mem",
    "read after chroot": f"perl -e {shlex.quote(f'{ESCAPE}; open F, q(</vol/file) or die; print <F>')}",
    "write after chroot": f"perl -e {shlex.quote(f'{ESCAPE}; open F, q(>>/vol/file) or die; print F 1')}",
    "write to a file of the pod": "echo more >> /vol/file",
    "write by the root of process 1": "echo more >> /proc/1/root/vol/file",
    "write a setting of the kernel": "echo 1 > /proc/sys/kernel/printk",
    "signal a process": "kill -CONT $other",
    "mount": "mount -t tmpfs tmpfs /mnt",
    "read a disk": "mknod /disk b 8 0 && test -n \"$(head -c 1 /disk | tr '\\0' x)\"",
    "connect to a socket by its path": f"perl -MSocket -e '{CONNECT.format('sockaddr_un(q(/vol/socket))')}'",
    "connect by its path after chroot": f"perl -MSocket -e '{ESCAPE}; {CONNECT.format('sockaddr_un(q(/vol/socket))')}'",
    "see the processes of the pod": "grep -q OTHER /proc/$other/cmdline",
    "connect by the network": "exec 3<> /dev/tcp/127.0.0.1/$port",
    "connect to an abstract socket": f"perl -MSocket -e '{CONNECT.format(UNNAMED)}' $port_of",
}
SHARED = {"see the processes of the pod", "connect by the network", "connect to an abstract socket"}
REACHED = {
    "restricted": SHARED,
    "root-default": {*SHARED, "read after chroot", "connect by its path after chroot"},
    "rootless-nosetuid": SHARED,
}


@pytest.mark.parametrize("profile", sampled(PODS, ["restricted"]))
def test_a_command_reaches_what_the_docs_say(profile: str, given: Path) -> None:
    tries = "\n".join(
        f"if ({command}) > /dev/null 2>&1; then echo {shlex.quote(name)}; fi" for name, command in ATTEMPTS.items()
    )
    (given / "tries").write_text(tries)
    (given / "of_pod.py").write_text(OF_POD)
    script = f"""
    {CONTAINER}
    echo file > /vol/file; chmod 0666 /vol/file
    python3 /given/of_pod.py $$-$RANDOM OTHER & other=$!
    until test -e /vol/port; do sleep 0.05; done
    unnamed=$(tr '\\0' ' ' < /proc/$other/cmdline | cut -d' ' -f3)
    builda run --env other=$other --env port=$(cat /vol/port) --env port_of=$unnamed $c bash -c "$(cat /given/tries)"
    test "$(cat /vol/file)" = file
    kill $other
    """
    done = in_pod(profile, script, given=given)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == REACHED[profile], done.stderr


MOUNTS = {
    "a cache": ("--mount=type=cache,target=/c echo a >> /c/n; cat /c/n", "a"),
    "a cache of another user": (
        "--mount=type=cache,target=/u,uid=33,gid=34,mode=0750 stat -c '%u %g %a' /u",
        "33 34 750",
    ),
    "a secret": ("--mount=type=secret,id=s cat /run/secrets/s", "word"),
    "a secret of another user": (
        "--mount=type=secret,id=s,uid=33,gid=34,mode=0440 stat -c '%u %g %a' /run/secrets/s",
        "33 34 440",
    ),
    "a secret in the environment": ("--mount=type=secret,id=s,env=S echo $S", "word"),
    "a bind": ("--mount=type=bind,target=/b cat /b/file", "context"),
    "a bind to write to": ("--mount=type=bind,target=/b,rw touch /b/new; ls /b", "Containerfile\nfile\nnew"),
    "a file of a stage": ("--mount=type=bind,from=first,source=/staged,target=/s cat /s", "staged"),
    "a tmpfs": ("--mount=type=tmpfs,target=/t touch /t/x; ls /t", "x"),
    "an agent": ("--mount=type=ssh test -S $SSH_AUTH_SOCK && echo socket", "socket"),
}


@pytest.mark.parametrize("profile", sampled(PODS, ["restricted"]))
def test_mounts_of_commands_work_without_mounts(profile: str, given: Path) -> None:
    steps = "\n".join(f"RUN {step.replace(' ', ' (', 1)}) >> /out" for step, _ in MOUNTS.values())
    text = f"FROM localhost/debian:debian AS first\nRUN echo staged > /staged\nFROM localhost/debian:debian\n{steps}\n"
    context = given / f"context-{profile}"
    context.mkdir()
    (context / "file").write_text("context\n")
    (context / "Containerfile").write_text(text)
    script = f"""
    {BASE}
    cp -r /given/{context.name} /vol/context; echo word > /vol/secret
    eval "$(ssh-agent -a /vol/agent)" > /dev/null
    builda bud -q --secret id=s,src=/vol/secret --ssh default -t built /vol/context >&2
    kill $SSH_AGENT_PID
    builda run $(builda from built) sh -c 'cat /out; ls -d /c /b /t /run/secrets/s /s 2> /dev/null || true'
    ls /vol/context
    """
    done = in_pod(profile, script, given=given)
    wanted = "\n".join(output for _, output in MOUNTS.values())
    # Empty directories that were made to mount on stay, as with a real mount; files of the context do not change.
    assert done.stdout.startswith(f"{wanted}\n"), done.stderr + done.stdout
    assert "/run/secrets/s" not in done.stdout
    assert done.stdout.endswith("Containerfile\nfile\n")


@pytest.mark.parametrize(
    ("profile", "options", "line", "said"),
    [
        pytest.param("restricted", "", "RUN --network=none true", "no other: --network none"),
        pytest.param("root-default", "--network none", "RUN true", "no other: --network none", marks=pytest.mark.long),
        pytest.param("restricted", "-v /vol:/v", "RUN true", "cannot write to the host", marks=pytest.mark.long),
        pytest.param("restricted", "--memory 100m", "RUN true", "no resource limits", marks=pytest.mark.long),
    ],
)
def test_what_a_command_cannot_have_is_refused_before_it_runs(
    profile: str, options: str, line: str, said: str, given: Path
) -> None:
    script = f"""
    {BASE}
    printf 'FROM localhost/debian:debian AS first\\nRUN echo was run >&2\\nFROM first\\n{line}\\n' > /vol/File
    builda bud {options} -f /vol/File /given
    """
    done = in_pod(profile, script, given=given)
    assert done.returncode == 125
    assert said in done.stderr
    assert "\nhint: " in done.stderr
    assert "was run\n" not in done.stdout + done.stderr.replace("RUN echo was run", "")
    if "=" in line:
        assert "/vol/File:4: " in done.stderr


FAST = {
    "children that end in the middle of a call": (
        "for (1 .. 40) { my $p = fork; if (!$p) { while (1) { -e q(/etc/passwd); chown 1, 1, q(/tmp); "
        "open F, q(</etc/group) } } select undef, undef, undef, 0.003; kill 9, $p; waitpid $p, 0 } print q(ok)",
        "ok",
    ),
    "children that are left behind": (
        "for (1 .. 40) { my $p = fork; if (!$p) { setpgrp; open STDOUT, q(>/dev/null); open STDERR, q(>/dev/null); "
        "while (1) { -e q(/etc/passwd) } } } print q(gone)",
        "gone",
    ),
    "signals to the parent": ("kill 19, getppid; kill 9, getppid; print q(sent)", "sent"),
    "signals to all": ("opendir D, q(/proc); /^\\d+$/ && $_ != $$ && kill 19, $_ for readdir D; print q(sent)", "sent"),
}
SLOW = {
    "2,000 children that end": (
        "for (1 .. 2000) { my $p = fork; die unless defined $p; if (!$p) { chown 1, 1, q(/tmp); exit 0 } } "
        "my $n = 0; $n++ while wait() > 0; print $n",
        "2000",
    ),
    "2,000 children at once": (
        "my @p; for (1 .. 2000) { my $p = fork; die unless defined $p; if (!$p) { sleep 100; exit 0 } push @p, $p } "
        "-e q(/etc/passwd); kill 9, @p; my $n = 0; $n++ while wait() > 0; print $n",
        "2000",
    ),
    "all descriptors": (
        "my (@h, $n); while (open my $f, q(<), q(/etc/passwd)) { push @h, $f; last if ++$n > 1100000 } print int $!",
        "24",
    ),
    "10,000 programs": (
        "open F, q(>/x); print F q(n=${1:-0}; [ $n -lt 10000 ] && exec sh /x $((n+1)); echo done); exec qw(sh /x)",
        "done",
    ),
}


def outcome(profile: str, program: str, given: Path) -> str:
    """What a Perl program that runs as a command prints, and then how many processes of the pod are left."""
    script = f"""
    {CONTAINER}
    timeout -s KILL 170 python3 -m builda run $c perl -e {shlex.quote(program)} || echo failed $?
    builda run $c echo still works
    alone() {{ set -- /proc/[0-9]*; test $# = 1; }}  # this shell, which forks nothing to look
    for i in $(seq 300); do alone && break; sleep 0.1; done
    alone && echo nothing is left
    """
    done = in_pod(profile, script, given=given)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("profile", sampled(PODS, ["restricted"]))
def test_commands_that_misbehave_neither_stop_builda_nor_stay(profile: str, given: Path) -> None:
    programs = "; ".join(f"{{ {program} }} print qq(\\n)" for program, _ in FAST.values())
    said = outcome(profile, f"$| = 1; {programs}", given)
    assert said.split("\n") == [*(output for _, output in FAST.values()), "still works", "nothing is left", ""]


def test_what_the_pods_seccomp_profile_refuses_is_named(given: Path) -> None:
    program = "chroot / true; perl -e 'socket(S, 16, 3, 9) or print qq($!\\n)'; useradd app && su app -c 'id -un'"
    done = in_pod("restricted", f"{CONTAINER}; builda run $c sh -c {shlex.quote(program)}", given=given)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Protocol not supported\napp\n", "the kernel's audit, which root is only pretended to have"
    assert "builda: chroot(2) is refused by this pod's seccomp profile" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("name", SLOW)
@pytest.mark.parametrize("profile", PODS)
def test_commands_that_take_much_neither_stop_builda_nor_stay(profile: str, name: str, given: Path) -> None:
    program, output = SLOW[name]
    said = outcome(profile, program, given)
    assert said.replace(output, f"{output}\n").split() == [output, *"still works nothing is left".split()]


@pytest.mark.long
@pytest.mark.parametrize("profile", ["restricted", "rootless-nosetuid"])
def test_the_memory_of_the_supervisor_stays_the_same(profile: str, given: Path) -> None:
    program = "for (1 .. 1000) { chown 1, 1, q(/tmp); chmod 0755, q(/tmp); -e q(/etc/passwd) } print qq(x\\n); $| = 1;"
    script = f"""
    {CONTAINER}
    sizes() {{ cat /proc/[0-9]*/status | awk '/^Name/ {{ n = $2 }} /^VmRSS/ && n ~ /python/ {{ s += $2 }}
      END {{ print s }}'; }}
    builda run $c perl -e {shlex.quote(f"$| = 1; {program} for (1 .. 34) {{ {program} }}")} |
      {{ read x; sizes; for i in $(seq 34); do read x; done; sizes; }}
    """
    done = in_pod(profile, script, given=given)
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert after - before < 2048, done.stdout  # KiB, after 100,000 calls


def test_the_manifest_for_a_restricted_pod_builds_a_containerfile_with_commands(given: Path) -> None:
    manifest = yaml.safe_load((REPOSITORY / "examples/kubernetes/pod-traced.yaml").read_text())
    (container,) = manifest["spec"]["containers"]
    context = container["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    (given / "app").mkdir()
    (given / "app/Containerfile").write_text("FROM localhost/debian:debian\nRUN useradd app && su app -c id > /id\n")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    with registry() as server:
        (build,) = container["args"]
        build = build.replace("https://git.example.org/app.git", "/given/app")
        build = build.replace("builda push", "builda push --tls-verify=false")
        build = build.replace("registry.example.org", server.address)
        script = f"{BASE}\n{build}\nbuilda run $(builda from {server.address}/app:1) cat /id"
        done = in_pod(
            "restricted",
            script,
            *("--user", f"{context['runAsUser']}:{context['runAsGroup']}"),
            *("--seccomp", {"RuntimeDefault": "default"}[context["seccompProfile"]["type"]]),
            *("--emptydir", mounts["store"]),
            *(word for row in container["env"] for word in ("--env", f"{row['name']}={row['value']}")),
            given=given,
            environ={"BUILDA_ROOT": "", "REGISTRY_AUTH_FILE": ""},
        )
        assert done.returncode == 0, done.stderr
    assert re.search(r"^uid=1000\(app\)", done.stdout, re.MULTILINE)
    assert "the kernel gives commands no root directory here" in done.stderr
