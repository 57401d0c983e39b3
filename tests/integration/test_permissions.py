"""Powers that a Containerfile, or the ONBUILD triggers of an image, cannot have without the command line."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.support import needs

pytestmark = pytest.mark.root


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A loop device on a file that belongs to the test."""
    file = tmp_path / "disk"
    file.write_bytes(b"disk-of-the-host".ljust(1 << 20, b"\0"))
    made = subprocess.run(["losetup", "-f", "--show", str(file)], capture_output=True, text=True, check=False)
    if made.returncode:
        needs.not_here("no right to make loop devices here")
    yield made.stdout.strip()
    subprocess.run(["losetup", "-d", made.stdout.strip()], check=True)


def write(context: Path, text: str, base: str) -> Path:
    context.mkdir(exist_ok=True)
    (context / "Containerfile").write_text(text.replace("BASE", base))
    return context


RUNS = [
    ("--device=DEVICE head -c 16 DEVICE", "RUN --device=DEVICE is not allowed", "allow it with --allow device=DEVICE"),
    ("--device=DEVICE:/dev/x:r true", "RUN --device=DEVICE:/dev/x:r is not allowed", "--allow device=DEVICE"),
    ("--device=//devDEVICE/../null true", "path of a device has a ..", None),
    ("--device=vendor.com/class=name true", "CDI devices are not supported", "name the device by its path"),
    ("--security=insecure true", "RUN --security=insecure is not allowed", "--allow security.insecure"),
    ("--network=host true", "RUN --network=host is not allowed", "--allow network.host"),
    ("--mount=type=secret,id=s,required true", "no such secret: s", "--secret id=s"),
    ("--mount=type=ssh,required true", "no such ssh agent: default", "--ssh default"),
    (
        "--mount=type=bind,source=/etc/hostname,target=/x cat /x",
        "no such file or directory in the context: /etc/hostname",
        None,
    ),
    ("--mount=type=bind,source=../../etc/hostname,target=/x cat /x", "no such file or directory in the context", None),
]


@pytest.mark.parametrize("onbuild", [False, True], ids=["Containerfile", "ONBUILD"])
def test_a_run_has_no_power_that_only_its_file_asks_for(
    builda: Builda, base: str, tmp_path: Path, device: str, onbuild: bool
) -> None:
    for run, message, hint in RUNS:
        text = f"RUN {run}\n".replace("DEVICE", device)
        context = write(tmp_path / "c", f"FROM BASE\n{'ONBUILD ' if onbuild else ''}{text}", base)
        if onbuild:
            builda("bud", "-q", "--format", "docker", "-t", "evil", context)
            write(context, "FROM evil\n", base)
        said = builda.fails("bud", "-q", context)
        assert message.replace("DEVICE", device) in said
        assert hint is None or hint.replace("DEVICE", device) in said
        assert "Traceback" not in said
        assert "disk-of-the-host" not in said


def test_permissions_give_what_they_name_and_no_more(builda: Builda, base: str, tmp_path: Path, device: str) -> None:
    context = write(
        tmp_path / "c", f"FROM BASE\nRUN --device={device} head -c 16 {device} > /read\nRUN cat /read\n", base
    )
    for allowed in (f"device={device}", "device", "device=/dev", f"network.host,device={device}"):
        assert "disk-of-the-host" in builda("bud", "--no-cache", "--allow", allowed, context)
    for refused in ("network.host", "security.insecure", f"device={device}0", "device=/dev/mapper"):
        assert "is not allowed" in builda.fails("bud", "--allow", refused, context)


def test_the_network_of_the_host_is_no_power_where_the_build_has_it(builda: Builda, base: str, tmp_path: Path) -> None:
    context = write(tmp_path / "c", "FROM BASE\nRUN --network=host true\n", base)
    builda("bud", "-q", "--network=host", context)
    builda("bud", "-q", "--isolation=chroot", context)
    builda("bud", "-q", "--allow=network.host", "--network=none", context)
    assert "is not allowed" in builda.fails("bud", "-q", "--network=none", context)


def test_writes_to_a_bound_context_are_thrown_away(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c/f").write_text("mine")
    for flags in ("rw", "readwrite", "rw=true"):
        context = write(
            tmp_path / "c",
            f"FROM BASE\nRUN --mount=type=bind,target=/c,{flags} echo theirs > /c/f && touch /c/g && cat /c/f\n",
            base,
        )
        assert "theirs" in builda("bud", "--no-cache", context)
        assert sorted(os.listdir(context)) == ["Containerfile", "f"]
        assert (context / "f").read_text() == "mine"


def test_a_trigger_reads_no_image_at_a_place_of_this_machine(builda: Builda, base: str, tmp_path: Path) -> None:
    for where in ("dir:", "oci:", "oci-archive:", "docker-archive:", "container:"):
        context = write(tmp_path / "c", f"FROM BASE\nONBUILD COPY --from={where}{tmp_path}/x / /x\n", base)
        builda("bud", "-q", "--format", "docker", "-t", "evil", context)
        said = builda.fails("bud", "-q", write(context, "FROM evil\n", base))
        assert "image of this machine is not for ONBUILD triggers" in said


# Files of the context


def test_a_containerfile_that_is_a_link_out_of_the_context_is_refused(
    builda: Builda, base: str, tmp_path: Path
) -> None:
    context, outside = tmp_path / "c", tmp_path / "outside"
    write(outside, "FROM BASE\nWORKDIR /secret-line\n", base)
    context.mkdir()
    (context / "Containerfile").symlink_to("../outside/Containerfile")
    (context / "sub").symlink_to(outside)
    for args in ((context,), ("-f", context / "Containerfile", context), ("-f", "sub/Containerfile", context)):
        said = builda.fails("bud", "-q", *args)
        assert "Containerfile is a link out of the context: " in said
        assert "secret-line" not in said
    builda("bud", "-q", "-f", outside / "Containerfile", context)
    (context / "Containerfile").unlink()
    (context / "real").write_text(f"FROM {base}\nWORKDIR /x\n")
    (context / "Containerfile").symlink_to("real")
    builda("bud", "-q", context)


def test_what_is_no_regular_file_is_not_opened(builda: Builda, base: str, tmp_path: Path) -> None:
    context = tmp_path / "c"
    context.mkdir()
    os.mkfifo(context / "Containerfile")
    assert "Containerfile is not a regular file: " in builda.fails("bud", "-q", context)
    (context / "Containerfile").unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(context / "Dockerfile"))
        assert "Containerfile is not a regular file: " in builda.fails("bud", "-q", context)
    write(context, "FROM BASE\nWORKDIR /x\n", base)
    os.mkfifo(context / ".dockerignore")
    assert "ignore file is not a regular file: " in builda.fails("bud", "-q", context)


def test_an_ignore_file_that_is_a_link_out_of_the_context_is_refused(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("[a-private-line\n")
    context = write(tmp_path / "c", "FROM BASE\nCOPY Containerfile /\n", base)
    for name in (".dockerignore", ".containerignore", "Containerfile.dockerignore"):
        (context / name).symlink_to("../private")
        said = builda.fails("bud", "-q", context)
        assert "ignore file is a link out of the context: " in said
        assert "a-private-line" not in said
        (context / name).unlink()


def test_a_containerfile_may_come_from_standard_input_and_pipes(builda: Builda, base: str, tmp_path: Path) -> None:
    context = write(tmp_path / "c", "FROM BASE\nWORKDIR /x\n", base)
    text = (context / "Containerfile").read_text()
    for name in ("-", "/dev/stdin"):
        builda("bud", "-q", "-f", name, context, given=text)
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(text,), daemon=True)
    writer.start()
    builda("bud", "-q", "-f", tmp_path / "pipe", context)
    writer.join()
