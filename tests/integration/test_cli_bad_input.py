"""Command lines that mean nothing: the message, the way out, the status, and that nothing changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root


@pytest.fixture
def container(builda: Builda) -> str:
    """The name of an empty working container."""
    return builda("from", "--name", "builder-1", "scratch")


@pytest.mark.parametrize(
    "args",
    [
        ["run", "buildr-1", "ls"],
        ["copy", "buildr-1", "/etc/hostname", "/"],
        ["add", "buildr-1", "/etc/hostname", "/"],
        ["config", "--env", "A=1", "buildr-1"],
        ["commit", "buildr-1", "x"],
        ["mount", "buildr-1"],
        ["umount", "buildr-1"],
        ["rm", "buildr-1"],
        ["rename", "buildr-1", "x"],
        ["unshare", "--mount", "A=buildr-1", "true"],
    ],
)
def test_an_unknown_container_comes_with_the_nearest(builda: Builda, container: str, args: list[str]) -> None:
    said = builda.fails(*args)
    assert "Error: container not known: buildr-1" in said
    assert f"hint: did you mean {container}?" in said
    assert builda("containers", "-n", "--format", "{{.ContainerName}}") == container


@pytest.mark.parametrize(
    "args",
    [["tag", "busibox", "x"], ["rmi", "busibox"], ["push", "busibox", "dir:/x"], ["inspect", "-t", "image", "busibox"]],
)
def test_an_unknown_image_comes_with_the_nearest(builda: Builda, base: str, args: list[str]) -> None:
    said = builda.fails(*args)
    assert "image not known: busibox" in said
    assert f"hint: did you mean {base}?" in said


def test_inspect_looks_for_both(builda: Builda, container: str) -> None:
    said = builda.fails("inspect", "builder-2")
    assert said == f"Error: container or image not known: builder-2\nhint: did you mean {container}?\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["images", "-q", "--format", "x"], "--quiet cannot be used with --format"),
        (["images", "-a", "x"], "--all cannot be used with a name"),
        (["images", "--filter", "colour=red"], "unsupported image filter: colour"),
        (["images", "--filter", "dangling=maybe"], "filter dangling must be true or false: maybe"),
        (["images", "--filter", "dangling"], "invalid filter, which is written key=value: dangling"),
        (["containers", "-q", "--format", "x"], "--quiet cannot be used with --format"),
        (["containers", "--filter", "colour=red"], "invalid filter: colour=red"),
        (["rm", "--all", "x"], "--all cannot be used with names of containers"),
        (["rm"], "no container to be removed was named"),
        (["rmi", "--all", "x"], "exclude each other"),
        (["rmi"], "no image to be removed was named"),
        (["umount"], "no container to be unmounted was named"),
        (["inspect", "--type", "box", "x"], "unknown type: box"),
        (["from", "--pull=often", "scratch"], "unknown pull policy: often"),
        (["from", "--pull-always", "--pull-never", "scratch"], "cannot be used together"),
        (["from", "--pull", "--pull-never", "scratch"], "cannot be used together"),
        (["from", "--pull=missing", "--pull-always", "scratch"], "cannot be used together"),
        (["pull", "--policy=missing", "--pull-always", "scratch"], "cannot be used together"),
        (["bud", "--pull-always", "--pull-never", "--from=scratch", "-f", "/dev/null"], "cannot be used together"),
        (["from", "--format", "zip", "scratch"], "unknown image format: zip"),
        (["from", "--isolation", "vm", "scratch"], "unknown isolation: vm"),
        (["from", "--platform", "linux/arm64", "--arch", "arm", "scratch"], "--platform cannot be used with"),
        (["from", "--network=none", "--dns=1.1.1.1", "scratch"], "--dns cannot be used with --network=none"),
        (["from", "--memory", "lots", "scratch"], "not a size: lots"),
        (["from", "--creds", "me", "scratch"], "--creds has no password"),
        (["from", "--name", "a b", "scratch"], "invalid container name"),
        (["login", "--password-stdin", "r.example"], "--password-stdin needs --username"),
        (["logout"], "name one registry, or use --all"),
        (["info", "--format", "x"], "invalid format provided: x"),
        (["completion", "tcsh"], "invalid value for SHELL: 'tcsh' is not one of"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(builda: Builda, args: list[str], message: str) -> None:
    assert message in builda.fails(*args)
    assert builda("containers", "-q") == ""


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--decryption-key", "k"),
        ("--blob-cache", "d"),
        ("--cdi-config-dir", "d"),
        ("--imagestore", "d"),
        ("--cgroup-manager", "systemd"),
    ],
)
def test_what_builda_does_not_do_is_refused_with_a_reason(builda: Builda, option: str, value: str) -> None:
    said = builda.fails("from", option, value, "scratch")
    assert said.startswith(f"Error: {option} is not supported: ")
    assert builda("containers", "-q") == ""


def test_cgroups_without_systemd_are_what_builda_has_anyhow(builda: Builda) -> None:
    assert builda("--cgroup-manager", "cgroupfs", "containers", "-q") == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--entrypoint", '["a", '], "--entrypoint is not a valid JSON array"),
        (["--cmd", '["a"'], "--cmd is not a valid JSON array"),
        (["--cmd", "a 'b"], "--cmd cannot be split into words"),
        (["--healthcheck", "curl"], "health check is written NONE"),
        (["--annotation", "=a"], "annotation has no name"),
        (["--env", "=x"], "variable has no name"),
        (["--env", "NOT_SET_HERE"], "setting env 'NOT_SET_HERE': no value given"),
        (["--healthcheck-interval", "soon", "--healthcheck", "CMD x"], "not a duration: soon"),
    ],
)
def test_config_of_what_cannot_be_changes_nothing(
    builda: Builda, container: str, args: list[str], message: str
) -> None:
    before = builda("inspect", container)
    assert message in builda.fails("config", "--label", "x=y", *args, container)
    assert builda("inspect", container) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--timestamp", "1", "--source-date-epoch", "1"], "--timestamp cannot be used with --source-date-epoch"),
        (["--compression-format", "lz4"], "compression format is not supported: lz4"),
        (["--compression-level", "12"], "--compression-level of gzip is 1 to 9: 12"),
        (["--sign-by", "me"], "images have no signatures in the store"),
        (["--encryption-key", "me"], "--encryption-key is not supported"),
        (["--sbom", "syft"], "--sbom=syft needs --sbom-output"),
        (["--cw", "x"], "--cw is not supported"),
        (["--config", "/no/such"], "no such file or directory: /no/such"),
        (["--annotation", "a"], "annotation is written NAME=VALUE"),
        (["--format", "zip"], "unknown image format: zip"),
    ],
)
def test_commit_of_what_cannot_be_makes_no_image(builda: Builda, container: str, args: list[str], message: str) -> None:
    assert message in builda.fails("commit", *args, container, "x")
    assert builda("images", "-q") == ""


@pytest.mark.parametrize("name", ["UPPER", "a b", "x@sha256:1", "a//b", ":tag"])
def test_a_name_that_is_none_is_refused_by_tag(builda: Builda, base: str, name: str) -> None:
    before = builda("images", "--no-trunc", "--format", "{{.ID}} {{.Name}}:{{.Tag}}")
    builda.fails("tag", base, name)
    assert builda("images", "--no-trunc", "--format", "{{.ID}} {{.Name}}:{{.Tag}}") == before


def test_rm_goes_on_after_what_is_not_there(builda: Builda, container: str) -> None:
    result = builda.run("rm", "nope", container, "neither", check=False)
    assert result.returncode == 125
    assert len(result.stdout) == 65
    assert "container not known: nope" in result.stderr
    assert "container not known: neither" in result.stderr
    assert builda("containers", "-q") == ""


def test_rename_refuses_the_same_name_and_a_taken_one(builda: Builda, container: str) -> None:
    other = builda("from", "scratch")
    assert "same name" in builda.fails("rename", container, container)
    assert "name is already in use by " in builda.fails("rename", container, other)


def test_an_unknown_field_is_named(builda: Builda, container: str) -> None:
    said = builda.fails("inspect", "--format", "{{.Bogus}}", container)
    assert "no such field: .Bogus" in said
    assert ".FromImage " in said
    assert "no such field: .Bogus" in builda.fails("containers", "--format", "{{.Bogus}}")


def test_run_without_a_command(builda: Builda, container: str) -> None:
    assert "command must be specified" in builda.fails("run", container)
    assert "command must be specified" in builda.fails("run", container, "--")


def test_a_mount_of_run_that_cannot_be_had_is_named(builda: Builda, container: str) -> None:
    said = builda.fails("run", "--mount", "type=secret,id=x,target=/y,required=true", container, "true")
    assert "no such secret: x" in said
    said = builda.fails("run", "--mount", "type=secrets,id=x", container, "true")
    assert "unsupported mount type 'secrets'" in said


def test_an_option_after_the_container_is_explained(builda: Builda, container: str) -> None:
    for args in (
        ["config", container, "--env", "A=1"],
        ["commit", container, "-q"],
        ["copy", container, "--chown=1", "x"],
    ):
        assert "can be specified after the image or container name" in builda.fails(*args)


def test_a_file_that_cannot_be_written_is_named(builda: Builda, container: str, tmp_path: Path) -> None:
    assert "no such file or directory: /no/such/dir/iid" in builda.fails(
        "commit", "--iidfile", "/no/such/dir/iid", container, "x"
    )


def test_a_mode_that_is_none(builda: Builda, container: str) -> None:
    assert "not a mode: rwx" in builda.fails("copy", "--chmod", "rwx", container, "/etc/hostname", "/")


def test_an_ignore_file_needs_a_context(builda: Builda, container: str) -> None:
    said = builda.fails("copy", "--ignorefile", "/etc/hostname", container, "/etc/hostname", "/")
    assert "--ignorefile needs --contextdir" in said


OF_COMMANDS = (
    ("--network", "foo"),
    ("--network", "ns:/no/such"),
    ("--network", "pasta"),
    ("--pid", "foo"),
    ("--ipc", "ns:/no/such"),
    ("--uts", "foo"),
    ("--cgroupns", "foo"),
    ("--ulimit", "nofile"),
    ("--ulimit", "files=1"),
    ("--ulimit", "nofile=many"),
    ("--add-host", "foo"),
    ("--add-host", "a:b"),
    ("--dns", "notanip"),
    ("--volume", "/no/such:/x"),
    ("--volume", "/etc"),
    ("--volume", "etc:/x"),
    ("--volume", "/etc:/x:fast"),
    ("--device", "/no/such"),
    ("--device", "/etc/passwd"),
    ("--device", "/dev/null:rwx"),
    ("--cap-add", "FOO"),
    ("--cap-drop", "FOO"),
    ("--security-opt", "foo"),
    ("--security-opt", "seccomp=/no/such"),
    ("--cpuset-cpus", "first"),
    ("--cpu-period", "-5"),
)


def test_flags_of_a_runtime_need_an_isolation_that_has_one(builda: Builda, base: str) -> None:
    container = builda("from", base)
    for verb, *words in (("bud", "-f", "/dev/null"), ("run", container, "true")):
        said = builda.fails(verb, "--isolation", "native", "--runtime-flag", "debug", *words)
        assert "--runtime-flag is for OCI runtimes, which --isolation native does without" in said


@pytest.mark.parametrize(("option", "value"), OF_COMMANDS)
def test_options_of_commands_are_read_before_anything_is_done(
    builda: Builda, base: str, tmp_path: Path, option: str, value: str
) -> None:
    for text in ("FROM scratch\nLABEL a=b\n", "FROM localhost:1/none\nRUN true\n"):
        (tmp_path / "Containerfile").write_text(text)
        said = builda.fails("bud", "--retry=0", f"{option}={value}", tmp_path)
        assert said.startswith(f"Error: {option}: "), said
        assert "Containerfile:" not in said
    said = builda.fails("from", "--retry=0", f"{option}={value}", "localhost:1/none")
    assert said.startswith(f"Error: {option}: "), said
    assert builda("containers", "-q") == ""
    if option not in ("--ulimit", "--add-host", "--dns", "--cpuset-cpus", "--cpu-period"):
        said = builda.fails("run", f"{option}={value}", builda("from", "-q", base), "true")
        assert said.startswith(f"Error: {option}: "), said


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--shm-size", "lots"), "not a size: lots"),
        (("--memory", "lots"), "not a size: lots"),
        (("--memory=2m", "--memory-swap=1m"), "--memory-swap: less than --memory"),
        (("--platform", "foo"), "unknown platform: linux/foo"),
        (("--platform", "linux/amd46"), "unknown platform: linux/amd46"),
        (("--platform", "linx/amd64"), "unknown platform: linx/amd64"),
        (("--platform", "linux/a b"), "not a platform"),
        (("--arch", "foo"), "unknown platform"),
        (("--secret", "id=a,src=/no/such"), "/no/such"),
        (("--secret", "src"), "secret"),
        (("--ssh", "default=/no/such"), "/no/such"),
        (("--mount", "type=foo,target=/x"), "type"),
        (("--mount", "type=bind,source=/no/such,target=/x"), "/no/such"),
        (("--output", "/proc/x"), "--output cannot be written"),
        (("--output", "type=tar,dest=/no/such/x.tar"), "--output cannot be written, no such file or directory"),
        (("--output", "type=oci,dest=/etc"), "--output cannot be written, is a directory: /etc"),
        (("--output", "type=local,dest=/etc/passwd/x"), "--output cannot be written, not a directory"),
    ],
)
def test_options_of_a_build_are_read_before_anything_is_done(
    builda: Builda, tmp_path: Path, args: tuple[str, ...], message: str
) -> None:
    (tmp_path / "Containerfile").write_text("FROM localhost:1/none\n")
    said = builda.fails("bud", "--retry=0", *args, tmp_path)
    assert message in said
    assert "localhost:1" not in said


def test_variables_and_descriptors_are_read_before_anything_is_done(builda: Builda, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM localhost:1/none\n")
    assert "BUILDAH_LAYERS must be true or false: maybe" in builda.fails("bud", tmp_path, BUILDAH_LAYERS="maybe")
    assert "descriptor of --events is not open: 9" in builda.fails("--events", "9", "images")


@pytest.mark.parametrize("verb", ["from", "pull", "push", "commit", "bud", "copy"])
@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("--authfile", None, "credential file is not accessible: stat "),
        ("--authfile", "{", "credential file is not JSON: "),
        ("--authfile", '{"auths": {"r.io": {"auth": "?"}}}', "auth is not base64 text in credential file "),
        ("--cert-dir", None, "no such directory of certificates: "),
        ("--cert-dir", "x", "no such directory of certificates: "),
    ],
)
def test_files_for_registries_are_read_before_anything_is_done(
    builda: Builda, base: str, tmp_path: Path, verb: str, option: str, content: str | None, message: str
) -> None:
    named = tmp_path / "named"
    if content is not None:
        named.write_text(content)
    (tmp_path / "Containerfile").write_text("FROM scratch\n")
    container = builda("from", "-q", base) if verb in ("commit", "copy") else ""
    arguments = {"push": (base, "dir:/x"), "commit": (container, "x"), "copy": (container, "/etc/passwd", "/x")}
    rest = arguments.get(verb, (tmp_path,) if verb == "bud" else (base,))
    said = builda.fails(verb, option, named, *rest)
    assert f"{message}{named}" in said
    assert len(builda("containers", "-q").split()) == (container != "")
    assert builda("images", "-q", "x", check=False) == ""


def test_a_broken_certificate_is_named_at_once(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("x")
    assert f"not a PEM certificate: {tmp_path}/ca.crt" in builda.fails("pull", "--cert-dir", tmp_path, base)


def test_errors_of_files_name_them(builda: Builda, container: str, tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("/no/where")
    for args, message, hint in (
        (
            ("copy", container, "/dev/stdin", "/x"),
            "links that lead to no place: /dev/stdin",
            "open files of one process",
        ),
        (("copy", container, "/proc/self/mem", "/x"), "input/output error: /proc/self/mem", ""),
        (
            ("copy", container, f"{tmp_path}/d*", "/x/"),
            f"leads nowhere: {tmp_path}/d*",
            f"{tmp_path}/dangling is a link",
        ),
        (("commit", "--config", "/etc/passwd", container), "configuration to merge, /etc/passwd, is not JSON", ""),
        (("--root", "/proc/x", "images"), "store cannot be made, no such file or directory: /proc/x", "--root"),
        (("--root", "/etc/passwd", "images"), "store cannot be made, not a directory: /etc/passwd", "--root"),
        (("run", "--env", container, "true"), "command must be specified", "does an option before it lack its value?"),
    ):
        said = builda.fails(*args, given="text")
        assert message in said
        assert hint in said


LONG = 65 * "a"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            f"bud --build-arg BUILDKIT_SANDBOX_HOSTNAME={LONG} .",
            "build argument BUILDKIT_SANDBOX_HOSTNAME has more than",
        ),
        (f"config --hostname {LONG} builder-1", "--hostname has more than 64 bytes"),
        (f"run --hostname {LONG} builder-1 true", "--hostname: host name has more than 64 bytes"),
        ("bud --ulimit nofile=5:2 .", "--ulimit: soft limit above the hard one"),
        ("from --ulimit nofile=5:2 scratch", "--ulimit: soft limit above the hard one"),
    ],
)
def test_what_no_command_can_have_is_refused_before_any_runs(
    builda: Builda, container: str, base: str, tmp_path: Path, line: str, said: str
) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base}\nRUN touch {tmp_path}/ran\n")
    message = builda.fails(*line.split(), cwd=tmp_path)
    assert message.startswith(f"Error: {said}")
    assert "Containerfile:" not in message
    assert builda("containers", "-n", "--format", "{{.ContainerName}}") == container


def test_where_nothing_can_be_mounted_nothing_is_to_be_unmounted(builda: Builda) -> None:
    assert builda("--mode", "traced", "umount", "--all") == ""


def test_an_archive_warns_of_a_name_that_another_image_has(builda: Builda, base: str, tmp_path: Path) -> None:
    """A name that means the image already is where it should be, whatever form the archive has."""
    archives = tuple(f"{form}:{tmp_path}/{form}" for form in ("oci-archive", "docker-archive"))
    for archive in archives:
        builda("push", "-q", base, f"{archive}:{base}")
        assert "was not moved" not in builda.run("pull", archive).stderr
    container = builda("from", base)
    builda("config", "--label", "a=b", container)
    builda("commit", "-q", container, base)
    assert f"name was not moved, as another image has it: {base}" in builda.run("pull", archives[0]).stderr
