"""Base images, made here because no image registry can be counted on: busybox, and Debian by mmdebstrap.

Root file systems are kept in `.work/` as tar files, so that only the first run on a machine pays for them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

WORK = Path(__file__).parents[2] / ".work"
SLIM = (
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "info", "locale", "zoneinfo")),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/lib/*/gconv/*",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",  # without it the package usrmerge is chosen, which needs perl
)
"""Options of mmdebstrap for less than half of the files."""
PATIENT = 'Acquire::Retries "8";'
"""A setting of apt: a package that cannot be fetched is asked for again for minutes, with growing pauses."""


def busybox_tree(directory: Path) -> Path:
    """A root file system with busybox as everything; the directory."""
    (directory / "bin").mkdir(parents=True)
    shutil.copy2(_required("busybox"), directory / "bin/busybox")
    for applet in subprocess.check_output([directory / "bin/busybox", "--list"], text=True).split():
        if applet != "busybox":
            (directory / "bin" / applet).symlink_to("busybox")
    for name, mode in (("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("var", 0o755)):
        (directory / name).mkdir()
        (directory / name).chmod(mode)
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    (directory / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    return directory


def debian_tar(*, slim: bool = False) -> Path:
    """A tar of a minimal Debian bookworm that can run apt-get with this machine's own package sources.

    Its apt and pip try for minutes before they give up, as a suite of ten thousand tests meets each short fault of a
    network.
    A slim one has less than half of the bytes, as every pod of the tests unpacks it: without perl, and without the
    documents, translations, time zones and character sets of packages, also of those that apt-get installs in it.
    """
    path = WORK / f"debian-bookworm{'-slim' if slim else ''}.tar"
    WORK.mkdir(exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # one of the processes that run tests makes it
        if not path.exists():
            partial = path.with_suffix(".partial")
            options = ["--variant=minbase", "--format=tar", "--include=ca-certificates", *_hooks()]
            options += SLIM if slim else ()
            command = [_required("mmdebstrap"), *options, "bookworm", str(partial), *mmdebstrap_arguments()]
            made = subprocess.run(command, capture_output=True, text=True)
            if made.returncode != 0:
                raise RuntimeError(f"mmdebstrap made no Debian: {made.stderr}")
            partial.rename(path)
    return path


def mmdebstrap_arguments() -> list[str]:
    """What mmdebstrap must be told to fetch packages as this machine does: its sources, proxies and exceptions."""
    settings = [path for path in _files("/etc/apt/apt.conf.d") if "Acquire::" in path.read_text(errors="replace")]
    settings = [path for path in settings if "docker" not in path.name]
    sources = _sources()
    options = [f"--aptopt={option}" for option in (PATIENT, *settings)]
    return [*([str(sources)] if sources else []), *options]


def _sources() -> Path | None:
    """This machine's list of Debian's own packages."""
    usual = [Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")]
    for path in (*usual, *_files("/etc/apt/sources.list.d")):
        text = path.read_text() if path.exists() else ""
        if re.search(r"^[^#\n]*\bbookworm\b", text, re.MULTILINE) and re.search(
            r"^[^#\n]*\bmain\b", text, re.MULTILINE
        ):
            return path
    return None


def _hooks() -> list[str]:
    """What else apt-get needs inside the image: this machine's authorities, and keys that are not Debian's."""
    sources = _sources()
    keys = re.findall(r"[Ss]igned-[Bb]y[=:]\s*(/[^\s\]]+)", sources.read_text()) if sources else []
    wanted = ["/etc/ssl/certs/ca-certificates.crt", "/etc/apt/apt.conf", *keys]
    found = sorted({path for path in map(Path, wanted) if path.is_file()})
    commands = [f"mkdir -p $1{path.parent} && cp {path} $1{path}" for path in found]
    commands += [
        f"echo '{PATIENT}' >$1/etc/apt/apt.conf.d/80-patient",
        "printf '[global]\\nretries = 8\\ntimeout = 60\\n' >$1/etc/pip.conf",
    ]
    return [f"--customize-hook={command}" for command in commands]


def _files(directory: str) -> list[Path]:
    return sorted(path for path in Path(directory).iterdir() if path.is_file()) if Path(directory).is_dir() else []


def _required(command: str) -> str:
    found = shutil.which(command, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        raise FileNotFoundError(f"{command} is not installed: run tools/install test")
    return found
