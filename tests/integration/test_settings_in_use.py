"""Options and variables of the ecosystem, as CI tasks pass them: each works, or builda says that it has no effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root
FUSE = "overlay.mount_program=/usr/bin/fuse-overlayfs"


def test_a_mount_program_is_a_wish_that_every_verb_takes(builda: Builda, base: str) -> None:
    for verb in (("images",), ("from", "-q", base), ("info",)):
        assert builda.run(*verb, STORAGE_OPTS=FUSE).stderr == ""
        assert builda.run("--storage-opt", FUSE, *verb).stderr == ""


def test_a_storage_option_without_effect_is_said_once(builda: Builda, base: str) -> None:
    said = builda.run("from", "-q", base, STORAGE_OPTS=f"{FUSE},overlay.size=1g").stderr
    assert said.count("storage option has no effect: overlay.size=1g") == 1
    assert builda.run("images", "--storage-opt", "overlay.size=1g").stderr == ""


def test_empty_build_arguments_are_none(builda: Builda, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM scratch\nARG A=1\nLABEL a=$A\n")
    image = builda("bud", "-q", "--build-arg=", "--build-arg", "A=2", "--build-arg", "", tmp_path)
    assert builda("inspect", "--format", "{{.OCIv1.Config.Labels.a}}", image) == "2"
    assert "argument has no name: '=x'" in builda.fails("bud", "--build-arg", "=x", tmp_path)


MISSING = {
    "not found": 'raise RuntimeError("Unable to find libseccomp")',
    "broken": 'raise OSError("x.so: file too short")',
}


@pytest.mark.parametrize("how", MISSING)
def test_a_missing_libseccomp_is_named_with_its_package(builda: Builda, base: str, tmp_path: Path, how: str) -> None:
    (tmp_path / "pyseccomp.py").write_text(MISSING[how])
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nRUN true\n")
    without: dict[str, Any] = {"PYTHONPATH": str(tmp_path)}
    container = builda("from", "-q", base)
    for verb in (("run", container, "true"), ("bud", "-q", tmp_path)):
        said = builda.fails(*verb, **without)
        assert "commands cannot be run without libseccomp: " in said
        assert "libseccomp2 (Debian" in said
        assert "Traceback" not in said
    assert builda("run", "--security-opt", "seccomp=unconfined", container, "echo", "x", **without) == "x"
    done = builda.run("doctor", check=False, **without)
    assert "! commands cannot be run\n    because libseccomp, which filters their calls, cannot be" in done.stdout
    assert (done.returncode, "apt-get install libseccomp2" in done.stdout) == (1, True)
    assert builda("commit", "-q", container, **without)


def containerfile(tmp_path: Path, text: str) -> Path:
    (tmp_path / "Containerfile").write_text(text)
    return tmp_path


def labels_of(builda: Builda, image: str) -> object:
    return json.loads(builda("inspect", "--format", "{{json .OCIv1.Config.Labels}}", image))


def test_labels_and_annotations_of_the_base_can_be_left_behind(builda: Builda, tmp_path: Path) -> None:
    first = containerfile(tmp_path, "FROM scratch\nLABEL a=1 b=2\nONBUILD LABEL c=3\n")
    builda("bud", "-q", "-t", "first", "--annotation", "x=1", "--identity-label=false", first)
    second = containerfile(tmp_path, "FROM first AS one\nLABEL d=4\nFROM one\nLABEL e=5\n")
    builda("bud", "-q", "-t", "kept", "--identity-label=false", "--inherit-labels", "--inherit-annotations", second)
    assert labels_of(builda, "kept") == {"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}
    options = ("--identity-label=false", "--inherit-labels=false", "--inherit-annotations=false", "--annotation", "y=2")
    image = builda("bud", "-q", *options, second)
    assert labels_of(builda, image) == {"e": "5"}
    annotations = json.loads(builda("inspect", "--format", "{{json .ImageAnnotations}}", image))
    assert annotations.pop("org.opencontainers.image.created")
    assert annotations == {"y": "2"}
    assert labels_of(builda, "first") == {"a": "1", "b": "2"}


def test_the_label_of_the_base_says_who_made_it_unless_this_build_says_it(builda: Builda, tmp_path: Path) -> None:
    made = containerfile(tmp_path, "FROM scratch\nLABEL io.buildah.version=1.2\n")
    builda("bud", "-q", "-t", "first", "--identity-label=false", made)
    second = containerfile(tmp_path, "FROM first\nLABEL x=1\n")
    for options in ("--identity-label=false", "--timestamp=0"):
        assert labels_of(builda, builda("bud", "-q", options, second)) == {"io.buildah.version": "1.2", "x": "1"}
    unset = ("--unsetlabel=io.buildah.version", "--timestamp=0")
    assert labels_of(builda, builda("bud", "-q", *unset, second)) == {"x": "1"}
    said = labels_of(builda, builda("bud", "-q", second))
    assert isinstance(said, dict)
    assert said["io.buildah.version"] == said["io.builda.version"] != "1.2"


@pytest.mark.parametrize(
    ("rules", "text", "message"),
    [
        ([("DENY", "docker-image://docker.io/library/b*")], "FROM {base}", None),
        (
            [("DENY", "docker-image://localhost/busybox:*")],
            "FROM {base}",
            "Containerfile:1: image is denied by",
        ),
        ([("DENY", "*")], "FROM scratch AS a\nCOPY --from={base} /bin/sh /\n", "Containerfile:2: image is denied by"),
        ([("DENY", "*")], "FROM scratch AS a\nFROM a\nLABEL x=1\n", None),
        ([("ALLOW", "*busybox*"), ("DENY", "*")], "FROM {base}", None),
        ([("CONVERT", "docker-image://r.example/none:1", "docker-image://{base}")], "FROM r.example/none:1\n", None),
        ([("DENY", "*", "", "EXACT")], "FROM {base}", None),
    ],
)
def test_a_source_policy_decides_about_images(
    builda: Builda, base: str, tmp_path: Path, rules: list[tuple[str, ...]], text: str, message: str | None
) -> None:
    listed = []
    for action, pattern, target, kind in ((*rule, "", "")[:4] for rule in rules):
        updates = {"updates": {"identifier": target.format(base=base)}} if target else {}
        listed.append({"action": action, "selector": {"identifier": pattern, "matchType": kind}, **updates})
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"rules": listed}))
    arguments = ("bud", "-q", "--source-policy-file", policy, containerfile(tmp_path, text.format(base=base)))
    if message is None:
        assert len(builda(*arguments)) == 64
    else:
        assert message in builda.fails(*arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "source policy is not JSON"),
        ("[]", "source policy is not an object"),
        ('{"rules": [1]}', "rule is not an object in rule 0 of"),
        ('{"rules": [{"action": "ALLOW", "selector": {"identifier": "a"}}, {"action": "deny"}]}', "rule 1 of"),
        ('{"rules": [{"action": "CONVERT", "selector": {"identifier": "a"}}]}', "CONVERT needs updates with"),
        ('{"rules": [{"action": "DENY", "selector": {"identifier": "a", "matchType": "REGEX"}}]}', "REGEX is not"),
        ('{"rules": [{"action": "DENY", "selector": {"identifier": "a", "constraints": []}}]}', "unknown key"),
    ],
)
def test_what_is_no_source_policy_is_refused(builda: Builda, tmp_path: Path, text: str, message: str) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(text)
    said = builda.fails("bud", "--source-policy-file", policy, containerfile(tmp_path, "FROM scratch\n"))
    assert message in said
    assert str(policy) in said


def test_flags_that_ask_for_what_builda_does_anyhow(builda: Builda, tmp_path: Path) -> None:
    context = containerfile(tmp_path, "FROM scratch\nLABEL a=b\n")
    flags = ("--sbom=false", "--provenance=false", "--force-compression", "--push=false", "--rusage=false")
    done = builda.run("bud", "-q", *flags, context)
    assert done.stderr == ""
    said = builda.run("bud", "-q", "--layer-label", "a=b", "--layer-label", "c=d", context).stderr
    assert said.count("--layer-label has no effect without --save-stages") == 1
    for flag in ("--log-rusage", "--rusage"):
        assert (
            "--log-rusage has no effect: builda says how long each step took" in builda.run("bud", flag, context).stderr
        )
    for flag, hint in (
        ("--rusage-logfile=x", "/usr/bin/time"),
        ("--push", "-t docker://NAME"),
        ("--load", "docker-archive:FILE"),
        ("--builder=x", "no daemon"),
    ):
        assert hint in builda.fails("bud", flag, context)


def test_hosts_and_hostname_are_the_images_if_asked(builda: Builda, base: str, tmp_path: Path) -> None:
    text = f"FROM {base}\nCOPY Containerfile /etc/hosts\nCOPY Containerfile /etc/hostname\nRUN head -n 1 /etc/host*\n"
    said = builda("bud", "--no-hosts", "--no-hostname", containerfile(tmp_path, text))
    assert said.splitlines().count(f"FROM {base}") == 2
    assert f"FROM {base}" not in builda("bud", "--no-cache", tmp_path).splitlines()
    said = builda.fails("bud", "--no-hosts", "--add-host", "a:1.1.1.1", tmp_path)
    assert "--no-hosts cannot be used with --add-host" in said


def test_the_host_name_of_commands_can_be_said(builda: Builda, base: str, tmp_path: Path) -> None:
    names = f"FROM {base}\nRUN echo $(hostname) $HOSTNAME $(cat /etc/hostname) $(tail -n 1 /etc/hosts)\n"
    context = containerfile(tmp_path, names)
    argument = ("--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=said")
    for options, name in (((), "buildkitsandbox"), (argument, "said")):
        done = builda.run("bud", *options, context)
        assert " ".join([name] * 3 + ["127.0.0.1", name]) in done.stdout.splitlines()
        assert "not consumed" not in done.stderr


def test_the_host_has_a_name_in_commands(builda: Builda, base: str, tmp_path: Path) -> None:
    context = containerfile(tmp_path, f"FROM {base}\nRUN cat /etc/hosts\n")
    option = ("--add-host", "machine:host-gateway")
    assert "127.0.0.1\tmachine" in builda("bud", *option, "--network", "host", context).splitlines()
    container = builda("from", "-q", *option, base)
    private = builda("run", "--network", "private", container, "cat", "/etc/hosts").splitlines()
    assert [line for line in private if line.startswith("10.207.") and line.endswith("\tmachine")]
    said = builda.fails("run", "--network", "none", container, "true")
    assert "host-gateway" in said
    assert "--network host" in said


def test_a_runtime_that_is_named_is_used(builda: Builda, base: str, tmp_path: Path) -> None:
    context = containerfile(tmp_path, f"FROM {base}\nRUN true\n")
    assert "no OCI runtime found: /no/such" in builda.fails("bud", "--no-cache", "--runtime", "/no/such", context)
    assert builda("bud", "-q", "--no-cache", context, BUILDAH_RUNTIME="/no/such")
    assert "/no/such" in builda.fails("run", "--runtime", "/no/such", builda("from", "-q", base), "true")


def test_a_log_for_each_platform(builda: Builda, tmp_path: Path) -> None:
    context, log = containerfile(tmp_path, "FROM scratch\nARG TARGETARCH\nLABEL a=$TARGETARCH\n"), tmp_path / "log"
    platforms = "linux/amd64,linux/arm/v7,linux/arm/v6"
    builda("bud", "--logfile", log, "--logsplit", "--platform", platforms, context)
    names = sorted(file.name for file in tmp_path.glob("log*"))
    assert names == ["log", "log_linux_amd64", "log_linux_arm", "log_linux_arm_v6"]
    assert "LABEL a=$TARGETARCH" in (tmp_path / "log_linux_arm_v6").read_text()
    assert "LABEL" not in log.read_text()
    assert "--logsplit needs --logfile" in builda.fails("bud", "--logsplit", context)


def test_several_platforms_need_no_name(builda: Builda, tmp_path: Path) -> None:
    context = containerfile(tmp_path, "FROM scratch\nLABEL a=b\n")
    index = builda("bud", "--platform", "linux/amd64,linux/arm64", context).splitlines()[-1]
    listed = json.loads(builda("inspect", "--type", "manifest", index))
    assert [entry["platform"]["architecture"] for entry in listed["manifests"]] == ["amd64", "arm64"]


def test_files_of_short_names_and_drop_ins_can_be_named(builda: Builda, tmp_path: Path) -> None:
    drop_ins = tmp_path / "drop-ins"
    drop_ins.mkdir()
    (drop_ins / "one.conf").write_text('[[registry]]\nlocation = "r.example"\nblocked = true\n')
    said = builda.fails("--registries-conf-dir", drop_ins, "pull", "--retry=0", "r.example/x")
    assert f"registry is blocked by {drop_ins}/one.conf" in said
    assert "no such directory of drop-ins" in builda.fails("--registries-conf-dir", tmp_path / "no", "pull", "x")
    aliases = tmp_path / "aliases.conf"
    aliases.write_text('[aliases]\n"thing" = "localhost:1/other"\n')
    assert "localhost:1" in builda.fails("--short-name-alias-conf", aliases, "pull", "--retry=0", "thing")


def conf(builda: Builda, tmp_path: Path, text: str) -> None:
    """A containers.conf that all commands of the test have."""
    (tmp_path / "containers.conf").write_text(text)
    builda.environ["CONTAINERS_CONF"] = str(tmp_path / "containers.conf")


def test_containers_conf_says_how_commands_run(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("of the host")
    text = f"""
    [containers]
    default_ulimits = ["nofile=500:500"]
    shm_size = "200k"
    env = ["A=conf", "PATH=/conf"]
    volumes = ["{tmp_path}:/conf:ro"]
    dns_servers = ["192.0.2.1"]
    default_capabilities = ["CHOWN", "SETUID"]
    """
    script = "ulimit -n; df -k /dev/shm | tail -n 1; echo $A $PATH; cat /conf/mine /etc/resolv.conf /proc/self/status"
    container = builda("from", "-q", base)
    conf(builda, tmp_path, text)
    said = builda("run", container, "sh", "-c", script)
    assert said.startswith("500\n")
    for words in ("200 ", "\nconf /", "of the host", "nameserver 192.0.2.1\n", "CapBnd:\t0000000000000081"):
        assert words in said
    assert "PATH=/conf" not in said
    context = containerfile(tmp_path, f"FROM {base}\nRUN ulimit -n; echo $A\n")
    assert "\n500\nconf\n" in builda("bud", context)
    assert "\n300\nconf\n" in builda("bud", "--ulimit", "nofile=300:300", context)
    assert builda("run", "--cap-add", "KILL", container, "grep", "CapBnd", "/proc/self/status").endswith("a1")
    other = builda("from", "-q", "--ulimit", "nofile=300:400", "--shm-size", "1m", base)
    assert builda("run", other, "sh", "-c", "ulimit -n") == "300"
    assert "A=" not in builda("inspect", container)


def test_containers_conf_gives_builda_variables(builda: Builda, base: str, tmp_path: Path) -> None:
    conf(builda, tmp_path, '[engine]\nenv = ["https_proxy=http://127.0.0.1:1", "no_proxy=a"]\n')
    container = builda("from", "-q", base)
    show = ("run", container, "sh", "-c", "echo $https_proxy $no_proxy")
    assert builda(*show) == "http://127.0.0.1:1 a"
    assert builda(*show, no_proxy="b", https_proxy="") == "b"
    said = builda.fails("pull", "--retry", "0", "registry.example/app:1")
    assert "cannot reach registry.example:443 through the proxy: connection refused" in said
    conf(builda, tmp_path, '[engine]\nenv = ["a"]\n')
    assert "a variable is NAME=VALUE in env of [engine]" in builda.fails(*show)


def test_dropped_annotations_of_the_base_stay_dropped(builda: Builda, base: str, tmp_path: Path) -> None:
    name, drop = "org.opencontainers.image.base.name", "--unsetannotation"

    def annotations(image: str) -> dict[str, str]:
        found: dict[str, str] = json.loads(builda("inspect", "--type", "image", image))["ImageAnnotations"] or {}
        return found

    container = builda("from", "-q", base)
    assert annotations(builda("commit", "-q", container))[name] == base
    assert name not in annotations(builda("commit", "-q", drop, name, container))
    builda("config", drop, name, container)
    builda("config", "--label", "a=b", "--annotation", "c=d", container)
    builda("run", container, "true")
    for _ in range(2):
        assert name not in annotations(builda("commit", "-q", container))
    builda("commit", "-q", container, "below")
    assert annotations(builda("commit", "-q", builda("from", "-q", "below")))[name] == "localhost/below:latest"
    context = containerfile(tmp_path, f"FROM {base} AS one\nLABEL a=b\nFROM one\nLABEL c=d\n")
    assert annotations(builda("bud", "-q", context))[name] == base
    assert name not in annotations(builda("bud", "-q", drop, name, context))
    assert name not in annotations(builda("bud", "-q", "--no-cache", drop, name, context))


def test_containers_conf_changes_what_a_step_is_remembered_by(builda: Builda, base: str, tmp_path: Path) -> None:
    context = containerfile(tmp_path, f"FROM {base}\nRUN echo $A > /a\n")
    first = builda("bud", "-q", "--timestamp", "0", context)
    conf(builda, tmp_path, '[containers]\nenv = ["A=1"]\n')
    assert builda("bud", "-q", "--timestamp", "0", context) != first
    conf(builda, tmp_path, '[containers]\nlog_driver = "none"\n')
    assert builda("bud", "-q", "--timestamp", "0", context) == first


def test_containers_conf_says_how_images_are_written_and_fetched(builda: Builda, tmp_path: Path) -> None:
    conf(builda, tmp_path, '[engine]\ncompression_format = "zstd"\nretry = 0\n')
    context = containerfile(tmp_path, "FROM scratch\nCOPY Containerfile /\n")
    image = builda("bud", "-q", context)
    assert "tar+zstd" in builda("inspect", image)
    assert "tar+gzip" in builda("inspect", builda("bud", "-q", "--compression-format", "gzip", "--no-cache", context))
    assert "tar+zstd" in builda("inspect", builda("commit", "-q", builda("from", "-q", image)))
    assert "try" not in builda.fails("pull", "localhost:1/x").lower()


def test_a_wrong_containers_conf_is_named_by_who_needs_it(builda: Builda, base: str, tmp_path: Path) -> None:
    container = builda("from", "-q", base)
    conf(builda, tmp_path, "[containers\n")
    assert "not valid TOML" in builda.fails("run", container, "true")
    assert builda("images", "-q")
    conf(builda, tmp_path, '[containers]\ndefault_ulimits = ["files=1"]\numask = "0077"\n')
    said = builda.fails("run", container, "true")
    assert "--ulimit: not a limit: files=1 (containers.conf says so)" in said
    conf(builda, tmp_path, '[containers]\numask = "0077"\n')
    said = builda.run("run", container, "true").stderr
    assert said.count(f"containers.umask has no effect: {tmp_path}/containers.conf") == 1


def test_mounts_conf_lends_every_command_a_copy(builda: Builda, base: str, tmp_path: Path) -> None:
    secrets, home = tmp_path / "secrets", tmp_path / "home/.config/containers"
    for directory in (secrets, home):
        directory.mkdir(parents=True)
    (secrets / "token").write_text("word")
    (home / "mounts.conf").write_text(f"{secrets}:/run/secrets\n")
    builda.environ.update(HOME=str(tmp_path / "home"), BUILDA_CALLER_UID="7")
    text = f"FROM {base}\nRUN --mount=type=secret,id=s cd /run/secrets; cat token s; echo x > new\n"
    (tmp_path / "s").write_text("own")
    image = builda("bud", "--secret", f"id=s,src={tmp_path}/s", containerfile(tmp_path, text))
    assert "wordown" in image
    assert [path.name for path in secrets.iterdir()] == ["token"]
    container = builda("from", "-q", image.splitlines()[-1])
    named = ("run", "--default-mounts-file", home / "mounts.conf", container, "cat", "/run/secrets/token")
    assert builda(*named, HOME="/root", BUILDA_CALLER_UID="0") == "word"
    (home / "mounts.conf").unlink()
    assert "no such configuration file: " in builda.fails(*named)
    assert builda("run", container, "sh", "-c", "ls /run/secrets 2>&1 || true").find("token") == -1


def test_storage_conf_is_told_once_to_be_about_another_store(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "storage.conf").write_text('[storage]\ndriver = "btrfs"\ngraphroot = "/data"\n')
    builda.environ["CONTAINERS_STORAGE_CONF"] = str(tmp_path / "storage.conf")
    new = Builda(tmp_path / "new", tmp_path / "new-run", builda.environ)
    said = new.run("from", "scratch").stderr
    assert said.count("another program's store") == 1
    assert "graphroot=/data" in said
    assert new.run("from", "scratch").stderr == ""
