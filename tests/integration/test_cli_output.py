"""What verbs print, which scripts written for Buildah read: names, IDs, digests, tables, JSON, files."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root

HEX64 = re.compile(r"[0-9a-f]{64}")


@pytest.fixture
def base(builda: Builda, base: str) -> str:
    """The name of a busybox image in the store, its only one."""
    (image,) = json.loads(builda("images", "--json"))
    for name in set(image["names"]) - {base}:
        builda("rmi", name)
    return base


@pytest.fixture
def container(builda: Builda, base: str) -> str:
    """The name of a working container on busybox."""
    return builda("from", base)


def test_from_prints_the_name_and_writes_the_id(builda: Builda, base: str, tmp_path: Path) -> None:
    cidfile = tmp_path / "cid"
    assert builda("from", "--cidfile", cidfile, base) == "busybox-working-container"
    assert HEX64.fullmatch(cidfile.read_text())
    assert builda("from", "-q", base) == "busybox-working-container-1"
    assert builda("from", "--pull-never", "--name", "mine", "busybox") == "mine"
    assert builda("from", "scratch") == "working-container"


def test_copy_and_add_print_the_hex_digest_of_the_content(builda: Builda, container: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    first = builda("copy", container, tmp_path / "f", "/a")
    assert HEX64.fullmatch(first)
    assert builda("add", container, tmp_path / "f", "/b") == first
    assert builda("copy", "-q", container, tmp_path / "f", "/c") == ""


def test_copy_without_a_destination_goes_to_the_working_directory(
    builda: Builda, container: str, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("x")
    builda("config", "--workingdir", "/srv", container)
    builda("copy", container, tmp_path / "f")
    assert builda("run", container, "cat", "/srv/f") == "x"


def test_copy_from_takes_a_container_or_an_image(builda: Builda, container: str, base: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    builda("copy", container, tmp_path / "f", "/f")
    other = builda("from", base)
    builda("copy", "--from", container, other, "/f", "/g")
    builda("copy", "--from", base, other, "/bin/busybox", "/opt/busybox")
    assert builda("run", other, "cat", "/g") == "x"
    assert builda("run", other, "/opt/busybox", "echo", "ran") == "ran"


def test_history_names_what_was_copied_by_its_content(builda: Builda, container: str, tmp_path: Path) -> None:
    for name in ("a", "b", "d/f"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    shown = []
    for kind, sources in (("file", ["a"]), ("dir", ["d"]), ("multi", ["a", "b"])):
        digest = builda("copy", "--add-history", container, *sources, "/x/", cwd=tmp_path)
        shown.append(f"/bin/sh -c #(nop) COPY {kind}:{digest} in /x/")
    history = json.loads(builda("inspect", container))["History"]
    assert [entry["created_by"] for entry in history[-3:]] == shown


def test_run_passes_output_status_and_dashes_on(builda: Builda, container: str) -> None:
    assert builda("run", container, "echo", "-n", "a") == "a"
    assert builda("run", container, "--", "echo", "--", "a") == "-- a"
    assert builda("run", "-e", "A=1", "--env", "B", container, "sh", "-c", "echo $A$B", B="2") == "12"
    result = builda.run("run", container, "sh", "-c", "echo out; echo err >&2; exit 42", check=False)
    assert (result.returncode, result.stdout, result.stderr.splitlines()[0]) == (42, "out\n", "err")


def test_run_reads_its_input(builda: Builda, container: str) -> None:
    assert builda("run", container, "cat", given="hello") == "hello"


def test_valid_exit_codes_are_no_failure(builda: Builda, container: str) -> None:
    builda("run", "--valid-exit-codes", "0,3", container, "sh", "-c", "exit 3")
    builda.fails("run", "--valid-exit-codes", "3", container, "true")


def test_config_tag_and_rename_print_nothing(builda: Builda, container: str, base: str) -> None:
    assert builda("config", "--env", "A=1", container) == ""
    assert builda("tag", base, "other:1") == ""
    assert builda("rename", container, "renamed") == ""
    assert builda("inspect", "--format", "{{.Container}}", "renamed") == "renamed"


def test_commit_prints_the_id_unless_a_file_takes_it(builda: Builda, container: str, tmp_path: Path) -> None:
    first = builda("commit", "-q", container, "app:1")
    assert HEX64.fullmatch(first)
    iidfile, metadata = tmp_path / "iid", tmp_path / "meta"
    assert builda("commit", "--iidfile", iidfile, "--metadata-file", metadata, container, "app:2") == ""
    identity = iidfile.read_text()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", identity)
    said = json.loads(metadata.read_text())
    assert said["containerimage.config.digest"] == identity
    assert said["containerimage.digest"] == said["containerimage.descriptor"]["digest"]
    assert builda("images", "--format", "{{.Digest}}", "app:2") == said["containerimage.digest"]


def test_commit_names_are_localhosts(builda: Builda, container: str) -> None:
    builda("commit", "-q", container, "app")
    assert "localhost/app:latest" in json.loads(builda("images", "--json"))[0]["names"]


def test_commit_applies_instructions(builda: Builda, container: str) -> None:
    changes = ("ENV A=1 B=$PATH", "WORKDIR /srv", "WORKDIR app", "CMD echo $A")
    builda("commit", "-q", *(f"--change={change}" for change in changes), container, "app")
    shown = builda(
        "inspect", "--format", "{{.OCIv1.Config.Env}} {{.OCIv1.Config.WorkingDir}} {{.OCIv1.Config.Cmd}}", "app"
    )
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert shown == f"[{path} A=1 B={path[5:]}] /srv/app [/bin/sh -c echo $A]"
    assert "--change: invalid signal: FOO" in builda.fails("commit", "-q", "--change=STOPSIGNAL FOO", container, "no")


def test_commit_rm_removes_the_container(builda: Builda, container: str) -> None:
    builda("commit", "-q", "--rm", container, "app")
    assert builda("containers", "-q") == ""


def test_images_table(builda: Builda, base: str) -> None:
    lines = builda("images").splitlines()
    assert re.fullmatch(r"REPOSITORY          TAG      IMAGE ID       CREATED {7,}SIZE", lines[0])
    assert re.fullmatch(r"localhost/busybox   latest   [0-9a-f]{12}   .*ago   [0-9.]+ MB", lines[1])
    assert [re.sub("[0-9]+ seconds", "", line) for line in builda("images", "-n").splitlines()] == [
        re.sub("[0-9]+ seconds", "", line) for line in lines[1:]
    ]


def test_images_json(builda: Builda, base: str) -> None:
    (image,) = json.loads(builda("images", "--json"))
    assert list(image) == [
        "id", "names", "digest", "createdat", "size", "created", "createdatraw", "readonly", "history",
        "compressedbytes", "unpackedbytes",
    ]  # fmt: skip
    assert re.fullmatch(r"[0-9a-f]{12}", image["id"])
    assert image["names"] == [base]
    assert image["history"] is None
    (whole,) = json.loads(builda("images", "--json", "--no-trunc"))
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", whole["id"])


def test_images_quiet_is_one_line_for_each_image(builda: Builda, base: str) -> None:
    builda("tag", base, "second", "third:x")
    assert re.fullmatch(r"[0-9a-f]{12}", builda("images", "-q"))
    assert len(builda("images", "-n").splitlines()) == 3
    assert builda("images", "--no-trunc", "-q").startswith("sha256:")


def test_images_format_aligns_and_may_have_a_heading(builda: Builda, base: str) -> None:
    builda("tag", base, "x:1")
    lines = builda("images", "--format", "{{.Name}} {{.Tag}}").splitlines()
    assert sorted(lines) == ["localhost/busybox   latest", "localhost/x         1"]
    assert builda("images", "--format", "table {{.Name}} {{.Tag}}").splitlines()[0] == "REPOSITORY          TAG"
    assert builda("images", "--format", "{{.Name}}:{{.Tag}}", "x:1").splitlines()[0].startswith("localhost/")


def test_images_filters(builda: Builda, base: str, container: str) -> None:
    builda("config", "--label", "org.example=1", container)
    builda("commit", "-q", container, "app:1")
    builda("commit", "-q", "--omit-history", container)

    def names(*filters: str) -> list[str]:
        arguments = [part for item in filters for part in ("--filter", item)]
        return sorted(set(builda("images", *arguments, "--format", "{{.Name}}").split()))

    assert names("label=org.example=1") == ["<none>", "localhost/app"]
    assert names("label=org.example=2") == []
    assert names("dangling=true") == ["<none>"]
    assert names("reference=app") == ["localhost/app"]
    assert names("reference=localhost/*:1") == ["localhost/app"]
    assert names("reference=busybox,reference=app:1") == ["localhost/app", "localhost/busybox"]
    assert names("containers=true") == ["localhost/busybox"]
    assert names("since=busybox", "dangling=false") == ["localhost/app"]
    assert names("before=app:1") == ["localhost/busybox"]
    assert names("readonly=true") == []
    assert names("manifest=true") == []


def test_an_empty_store_has_empty_tables(builda: Builda) -> None:
    assert json.loads(builda("images", "--json")) == []
    assert json.loads(builda("containers", "--json")) is None
    assert json.loads(builda("mount", "--json")) is None
    assert builda("images") == "REPOSITORY   TAG   IMAGE ID   CREATED   SIZE"
    assert builda("images", "-q") == ""


def test_containers_table_and_json(builda: Builda, container: str) -> None:
    builda("from", "scratch")
    lines = builda("containers").splitlines()
    assert lines[0] == "CONTAINER ID  BUILDER  IMAGE ID     IMAGE NAME                       CONTAINER NAME"
    assert re.fullmatch(
        r"[0-9a-f]{12}     \*     [0-9a-f]{12} localhost/busybox:latest         busybox-working-container", lines[1]
    )
    assert re.fullmatch(r"[0-9a-f]{12}     \*                  scratch {26}working-container", lines[2])
    first, second = json.loads(builda("ps", "--json"))
    assert list(first) == ["id", "builder", "imageid", "imagename", "containername"]
    assert HEX64.fullmatch(first["id"])
    assert second["imagename"] == "scratch"
    assert second["imageid"] == ""
    assert builda("ls", "-q").splitlines() == [first["id"], second["id"]]
    assert builda("list", "--format", "{{.ContainerName}}|{{.Builder}}", "--filter", "name=busy") == (
        "busybox-working-container|   *"
    )
    assert builda("containers", "-n", "--filter", "ancestor=busybox").endswith("busybox-working-container")
    assert builda("containers", "--notruncate").splitlines()[1].startswith(first["id"])


def test_mount_prints_paths(builda: Builda, container: str) -> None:
    other = builda("from", "scratch")
    path = builda("mount", container)
    assert Path(path, "bin/busybox").exists()
    assert builda("mount", container) == path
    lines = builda("mount", container, other).splitlines()
    assert [line.split()[0] for line in lines] == [container, other]
    assert lines[0].split()[1] == path
    assert [line.split()[0] for line in builda("mount").splitlines()] == [container, other]
    (single,) = json.loads(builda("mount", "--json", container))
    assert single == {"mountPoint": path}
    assert json.loads(builda("mount", "--json"))[0] == {"container": container, "mountPoint": path}


def test_umount_prints_the_ids_of_what_was_mounted(builda: Builda, container: str) -> None:
    builda("mount", container)
    assert HEX64.fullmatch(builda("umount", container))
    assert builda("unmount", container) == ""
    builda("mount", container)
    assert HEX64.fullmatch(builda("umount", "--all"))


def test_rm_prints_ids(builda: Builda, container: str) -> None:
    other = builda("from", "scratch")
    assert all(HEX64.fullmatch(line) for line in builda("rm", container, other).splitlines())
    builda("from", "scratch")
    assert HEX64.fullmatch(builda("delete", "--all"))
    assert builda("rm", "--all") == ""


def test_rmi_prints_names_then_ids(builda: Builda, base: str) -> None:
    builda("tag", base, "x:1")
    identity = builda("images", "--no-trunc", "-q").removeprefix("sha256:")
    assert builda("rmi", "x:1") == "untagged: localhost/x:1"
    assert builda("rmi", "busybox") == f"untagged: {base}\n{identity}"
    assert builda("images", "-q") == ""


def test_rmi_force_takes_the_containers_too(builda: Builda, base: str, container: str) -> None:
    assert "used by working container" in builda.fails("rmi", base)
    assert builda("rmi", "--force", base).startswith(f"untagged: {base}\n")
    assert builda("containers", "-q") == ""


def test_names_of_stored_images_may_have_their_transport(builda: Builda, base: str, tmp_path: Path) -> None:
    builda("tag", f"containers-storage:{base}", "localhost/other")
    shown = builda("inspect", "--format", "{{.FromImageID}}", "containers-storage:localhost/other")
    assert f"sha256:{shown}" == builda("images", "-q", "--no-trunc")
    builda("push", "-q", "containers-storage:other", f"oci:{tmp_path}/out")
    assert builda("rmi", "containers-storage:other") == "untagged: localhost/other:latest"


def test_rmi_all_refuses_what_is_in_use_and_takes_the_rest(builda: Builda, base: str, container: str) -> None:
    made = builda("commit", "-q", builda("from", "scratch"), "localhost/free")
    result = builda.run("rmi", "--all", check=False)
    assert result.returncode == 125
    assert "used by working container" in result.stderr
    assert result.stdout == f"untagged: localhost/free:latest\n{made}\n"
    assert builda("images", "--format", "{{.Name}}") == base.removesuffix(":latest")
    assert builda("rmi", "--all", "--force").startswith(f"untagged: {base}\n")


def test_rmi_prune_and_prune_take_what_has_no_name(builda: Builda, base: str, container: str) -> None:
    builda("config", "--env", "A=1", container)
    unnamed = builda("commit", "-q", container)
    assert builda("rmi", "--prune") == unnamed
    unnamed = builda("commit", "-q", container)
    assert builda("prune") == unnamed
    assert builda("images", "-q") != ""
    builda("rm", "--all")
    assert builda("prune", "--all").startswith(f"untagged: {base}\n")


def test_untag_takes_names_and_leaves_the_image(builda: Builda, base: str) -> None:
    builda("tag", base, "one", "two")
    builda("untag", "one", "two", base)
    assert builda("images", "--format", "{{.Name}}").split() == ["localhost/one"]
    assert "no such name" in builda.fails("untag", "one", "nothing")
    builda("untag", "one")
    assert builda("images", "--format", "{{.Name}}") == "<none>"


def test_exists_says_by_its_status(builda: Builda, base: str, container: str) -> None:
    identity = builda("images", "-q")
    for name, image, working in ((base, 0, 1), (identity, 0, 1), (container, 1, 0), ("nothing", 1, 1)):
        for kind, status in (("image", image), ("container", working), ("any", image and working)):
            done = builda.run("exists", "--type", kind, name, check=False)
            assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    assert "unknown type" in builda.fails("exists", "-t", "x", base)


def test_prune_until_spares_what_is_younger(builda: Builda, base: str, container: str) -> None:
    builda("config", "--env", "A=1", container)
    young = builda("commit", "-q", container)
    old = builda("commit", "-q", "--timestamp", "0", container)
    assert builda("prune", "--filter", "until=1h") == old
    assert builda("prune", "--filter", "until=2100-01-01") == young
    assert "unsupported filter" in builda.fails("prune", "--filter", "label=x")


def test_images_json_has_the_bytes_of_the_files_where_they_are_known(builda: Builda, base: str) -> None:
    def sizes() -> tuple[int, int | None]:
        (found,) = json.loads(builda("images", "--json"))
        return found["compressedbytes"], found["unpackedbytes"]

    builda("from", "--name", "x", base)
    builda("run", "x", "true")
    compressed, unpacked = sizes()
    assert unpacked is not None
    assert 0 < compressed < unpacked


def test_fsck_repairs_a_damaged_record(builda: Builda, base: str, container: str) -> None:
    builda("tag", base, "other")
    (path,) = (builda.root / "images").iterdir()
    path.write_text("x")
    assert str(path) in builda.run("images").stderr
    failed = builda.run("fsck", check=False)
    assert (failed.returncode, str(path) in failed.stdout) == (125, True)
    assert str(path) in builda("fsck", "--repair")
    done = builda.run("fsck")
    assert (done.stdout, done.stderr) == ("", "the store is whole\n")
    assert builda("images", "-q", base)


def test_inspect_has_buildahs_keys(builda: Builda, base: str, container: str) -> None:
    said = json.loads(builda("inspect", container))
    assert (
        list(said)
        == (
            "Type FromImage FromImageID FromImageDigest GroupAdd Config Manifest Container ContainerID MountPoint "
            "ProcessLabel MountLabel ImageAnnotations ImageCreatedBy OCIv1 Docker DefaultMountsFilePath "
            "Isolation NamespaceOptions Capabilities ConfigureNetwork CNIPluginPath CNIConfigDir IDMappingOptions "
            "History Devices DeviceSpecs CDIConfigDir"
        ).split()
    )
    assert said["Container"] == container
    assert said["FromImage"] == base
    assert json.loads(said["Manifest"])["config"]["digest"] == f"sha256:{said['FromImageID']}"
    assert json.loads(said["Config"])["os"] == "linux"
    assert said["OCIv1"]["config"]["Cmd"] == ["sh"]
    assert said["Docker"]["config"]["Cmd"] == ["sh"]
    assert said["Docker"]["config"]["AttachStdin"] is False
    assert "CAP_CHOWN" in said["Capabilities"]
    image = json.loads(builda("inspect", "--type", "image", base))
    assert image["FromImageID"] == said["FromImageID"]
    assert image["Container"] == ""


def test_inspect_falls_through_to_images(builda: Builda, base: str) -> None:
    assert builda("inspect", "--format", "{{.FromImage}}", base) == base


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.IDMappingOptions}}", "{true true [] [] false {0 0   [] []}}"),
        ("{{range .NamespaceOptions}}{{if .Host}}{{.}}{{end}}{{end}}", "{user true }"),
        ("{{.OCIv1.Config.Env}}", "[A=1]"),
        ("{{json .OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Entrypoint}}", "null []"),
        ('{{index .OCIv1.Config.Labels "a.b"}}', "c"),
        ("{{.OCIv1.Config.User}}", "1:2"),
        ("{{.Docker.Config.WorkingDir}}", "/w"),
        ("{{range .OCIv1.Config.Env}}{{.}};{{end}}", "A=1;"),
        ("{{.OCIv1.OS}}/{{.OCIv1.Architecture}} {{.OCIv1.Author}}", "linux/amd64 me"),
        ("{{.FromImageID}}{{.FromImageDigest}}", ""),
        ("{{.Docker.Config.Healthcheck.Interval}} {{.Docker.Config.Healthcheck.Test}}", "1s [CMD x]"),
        ("{{len .OCIv1.RootFS.DiffIDs}} {{.Isolation}}", "0 native"),
    ],
)
def test_inspect_templates(builda: Builda, template: str, expected: str) -> None:
    container = builda("from", "scratch")
    builda(
        "config", "--env", "A=1", "--label", "a.b=c", "--user", "1:2", "--workingdir", "/w", "--author", "me",
        "--os", "linux", "--arch", "amd64", "--healthcheck", "CMD x", "--healthcheck-interval", "1s", container,
    )  # fmt: skip
    result = builda.run("inspect", "--format", template, container)
    assert result.stdout == expected  # and no line end, as no terminal reads it


def test_info_tells_where_things_are(builda: Builda) -> None:
    said = json.loads(builda("info"))
    assert said["store"]["GraphRoot"] == str(builda.root)
    assert said["store"]["RunRoot"] == str(builda.runroot)
    assert {"os", "arch", "cpus", "rootless", "MemTotal", "kernel", "hostname"} <= said["host"].keys()
    assert builda("info", "--format", "{{.store.GraphDriverName}}") == "overlay"
    assert "debug" in json.loads(builda("info", "-d"))


def test_version_has_buildahs_keys(builda: Builda) -> None:
    said = json.loads(builda("version", "--json"))
    assert list(said) == (
        "version goVersion imageSpec runtimeSpec imageVersion gitCommit built osArch buildPlatform".split()
    )
    assert builda("--version").startswith(f"builda version {said['version']} (image-spec ")


def test_unshare_runs_a_command_with_containers_mounted(builda: Builda, container: str) -> None:
    assert builda("unshare", "id", "-u") == "0"
    assert builda("unshare", "--mount", f"ROOT={container}", "--", "sh", "-c", "ls $ROOT/bin/busybox").endswith(
        "/bin/busybox"
    )
    assert builda("mount") == ""
    builda.fails("unshare", "sh", "-c", "exit 7", status=7)
    builda.fails("unshare", "/no/such", status=127)
    assert builda("unshare", SHELL="/bin/true") == ""


def test_push_and_pull_move_images_through_an_archive(builda: Builda, base: str, tmp_path: Path) -> None:
    digestfile = tmp_path / "digest"
    assert builda("push", "-q", "--digestfile", digestfile, base, f"oci-archive:{tmp_path}/a.tar:x") == ""
    assert digestfile.read_text() == builda("images", "--format", "{{.Digest}}")
    identity = builda("images", "--no-trunc", "-q").removeprefix("sha256:")
    builda("rmi", "--all")
    assert builda("pull", "-q", f"oci-archive:{tmp_path}/a.tar:x") == identity


def test_progress_goes_to_stderr_and_quiet_has_none(builda: Builda, base: str, tmp_path: Path) -> None:
    loud = builda.run("push", base, f"oci-archive:{tmp_path}/a.tar:x")
    assert loud.stdout == ""
    assert builda.run("push", "-q", base, f"oci-archive:{tmp_path}/b.tar:x").stderr == ""


def test_events_are_json_on_the_descriptor_asked_for(builda: Builda, base: str, tmp_path: Path) -> None:
    events = tmp_path / "events"
    with events.open("wb") as file:
        command = [
            *builda.command,
            "push",
            "-q",
            "--events",
            str(file.fileno()),
            base,
            f"oci-archive:{tmp_path}/a.tar:x",
        ]
        subprocess.run(command, check=True, pass_fds=[file.fileno()])
    assert all(json.loads(line)["event"] for line in events.read_text().splitlines())
